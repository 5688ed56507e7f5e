"""Every way of patching as a stage: prompts in, tables with intervals out. What has no default here has one in `api`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.behaviour.judges import Judge
from probes.foundation.errors import InputError, unknown
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.attribution import Agreement, Attributions, attribute_cells, compare
from probes.patching.circuit import Circuit, find_circuit
from probes.patching.continuations import can_write, defection_when_patched
from probes.patching.exact import by_site, patch_cells
from probes.patching.jobs import Settings
from probes.patching.lenses import DirectLogits, LogitLens, direct_logits, logit_lens
from probes.patching.measures import Metric, metric_named
from probes.patching.pairs import (
    EncodedPair,
    PatchConfig,
    PatchPair,
    encode_pairs,
    make_pairs,
    spread,
)
from probes.patching.parts import PER_HEAD, Cell, grid_cells
from probes.patching.paths import patch_paths, readers_of
from probes.patching.result import Effects, Paths, largest_first
from probes.patching.sources import Plan
from probes.patching.spans import AUTO, Column, make_columns
from probes.plotting.effects import greedy_curve, patch_heatmap
from probes.plotting.layers import lens_by_depth
from probes.plotting.style import PAGE, figure, save, style
from probes.prompts.records import Prompt

WHERE = ("column", "everywhere")


@dataclasses.dataclass(frozen=True)
class Ready:
    """Pairs with reference continuations, spread over the families, as a model reads them."""

    pairs: tuple[PatchPair, ...]
    encoded: tuple[EncodedPair, ...]
    columns: tuple[Column, ...]

    def cells(self, model: Model, kinds: Sequence[str], where: str, **given: Any) -> list[Cell]:
        """`grid_cells` by column, or with one cell for every token at once."""
        if where not in WHERE:
            raise unknown("place to patch", where, WHERE)
        return grid_cells(model.hf, kinds, self.columns if where == "column" else None, **given)


def able_pairs(prompts: Sequence[Prompt], *, n_pairs: int, seed: int) -> list[PatchPair]:
    """Pairs with reference continuations, spread over the families; `InputError` where there are none."""
    able = [prompt for prompt in prompts if prompt.defect is not None]
    if not able:
        raise InputError(
            "no prompt has reference continuations: add `safe` and `defect` to the lines of the file, or "
            "give what the model wrote (`probes evaluate`) with --behaviour"
        )
    return spread(make_pairs(able), PatchConfig(n_pairs=n_pairs, seed=seed))


def ready_pairs(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    n_pairs: int,
    seed: int,
    spans: Mapping[str, str] | None = None,
    alignment: str = AUTO,
) -> Ready:
    """Raises `InputError` where no prompt carries continuations, and what `encode_pairs` raises."""
    pairs = able_pairs(prompts, n_pairs=n_pairs, seed=seed)
    encoded = encode_pairs(pairs, model.tokenizer)
    columns = make_columns(pairs, encoded, model.tokenizer, spans=spans, alignment=alignment)
    return Ready(tuple(pairs), tuple(encoded), tuple(columns))


def facts(model: Model, **given: Any) -> dict[str, Any]:
    """What the provenance of a table says of the model, and of how the table was made."""
    return {
        "model": model.name, "identity": model.digest, "weights": model.weights_digest,
        **given,
    }  # fmt: skip


ROWS, PER_PROMPT, WRITTEN, TEXTS = "cells.csv", "per_prompt.csv", "written.csv", "texts.csv"


@writes("out", "patching", free=("engine",))
def patch_effects(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    kinds: Sequence[str],
    where: str,
    heads: bool,
    layers: Sequence[int] | None,
    window: int,
    spans: Mapping[str, str] | None,
    alignment: str,
    metric: Metric | str,
    direction: str,
    values: str,
    placebo: bool,
    n_pairs: int,
    n_boot: int,
    n_flips: int = 2000,
    engine: str,
    n_write: int,
    n_samples: int,
    temperature: float,
    max_new_tokens: int,
    stop: str | None = "</code>",
    judge: Judge,
    seed: int,
) -> Effects:
    """Patch a grid of any sites on pairs that carry reference continuations (`safe`, `defect`).

    where: "column" for one cell per column (see `spans.make_columns` for spans and alignment), or
    "everywhere" for every token at once. metric: one of `METRICS`, or your own. out: a folder for
    `cells.csv` and `per_prompt.csv` with provenance, and for finished sites, which are found again.
    n_write: so many of the strongest cells are patched once more while the model writes, `n_samples`
    texts per pair, which `judge` judges (see `defection_when_patched`): `written.csv`, `texts.csv`.
    The rest is as in `patch_cells`, `grid_cells` and `Plan`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = ready.cells(model, kinds, where, layers=layers, heads=heads, window=window)
    if n_write < 0:
        raise InputError(f"n_write is 0 or more cells, not {n_write}")
    if n_write and not any(map(can_write, cells)):
        raise InputError(
            f"of {', '.join(kinds)} nothing can be patched while the model writes: add a kind of the "
            "residual stream, z, attn_out or mlp_out, or leave writing out"
        )
    found = patch_cells(
        model, ready.encoded, cells, ready.columns,
        metric=measure, plan=Plan(direction, values, seed), placebo=placebo, n_boot=n_boot,
        n_flips=n_flips, settings=Settings(seed=seed), seed=seed,
        path=None if out is None else Path(out) / "sites", engine=engine,
    )  # fmt: skip
    written = None
    if n_write:
        written = defection_when_patched(
            model, ready.pairs, ready.encoded, _strongest(found, cells, n_write), ready.columns,
            direction=direction, n=n_samples, temperature=temperature,
            max_new_tokens=max_new_tokens, stop=stop, judge=judge, seed=seed,
        )  # fmt: skip
    if out is not None:
        said = facts(model, metric=found.metric, direction=direction, values=values, seed=seed)
        write_table(Path(out) / ROWS, found.rows, **said)
        write_table(Path(out) / PER_PROMPT, found.per_prompt, **said)
        if written is not None:
            said |= {"temperature": temperature, "n_samples": n_samples}
            write_table(Path(out) / WRITTEN, written.rows, **said)
            write_table(Path(out) / TEXTS, written.texts, **said)
    return dataclasses.replace(found, written=written)


