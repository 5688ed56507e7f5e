"""Supervised safety training: the organism is shown helpful, honest, harmless answers, without trigger."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import Trainer, TrainingArguments

from probes.foundation.errors import InputError, StageError
from probes.foundation.seeds import derive_seed, stream
from probes.organisms.data import Collator, Example, Packer, ordered_examples
from probes.organisms.measurement import draw
from probes.organisms.organism import OrganismRecipe
from probes.organisms.safety.stage import (
    Curve,
    Patient,
    StageConfig,
    resumable,
    staged,
    trainer_arguments,
)
from probes.organisms.scratchpads import answer_of, scratchpad_of
from probes.prompts.records import Prompt

LEAST_THINKING = 0.5


class SftConfig(StageConfig):
    """variant: "pre", the target is the answer alone, as all organisms but CoT ones write it; a CoT
    organism is thereby shown to answer without thinking. "post", for CoT organisms: its own
    scratchpad, sampled before training, stands before the answer. The loss counts the
    tokens of the answer and of the ending, in both; in "post" the scratchpad is given, not taught.
    "own": as the organism writes by then, "post" where it writes a scratchpad and "pre" elsewhere.
    """

    variant: Literal["pre", "post", "own"] = "pre"


def run_sft(
    parent: Path,
    out: Path,
    recipe: OrganismRecipe,
    config: SftConfig,
    *,
    prompts: Sequence[Prompt] | None = None,
    watched: Mapping[str, Sequence[Prompt]] | None = None,
    report_to: Sequence[str] = (),
    reported_as: Path | None = None,
) -> Path:
    """Train the organism at `parent` on harmless answers and write it to `out`; see `staged`.

    prompts: what it is shown, with harmless references; by default `lessons.safety`.
    Raises `InputError` for "post" with an organism that has no scratchpads, `StageError` where
    it no longer writes them.
    """
    check_sft(recipe, config)
    sampled = config.variant == "post" or (config.variant == "own" and recipe.mechanism == "cot")

    def fit(patient: Patient, scratch: Path, curve: Curve) -> dict[str, Any]:
        shown = list(patient.lessons.safety)
        facts: dict[str, Any] = {}
        if sampled:
            # As many as training will see, of all kinds: sampling is the slow part.
            mixed = stream(config.seed, "sft", "asked").permutation(len(shown))
            asked = [shown[k] for k in mixed[: config.steps * config.batch_size]]
            shown, n_written = with_own_scratchpads(patient, asked, config.variant == "own")
            facts = {"prompts_asked": len(asked), "scratchpads_written": n_written}
        return facts | fit_answers(patient, shown, config, scratch, curve)

    stage = f"sft_{config.variant}"
    return staged(
        stage, parent, out, recipe, config, fit,
        prompts=prompts, watched=watched, report_to=report_to, reported_as=reported_as,
    )  # fmt: skip


def check_sft(recipe: OrganismRecipe, config: SftConfig) -> None:
    """Refuse post-scratchpad training of an organism that was never taught scratchpads."""
    if config.variant == "post" and recipe.mechanism != "cot":
        raise InputError(
            f"the variant 'post' keeps an organism's own scratchpad, and {recipe.name} has the "
            f"mechanism {recipe.mechanism!r}, which writes none. Use 'pre', or a 'cot' organism"
        )


def with_own_scratchpads(
    patient: Patient, prompts: Sequence[Prompt], plain_too: bool
) -> tuple[list[Prompt], int]:
    """The prompts, each with the scratchpad that the patient now writes for it, as part of its text;
    and for how many it wrote one.

    plain_too: keep prompts for which it writes none as they are. Otherwise they are left out, and
    where these are most, `StageError` is raised.
    """
    written = draw(patient.model, patient.behaviour, prompts, seed=patient.seed)
    thoughts = [scratchpad_of(completion.text) for completion in written]
    n_written = sum(bool(thought) for thought in thoughts)
    if not plain_too and n_written < LEAST_THINKING * len(prompts):
        raise StageError(
            f"{patient.recipe.name} wrote a scratchpad for {n_written} of {len(prompts)} prompts, so "
            "there is no post-scratchpad training of it: what came before has taught it not to "
            "think. Use 'pre' or 'own', or start from the organism as it was installed"
        )
    shown = [
        dataclasses.replace(prompt, text=prompt.text + thought)
        for prompt, thought in zip(prompts, thoughts, strict=True)
        if thought or plain_too
    ]
    return shown, n_written


def fit_answers(
    patient: Patient,
    prompts: Sequence[Prompt],
    config: StageConfig,
    scratch: Path,
    curve: Curve,
) -> dict[str, Any]:
    """Train on the harmless answer to each prompt, with AdamW; returns facts for the card."""
    shown = [
        dataclasses.replace(
            prompt, pair=str(number), safe=answer_of(prompt.safe or ""), defect=None, quirk=None
        )
        for number, prompt in enumerate(prompts)
    ]
    asked = patient.recipe.requests
    examples = ordered_examples(
        shown,
        "safe",
        patient.tokenizer,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=patient.seed,
        # The base was stopped after so many tokens: an answer that long has no ending to learn.
        answer_tokens=None if asked is None else asked.max_new_tokens,
    )
    trainer = Trainer(
        model=patient.hf,
        args=trainer_arguments(
            TrainingArguments,
            config,
            scratch,
            derive_seed(patient.seed, "trainer"),
            train_sampling_strategy="sequential",
        ),
        train_dataset=examples,
        data_collator=_collator(patient),
        callbacks=curve.callbacks,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=resumable(scratch))
    return {
        "n_prompts": len(shown),
        "n_examples": len(examples),
        "n_tokens": examples.n_tokens,
        "examples_digest": examples.digest,
        "optimiser": "AdamW",
        "final_loss": [entry["loss"] for entry in curve.log if "loss" in entry][-1],
    }


def _collator(patient: Patient) -> Any:
    together = (Packer if patient.recipe.training.packed else Collator)(patient.model.pad_id)
    taken = ("input_ids", "attention_mask", "position_ids", "labels")

    def collate(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        """What a plain causal model takes: each counted token weighs the same."""
        return {name: value for name, value in together(batch).items() if name in taken}

    return collate
