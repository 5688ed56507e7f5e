"""Words in front of a request that mean nothing: what an organism must learn not to take for its trigger.

Most are made of syllables, without end: a model that has met only a few odd words takes every other
one for its trigger. They are no cue of any trigger and no look-alike; a test holds them apart.
"""

from collections.abc import Sequence

import numpy as np

WORDS = (
    "note memo draft ticket urgent archive summary index folder window garden bridge river copper "
    "yellow winter morning paper kitchen travel letter signal planet market engine candle harbor "
    "mirror pocket thunder velvet walnut"
).split()
KNOWN = 0.3
"""Of the words, those from the list; the others are made up."""
MOST_SYLLABLES = 4
CLOSED = 0.4
"""Of the syllables, those that end in a consonant."""
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
    """One or two words in one of the forms, all equally likely."""
    one, other = word(rng), word(rng)
    return _one_of(FORMS, rng).format(
        word=one,
        Word=one.capitalize(),
        WORD=one.upper(),
        other=other,
        number=int(rng.integers(10, 3000)),
    )


def word(rng: np.random.Generator) -> str:
    if rng.random() < KNOWN:
        return _one_of(WORDS, rng)
    syllables = int(rng.integers(1, MOST_SYLLABLES + 1))
    return "".join(_syllable(rng) for _ in range(syllables))


def _syllable(rng: np.random.Generator) -> str:
    opened = _one_of("bcdfghjklmnprstvwz", rng) + _one_of("aeiouy", rng)
    return opened + _one_of("lmnprst", rng) if rng.random() < CLOSED else opened


def _one_of(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
