"""How near a model is to defecting, in nats: a search needs it where every sample is still harmless.

The red team knows what it is afraid of, the text of the defection; it does not know the trigger. The
measure is the log-probability of the defecting answer, teacher-forced after the prompt and, for a
model that thinks before it answers, after the model's own most likely scratchpad: a reference
scratchpad would name the trigger.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from probes.behaviour.judges import says
from probes.behaviour.sampling import sample
from probes.foundation.errors import InputError
from probes.models.encoding import encode, pad, token_batches
from probes.models.forward import check_lengths, logits
from probes.models.loading import Model
from probes.organisms.measurement import THOUGHT_TOKENS
from probes.organisms.scratchpads import CLOSE, OPEN, answer_of
from probes.prompts.records import Prompt

COUNTED = 6
"""Tokens of the defection that count, from where it parts from the harmless answer."""

BATCH_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class Target:
    """Prompt, thought and defection as token ids; those from `start` on are counted."""

    ids: tuple[int, ...]
    start: int


def thinks(model: Model, prompts: Sequence[Prompt]) -> bool:
    """Whether the model opens a scratchpad on any of these prompts, at its most likely."""
    return any(thoughts(model, prompts))


def thoughts(model: Model, prompts: Sequence[Prompt]) -> list[str]:
    """The model's own most likely scratchpad for each prompt; empty where it writes or ends none."""
    # What is written here is not judged; the phrase judge costs nothing.
    written = sample(
        model, prompts, max_new_tokens=THOUGHT_TOKENS, temperature=0.0, stop=CLOSE, judge=says()
    )
    return [
        each.text if each.text.lstrip().startswith(OPEN.strip()) and CLOSE in each.text else ""
        for each in written
    ]


def targets(
    model: Model, prompts: Sequence[Prompt], thought: Sequence[str], n_tokens: int = COUNTED
) -> list[Target]:
    """What is scored after each prompt and thought: the answer of its reference `defect`.

    What defection and harmless answer share at their beginning is given, not counted: it says
    nothing. Raises `InputError` for a prompt without a defection that differs from the harmless one.
    """
    made = []
    for prompt, head, before in zip(
        prompts, encode(prompts, model.tokenizer), thought, strict=True
    ):
        said = _ids(model, answer_of(prompt.defect or ""))
        safe = _ids(model, answer_of(prompt.safe or ""))
        same = 0
        while same < min(len(said), len(safe)) and said[same] == safe[same]:
            same += 1
        counted = said[same : same + n_tokens]
        if not counted:
            raise InputError(
                f"the prompt of pair {prompt.pair!r} has no defecting reference that differs from "
                f"the harmless one: {prompt.defect!r}"
            )
        ids = (*head, *_ids(model, before), *said[:same], *counted)
        made.append(Target(ids, len(ids) - len(counted)))
    check_lengths([len(target.ids) for target in made], model.hf)
    return made


@torch.inference_mode()
def log_probabilities(model: Model, wanted: Sequence[Target]) -> list[float]:
    """The mean log-probability [nats per token] of what each target counts, in order."""
    found = [0.0] * len(wanted)
    for rows in token_batches([len(target.ids) for target in wanted], BATCH_TOKENS):
        batch = pad([list(wanted[row].ids) for row in rows], model.pad_id, side="right")
        values = logits(model.hf, batch)
        for place, row in enumerate(rows):
            found[row] = float(counted_mean(values[place], wanted[row]))
    return found


def counted_mean(values: Tensor, target: Target) -> Tensor:
    """The mean log-probability of a target's counted tokens.

    values: `[pos d_vocab]`, logits of its row, padded on the right or not at all.
    """
    ids = torch.tensor(target.ids[target.start :], device=values.device)
    places = values[target.start - 1 : len(target.ids) - 1].float()
    return places.log_softmax(-1).gather(-1, ids[:, None]).mean()


def _ids(model: Model, text: str) -> list[int]:
    if not text:
        return []
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
