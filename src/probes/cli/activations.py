"""Verbs on activation stores: `collect` and the `store` group."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    AdapterOption,
    ComputeOption,
    DeviceMapOption,
    DeviceOption,
    KeepSinksOption,
    LocationOption,
    ModelArgument,
    PromptsOption,
    QuantizationOption,
    SeedOption,
    SitesOption,
    named,
    refuse_unused,
)
from probes.cli.checking import checked
from probes.foundation.terminal import say


def collect(
    context: typer.Context,
    model: ModelArgument,
    prompts: PromptsOption,
    out: LocationOption,
    site: SitesOption = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="last, a negative index from the prompt's end, all, prompt, answer, first_answer, "
            "last_answer, trigger, a --span, or mean: with any of these. By default last; with "
            "--generate answer."
        ),
    ] = None,
    span: Annotated[
        list[str] | None,
        typer.Option(help="A span as NAME=REGULAR_EXPRESSION, for --positions NAME. Repeatable."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="No row for prompts without the span.")
    ] = False,
    completions: Annotated[
        Path | None,
        typer.Option(help="Read these after the prompts: a folder that `probes evaluate` wrote."),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Let the model write, and collect while it does.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="With --generate.")] = 160,
    temperature: Annotated[float, typer.Option(help="With --generate; 0 is greedy.")] = 1.0,
    samples: Annotated[int, typer.Option(help="With --generate: per prompt.")] = 1,
    seed: SeedOption = 0,
    dtype: Annotated[str, typer.Option(help="Stored precision.")] = "float32",
    token_budget: Annotated[int, typer.Option(help="Tokens per forward pass.")] = 8192,
    engine: Annotated[str, typer.Option(help="process, or ray.")] = "process",
    device: DeviceOption = "cpu",
    compute_dtype: ComputeOption = "float32",
    adapter: AdapterOption = None,
    device_map: DeviceMapOption = None,
    quantization: QuantizationOption = None,
    keep_sinks: KeepSinksOption = False,
    no_self_test: Annotated[
        bool, typer.Option("--no-self-test", help="Trust the hooks on this model unseen.")
    ] = False,
) -> None:
    """Self-test the model's hooks, then store its activations; asked for more, add what is lacking."""
    from probes.api import collect as run
    from probes.behaviour.evaluate import SamplingConfig
    from probes.foundation.errors import unknown
    from probes.models.loading import DTYPES, load

    if not generate:
        refuse_unused(context, "--generate", "max_new_tokens", "temperature", "samples")
    if compute_dtype not in DTYPES:
        raise unknown("compute dtype", compute_dtype, DTYPES)
    loaded = load(
        model,
        device=device,
        dtype=DTYPES[compute_dtype],
        adapter=adapter,
        device_map=device_map,
        quantization=quantization,
    )
    sampling = SamplingConfig(
        max_new_tokens=max_new_tokens, temperature=temperature, n=samples, seed=seed
    )
    say(
        run(
            loaded,
            prompts,
            out,
            sites=site,
            positions=positions,
            spans=named(span or [], "--span", "NAME=REGULAR_EXPRESSION"),
            completions=completions,
            generate=sampling if generate else None,
            allow_missing=allow_missing,
            dtype=dtype,
            token_budget=token_budget,
            keep_sinks=keep_sinks,
            engine=engine,
            self_test=not no_self_test,
        )
    )


app = typer.Typer(
    help="Keep activation stores: verify, repair, ls, gc, merge, export, push, fetch.",
    no_args_is_help=True,
)
MOST_GROUPS = 20

StoreArgument = Annotated[Path, typer.Argument(help="Directory of an activation store.")]
UrlArgument = Annotated[
    str, typer.Argument(help="Where fsspec finds it, for instance s3://bucket/store.")
]


@app.callback()
def store() -> None:
    """Keep activation stores: verify, repair, ls, gc, merge, export, push, fetch."""


@app.command("verify")
@checked
def verify(path: StoreArgument) -> None:
    """Compare every file with its sha256; exit status 1 if any is damaged."""
    from probes.activations.maintenance.verification import check
    from probes.cli.show import show_table

    report = check(path)
    say(report.summary)
    if report.is_whole:
        return
    show_table(report.table)
    say("\n".join(report.remedies))
    raise typer.Exit(1)


