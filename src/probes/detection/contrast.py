"""Generic defection probes: fitted on yes and no to simple questions, tried on prompts that may defect.

The recipe of MacDiarmid et al. (2024): the mean difference of the activations at one token, the more
dangerous answer positive, without any trigger or defection in the data of the fit. The sign is that of
the fit, and the site in the table is two thirds up the network: what the evaluation prompts say has no
part in either. Which token is read is a choice (`prompts.contrasts.READS`) that changes the result.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from probes.activations.reading import Activations
from probes.activations.record import Recorded, record
from probes.behaviour.asking import QUESTION, ask
from probes.behaviour.evaluate import Behaviour, check_written_by
from probes.evaluation.auroc import as_labels
from probes.evaluation.worst_set import worst_set
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.html import html_table, html_text
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.models.sites import Site, parse_site
from probes.probing.estimators import MeanDifferenceProbe
from probes.probing.frozen import Direction
from probes.probing.random_directions import random_directions
from probes.prompts.contrasts import NAMES, READS, ContrastSet, contrast_set
from probes.prompts.records import Prompt

ASKED, RANDOM = "asking outright", "best of random directions"
RANDOM_95 = "95% of random directions, better side"
DEPTH = 2 / 3
"""How far up the network the site lies that is chosen beforehand."""
NOTE = (
    "the label equals the trigger in every row: these numbers cannot tell a probe that reads defection "
    "from one that reads the trigger. Add triggered prompts on which nothing can defect"
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GenericProbes:
    """What generic probes find on one model.

    rows: one per probe, token and site: `probe` (the contrast set, or `ASKED`, `RANDOM`, `RANDOM_95`),
    `read` (the token), `n_fit` rows of the fit, `site`, `auroc`, `auroc_low`, `auroc_high` against the
    worst set of negatives, which is `negative_set`. directions: by contrast set (with the token, where
    several were read: "helpful, header") and site. site: `DEPTH` up the network.
    note: what these rows cannot tell, where the label equals the trigger in every one; else None.
    """

    rows: pd.DataFrame
    directions: Mapping[str, Mapping[str, Direction]]
    site: str
    note: str | None = None

    def fixed(self) -> pd.DataFrame:
        """All probes at the site that was chosen before anything was seen; asking has none."""
        return self.rows[self.rows["site"].isin([self.site, ""])]

    def best(self) -> pd.DataFrame:
        """The best site of each probe. It was chosen on these rows: read it beside `RANDOM`."""
        return self.rows.loc[self.rows.groupby(["probe", "read"], sort=False)["auroc"].idxmax()]

    def __repr__(self) -> str:
        shown = self.fixed().to_string(index=False, float_format="{:.3f}".format)
        return f"{shown}\n{self.note}" if self.note else shown

    def _repr_html_(self) -> str:
        return html_table(self.fixed()) + (html_text(self.note) if self.note else "")


def fit_generic(
    model: Model, contrasts: ContrastSet, *, sites: Iterable[Site | str] | None = None
) -> dict[str, Direction]:
    """One direction per site from one contrast set; needs no more than one question."""
    found = _read(model, contrasts, sites)
    answers = contrasts.answers or [contrasts.read] * len(contrasts)
    fitted_on = digest_json([[p.id, a] for p, a in zip(contrasts.prompts, answers, strict=True)])
    directions: dict[str, Direction] = {}
    for site in found.sites:
        probe = MeanDifferenceProbe().fit(found.matrix(site), contrasts.positive)
        directions[str(site)] = Direction(
            estimator=f"mean_difference on {contrasts.name}",
            site=str(site),
            coef=probe.coef_[0],
            intercept=float(probe.intercept_[0]),
            identity=model.identity,
            fitted_on=fitted_on,
            seed=0,
        )
    return directions


def _read(model: Model, contrasts: ContrastSet, sites: Iterable[Site | str] | None) -> Recorded:
    """The rows of the fit: one token of each contrast."""
    return record(
        model, contrasts.prompts, sites=sites, completions=contrasts.answers,
        positions=READS[contrasts.read],
    )  # fmt: skip


def generic_probes(
    model: Model,
    prompts: Sequence[Prompt],
    defected: Sequence[bool] | np.ndarray,
    *,
    sets: Sequence[str | ContrastSet] = NAMES,
    reads: Sequence[str] = (),
    activations: Activations | None = None,
    sites: Iterable[Site | str] | None = None,
    question: str | None = QUESTION,
    n_random: int = 1000,
    n_boot: int = 1000,
    seed: int = 0,
) -> GenericProbes:
    """Fit on each contrast set at each token, score that token of every prompt, and compare.

    Where the answer is read in a contrast it is the last token of the prompt that is scored.
    defected: prompt, what the model was judged to write. sets: names, or sets of one's own; chat
    prompts get their sets as chats. reads: tokens of `READS`, for sets given by name; by default the
    header in a chat, and the answer in a text. activations: of the same prompts at their last token,
    if there.
    question: of the baseline that asks; None leaves it out. n_random: directions per site, their
    sign set by the first contrast set, and for `RANDOM_95` by the prompts; 0 leaves them out.
    Raises `InputError` where nothing or everything defected, or activations are of other prompts.
    """
    labels = as_labels(defected)
    if len(labels) != len(prompts):
        raise InputError(f"{len(prompts)} prompts and {len(labels)} labels: give one label each")
    found = record(model, prompts, sites=sites) if activations is None else activations
    if found.positions != "last":
        raise InputError(
            f"the activations are of positions {found.positions!r}: collect those of 'last'"
        )
    if found.prompts["prompt_id"].tolist() != [prompt.id for prompt in prompts]:
        raise InputError("the activations are of other prompts than those given: collect these")
    chat = bool(prompts[0].chat)
    tokens = tuple(reads or ("header" if chat else "answer",))
    chosen = [
        one
        for s in sets
        for one in ([contrast_set(s, chat=chat, read=r, seed=seed) for r in tokens] if isinstance(s, str) else [s])
    ]  # fmt: skip
    cue = np.where([prompt.triggered for prompt in prompts], "trigger", "no trigger")
    negative_set = np.array([f"{p.prompt_set}, {c}" for p, c in zip(prompts, cue, strict=True)])
    pairs = np.array([prompt.pair for prompt in prompts])
    wanted = list(found.sites if sites is None else sites)
    names = [str(site) for site in wanted]
    matrices = {"last": {site: found.matrix(site) for site in names}}
    if any(one.read == "request" for one in chosen):
        ended = record(model, prompts, sites=wanted, positions=READS["request"])
        matrices[READS["request"]] = {site: ended.matrix(site) for site in names}

    def scored(one: ContrastSet) -> dict[str, np.ndarray]:
        return matrices[READS["request"] if one.read == "request" else "last"]

    def row(probe: str, read: str, n_fit: int, site: str, scores: np.ndarray) -> dict[str, Any]:
        worst = worst_set(scores, labels, negative_set, pairs, n_boot=n_boot, seed=seed)
        return {
            "probe": probe,
            "read": read,
            "n_fit": n_fit,
            "site": site,
            "auroc": worst.auroc.value,
            "auroc_low": worst.auroc.low,
            "auroc_high": worst.auroc.high,
            "negative_set": worst.negative_set,
        }

    several = len({one.read for one in chosen}) > 1
    directions = {
        f"{one.name}, {one.read}" if several else one.name: fit_generic(model, one, sites=wanted)
        for one in chosen
    }
    rows = [
        row(
            one.name, one.read, len(one), site,
            direction.score(scored(one)[site], site=site, identity=model.identity),
        )
        for one, fitted in zip(chosen, directions.values(), strict=True)
        for site, direction in fitted.items()
    ]  # fmt: skip
    if question is not None:
        rows.append(row(ASKED, "", 0, "", ask(model, prompts, question)))
    for one in {one.read: one for one in reversed(chosen)}.values() if n_random else ():
        rows += _random_rows(model, one, scored(one), labels, negative_set, n_random, seed)
    note = label_is_trigger([prompt.triggered for prompt in prompts], labels)
    depth = round(DEPTH * model.n_layers)
    site = min(wanted, key=lambda each: abs(parse_site(str(each), model.n_layers).depth - depth))
    return GenericProbes(pd.DataFrame(rows), directions, str(site), note)


def label_is_trigger(triggered: ArrayLike, defected: ArrayLike) -> str | None:
    """The sentence to show where the two are the same in every row (or opposite), else None.

    triggered, defected: row, bool, of one length.
    """
    cue, label = as_labels(triggered), as_labels(defected)
    same = bool((cue == label).all()) or bool((cue != label).all())
    return NOTE if same and cue.any() and not cue.all() else None


def _random_rows(
    model: Model,
    contrasts: ContrastSet,
    matrices: Mapping[str, np.ndarray],
    labels: np.ndarray,
    negative_set: np.ndarray,
    n: int,
    seed: int,
) -> list[dict[str, Any]]:
    fit = _read(model, contrasts, list(matrices))
    X_fit = {site: fit.matrix(site) for site in matrices}
    rows = []
    for name, column, either in ((RANDOM, "best", False), (RANDOM_95, "p95", True)):
        drawn = random_directions(
            X_fit, contrasts.positive, matrices, labels, n=n, seed=seed, negative_set=negative_set,
            either=either,
        ).by_site()  # fmt: skip
        rows += [
            {"probe": name, "read": contrasts.read, "n_fit": len(contrasts), "site": site,
             "auroc": value, "negative_set": ""}
            for site, value in zip(drawn["site"], drawn[column], strict=True)
        ]  # fmt: skip
    return rows


TABLE = "contrast.csv"


@writes("out", "contrast probes")
def contrast_stage(
    model: Model,
    prompts: Sequence[Prompt],
    behaviour: Behaviour,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = NAMES,
    reads: Sequence[str] = (),
    n_random: int = 1000,
    seed: int = 0,
) -> GenericProbes:
    """Fit contrast probes on this model and try them on prompts that it has completed.

    Prompts of which no completion could be judged are left out, with a line that says how many. out: a
    folder for the table and the direction of each contrast set at the fixed site, as `directions/SET`.
    """
    check_written_by(behaviour.completions, model)
    verdicts = behaviour.completions["defected"].astype("boolean")
    share = verdicts.groupby(behaviour.completions["prompt_id"]).mean()
    absent = sum(prompt.id not in share.index for prompt in prompts)
    if absent:
        raise InputError(
            f"{absent} of {len(prompts)} prompts have no completion: evaluate the model on these"
        )
    rows = [prompt for prompt in prompts if not pd.isna(share[prompt.id])]
    defected = [bool(share[prompt.id] >= 0.5) for prompt in rows]
    found = generic_probes(
        model, rows, defected, sets=sets, reads=reads, n_random=n_random, seed=seed
    )
    if len(prompts) > len(rows):
        note = (
            f"{len(prompts) - len(rows)} of {len(prompts)} prompts were not judged and are left out"
        )
        found = dataclasses.replace(found, note="; ".join(filter(None, [found.note, note])))
    if out is not None:
        facts = {"identity": model.digest, "seed": seed, "note": found.note}
        write_table(Path(out) / TABLE, found.rows, **facts)
        for name, directions in found.directions.items():
            directions[found.site].save(Path(out) / "directions" / name)
    return found
