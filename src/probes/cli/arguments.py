"""Arguments that several verbs share, and how `name=value` pairs are read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from probes.foundation.errors import InputError

ModelArgument = Annotated[str, typer.Argument(help="Checkpoint: a local directory or a hub id.")]
PromptsOption = Annotated[
    Path, typer.Option("--prompts", help="JSON Lines of prompt pairs (see the README).")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
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