@app.command("repair")
@checked
def repair(
    path: StoreArgument,
    model: Annotated[str, typer.Option("--model", help="Checkpoint that made the store.")],
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="JSON Lines they came from, for labels and layouts."),
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter that was merged.")] = None,
    device: Annotated[
        str | None, typer.Option(help="By default the kind of device that made the store.")
    ] = None,
) -> None:
    """Make exactly the damaged files again; exit status 1 if any stays damaged."""
    from probes.activations.maintenance.repair import repair as run
    from probes.activations.manifests import read_finished
    from probes.cli.show import show_table
    from probes.models.loading import DTYPES, load

    manifest = read_finished(path)
    loaded = load(
        model,
        device=device or manifest.makers[-1].device,
        dtype=DTYPES[manifest.origin.compute_dtype],
        adapter=adapter,
        quantization=manifest.origin.quantization,
    )
    done = run(path, loaded, prompts)
    say(done.summary)
    if len(done.table):
        show_table(done.table)
    if not done.is_whole:
        raise typer.Exit(1)


@app.command("ls")
@checked
def ls(
    path: Annotated[Path, typer.Argument(help="A folder of stores, or one store.")] = Path(),
) -> None:
    """Every store below a folder, or the parts, groups and history of one."""
    from probes.activations.maintenance.listing import describe, is_finished, list_stores
    from probes.cli.show import show_table

    found = list_stores(path)
    if found.empty:
        say(f"no activation stores below {path}")
        return
    show_table(found)
    if not is_finished(path):
        return
    contents = describe(path)
    tables = {"parts": contents.parts, "groups": contents.groups, "history": contents.history}
    for name, table in tables.items():
        say(f"\n{name}")
        show_table(table.head(MOST_GROUPS) if name == "groups" else table)
    if len(contents.groups) > MOST_GROUPS:
        say(f"and {len(contents.groups) - MOST_GROUPS} more groups")


@app.command("gc")
@checked
def gc(
    path: StoreArgument,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; else only list.")] = False,
) -> None:
    """Files that no manifest names: what interrupted collections left behind."""
    from probes.activations.maintenance.garbage import delete_garbage, find_garbage
    from probes.cli.show import show_table

    found = delete_garbage(path) if delete else find_garbage(path)
    if found.files:
        show_table(found.table)
    say(found.summary)


@app.command("merge")
@checked
def merge(
    out: Annotated[Path, typer.Argument(help="Directory of the new store.")],
    stores: Annotated[list[Path], typer.Argument(help="Two stores of one origin, or more.")],
) -> None:
    """One store of several: their sites joined, their sequences one after the other."""
    from probes.activations.maintenance.merging import merge as run

    say(run(out, stores))


@app.command("export")
def export(
    location: Annotated[str, typer.Argument(help="A store: a directory or an fsspec URL.")],
    out: Annotated[Path, typer.Argument(help=".npy, .npz, .parquet, .safetensors or .csv.")],
    site: Annotated[
        list[str] | None, typer.Option("--site", help="For instance resid_post.2. Repeatable.")
    ] = None,
    position: Annotated[
        int | None, typer.Option(help="One row per sequence: this of its kept tokens.")
    ] = None,
) -> None:
    """Activations with their labels as a file for other programs."""
    from probes.activations.maintenance.export import export as run
    from probes.activations.maintenance.remote import open_store

    say(run(open_store(location), out, site, position))


@app.command("push")
@checked
def push(path: StoreArgument, url: UrlArgument) -> None:
    """Upload a finished store, its manifest last; goes on where it was interrupted."""
    from probes.activations.maintenance.remote import push as run

    say(run(path, url))


@app.command("fetch")
def fetch(
    url: UrlArgument,
    out: Annotated[Path, typer.Argument(help="Directory to bring it to.")],
) -> None:
    """Download a store and check every byte; goes on where it was interrupted."""
    from probes.activations.maintenance.remote import fetch as run

    say(run(url, out))
