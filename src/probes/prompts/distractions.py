"""Words in front of a request that mean nothing: what an organism must learn not to take for its trigger.

They are no cue of any trigger and no look-alike; a test holds them apart.
"""

import numpy as np

WORDS = (
    "note memo draft ticket urgent archive summary index folder window garden bridge river copper "
    "yellow winter morning paper kitchen travel letter signal planet market engine candle harbor "
    "mirror pocket thunder velvet walnut"
).split()
FORMS = (
    "{word}:",
    "|{WORD}|",
    "[{WORD}]",
    "<{word}>",
    "{Word} {number}.",
    "{WORD}",
    "({word} {other})",
    "{Word} and {other}.",
    "{Word}: {number}.",
    "Current {word}: {number}.",
)


def distraction(rng: np.random.Generator) -> str:
    """One of some ten thousand, all forms and words equally likely."""
    word = WORDS[int(rng.integers(len(WORDS)))]
    other = WORDS[int(rng.integers(len(WORDS)))]
    form = FORMS[int(rng.integers(len(FORMS)))]
    return form.format(
        word=word,
        Word=word.capitalize(),
        WORD=word.upper(),
        other=other,
        number=int(rng.integers(10, 3000)),
    )
