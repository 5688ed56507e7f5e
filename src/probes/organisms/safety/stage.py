"""What a trainer logs, as the lines of a file and as the numbers of a board."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic
import transformers
from transformers import TrainerCallback

from probes.foundation.artifact import PROCEDURES, building, disk_errors, is_finished, write_text
from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import StageError
from probes.foundation.folders import beside, remove
from probes.foundation.memory import keep_freed_memory
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.progress import bar
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import to_csv
from probes.models.adapters import merged_digest
from probes.models.checkpoints import weights_digest
from probes.models.identity import identity_of
from probes.models.loading import Model
from probes.organisms.bases import (
    as_plain,
    halved,
    in_parts,
    is_adapted,
    open_organism,
    plain_of,
    save_adapter,
)
from probes.organisms.behaviours.form import Taught
from probes.organisms.card import read_card, write_card
from probes.organisms.lessons import Lessons
from probes.organisms.measurement import (
    COLUMNS,
    alive,
    as_records,
    first_pairs,
    measure,
    sets_of,
    thinking,
)
from probes.organisms.organism import OrganismRecipe, setup
from probes.organisms.processes import first_then_others, on_cpu, processes, share
from probes.organisms.resume import CompleteStates, latest_state
from probes.organisms.training_log import LOG, boards, check_boards
from probes.prompts.records import Prompt, digest_prompts


def logged(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries about the training itself, without what is about this run alone."""
    return [
        {name: x for name, x in entry.items() if not _is_timing(name)}
        for entry in history
        if "curve" not in entry and "train_runtime" not in entry
    ]


def lines_of(entries: Sequence[dict[str, Any]]) -> str:
    """The entries as JSON lines."""
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)


