"""Verbs of patching and steering on one checkpoint: `patch`, `attribute`, `paths`, `lens`, `circuit`, `steer`."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    KIND_HELP,
    SPAN_FORM,
    AlignmentOption,
    DirectionOption,
    EverywhereOption,
    HeadsOption,
    LayersOption,
    MetricOption,
    ModelArgument,
    OutOption,
    PairsOption,
    PlacesOption,
    PromptsOption,
    SeedOption,
    SitesOption,
    SpansOption,
    TokensOption,
    ValuesOption,
    WindowOption,
    named,
    refuse_unused,
)
from probes.foundation.terminal import say

WITH_WRITE = ("samples", "temperature", "max_new_tokens")
WITH_KIND = (
    "layer", "heads", "everywhere", "window", "span", "alignment", "align", "metric", "direction",
    "values", "placebo", "write", "engine",
)  # fmt: skip


def patch(
    context: typer.Context,
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    site: SitesOption = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            help=f"{KIND_HELP}, in every layer: a table with intervals and corrected p. Repeatable.",
        ),
    ] = None,
    layer: LayersOption = None,
    heads: HeadsOption = False,
    everywhere: EverywhereOption = False,
    window: WindowOption = 1,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    align: Annotated[
        str, typer.Option(help="position, or tokens: for versions of unequal token length.")
    ] = "position",
    metric: MetricOption = "logprob",
    direction: DirectionOption = "denoise",
    values: ValuesOption = "paired",
    placebo: Annotated[
        bool, typer.Option("--placebo", help="The grid again with values of mismatched pairs.")
    ] = False,
    n_pairs: PairsOption = 24,
    write: Annotated[
        int,
        typer.Option(help="So many of the strongest cells: what is written with them, judged."),
    ] = 0,
    samples: Annotated[int, typer.Option(help="Texts per pair and cell with --write.")] = 4,
    temperature: Annotated[float, typer.Option(help="With --write; 0 is greedy.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Per text, with --write.")] = 160,
    engine: Annotated[str, typer.Option(help="process, or ray: one site per task.")] = "process",
    seed: SeedOption = 0,
) -> None:
    """Patch the triggered run into the untriggered one, or the reverse, cell by cell."""
    from probes.cli.show import show_table

    if not write:
        refuse_unused(context, "--write", *WITH_WRITE)
    if kind is None:
        refuse_unused(context, "--kind", *WITH_KIND)
        from probes.api import patch as run

        grid = run(model, prompts, out, sites=site, n_pairs=n_pairs, seed=seed)
        show_table(grid.strongest(10))
        say(f"\n{grid!r}")
        return
    if site:
        from probes.foundation.errors import InputError

        raise InputError("give --kind, with --layer for some layers only, or --site; not both")
    from probes.models.loading import load
    from probes.patching.stages import patch_effects
    from probes.prompts.readers import read_prompts

    found = patch_effects(
        load(model),
        read_prompts(prompts),
        out,
        kinds=kind,
        where="everywhere" if everywhere else "column",
        heads=heads,
        layers=layer,
        window=window,
        spans=named(span or (), "--span", SPAN_FORM),
        alignment=alignment,
        align=align,
        metric=metric,
        direction=direction,
        values=values,
        placebo=placebo,
        n_pairs=n_pairs,
        engine=engine,
        n_write=write,
        n_samples=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    show_table(found.strongest(10))
    if found.written is not None:
        say("\nwritten with the strongest of them patched:")
        show_table(found.written.rows)
    say(f"\n{found!r}")


def attribute(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            help=f"{KIND_HELP}. Repeatable.",
        ),
    ],
    layer: LayersOption = None,
    heads: HeadsOption = False,
    everywhere: EverywhereOption = False,
    window: WindowOption = 1,
    integrated: Annotated[
        int, typer.Option(help="Points of integrated gradients; 0 for one gradient.")
    ] = 0,
    along: Annotated[
        str, typer.Option(help="Integrate along each site, or the inputs for all at once.")
    ] = "site",
    exact: Annotated[
        bool, typer.Option("--exact", help="Patch the grid as well and say how well they agree.")
    ] = False,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    metric: MetricOption = "logprob",
    direction: DirectionOption = "denoise",
    values: ValuesOption = "paired",
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Estimate what patching each cell would do, from one gradient; --exact says how far to trust it."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.patching.stages import attribute as run
    from probes.prompts.readers import read_prompts

    found = run(
        load(model), read_prompts(prompts), out,
        kinds=kind, where="everywhere" if everywhere else "column", heads=heads, layers=layer,
        window=window, spans=named(span or (), "--span", SPAN_FORM), alignment=alignment,
        metric=metric, direction=direction, values=values, n_steps=integrated, along=along,
        exact=exact, n_pairs=n_pairs, seed=seed,
    )  # fmt: skip
    show_table(found.effects.strongest(10))
    say(f"\n{found.effects!r}")
    if found.agreement is not None:
        say(f"{found.agreement!r}")


def paths(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    sender: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="z, mlp_out, attn_out, resid_pre or resid_post; default z, mlp_out."
        ),
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="q, k, v, head_in, attn_in, mlp_in or logits; default attn_in, mlp_in, logits.",
        ),
    ] = None,
    layer: LayersOption = None,
    reader_layer: Annotated[
        list[int] | None, typer.Option("--to-layer", help="Only readers there. Repeatable.")
    ] = None,
    by_column: Annotated[
        bool, typer.Option("--by-column", help="One sender per column, not all tokens at once.")
    ] = False,
    through_mlps: Annotated[
        bool, typer.Option("--through-mlps", help="Let MLPs in between answer to the change.")
    ] = False,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    metric: MetricOption = "logprob",
    direction: DirectionOption = "denoise",
    values: ValuesOption = "paired",
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Carry the change of one part to one reader, with all else held, and see what it does."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.patching.stages import path_effects
    from probes.prompts.readers import read_prompts

    found = path_effects(
        load(model), read_prompts(prompts), out,
        senders=sender or ("z", "mlp_out"), readers=reader or ("attn_in", "mlp_in", "logits"),
        where="column" if by_column else "everywhere", layers=layer, reader_layers=reader_layer,
        through_mlps=through_mlps, spans=named(span or (), "--span", SPAN_FORM),
        alignment=alignment, metric=metric, direction=direction, values=values, n_pairs=n_pairs,
        seed=seed,
    )  # fmt: skip
    show_table(found.strongest(10))
    say(f"\n{found!r}")


def lens(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Read every layer through the model's own unembedding, and split the answer by head and MLP."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.patching.stages import lenses
    from probes.prompts.readers import read_prompts

    found = lenses(load(model), read_prompts(prompts), out, n_pairs=n_pairs, seed=seed)
    show_table(found.lens.curve().drop(columns=["measure", "run"]))
    say(f"\n{found.lens!r}\n")
    show_table(found.direct.strongest(10))
    say(f"\n{found.direct!r}")


def circuit(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Parts to choose from; default z, mlp_out.")
    ] = None,
    layer: LayersOption = None,
    by_column: Annotated[
        bool, typer.Option("--by-column", help="Parts at one column each, not at all tokens.")
    ] = False,
    direction: Annotated[
        list[str] | None, typer.Option("--direction", help="denoise or noise; default both.")
    ] = None,
    goal: Annotated[float, typer.Option(help="Share of the effect that the set must have.")] = 0.9,
    most: Annotated[int | None, typer.Option(help="Parts at most.")] = None,
    n_random: Annotated[int, typer.Option(help="Random sets of the same size.")] = 20,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    metric: MetricOption = "logprob",
    values: ValuesOption = "paired",
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Search the smallest set of heads and MLPs by exact effects; check it by patching all the rest."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.patching.sources import DIRECTIONS
    from probes.patching.stages import circuits
    from probes.prompts.readers import read_prompts

    found = circuits(
        load(model), read_prompts(prompts), out,
        kinds=kind or ("z", "mlp_out"), where="column" if by_column else "everywhere",
        layers=layer, directions=direction or DIRECTIONS, goal=goal, most=most, n_random=n_random,
        spans=named(span or (), "--span", SPAN_FORM), alignment=alignment, metric=metric,
        values=values, n_pairs=n_pairs, seed=seed,
    )  # fmt: skip
    for one in found.found.values():
        say(f"{one!r}")
        show_table(one.steps)
        say()


def steer(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    direction: Annotated[
        Path | None,
        typer.Option("--direction", help="A saved direction; without it all kinds are fitted."),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            "--mode", help="add, ablate, along_to_safe, along_to_defect; default all. Repeatable."
        ),
    ] = None,
    dose: Annotated[
        list[float] | None,
        typer.Option(
            "--dose",
            help="add: distances between the class means; ablate, along: share of the way. Repeatable.",
        ),
    ] = None,
    tokens: TokensOption = None,
    site: PlacesOption = None,
    random: Annotated[int, typer.Option(help="Random directions of the same length.")] = 3,
    n_pairs: Annotated[int, typer.Option(help="Pairs of prompts to measure on.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(help="Per completion.")] = 160,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="A direction of another model, on purpose.")
    ] = False,
    seed: SeedOption = 0,
) -> None:
    """Does a direction cause defection? Judged with and without the trigger, dose by dose."""
    from probes.foundation.errors import InputError
    from probes.studies.steering.config import MODES, DoseConfig
    from probes.studies.steering.own_model import dose_curves_of

    changes: dict[str, object] = {"n_random": random, "n_pairs": n_pairs, "seed": seed}
    if direction is not None and site:
        raise InputError("a saved direction is measured at its own site: leave --site out")
    modes = tuple(mode or MODES)
    if dose:
        changes |= {name.split("_")[0]: tuple(dose) for name in modes}
    if tokens:
        changes["tokens"] = tuple(tokens)
    if site:
        changes["places"] = tuple(site)
    for name in modes:
        DoseConfig().doses(name)
    found = dose_curves_of(
        model, prompts, out, direction=direction, modes=modes,
        config=DoseConfig.model_validate(changes), max_new_tokens=max_new_tokens,
        temperature=temperature, allow_other=allow_other,
    )  # fmt: skip
    say(f"{found!r}\n\nTables and figures: {out}")
