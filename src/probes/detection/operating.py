"""How often the procedure says too much and too little, where the truth is planted.

`python -m probes.detection.operating` computes the tables and the figure anew. The thresholds in
`thresholds.json` were settled on draws 0 to 199, before any organism was looked at; the tables are of
other draws, from `FIRST` on, and of worlds that were added since.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.detection.design import make_design
from probes.detection.judgement import Claim, judge, over_seeds
from probes.detection.ladder import RUNGS
from probes.detection.resampling import clopper_pearson
from probes.detection.thresholds import frozen_thresholds
from probes.detection.worlds import ABLE, WORLDS, Feature, World, plant
from probes.foundation.digest import digest_json, short
from probes.foundation.errors import unknown
from probes.foundation.html import html_table
from probes.foundation.procedures import versions
from probes.foundation.progress import progress
from probes.foundation.tables import read_table, write_table
from probes.plotting.claims import rungs_reached
from probes.plotting.style import PAGE, figure, save, style

FOLDER = Path("figures/operating")
FIRST, N_DRAWS = 1000, 200
MOST_TOO_HIGH = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Operating:
    """rates: one row per world; checks: per world and check; power: per design with a true effect."""

    rates: pd.DataFrame
    checks: pd.DataFrame
    power: pd.DataFrame

    def _repr_html_(self) -> str:
        return html_table(self.rates)


def operating_characteristics(
    worlds: Sequence[World] = WORLDS,
    n_draws: int = N_DRAWS,
    *,
    power: bool = True,
    keep: Path | None = None,
) -> Operating:
    """Judge every draw of every world by the frozen thresholds, and count where the claim stands.

    A claim is too high if its rung is above the world's truth, too low if it is below. keep: a folder for
    the draws of finished worlds, which are not drawn again.
    """
    found, designs = (
        pd.concat([_kept(world, n_draws, keep) for world in chosen] or [draws((), 0)])
        for chosen in (worlds, POWER if power else ())
    )
    return Operating(rates(found), answers(found), rates(designs))


def _kept(world: World, n_draws: int, keep: Path | None) -> pd.DataFrame:
    n = min(n_draws, world.draws or n_draws)
    if keep is None:
        return draws([world], n)
    facts = {"world": dataclasses.asdict(world) | {"features": str(world.features)}, "n": n}
    limits = dataclasses.asdict(frozen_thresholds())
    key = digest_json({**facts, "first": FIRST, "thresholds": limits, **versions("detection")})
    file = keep / f"{short(key)}.parquet"
    if not file.exists():
        write_table(file, draws([world], n))
    return read_table(file)


def draws(worlds: Sequence[World], n_draws: int, first: int = FIRST) -> pd.DataFrame:
    """One row per world, draw, run and check (or condition of the gate), with the rung that was reached."""
    rows = []
    for world in worlds:
        for draw in progress(range(first, first + n_draws), world.name, total=n_draws):
            claims = [_judged(world, draw, run) for run in range(world.runs)]
            rung = claims[0].rung if world.runs == 1 else over_seeds(claims).rung
            facts = {"world": world.name, "truth": world.truth, "draw": draw, "rung": rung}
            for run, claim in enumerate(claims):
                every = [*claim.gate, *(check for each in claim.checks.values() for check in each)]
                for check in every:
                    measured = {"value": check.value, "low": check.low, "high": check.high}
                    what = {"run": run, "check": check.name, "answer": check.answer, **measured}
                    rows.append(facts | what)
    columns = ["world", "truth", "draw", "rung", "run", "check", "answer", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def rates(found: pd.DataFrame) -> pd.DataFrame:
    """By world: shares of draws that stand too high and too low, with 95% intervals, and at every rung."""
    rows = []
    for (world, truth), draws_of in found.groupby(["world", "truth"], sort=False):
        rung = draws_of.groupby("draw")["rung"].first()
        place, true, n = rung.map(RUNGS.index), RUNGS.index(str(truth)), len(rung)
        row = {"world": world, "truth": truth, "n": n}
        for name, wrong in {"too_high": place > true, "too_low": place < true}.items():
            low, high = clopper_pearson(int(wrong.sum()), n)
            row |= {name: wrong.mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {each: (rung == each).mean() for each in RUNGS})
    return pd.DataFrame(rows)


def answers(found: pd.DataFrame) -> pd.DataFrame:
    """By world and check: shares of pass, fail, inconclusive and not run, and the mean value."""
    by = ["world", "check"]
    shares = pd.crosstab([found[each] for each in by], found["answer"], normalize="index")
    order = found.drop_duplicates(by).set_index(by).index
    names = ["pass", "fail", "inconclusive", "not run"]
    table = shares.reindex(index=order, columns=names, fill_value=0.0)
    table["mean_value"] = found.groupby(by)["value"].mean()
    return table.reset_index().rename_axis(columns=None)


def _judged(world: World, draw: int, run: int) -> Claim:
    planted = plant(world, draw, run)
    return judge(make_design(planted.design, seed=draw), planted.activations, seed=draw)


def _power(effect: float, families: int = 12, prompts: int = 8) -> World:
    name = f"d' {effect:g}, {families} families, {prompts} prompts a cell"
    feature = Feature({("A", ABLE): effect, ("B", ABLE): effect}, spread=0.5 / effect)
    return World(name, "tracks defection", "as W2", (feature,), families=families, prompts=prompts)


POWER = (
    *(_power(effect) for effect in (1.0, 1.5, 2.0, 2.5, 3.0)),
    *(_power(2.0, families) for families in (8, 10, 16)),
    *(_power(effect, prompts=4) for effect in (2.0, 2.5, 3.0)),
)


def ship(found: Operating, folder: Path = FOLDER) -> None:
    """Write `rates`, `checks` and `power` as CSV, and the figure of the rungs that were reached."""
    frozen = digest_json(dataclasses.asdict(frozen_thresholds()))
    with style():
        drawn = figure(PAGE, 0.5 + 0.17 * len(found.rates))
        rows = rungs_reached(drawn.subplots(), found.rates, list(RUNGS))
        worst = found.rates.sort_values("too_high").iloc[-1]
        title = (
            f"A claim is too high in at most {worst['too_high']:.1%} of {worst['n']} draws, in any of "
            f"{len(found.rates)} planted worlds"
        )
        save(drawn, folder / "rungs", rows, title=title, thresholds=frozen)
    for name, table in dataclasses.asdict(found).items():
        if len(table):
            write_table(folder / f"{name}.csv", table, thresholds=frozen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="folder of the tables and the figure"
    )
    parser.add_argument(
        "--draws", type=int, default=N_DRAWS, help=f"draws of each world (default {N_DRAWS})"
    )
    parser.add_argument(
        "--world", action="append", help="only this world, by name; may be repeated"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path("runs/operating"), help="folder of finished worlds"
    )
    asked = parser.parse_args()
    by_name = {world.name: world for world in WORLDS}
    for name in asked.world or []:
        if name not in by_name:
            parser.error(str(unknown("world", name, by_name)))
    chosen = [by_name[name] for name in asked.world or by_name]
    found = operating_characteristics(chosen, asked.draws, power=not asked.world, keep=asked.keep)
    ship(found, asked.out)
    print(found.rates.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