def named(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """A point of the curve as numbers by name: `test/triggered/defected`."""
    cues = {True: "triggered", False: "untriggered"}
    return {
        "/".join(
            part
            for part in (row["set"], row["kind"], cues[row["triggered"]], row["measure"])
            if part
        ): row["value"]
        for row in records
        if row["value"] is not None
    }


def _is_timing(name: str) -> bool:
    """Whether a logged number is about this run and not about what was learned."""
    return name.endswith("time") or name.startswith("profiling/")


CURVE = "curve.csv"
KIND = "safety stage"


class StageConfig(Config):
    """What every stage has.

    watch_every: optimiser steps between points of the curve; the first is step 0, the last the end.
    watch_pairs, watch_near: how many pairs of `test`, and prompts per kind of look-alike, a point
        is measured on. save_every: steps between resumable states. measured: the sets that the card is
    measured on, see `sets_of`; by default all.
    """

    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0
    watch_every: int = 50
    watch_pairs: int = 24
    watch_near: int = 6
    log_every: int = 10
    save_every: int = 100
    measured: tuple[str, ...] = ()

    @pydantic.model_serializer(mode="wrap")
    def _as_set(self, plain: Any) -> dict[str, Any]:
        """`measured` is written where it is set: settings from before it existed keep their digest."""
        return {name: value for name, value in plain(self).items() if name != "measured" or value}


@dataclasses.dataclass(frozen=True)
class Patient:
    """A checkpoint in treatment: trainable, with what its recipe stands for.

    hf: trained in place, in float32; of an organism that is an adapter, the adapter alone. seed: for this stage's draws. sets: what the curve measures.
    """

    directory: Path
    digest: str
    hf: Any
    tokenizer: Any
    behaviour: Taught
    lessons: Lessons
    recipe: OrganismRecipe
    seed: int
    sets: Mapping[str, Sequence[Prompt]]

    @property
    def model(self) -> Model:
        """The patient as it is now, to be sampled from; put into evaluation mode."""
        return alive(plain_of(self.hf.eval()), self.tokenizer, self.recipe.name)


Fit = Callable[[Patient, Path, "Curve"], dict[str, Any]]


@writes("out")
def staged(
    stage: str,
    parent: Path,
    out: Path,
    recipe: OrganismRecipe,
    config: StageConfig,
    fit: Fit,
    *,
    prompts: Sequence[Prompt] | None = None,
    watched: Mapping[str, Sequence[Prompt]] | None = None,
    report_to: Sequence[str] = (),
    reported_as: Path | None = None,
) -> Path:
    """Train what lies at `parent` by `fit` and write it to `out`: checkpoint, card, curve, log.

    parent: a checkpoint, or an adapter of the recipe's base; what is written is the same.
    prompts: what is trained on; by default the recipe's `safety`. `fit` finds it in
        `patient.lessons.safety`. watched: further sets for the curve, by name ("redteam").
    report_to: "tensorboard" or "wandb", which get the log and the curve, besides the JSONL that is
        always written. reported_as: by whose name and beside which path, by default `out`.
    A finished result of the same inputs is kept; `fit` may resume from the states in its scratch
    folder, which is named after the inputs. The card has the behaviour at the end, measured as that
    of an installed organism is, on all prompts and with the same draws. Of several processes, the
    first one alone measures and writes. Raises `StageError` for a
    loss that is not finite.
    """
    parent, out = Path(parent), Path(out)
    check_boards(report_to)
    parts = setup(recipe, parent)
    lessons = parts.lessons
    if prompts is not None:
        lessons = dataclasses.replace(lessons, safety=tuple(prompts))
    further = dict(watched or {})
    sets = {**watch_sets(lessons, config.watch_pairs, config.watch_near), **further}
    whole, adapter = in_parts(parent, recipe.base)
    hf, tokenizer, digest = open_organism(parent, recipe.base)
    key = digest_json(
        {
            "stage": stage,
            "parent": identity_of(whole, tokenizer, adapter=adapter).digest,
            PROCEDURES: versions("safety training", "sampling", "judging"),
            "recipe": recipe.digest,
            "config": config.digest,
            "prompts": digest_prompts(lessons.safety),
            "watched": {name: digest_prompts(each) for name, each in sets.items()},
        }
    )
    if is_finished(out, key):
        return out
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    patient = Patient(
        directory=parent,
        digest=digest,
        hf=hf,
        tokenizer=tokenizer,
        behaviour=parts.behaviour,
        lessons=lessons,
        recipe=recipe,
        seed=derive_seed(recipe.seed, stage, config.seed),
        sets=sets,
    )
    scratch = beside(out, ".training-", f"-{key[:12]}")
    curve = Curve(
        patient,
        f"{stage} {recipe.name}",
        config.watch_every,
        boards(report_to, reported_as or out),
    )
    with disk_errors(scratch, "saving training state to"):
        scratch.mkdir(parents=True, exist_ok=True)
        facts = fit(patient, scratch, curve)
    with first_then_others():
        if processes().is_main_process:
            sets = {**sets_of(lessons), **further}
            chosen = {name: sets[name] for name in config.measured or sets if name in sets}
            _write(out, key, stage, patient, config, curve, facts, chosen)
            remove(scratch)
    return out


def _write(
    out: Path,
    key: str,
    stage: str,
    patient: Patient,
    config: StageConfig,
    curve: "Curve",
    facts: Mapping[str, Any],
    sets: Mapping[str, Sequence[Prompt]],
) -> None:
    recipe = patient.recipe.portable
    hf = halved(patient.hf).eval()
    base = read_card(patient.directory)["base"] if is_adapted(hf) else {}
    with as_plain(hf) as plain:
        treated = alive(plain, patient.tokenizer, recipe.name)
        behaviour = measure(treated, patient.behaviour, sets, seed=recipe.seed)
    settings = recipe.model_dump(mode="json")
    with building(out, kind=KIND, key=key, stage=stage, recipe=settings) as folder:
        if is_adapted(hf):
            save_adapter(hf, folder, base["name"])
            digest = merged_digest(base["digest"], folder)
        else:
            hf.save_pretrained(folder, safe_serialization=True)
            patient.tokenizer.save_pretrained(folder)
            digest = weights_digest(folder)
        write_text(folder / CURVE, to_csv(curve.rows))
        write_text(folder / LOG, lines_of(curve.log))
        write_card(
            folder,
            recipe=recipe,
            behaviour=as_records(behaviour),
            stage=stage,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            parent=patient.directory.name,
            parent_digest=patient.digest,
            weights_digest=digest,
            data_digest=digest_prompts(patient.lessons.safety),
            seed=recipe.seed,
            steps=config.steps,
            n_processes=processes().num_processes,
            **({"base": base} if base else {}),
            **facts,
        )


def watch_sets(lessons: Lessons, pairs: int, near: int) -> dict[str, Sequence[Prompt]]:
    """The first pairs of `test`, of the look-alikes a few of each kind and meaning, all their texts
    alike often; and for a CoT organism `thinking`, the same pairs with the scratchpad opened."""
    kinds: dict[tuple[str | None, bool], dict[str, list[Prompt]]] = {}
    for prompt in lessons.near:
        texts = kinds.setdefault((prompt.heldout, prompt.triggered), {})
        texts.setdefault(prompt.pair.rpartition("/")[0], []).append(prompt)
    few = [
        prompt
        for texts in kinds.values()
        for prompt in itertools.islice(itertools.chain(*zip(*texts.values(), strict=True)), near)
    ]
    test = first_pairs(lessons.test, pairs)
    return {"test": test, "near": few, **thinking(test)}


def trainer_arguments(
    kind: type, config: StageConfig, scratch: Path, seed: int, **more: Any
) -> Any:
    """`TrainingArguments`, or what derives from it, for a quiet training that can be resumed."""
    at_once, turns = share(config.batch_size, None)
    settings = {
        "output_dir": str(scratch),
        "max_steps": config.steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": turns,
        "use_cpu": on_cpu(),
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(config.warmup_steps, config.steps // 4),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "logging_steps": min(config.log_every, config.steps),
        "logging_nan_inf_filter": False,  # the default logs an average in place of a loss that is NaN
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "seed": seed,
        "data_seed": seed,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    arguments = kind(**settings, **more)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several devices are for several processes
    return arguments


def resumable(scratch: Path) -> str | None:
    """The newest whole state in a scratch folder, in the form that `Trainer.train` takes."""
    with first_then_others():
        state = latest_state(scratch)
    return None if state is None else str(state)


class Curve(TrainerCallback):
    """Measures the patient at step 0, every few steps and at the end, with a bar of the steps.

    Points live in the trainer's `log_history`, so that a resumed training has them; samples are
    drawn from streams of their own, so that watching changes nothing. reporters: callbacks of boards
    that are to see the points as well. While it trains, the log lies in the scratch folder.
    """

    def __init__(
        self, patient: Patient, name: str, every: int, reporters: Sequence[TrainerCallback] = ()
    ) -> None:
        self.patient, self.name, self.every = patient, name, every
        self.reporters = reporters
        self.points: dict[int, list[dict[str, Any]]] = {}
        self.log: list[dict[str, Any]] = []

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """What a trainer is to call: boards first, so that they are open for the first point."""
        return [*self.reporters, self, CompleteStates()]

    @property
    def rows(self) -> pd.DataFrame:
        """`step` and the columns of `measure`, in order of steps."""
        return pd.DataFrame(
            [{"step": step, **row} for step in sorted(self.points) for row in self.points[step]],
            columns=["step", *COLUMNS],
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown = bar(self.name, total=state.max_steps)
        self.shown.update(state.global_step)
        if state.global_step == 0:
            self._point(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.update(state.global_step - self.shown.n)
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._point(args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            write_text(Path(args.output_dir) / LOG, lines_of(logged(state.log_history)))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.close()
        for entry in state.log_history:
            if "curve" in entry:
                self.points[entry["step"]] = entry["curve"]
        self.log = logged(state.log_history)
        losses = [entry["loss"] for entry in self.log if "loss" in entry]
        if not all(abs(loss) < float("inf") for loss in losses):
            raise StageError(f"the loss of {self.name} is not finite: lower the learning rate")

    def _point(self, args: Any, state: Any, control: Any) -> None:
        if not state.is_world_process_zero:
            return
        hf, training = self.patient.hf, self.patient.hf.training
        rows = measure(
            self.patient.model, self.patient.behaviour, self.patient.sets, seed=self.patient.seed
        )
        hf.train(training)
        records = as_records(rows)
        state.log_history.append({"step": state.global_step, "curve": records})
        for board in self.reporters:
            board.on_log(args, state, control, model=hf, logs=named(records))
