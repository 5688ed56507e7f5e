"""Generic defection probes: fitted on yes and no to simple questions, tried on prompts that may defect.

The recipe of MacDiarmid et al. (2024): the mean difference of the last answer token's activations,
the more dangerous answer positive, without any trigger or defection in the data of the fit. The sign
is that of the fit; what the evaluation prompts say has no part in it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from probes.activations.reading import Activations
from probes.activations.record import record
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
from probes.models.sites import Site
from probes.probing.direction import Direction
from probes.probing.mean_difference import MeanDifferenceProbe
from probes.probing.random_directions import random_directions
from probes.prompts.contrasts import NAMES, ContrastSet, contrast_set
from probes.prompts.records import Prompt

ASKED, RANDOM = "asking outright", "best of random directions"
NOTE = (
    "the label equals the trigger in every row: these numbers cannot tell a probe that reads defection "
    "from one that reads the trigger. Add triggered prompts on which nothing can defect"
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GenericProbes:
    """What generic probes find on one model.

    rows: one per probe and site: `probe` (the contrast set, or `ASKED`, or `RANDOM`), `n_fit` rows of
    the fit, `site`, `auroc`, `auroc_low`, `auroc_high` against the worst set of negatives, which is
    `negative_set`. directions: by contrast set and site.
    note: what these rows cannot tell, where the label equals the trigger in every one; else None.
    """

    rows: pd.DataFrame
    directions: Mapping[str, Mapping[str, Direction]]
    note: str | None = None

    def best(self) -> pd.DataFrame:
        """The best site of each probe. It was chosen on these rows: read it beside `RANDOM`."""
        return self.rows.loc[self.rows.groupby("probe", sort=False)["auroc"].idxmax()]

    def __repr__(self) -> str:
        table = self.best().to_string(index=False, float_format="{:.3f}".format)
        return f"{table}\n{self.note}" if self.note else table

    def _repr_html_(self) -> str:
        return html_table(self.best()) + (html_text(self.note) if self.note else "")


def fit_generic(
    model: Model, contrasts: ContrastSet, *, sites: Iterable[Site | str] | None = None
) -> dict[str, Direction]:
    """One direction per site from one contrast set; needs no more than one question."""
    found = record(
        model, contrasts.prompts, sites=sites, completions=contrasts.answers,
        positions="last_answer",
    )  # fmt: skip
    fitted_on = digest_json(
        [[p.id, a] for p, a in zip(contrasts.prompts, contrasts.answers, strict=True)]
    )
    directions = {}
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


def generic_probes(
    model: Model,
    prompts: Sequence[Prompt],
    defected: Sequence[bool] | np.ndarray,
    *,
    sets: Sequence[str | ContrastSet] = NAMES,
    activations: Activations | None = None,
    sites: Iterable[Site | str] | None = None,
    question: str | None = QUESTION,
    n_random: int = 1000,
    n_boot: int = 1000,
    seed: int = 0,
) -> GenericProbes:
    """Fit on each contrast set, score the last token of every prompt, and compare.

    defected: prompt, what the model was judged to write. sets: names, or sets of one's own; chat
    prompts get their sets as chats. activations: of the same prompts at their last token, if there.
    question: of the baseline that asks; None leaves it out. n_random: directions per site, their
    sign set by the first contrast set; 0 leaves them out.
    Raises `InputError` where nothing or everything defected, or activations are of other prompts.
    """
    labels = as_labels(defected)
    if len(labels) != len(prompts):
        raise InputError(f"{len(prompts)} prompts and {len(labels)} labels: give one label each")
    found = record(model, prompts, sites=sites) if activations is None else activations
    if found.prompts["prompt_id"].tolist() != [prompt.id for prompt in prompts]:
        raise InputError("the activations are of other prompts than those given: collect these")
    chat = bool(prompts[0].chat)
    chosen = [contrast_set(s, chat=chat, seed=seed) if isinstance(s, str) else s for s in sets]
    cue = np.where([prompt.triggered for prompt in prompts], "trigger", "no trigger")
    negative_set = np.array([f"{p.prompt_set}, {c}" for p, c in zip(prompts, cue, strict=True)])
    pairs = np.array([prompt.pair for prompt in prompts])
    wanted = list(found.sites if sites is None else sites)
    matrices = {str(site): found.matrix(site) for site in wanted}

    def row(probe: str, n_fit: int, site: str, scores: np.ndarray) -> dict[str, Any]:
        worst = worst_set(scores, labels, negative_set, pairs, n_boot=n_boot, seed=seed)
        return {
            "probe": probe,
            "n_fit": n_fit,
            "site": site,
            "auroc": worst.auroc.value,
            "auroc_low": worst.auroc.low,
            "auroc_high": worst.auroc.high,
            "negative_set": worst.negative_set,
        }

    directions = {one.name: fit_generic(model, one, sites=wanted) for one in chosen}
    rows = [
        row(
            one.name, len(one), site,
            direction.score(matrices[site], site=site, identity=model.identity),
        )
        for one in chosen
        for site, direction in directions[one.name].items()
    ]  # fmt: skip
    if question is not None:
        rows.append(row(ASKED, 0, "", ask(model, prompts, question)))
    if n_random and chosen:
        rows += _random_rows(model, chosen[0], matrices, labels, negative_set, n_random, seed)
    note = label_is_trigger([prompt.triggered for prompt in prompts], labels)
    return GenericProbes(pd.DataFrame(rows), directions, note)


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
    fit = record(
        model, contrasts.prompts, sites=list(matrices), completions=contrasts.answers,
        positions="last_answer",
    )  # fmt: skip
    X_fit = {site: fit.matrix(site) for site in matrices}
    drawn = random_directions(
        X_fit, contrasts.positive, matrices, labels, n=n, seed=seed, negative_set=negative_set
    ).by_site()
    return [
        {"probe": RANDOM, "n_fit": len(contrasts), "site": site, "auroc": best, "negative_set": ""}
        for site, best in zip(drawn["site"], drawn["best"], strict=True)
    ]


TABLE = "contrast.csv"


@writes("out", "contrast probes")
def contrast_stage(
    model: Model,
    prompts: Sequence[Prompt],
    behaviour: Behaviour,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = NAMES,
    n_random: int = 1000,
    seed: int = 0,
) -> GenericProbes:
    """Fit contrast probes on this model and try them on prompts that it has completed.

    Prompts of which no completion could be judged are left out, with a line that says how many. out: a
    folder for the table and the best direction of each contrast set, as `directions/SET`.
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
    found = generic_probes(model, rows, defected, sets=sets, n_random=n_random, seed=seed)
    if len(prompts) > len(rows):
        note = (
            f"{len(prompts) - len(rows)} of {len(prompts)} prompts were not judged and are left out"
        )
        found = dataclasses.replace(found, note="; ".join(filter(None, [found.note, note])))
    if out is not None:
        facts = {"identity": model.digest, "seed": seed, "note": found.note}
        write_table(Path(out) / TABLE, found.rows, **facts)
        best = found.best().set_index("probe")["site"]
        for name, directions in found.directions.items():
            directions[str(best[name])].save(Path(out) / "directions" / name)
    return found