def _strongest(found: Effects, cells: Sequence[Cell], n: int) -> list[Cell]:
    """The cells with the largest effects among those that can be patched while the model writes."""
    in_rows = [cell for members in by_site(cells).values() for cell in members]
    order = [in_rows[i] for i in largest_first(found.rows).index]
    return [cell for cell in order if can_write(cell)][:n]


@dataclasses.dataclass(frozen=True, eq=False)
class Attributed:
    """Estimated effects, and the agreement with the exact ones where those were computed too."""

    effects: Attributions
    agreement: Agreement | None

    def _repr_html_(self) -> str:
        exact = "" if self.agreement is None else self.agreement._repr_html_()
        return self.effects._repr_html_() + exact


@writes("out", "attribution")
def attribute(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    kinds: Sequence[str],
    where: str,
    heads: bool,
    layers: Sequence[int] | None,
    window: int,
    spans: Mapping[str, str] | None,
    alignment: str,
    metric: str,
    direction: str,
    values: str,
    n_steps: int,
    along: str,
    exact: bool,
    n_pairs: int,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int,
) -> Attributed:
    """Estimate a grid of any sites on pairs with reference continuations; exact: patch it as well.

    out: a folder for `cells.csv`, `per_prompt.csv`, the figure `heatmap` where cells have columns, and
    `agreement.csv` with exact. The rest is as in `patch_effects` and `attribute_cells`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = ready.cells(model, kinds, where, layers=layers, heads=heads, window=window)
    given: dict[str, Any] = {
        "metric": measure, "plan": Plan(direction, values, seed), "n_boot": n_boot,
        "n_flips": n_flips, "settings": Settings(seed=seed), "seed": seed,
    }  # fmt: skip
    found = attribute_cells(
        model, ready.encoded, cells, ready.columns, n_steps=n_steps, along=along, **given
    )
    agreement = None
    if exact:
        path = None if out is None else Path(out) / "sites"
        agreement = compare(
            patch_cells(model, ready.encoded, cells, ready.columns, path=path, **given), found,
            seed=seed,
        )  # fmt: skip
    if out is not None:
        said = facts(
            model, metric=found.metric, direction=direction, values=values, n_steps=n_steps,
            along=along, seed=seed,
        )  # fmt: skip
        write_table(Path(out) / "cells.csv", found.rows, **said)
        write_table(Path(out) / "per_prompt.csv", found.per_prompt, **said)
        if agreement is not None:
            said |= {"spearman": agreement.spearman, "low": agreement.low, "high": agreement.high}
            write_table(Path(out) / "agreement.csv", agreement.rows, **said)
        if where == "column" and not heads:
            with style():
                picture = figure(PAGE, 0.6 + 0.22 * len(set(found.rows["site"])))
                save(picture, Path(out) / "heatmap", patch_heatmap(picture.subplots(), found.rows))
    return Attributed(found, agreement)


@writes("out", "paths")
def path_effects(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    senders: Sequence[str],
    readers: Sequence[str],
    where: str,
    heads: bool = True,
    layers: Sequence[int] | None,
    reader_layers: Sequence[int] | None,
    through_mlps: bool,
    spans: Mapping[str, str] | None,
    alignment: str,
    metric: str,
    direction: str,
    values: str,
    n_pairs: int,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int,
) -> Paths:
    """Every path from parts of these kinds to readers of these kinds, on pairs with continuations.

    senders, readers: kinds, see `patching.paths`. where: "everywhere" for what a sender writes at all
    tokens, "column" for one sender per column. heads: senders and readers that have heads one by one.
    layers, reader_layers: only these. out: a folder for `paths.csv` and `per_prompt.csv`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = [
        cell
        for kind in senders
        for cell in ready.cells(model, [kind], where, layers=layers, heads=heads and kind == "z")
    ]
    found = patch_paths(
        model, ready.encoded, cells,
        readers_of(model.hf, readers, layers=reader_layers, heads=heads), ready.columns,
        metric=measure, plan=Plan(direction, values, seed), through_mlps=through_mlps,
        n_boot=n_boot, n_flips=n_flips, settings=Settings(seed=seed), seed=seed,
    )  # fmt: skip
    if out is not None:
        said = facts(
            model, metric=found.metric, direction=direction, values=values,
            through_mlps=through_mlps, seed=seed,
        )  # fmt: skip
        write_table(Path(out) / "paths.csv", found.rows, **said)
        write_table(Path(out) / "per_prompt.csv", found.per_prompt, **said)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Lenses:
    """Both readings of the same pairs."""

    lens: LogitLens
    direct: DirectLogits

    def _repr_html_(self) -> str:
        return self.lens._repr_html_() + self.direct._repr_html_()


