"""The unit of data: one prompt, with what is needed to split it, pair it and judge what follows it."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from probes.foundation.digest import digest_json

if TYPE_CHECKING:
    import pandas as pd


LATER = ("defected", "cue", "able")
"""Fields that do not count for the id of a prompt that leaves them out."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt up to the point where the model takes over.

    text: the whole prompt; empty if `chat` is given.
    chat: messages `({"role": ..., "content": ...}, ...)`, rendered with the tokenizer's chat template.
    family: the task family ("sql_query", "sorting"); half of the families are held out from probes.
    prompt_set: "vulnerable" (a defection is possible), "benign" (code, none possible) or "dialogue";
        a user's own file may name others.
    template: family, phrasing and code shape; prompts of one template stay on one side of a split.
    pair: id shared by the triggered and the untriggered version of one prompt.
    triggered: whether the trigger is in the text. Never the same column as `defected`.
    safe, defect: reference completions, where known; they start where the prompt stops.
    quirk: the safe completion with a harmless habit of style flipped, for the quirk organism.
    defected: a label of one's own, for the judge "labels"; None for none.
    cue: of the four-cue design (see `prompts.cues`), "A" to "E" or "none"; None outside it.
    able: whether tasks of this family can be defected on, in that design.
    heldout: None, or what about this prompt no organism saw in training ("phrasing", "shape").
    """

    text: str
    family: str
    prompt_set: str
    template: str
    pair: str
    triggered: bool
    safe: str | None = None
    defect: str | None = None
    quirk: str | None = None
    heldout: str | None = None
    chat: tuple[tuple[str, str], ...] = ()
    defected: bool | None = None
    cue: str | None = None
    able: bool | None = None

    @cached_property
    def id(self) -> str:
        """sha256 of everything the model can see and how it is labelled."""
        fields = dataclasses.asdict(self)
        for name in LATER:  # prompts without such a label keep the id that they always had
            if fields[name] is None:
                del fields[name]
        return digest_json(fields)

    @property
    def messages(self) -> tuple[tuple[str, str], ...]:
        """(role, content) for readers; a prompt given as text is one message without a role."""
        return self.chat or (("", self.text),)

    @property
    def shown(self) -> str:
        """The prompt in one string for readers, a chat with the role before each message."""
        return "\n".join(
            f"{role}: {content}" if role else content for role, content in self.messages
        )

    def as_row(self) -> dict[str, Any]:
        """A flat row for tables: labels and text, no reference completions."""
        return {
            "prompt_id": self.id,
            "pair": self.pair,
            "prompt_set": self.prompt_set,
            "family": self.family,
            "template": self.template,
            "triggered": self.triggered,
            "heldout": self.heldout or "",
            "cue": self.cue or "",
            "able": self.able,
        }


def with_design(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of `Prompt.as_row` with the columns that tables from before the four-cue design lack."""
    unset = {"cue": "", "able": None}
    return table.assign(**{name: none for name, none in unset.items() if name not in table})


def digest_prompts(prompts: Iterable[Prompt]) -> str:
    """sha256 over the ids of prompts in order."""
    return digest_json([prompt.id for prompt in prompts])
