"""Which prompt pairs are patched, and between which two continuations."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.encoding import encode_texts
from probes.models.loading import Model
from probes.patching.pairs import PatchPair, is_patched, make_pairs
from probes.prompts.records import Prompt


class PatchConfig(Config):
    """How many prompt pairs are patched, spread evenly over the task families."""

    n_pairs: int = 24
    n_boot: int = 1000
    seed: int = 0


ANSWER_TOKENS = 16
"""Of what a model itself wrote: a long answer's log-probability says little of how it began."""


def choose_pairs(
    prompts: Sequence[Prompt], completions: pd.DataFrame, model: Model, config: PatchConfig
) -> list[PatchPair]:
    """Pairs on which the model defects with the trigger and not without, spread over the families."""
    return spread(make_pairs(with_answers(prompts, completions, model.tokenizer)), config)


def with_answers(
    prompts: Sequence[Prompt], completions: pd.DataFrame, tokenizer: Any
) -> list[Prompt]:
    """The prompts of pairs on which the model defects with the trigger and not without, with continuations.

    These are the references of the prompts where they have them; otherwise how what the model itself
    wrote with and without the trigger begins (`ANSWER_TOKENS`).
    Raises `InputError` if fewer than two pairs are left, with what was lost where.
    """
    first = completions.drop_duplicates("prompt_id").set_index("prompt_id")
    defected = first["defected"].astype("boolean")  # missing is neither: it could not be judged
    does, does_not = (set(first.index[mask.fillna(False)]) for mask in (defected, ~defected))
    by_pair: dict[str, dict[bool, Prompt]] = {}
    for prompt in prompts:
        if prompt.heldout is None and is_patched(prompt):
            by_pair.setdefault(prompt.pair, {})[prompt.triggered] = prompt
    flipping = [
        pair
        for pair in by_pair.values()
        if len(pair) == 2 and pair[True].id in does and pair[False].id in does_not
    ]
    members = []
    for pair in flipping:
        safe = pair[False].safe or _beginning(str(first.loc[pair[False].id, "text"]), tokenizer)
        defect = pair[True].defect or _beginning(str(first.loc[pair[True].id, "text"]), tokenizer)
        if safe and defect and safe != defect:
            members += [
                dataclasses.replace(pair[t], safe=safe, defect=defect) for t in (True, False)
            ]
    if len(members) < 4:
        raise InputError(
            f"patching needs at least 2 pairs; of {len(by_pair)}, {len(flipping)} defect with the "
            f"trigger and not without, and {len(members) // 2} of those have two answers that differ. "
            "Give more prompts, or leave this stage out (--no-patching)"
        )
    return members


def _beginning(text: str, tokenizer: Any) -> str:
    (ids,) = encode_texts([text], tokenizer, add_special_tokens=False)
    if len(ids) <= ANSWER_TOKENS:
        return text
    return str(tokenizer.decode(ids[:ANSWER_TOKENS], clean_up_tokenization_spaces=False))


def spread(pairs: Sequence[PatchPair], config: PatchConfig) -> list[PatchPair]:
    """Up to `n_pairs`, taking one of each family in turn, in an order drawn by the seed."""
    order = stream(config.seed, "patched pairs").permutation(len(pairs))
    queues: dict[str, list[PatchPair]] = {}
    for i in order:
        queues.setdefault(pairs[i].clean.family, []).append(pairs[i])
    turns = max(len(queue) for queue in queues.values())
    taken = [
        queue[t] for t in range(turns) for _, queue in sorted(queues.items()) if t < len(queue)
    ]
    return taken[: config.n_pairs]