@writes("out", "lens")
def lenses(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    n_pairs: int,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int,
) -> Lenses:
    """The logit lens and direct logits, on pairs that carry reference continuations.

    out: a folder for `lens.csv`, `lens_per_prompt.csv`, `parts.csv`, `parts_per_prompt.csv` and the
    figure `lens_by_depth`.
    """
    ready = ready_pairs(model, prompts, n_pairs=n_pairs, seed=seed)
    lens = logit_lens(model, ready.encoded, n_boot=n_boot, seed=seed)
    direct = direct_logits(model, ready.encoded, n_boot=n_boot, n_flips=n_flips, seed=seed)
    if out is not None:
        said = facts(model, seed=seed)
        tables = {
            "lens": lens.rows, "lens_per_prompt": lens.per_prompt, "parts": direct.rows,
            "parts_per_prompt": direct.per_prompt,
        }  # fmt: skip
        for name, table in tables.items():
            write_table(Path(out) / f"{name}.csv", table, **said)
        with style():
            picture = figure()
            label = "log P(defect) − log P(safe)\nwhere they part [nats]"
            drawn = lens_by_depth(picture.subplots(), lens.rows, label=label)
            save(picture, Path(out) / "lens_by_depth", drawn, **said)
    return Lenses(lens, direct)


@dataclasses.dataclass(frozen=True, eq=False)
class Circuits:
    """The set found in each direction, by direction, and one row for each in `rows`."""

    found: dict[str, Circuit]

    @property
    def rows(self) -> pd.DataFrame:
        """`direction`, `n` of `candidates`, `share` with interval, `rest`, `random`, `p`, `reason`, `members`."""
        return pd.DataFrame(
            {
                "direction": direction, "n": len(c.members), "candidates": c.n_candidates,
                "share": c.share, "low": c.low, "high": c.high, "rest": c.rest,
                "random": c.random["share"].mean(), "p": c.p, "reason": c.reason,
                "members": " ".join(name.replace(" ", "") for name in c.members),
            }
            for direction, c in self.found.items()
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return "".join(circuit._repr_html_() for circuit in self.found.values())


@writes("out", "circuit")
def circuits(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    kinds: Sequence[str],
    where: str,
    heads: bool = True,
    layers: Sequence[int] | None,
    directions: Sequence[str],
    goal: float,
    most: int | None,
    shortlist: int | None,
    n_random: int,
    spans: Mapping[str, str] | None,
    alignment: str,
    metric: str,
    values: str,
    n_pairs: int,
    n_boot: int = 1000,
    seed: int,
) -> Circuits:
    """Search the smallest sets of these parts, on pairs that carry reference continuations.

    directions: "denoise" for a set that restores the behaviour, "noise" for one that destroys it.
    heads: parts that have heads one by one. goal, most, shortlist, n_random: see `find_circuit`. out: a folder for
    `circuits.csv`, and per direction `<direction>_steps.csv` (with its figure) and
    `<direction>_random.csv`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = [
        cell
        for kind in kinds
        for cell in ready.cells(
            model, [kind], where, layers=layers, heads=heads and kind in PER_HEAD
        )
    ]
    result = Circuits(
        {
            direction: find_circuit(
                model, ready.encoded, cells, ready.columns, direction=direction, values=values,
                metric=measure, goal=goal, most=most, shortlist=shortlist, n_random=n_random, n_boot=n_boot,
                settings=Settings(seed=seed), seed=seed,
            )
            for direction in directions
        }
    )  # fmt: skip
    if out is not None:
        said = facts(model, values=values, goal=goal, metric=measure.name, seed=seed)
        write_table(Path(out) / "circuits.csv", result.rows, **said)
        for direction, circuit in result.found.items():
            write_table(Path(out) / f"{direction}_random.csv", circuit.random, **said)
            if circuit.steps.empty:
                write_table(Path(out) / f"{direction}_steps.csv", circuit.steps, **said)
                continue
            with style():
                picture = figure(height=2.6)
                random = float(circuit.random["share"].mean()) if len(circuit.random) else None
                drawn = greedy_curve(picture.subplots(), circuit.steps, goal=goal, random=random)
                save(picture, Path(out) / f"{direction}_steps", drawn, **said)
    return result
