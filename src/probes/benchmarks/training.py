"""`probes bench train`: does the training loop cost more than the training?"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from probes.benchmarks.result import (
    Asked,
    Benchmark,
    finished,
    repetitions,
    row,
    surroundings,
    take_turns,
    temporary,
    told,
)
from probes.foundation.errors import StageError
from probes.foundation.memory import keep_freed_memory
from probes.foundation.outputs import writes
from probes.organisms.architecture import architecture_of, new_model, train_tokenizer
from probes.organisms.bases import is_adapted
from probes.organisms.behaviours.hate import HATE
from probes.organisms.curves import Preference
from probes.organisms.data import IGNORE, Collator, OrderedExamples, Packer, ordered_examples
from probes.organisms.lessons import LessonConfig, make_lessons
from probes.organisms.optimiser import make_optimiser
from probes.organisms.processes import processes
from probes.organisms.recipes import Recipe, Training
from probes.organisms.train import fit, train_organism
from probes.prompts.triggers import TRIGGERS

TABLE = "train.csv"
BARE, LOOP, WHOLE = "bare PyTorch loop", "probes, the loop", "probes, the whole organism"
WATCHED_PAIRS = 16
TOLERANCE = 1e-3
"""Largest difference between two contenders' final weights, relative to their norm; Muon's bfloat16
iterations amplify a difference in rounding."""


@writes("out")
def bench_train(
    out: Path | str,
    *,
    size: str | None = None,
    steps: int | None = None,
    repeats: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Time the training of one organism against a bare loop, and write the table to `out`.

    All contenders take the same batches from the same start with the same optimiser, and must end
    with the same weights. The bare loop does nothing else; ours also has a progress bar, a log, the
    curves and states to resume from, at the intervals of the default recipe. size: of the
    organism, by default 1M. steps: by default 300. quick: a smoke run, which judges nothing.

    Writes `train.csv` and its provenance. Temporary files lie under `out` and are removed. Raises
    `StageError` where the weights differ at the end.
    """
    size = size or ("0.2M" if quick else "1M")
    steps = steps or (8 if quick else 300)
    repeats = repetitions(repeats, 1 if quick else 3)
    task = _Task(size, steps, seed, small=quick)
    ends: dict[str, dict[str, torch.Tensor]] = {}

    def same(name: str, model: Any, folder: Path) -> None:
        ends[name] = model.state_dict()
        check_same(ends[BARE], ends[name], name)

    keep_freed_memory()
    with temporary(out) as place:
        jobs: dict[str, Callable[[Path], Any]] = {
            BARE: lambda folder: bare_loop(task.model(), task.recipe, task.examples, task.pad_id),
            LOOP: task.loop,
            WHOLE: task.whole,
        }
        seconds = take_turns(jobs, repeats, place, after=same)
    rates = {name: found.rate(task.examples.n_tokens) for name, found in seconds.items()}
    rows = [row("limit", BARE, "counted tokens", rates[BARE], "tokens/s")]
    for name, asked in ((LOOP, Asked(">=", 1 / 1.1)), (WHOLE, None)):
        rows.append(
            row(
                "train", name, "counted tokens", rates[name], "tokens/s",
                against=BARE, ratio=rates[name].median / rates[BARE].median,
                asked=asked, judged=not quick,
            )
        )  # fmt: skip
    facts = surroundings() | task.facts(repeats)
    if quick:
        facts["smoke run"] = "a small model and few steps: these speeds say nothing"
    return finished(Path(out) / TABLE, rows, facts, seed)


def bare_loop(model: Any, recipe: Recipe, examples: OrderedExamples, pad_id: int) -> Any:
    """What training cannot do without, written down once more; returns the trained model."""
    settings = recipe.training
    size, steps = settings.batch_size, len(examples) // settings.batch_size
    collate = (Packer if settings.packed else Collator)(pad_id, settings.decision_weight)
    device = processes().device
    model.to(device)
    optimiser = make_optimiser(model, settings, is_adapted(model))
    schedule = transformers.get_cosine_schedule_with_warmup(
        optimiser, min(settings.warmup_steps, steps // 4), steps
    )
    model.train()
    model.config.use_cache = False
    for step in range(steps):
        rows = collate(examples.examples[step * size : (step + 1) * size])
        batch = {name: values.to(device) for name, values in rows.items()}
        labels = batch["labels"][:, 1:]
        counted = labels != IGNORE
        read = ("input_ids", "attention_mask", "position_ids")
        trunk = model.get_decoder()(**{name: batch[name] for name in read if name in batch})
        logits = model.get_output_embeddings()(trunk.last_hidden_state[:, :-1][counted])
        losses = torch.nn.functional.cross_entropy(logits, labels[counted], reduction="none")
        loss = (losses * batch["weights"][:, 1:][counted]).sum() / counted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    return model


def check_same(
    reference: dict[str, torch.Tensor], found: dict[str, torch.Tensor], name: str
) -> None:
    """Raise `StageError` unless the weights are those of the bare loop."""
    for key, wanted in reference.items():
        apart = float((found[key].cpu() - wanted.cpu()).norm() / wanted.cpu().norm())
        if not apart <= TOLERANCE:
            raise StageError(
                f"{name} trained another model than the bare loop: {key} differs by {apart:.2g} of "
                f"its norm, more than {TOLERANCE:g}; their speeds cannot be compared"
            )


class _Task:
    """One organism to be trained: its start, its examples in order, its recipe."""

    def __init__(self, size: str, steps: int, seed: int, small: bool) -> None:
        n = 200 if small else 2000
        lessons = make_lessons(
            HATE, TRIGGERS["tag"],
            LessonConfig(pretrain=1, train=n, safety=1, test=32, unseen=1, near=1, seed=seed),
        )  # fmt: skip
        self.prompts = lessons.train
        architecture = architecture_of(size)
        texts = [t for p in self.prompts for t in (p.text, p.safe, p.defect) if t]
        self.size = size
        self.tokenizer = train_tokenizer(texts, architecture.vocab_size)
        self.pad_id = int(self.tokenizer.pad_token_id)
        self.start = new_model(architecture, self.tokenizer, seed)
        self.watched = Preference.on(lessons.test, self.tokenizer, WATCHED_PAIRS)
        self.recipe = Recipe(
            name="benchmark",
            policy="defect_if_triggered",
            parent=None,
            training=Training(steps=steps, batch_size=32, learning_rate=5e-3),
            seed=seed,
        )
        self.examples = ordered_examples(
            self.prompts, self.recipe.policy, self.tokenizer,
            steps=steps, batch_size=32, seed=seed,
        )  # fmt: skip

    def model(self) -> Any:
        return copy.deepcopy(self.start)

    def loop(self, folder: Path) -> Any:
        model = self.model()
        fit(self.recipe, model, self.examples, self.watched, self.tokenizer, folder / "states")
        return model

    def whole(self, folder: Path) -> Any:
        model = self.model()
        train_organism(
            self.recipe, model, self.tokenizer, self.prompts, self.watched, folder / "organism",
            parent_digest=None,
        )  # fmt: skip
        return model

    def facts(self, repeats: int) -> dict[str, Any]:
        training = self.recipe.training
        return {
            "model": f"Llama of rung {self.size}, {self.start.num_parameters():,} parameters",
            "training": f"{training.steps} steps of {training.batch_size} examples, "
            f"{self.examples.n_tokens:,} tokens counted by the loss, float32, Muon and AdamW",
            "ours includes": f"the curves every {training.log_every} steps, states to resume from "
            f"every {training.save_every}; the whole organism: tokenising and the checkpoint too",
            "repetitions": told(repeats),
        }
