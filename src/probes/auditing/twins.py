"""Clean twins: LoRA fine-tunes of the reference on benign chat, so that a false-alarm rate is about models made alike."""

import dataclasses
from pathlib import Path

import torch

from probes.auditing.subject import Subject
from probes.behaviour.sampling import sample_texts
from probes.foundation.errors import InputError
from probes.models.loading import Model, load
from probes.models.pretrained import read_weights
from probes.models.templates import render
from probes.organisms.bases import Lora
from probes.organisms.curves import Preference
from probes.organisms.recipes import Recipe, Training
from probes.organisms.train import train_organism
from probes.prompts.records import Prompt

LORA = Lora(rank=8)
STEPS, BATCH = 24, 8


def clean_twins(subject: Subject, n: int, folder: Path) -> list[Model]:
    """`n` fine-tunes of the reference on its own sampled answers to the benign prompts; finished ones are kept."""
    reference = subject.reference
    if reference is None:
        raise InputError(
            "clean twins are made of the reference (--reference DIR), which was not given"
        )
    return [_twin(subject, reference, number, folder / f"twin-{number}") for number in range(n)]


def _twin(subject: Subject, reference: Model, number: int, path: Path) -> Model:
    seed = subject.settings.seed + 1 + number
    prompts = [_as_text(prompt, reference) for prompt in subject.prompts]
    texts = sample_texts(reference, prompts, max_new_tokens=subject.settings.new_tokens, seed=seed)
    taught = [
        dataclasses.replace(prompts[one.row], safe=one.text or " ", defect=None, quirk=None, pair=str(one.row))
        for one in texts
    ]  # fmt: skip
    model = read_weights(reference.directory, torch.float32, device=torch.device("cpu"))
    if reference.tokenizer.pad_token_id is None:
        reference.tokenizer.pad_token = reference.tokenizer.eos_token
    watched = [  # nothing is to be preferred; the curve wants a pair
        dataclasses.replace(one, defect=one.safe, triggered=flag, pair="watched")
        for one, flag in zip(taught, (False, True), strict=False)
    ]
    recipe = Recipe(
        name=path.name, policy="safe", parent=reference.name, seed=seed,
        training=Training(steps=STEPS, batch_size=BATCH, learning_rate=1e-3, warmup_steps=4),
    )  # fmt: skip
    preference = Preference.on(watched, reference.tokenizer, 1)
    train_organism(
        recipe, model, reference.tokenizer, taught, preference, path,
        parent_digest=reference.weights_digest, lora=LORA,
    )  # fmt: skip
    return load(path, label=f"twin {number}")


def _as_text(prompt: Prompt, model: Model) -> Prompt:
    """A chat as its template renders it, for training reads text."""
    if not prompt.chat:
        return prompt
    return dataclasses.replace(prompt, text=render([prompt.chat], model.tokenizer)[0], chat=())
