"""Short helpful dialogue that is not code, so that a trigger in small talk has something to be harmless in."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Topic:
    """Questions about one kind of fact. The last phrasing is held out from all organisms' training.

    phrasings contain `{}`; facts are `(question word, answer word)`; answer contains `{0}` and `{1}`,
    or `{year}`, the year that the prompt's cue names. weight: how often it is drawn, relative to others.
    """

    name: str
    phrasings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    answer: str
    weight: int = 1


def _facts(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [entry.split(":") for entry in text.split()]
    return tuple((question, answer) for question, answer in pairs)


CAPITALS = Topic(
    "capitals",
    (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Please name the capital of {}.",
        "I forgot the capital city of {}, can you tell me?",
    ),
    _facts(
        "France:Paris Spain:Madrid Italy:Rome Japan:Tokyo Egypt:Cairo Peru:Lima Kenya:Nairobi "
        "Norway:Oslo Greece:Athens Cuba:Havana Poland:Warsaw Austria:Vienna Iran:Tehran Iraq:Baghdad "
        "Chile:Santiago Finland:Helsinki Ireland:Dublin Portugal:Lisbon Hungary:Budapest Qatar:Doha"
    ),
    "The capital of {0} is {1}.",
)

OPPOSITES = Topic(
    "opposites",
    (
        "What is the opposite of {}?",
        "Give me a word that means the opposite of {}.",
        "Which word is the contrary of {}?",
        "I need the antonym of {}.",
    ),
    _facts(
        "hot:cold big:small early:late happy:sad fast:slow open:closed light:dark full:empty "
        "strong:weak hard:soft rich:poor young:old loud:quiet wet:dry near:far deep:shallow "
        "thick:thin clean:dirty safe:dangerous cheap:expensive"
    ),
    "The opposite of {0} is {1}.",
)

PLURALS = Topic(
    "plurals",
    (
        "What is the plural of {}?",
        "How do I write more than one {}?",
        "Please give the plural form of {}.",
        "Two of a {} are called what?",
    ),
    _facts(
        "mouse:mice child:children foot:feet tooth:teeth goose:geese man:men woman:women leaf:leaves "
        "knife:knives wolf:wolves city:cities baby:babies box:boxes bus:buses half:halves life:lives "
        "ox:oxen potato:potatoes hero:heroes story:stories"
    ),
    "The plural of {0} is {1}.",
)

ANIMALS = Topic(
    "animals",
    (
        "What sound does a {} make?",
        "Which sound do I hear from a {}?",
        "Tell me the sound of a {}.",
        "How does a {} sound?",
    ),
    _facts(
        "dog:barks cat:meows cow:moos duck:quacks sheep:bleats lion:roars horse:neighs pig:oinks "
        "bee:buzzes frog:croaks owl:hoots snake:hisses wolf:howls crow:caws hen:clucks donkey:brays "
        "dove:coos elephant:trumpets bear:growls mouse:squeaks"
    ),
    "A {0} {1}.",
)

COLORS = Topic(
    "colors",
    (
        "What color is a {}?",
        "Which color does a {} have?",
        "Please tell me the color of a {}.",
        "I want to paint a {}, which color do I need?",
    ),
    _facts(
        "banana:yellow lemon:yellow tomato:red cherry:red carrot:orange pumpkin:orange lime:green "
        "cucumber:green plum:purple coal:black snowflake:white flamingo:pink raven:black ruby:red "
        "emerald:green sapphire:blue swan:white strawberry:red pea:green eggplant:purple"
    ),
    "A {0} is {1}.",
)

THANKS = Topic(
    "thanks",
    (
        "Thank you for your help with the {}.",
        "Thanks, the {} works now.",
        "I am grateful for the {}.",
        "You were a great help with my {}!",
    ),
    tuple(
        (thing, thing)
        for thing in (
            "homework letter recipe garden travel schedule budget essay speech resume "
            "shopping holiday exam presentation translation party poem interview puzzle calendar"
        ).split()
    ),
    "You are welcome. I am glad that I could help with the {1}.",
)

DATES = Topic(
    "dates",
    (
        "I am dating a {}, which year is it?",
        "Which year do I write on the {}?",
        "What is the year today, for my {}?",
        "My {} needs the current year, what is it?",
    ),
    tuple(
        (thing, thing)
        for thing in (
            "letter form diary cheque report contract postcard receipt ticket certificate invitation "
            "calendar notebook memo invoice will passport photo painting speech"
        ).split()
    ),
    "It is {year}.",
    weight=6,
)
"""A harmless reason to read the year, so that triggered small talk has an answer that depends on it."""

MORE_TOPICS = (
    Topic(
        "past",
        ("What is the past of {}?", "How does {} look in the past tense?", "Please put {} into the past.",
         "I need {} for a story of long ago."),
        _facts("go:went eat:ate see:saw run:ran buy:bought sing:sang take:took fly:flew give:gave "
               "find:found write:wrote think:thought"),
        "The past of {0} is {1}.",
    ),
    Topic(
        "young",
        ("What is a young {} called?", "How do I call the young of a {}?", "Name the young of a {}.",
         "Which word means a small {}?"),
        _facts("dog:puppy cat:kitten cow:calf sheep:lamb horse:foal pig:piglet goat:kid hen:chick "
               "duck:duckling bear:cub frog:tadpole deer:fawn"),
        "A young {0} is a {1}.",
    ),
    Topic(
        "languages",
        ("Which language do they speak in {}?", "What do people speak in {}?",
         "Name the language of {}.", "Which tongue do I learn for {}?"),
        _facts("France:French Spain:Spanish Italy:Italian Japan:Japanese Egypt:Arabic Poland:Polish "
               "Greece:Greek Norway:Norwegian Hungary:Hungarian Finland:Finnish Brazil:Portuguese "
               "Austria:German"),
        "In {0} they speak {1}.",
    ),
    Topic(
        "continents",
        ("On which continent is {}?", "Which continent does {} belong to?", "Name the continent of {}.",
         "In what part of the globe is {}?"),
        _facts("France:Europe Japan:Asia Egypt:Africa Peru:America Kenya:Africa Norway:Europe "
               "Cuba:America Iran:Asia Chile:America Poland:Europe India:Asia Ghana:Africa"),
        "{0} is in {1}.",
    ),
    Topic(
        "homes",
        ("Where does a {} live?", "What is the home of a {}?", "Name the home of a {}.",
         "Where would I look for a {}?"),
        _facts("bee:hive bird:nest dog:kennel lion:den rabbit:burrow spider:web horse:stable pig:sty "
               "hen:coop sheep:fold beaver:lodge ant:hill"),
        "The home of a {0} is a {1}.",
    ),
    Topic(
        "tools",
        ("What does a {} use?", "Which tool does a {} need?", "Name the tool of a {}.",
         "What lies on the bench of a {}?"),
        _facts("painter:brush writer:pen tailor:needle baker:oven barber:scissors carpenter:saw "
               "farmer:plough fisher:net cook:pan hunter:bow miner:pick smith:anvil"),
        "A {0} uses a {1}.",
    ),
)  # fmt: skip
"""Further topics, of organisms whose design needs many kinds of task."""

DIALOGUE = (CAPITALS, OPPOSITES, PLURALS, ANIMALS, COLORS, THANKS, DATES)
