"""Arguments that several verbs share, and how `name=value` pairs are read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from probes.foundation.errors import InputError, ProbesError
from probes.foundation.folders import output_folder

ModelArgument = Annotated[str, typer.Argument(help="Checkpoint: a local directory or a hub id.")]
PromptsOption = Annotated[
    Path, typer.Option("--prompts", help="JSON Lines of prompt pairs (see the README).")
]
OUT_HELP = (
    "Folder to write to: work that the same settings began there is continued, anything else there "
    "is refused."
)


def out_folder(path: str | Path) -> Path:
    """Check a folder to write to before anything is loaded."""
    try:
        return output_folder(path)
    except InputError as error:  # typer takes a ValueError for its own, and drops the text
        raise ProbesError(str(error)) from error


OutOption = Annotated[
    Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
]
LocationOption = Annotated[
    str,
    typer.Option("--out", help="Folder to write to, or an fsspec URL such as s3://bucket/store."),
]
SitesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        help="For instance resid_post.2, z.0, blocks.1.hook_mlp_out; default the residual stream. Repeatable.",
    ),
]
JudgeOption = Annotated[
    str,
    typer.Option(
        "--judge",
        help="Who says what a defection is: bandit, says:TEXT, matches:REGEX, refuses, labels (the "
        "`defected` of each prompt), or a function of your own as module:attribute.",
    ),
]
ImportOption = Annotated[
    bool, typer.Option("--allow-import", help="Import and run a judge given as module:attribute.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:0, mps.")]
ComputeOption = Annotated[
    str, typer.Option("--compute-dtype", help="Of the forward pass: float32, bfloat16, float16.")
]
AdapterOption = Annotated[
    str | None, typer.Option("--adapter", help="A LoRA adapter (directory or hub id), merged.")
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option("--device-map", help="auto, balanced or sequential: spread over devices."),
]
QuantizationOption = Annotated[
    str | None, typer.Option("--quantization", help="8bit or 4bit, with bitsandbytes.")
]
KeepSinksOption = Annotated[
    bool,
    typer.Option(
        "--keep-sinks",
        help="Count attention sinks (tokens of far larger norm, such as the first) like other tokens.",
    ),
]
TwinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--twin", help="A control as role=PATH; roles: innocent, quirk, base. Repeatable."
    ),
]
AllowImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        help="A module:attribute that a recipe names and that you trust; it is run. Repeatable.",
    ),
]


def refuse_unused(context: typer.Context, needed: str, *names: str) -> None:
    """Refuse options that were given and would be ignored, because `needed` was not.

    names: of the verb's parameters.
    """
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = [
        flags[name]
        for name in names
        if str(getattr(context.get_parameter_source(name), "name", "")) == "COMMANDLINE"
    ]
    if given:
        verb = "belongs" if len(given) == 1 else "belong"
        raise InputError(
            f"{', '.join(given)} {verb} to {needed}, which was not given: give it too, or leave "
            f"{'it' if len(given) == 1 else 'them'} out"
        )


def named(
    pairs: Iterable[str],
    option: str,
    form: str = "role=PATH, for instance innocent=my/twin",
) -> dict[str, str]:
    """Read `name=value` pairs; refuses one without "=" or a name given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        role, equals, value = pair.partition("=")
        if not equals or not role or not value:
            raise InputError(f"{option} is {form}; saw {pair!r}")
        if role in found:
            raise InputError(f"{option} names {role!r} twice")
        found[role] = value
    return found


LayersOption = Annotated[
    list[int] | None, typer.Option("--layer", help="Only these layers. Repeatable.")
]
SpansOption = Annotated[
    list[str] | None,
    typer.Option("--span", help="NAME=REGEX: where a named column begins. Repeatable."),
]
AlignmentOption = Annotated[str, typer.Option(help="Columns: shared or position.")]
MetricOption = Annotated[str, typer.Option(help="logprob, kl or kl-continuation.")]
DirectionOption = Annotated[str, typer.Option(help="denoise or noise.")]
ValuesOption = Annotated[str, typer.Option(help="paired, mean, zero, resampled or placebo.")]
PairsOption = Annotated[
    int, typer.Option("--n-pairs", help="Pairs to use, spread over the families.")
]
KIND_HELP = "resid_pre, q, k, v, pattern, z, attn_out, resid_mid, mlp_out or resid_post"
HeadsOption = Annotated[bool, typer.Option("--heads", help="One cell per head.")]
EverywhereOption = Annotated[
    bool, typer.Option("--everywhere", help="All tokens at once, no columns.")
]
WindowOption = Annotated[int, typer.Option("--window", help="Adjacent layers patched together.")]
SPAN_FORM = "NAME=REGEX, for instance task=Task:"


TokensOption = Annotated[
    list[str] | None,
    typer.Option("--tokens", help="last (of the prompt), all or new. Repeatable."),
]
PlacesOption = Annotated[
    list[str] | None,
    typer.Option("--site", help="probe, everywhere or such as resid_post.2. Repeatable."),
]


PresetOption = Annotated[str, typer.Option("--preset", help="default, or tiny for a first try.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="All settings, as JSON, instead of a preset.")
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", help="How many, from 0.")]
EngineOption = Annotated[
    str, typer.Option("--engine", help="process, or ray: RAY_ADDRESS or this machine.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="With ray: cells side by side.")
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="Of torch, per cell; they decide rounding.")
]
CpusOption = Annotated[
    float | None, typer.Option("--cpus", help="With ray: CPUs per cell; default as threads.")
]
RetriesOption = Annotated[
    int, typer.Option("--retries", help="With ray: tries more after a killed worker.")
]
