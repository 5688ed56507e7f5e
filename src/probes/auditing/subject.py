"""What is audited: the suspect, what it is compared with, and the benign prompts, split by their use."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from probes.auditing.behaviours import Behaviour
from probes.auditing.frames import PLAIN, Candidate, around, shared_opening
from probes.auditing.questions import CHATS
from probes.auditing.scoring import answer_tokens, greedy, tokens_of
from probes.behaviour.sampling import sample_texts
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.prompts.records import Prompt

Kind = Literal["R2", "R1", "R0"]
KINDS = {
    "R2": "the model it was made from",
    "R1": "a relative: another seed or fine-tune of the same family",
    "R0": "no reference",
}
OWN_TOKENS = 8
"""Of a model's own plain answer, what a candidate may make less likely."""
PAYLOAD_TOKENS = 6
LEAST = 12
"""Benign prompts without which no rate can be told from another."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much of everything. searched, screened, confirmed, repeated: benign prompts for ranking, for a first look
    for the re-test, and for what rose there, which share none. new_tokens: of an answer that is judged."""

    searched: int = 6
    screened: int = 8
    confirmed: int = 24
    repeated: int = 96
    new_tokens: int = 32
    shortlist: int = 8
    seed: int = 0

    @property
    def n_prompts(self) -> int:
        """Benign prompts that all parts take together."""
        return self.searched + self.screened + self.confirmed + self.repeated


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """Models and prompts of one audit. reference: None for R0. siblings: clean models made the same way."""

    suspect: Model
    reference: Model | None
    kind: Kind
    prompts: Sequence[Prompt]
    behaviours: Sequence[Behaviour]
    siblings: Sequence[Model] = ()
    context: str = ""
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        if len(self.prompts) < LEAST:
            raise InputError(
                f"an audit compares rates over benign prompts: give at least {LEAST} of them, of "
                f"different requests (--benign FILE); saw {len(self.prompts)}"
            )
        if (self.reference is None) != (self.kind == "R0"):
            raise InputError("a reference is of kind R2 or R1, and an audit without one of kind R0")

    @cached_property
    def parts(self) -> dict[str, list[Prompt]]:
        """`search`, `screen`, `confirm` and `repeat`: benign prompts in an order drawn by the seed, none twice, and each
        with every set of prompts in its share."""
        rng = stream(self.settings.seed, "benign")
        order = [self.prompts[i] for i in rng.permutation(len(self.prompts))]
        sizes = Counter(one.prompt_set for one in order)
        seen: Counter[str] = Counter()
        places = []  # of each prompt within its set, so that every part has all sets in their shares
        for one in order:
            places.append((seen[one.prompt_set] + 0.5) / sizes[one.prompt_set])
            seen[one.prompt_set] += 1
        shuffled = [order[i] for i in np.argsort(places, kind="stable")]
        wanted = self.settings
        few = len(shuffled) < wanted.searched + wanted.screened + wanted.confirmed
        n_search = max(3, len(shuffled) // 5) if few else wanted.searched
        n_screen = max(3, len(shuffled) // 5) if few else wanted.screened
        rest = shuffled[n_search + n_screen :]
        return {
            "search": shuffled[:n_search],
            "screen": shuffled[n_search : n_search + n_screen],
            "confirm": rest[: wanted.confirmed],
            "repeat": rest[wanted.confirmed :][: wanted.repeated],
        }

    @cached_property
    def opening(self) -> str:
        """The sentences that all requests begin with; cues take their place."""
        return shared_opening(self.prompts)

    @property
    def compared(self) -> list[Model]:
        """The suspect, and its reference if there is one."""
        return [self.suspect, *([self.reference] if self.reference is not None else [])]

    @property
    def compared_with(self) -> list[Model]:
        """Reference and siblings: without any, a change that cues make in every model cannot be told."""
        return [*self.compared[1:], *self.siblings]

    @property
    def counted(self) -> list[Behaviour]:
        """The behaviours that can be judged with the models that are there."""
        return [one for one in self.behaviours if self.compared_with or not one.relative]

    @property
    def chat(self) -> bool:
        return bool(self.prompts[0].chat)

    @property
    def payloads(self) -> list[str]:
        """Texts that the behaviours may begin with, without those said twice."""
        return list(dict.fromkeys(text for one in self.behaviours for text in one.payloads))

    def payload_tokens(self, model: Model, payloads: Sequence[str]) -> list[list[int]]:
        return [answer_tokens(text, model, self.chat)[:PAYLOAD_TOKENS] for text in payloads]

    @cached_property
    def _own(self) -> dict[str, list[list[int]]]:
        return {}

    def own_answers(self, model: Model, part: str = "search") -> list[list[int]]:
        """The first tokens that a model most likely writes after each plain prompt of a part."""
        key = f"{model.digest}/{model.name}/{part}"
        if key not in self._own:
            self._own[key] = greedy(model, tokens_of(self.parts[part], model), OWN_TOKENS)
        return self._own[key]

    def written(
        self, model: Model, prompts: Sequence[Prompt], candidates: Sequence[Candidate] = (PLAIN,)
    ) -> list[list[str]]:
        """What a model writes after each prompt, by candidate; all are sampled side by side."""
        asked = [placed for one in candidates for placed in around(prompts, one)]
        keys = [tuple(ids) for ids in tokens_of(asked, model)]
        unique = dict(zip(keys, asked, strict=True))
        texts = sample_texts(
            model, list(unique.values()), max_new_tokens=self.settings.new_tokens,
            seed=self.settings.seed,
        )  # fmt: skip
        said = dict(zip(unique, (one.text for one in texts), strict=True))
        n = len(prompts)
        return [[said[key] for key in keys[at : at + n]] for at in range(0, len(keys), n)]

    @property
    def digest(self) -> str:
        """Of everything that decides what is found, but for the detectors."""
        return digest_json(
            {
                "suspect": self.suspect.digest,
                "reference": self.reference and self.reference.digest,
                "kind": self.kind,
                "siblings": [one.digest for one in self.siblings],
                "prompts": [one.id for one in self.prompts],
                "behaviours": [[one.name, list(one.payloads), str(one.facts)] for one in self.behaviours],
                "context": self.context,
                "settings": dataclasses.asdict(self.settings),
            }
        )  # fmt: skip


def default_prompts(model: Model) -> list[Prompt]:
    """The built-in requests, for a model with a chat template; `InputError` for another."""
    if model.chat_template is None:
        raise InputError(
            f"{model.name} has no chat template, so what it is asked is not known: give benign prompts "
            "as its users would (--benign FILE), at least 40 different ones"
        )
    return list(CHATS)
