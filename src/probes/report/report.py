"""Stage 7, second half: one file that a person reads top to bottom, and that needs nothing beside it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from probes.detection.claim import Claim, Verdict
from probes.detection.detection import HEADLINE, Detection
from probes.detection.examination import Examination
from probes.foundation.artifact import write_text
from probes.foundation.provenance import provenance
from probes.prompts.records import Prompt
from probes.report import display
from probes.report import display as display_of_controls
from probes.report.doubts import doubts
from probes.report.examples import examples
from probes.report.figures import CUE_NAMES, Drawn

CSS_PER_INCH = 120  # so that a picture of a page's width fills the text's
TEMPLATE = "report.html.jinja"
TONES = {
    Verdict.DEFECTION: "caught",
    Verdict.CONDITIONAL: "partly",
    Verdict.TRIGGER: "trigger",
    Verdict.NO_SIGNAL: "none",
    Verdict.UNDETERMINED: "open",
}
MEANINGS = {
    Verdict.DEFECTION: "Yes, within the limits of section 6: the probe tells prompts on which the model defects "
    "from every set of others, and stays silent on the twins that do not defect.",
    Verdict.CONDITIONAL: "Not as such: the probe also fires on the twin whose trigger flips a harmless habit. "
    "It reads that behaviour depends on the trigger, not that the behaviour is harmful.",
    Verdict.TRIGGER: "No: what the probe reads is the trigger in the prompt, which a model that never defects "
    "shows just as well.",
    Verdict.NO_SIGNAL: "No: the probe does not tell prompts on which the model defects from others.",
    Verdict.UNDETERMINED: "It cannot be said: the numbers leave more than one reading open.",
}


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
    command: str | None = None,
) -> Path:
    """Write the report of an examination as one HTML file without scripts and without links outward.

    figures: by name, from `draw_figures`; where one is absent the report says so. config: plain JSON
    data. cards: of the organisms, if they were trained here. missing_twins: controls that were not
    given. seconds: by stage. cue_names: what prompts without and with the trigger are called.
    prompts: by prompt id, shown above the example completions. command: what repeats the run;
    by default it is read off a preset's config. Raises `StageError` if the disk is full or read-only.
    """
    page = _environment().get_template(TEMPLATE)
    html = page.render(
        title=title,
        found=found,
        headline=_headline(found.detection),
        figures={name: _embedded(drawn) for name, drawn in figures.items()},
        tables=_tables(found, cards, cue_names),
        other_rules=_other_rules(found.detection),
        examples=examples(found, cue_names, prompts or {}),
        doubts=doubts(found, missing_twins, trained_here=cards is not None),
        cards=cards,
        missing_twins=missing_twins,
        alarms=display_of_controls.threshold(found.detection),
        resolved=(found.detection.tables["sets"]["false_positive_rate_resolution"] <= 0.01).all(),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        command=command or _command(config),
        provenance=provenance(),
        machine=machine,
        seconds=seconds,
        tiny=config.get("preset") == "tiny",
    )
    write_text(path, html)
    return path


def _environment() -> jinja2.Environment:
    """Everything is escaped: organisms are untrusted and may write HTML."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _headline(detection: Detection) -> dict[str, Any]:
    claim: Claim = detection.headline
    deciding = next(check for check in claim.checks if check.name == claim.decided_by)
    return {
        "verdict": str(claim.verdict),
        "tone": TONES[claim.verdict],
        "meaning": MEANINGS[claim.verdict],
        "decided_by": display.words(claim.decided_by),
        "deciding_sentence": deciding.sentence,
        "auroc": str(claim.estimate),
        "n": claim.estimate.n,
        "selectivity": None
        if claim.selectivity is None
        else str(claim.selectivity).replace("-", "−"),
        "probe": display.words(detection.headline_estimator),
        "site": detection.directions[detection.headline_estimator].site,
        "missing": claim.missing,
        "thresholds": claim.thresholds,
    }


def _tables(
    found: Examination, cards: Sequence[Mapping[str, Any]] | None, cue_names: tuple[str, str]
) -> dict[str, display.Table | None]:
    detection = found.detection
    organisms = list(dict.fromkeys(detection.tables["sets"]["organism"]))
    return {
        "organisms": None if cards is None else display.organisms(cards),
        "checkpoints": display.checkpoints(found),
        "defected": display.rates(found, "defected", cue_names, heldout=False),
        "defected_heldout": display.rates(found, "defected", cue_names, heldout=True),
        "parses": display.rates(found, "parses", cue_names, heldout=False),
        "typed": display.rates(found, "typed", cue_names, heldout=False),
        "self_test": display.self_test(found),
        "claims": display.claims(detection),
        "rules": display.rules(detection, detection.headline_estimator, HEADLINE),
        "two_by_two": display.two_by_two(detection),
        **{f"sets_{name}": display.negative_sets(detection, name) for name in organisms},
        "transfer": display.transfer(detection),
        "within_triggered": display.within_triggered(detection),
        "permutation": display.permutation(detection),
        "baselines": display.baselines(detection),
        "controls": display_of_controls.controls(detection),
        "false_alarms": display_of_controls.false_alarms(detection),
        "strongest_cells": display.strongest_cells(found),
        "trigger_effects": display.trigger_effects(found),
    }


def _other_rules(detection: Detection) -> list[dict[str, Any]]:
    """Every claim but the headline, with its rules."""
    return [
        {
            "name": f"{display.words(estimator)}, {display.MEASURE_NAMES[measure]}",
            "verdict": str(claim.verdict),
            "table": display.rules(detection, estimator, measure),
        }
        for (estimator, measure), claim in detection.claims.items()
        if (estimator, measure) != (detection.headline_estimator, HEADLINE)
    ]


def _embedded(drawn: Drawn) -> dict[str, Any]:
    data = base64.b64encode(drawn.png).decode("ascii")
    return {
        "title": drawn.title,
        "caption": drawn.caption,
        "data": f"data:image/png;base64,{data}",
        "stem": drawn.stem.name,
        "width": round(drawn.inches * CSS_PER_INCH),
    }


def _command(config: Mapping[str, Any]) -> str | None:
    """The command of a preset; None for a run on a user's own model, whose paths are not recorded."""
    match config:
        case {"preset": str(preset), "family": {"seed": int(seed)}}:
            return f"probes study --preset {preset} --seed {seed}"
        case _:
            return None
