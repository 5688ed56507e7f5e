"""`probes store`: verify, repair, list, tidy, join, export and move the stores of activations."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.checking import checked
from probes.foundation.terminal import say

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
    from probes.activations.upkeep.checking import check
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
    from probes.activations.manifests import read_finished
    from probes.activations.upkeep.repair import repair as run
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
    from probes.activations.upkeep.listing import describe, is_finished, list_stores
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
    from probes.activations.upkeep.garbage import delete_garbage, find_garbage
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
    from probes.activations.upkeep.merging import merge as run

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
    from probes.activations.upkeep.export import export as run
    from probes.activations.upkeep.remote import open_store

    say(run(open_store(location), out, site, position))


@app.command("push")
@checked
def push(path: StoreArgument, url: UrlArgument) -> None:
    """Upload a finished store, its manifest last; goes on where it was interrupted."""
    from probes.activations.upkeep.remote import push as run

    say(run(path, url))


@app.command("fetch")
def fetch(
    url: UrlArgument,
    out: Annotated[Path, typer.Argument(help="Directory to bring it to.")],
) -> None:
    """Download a store and check every byte; goes on where it was interrupted."""
    from probes.activations.upkeep.remote import fetch as run

    say(run(url, out))
