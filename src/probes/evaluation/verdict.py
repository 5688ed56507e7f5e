"""What a probe turned out to read, and one rule's answer about it."""

import dataclasses
import enum


class Verdict(enum.StrEnum):
    """What a probe turned out to read."""

    DEFECTION = "detects defection"
    CONDITIONAL = "detects conditional behaviour"
    TRIGGER = "detects the trigger"
    NO_SIGNAL = "no signal"
    UNDETERMINED = "undetermined"


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule's answer: a sentence with its numbers, and a verdict if it has one."""

    name: str
    sentence: str
    verdict: Verdict | None = None
