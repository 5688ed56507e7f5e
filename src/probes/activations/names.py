"""Which files belong to a store, told by their names: a name from elsewhere may point anywhere."""

import re
from pathlib import Path

from probes.activations.format import FINISHED, MANIFEST, PROVENANCE, UNFINISHED, Manifest
from probes.foundation.artifact import TEMPORARY
from probes.foundation.errors import IntegrityError

SHARD = r"shard-[0-9a-f]{16}\.safetensors"
TABLE = r"prompts-[0-9a-f]{16}\.parquet|(?:index|layout)-[0-9a-f]{16}\.safetensors"
DATA = re.compile(f"{SHARD}|{TABLE}")
SIDECAR = re.compile(SHARD + re.escape(FINISHED))


def check_names(manifest: Manifest, where: Path | str) -> None:
    """Refuse a manifest that names a file outside its store; raises `IntegrityError`.

    A name becomes a path that is read, written or deleted, and the key of a manifest does not cover
    the names of its files.
    """
    for record in manifest.files:
        if not DATA.fullmatch(record.file):
            raise IntegrityError(
                f"the manifest of {where} names a file {record.file!r}, which no store has: it was "
                "edited. Names are such as shard-0123456789abcdef.safetensors"
            )


def kind_of(name: str) -> str | None:
    """What a file is for in a store, by its name; None for one that is not a store's."""
    if DATA.fullmatch(name):
        return name.partition("-")[0]
    if SIDECAR.fullmatch(name):
        return "record of a finished shard"
    if name.startswith(TEMPORARY):
        return "temporary file"
    if name == UNFINISHED:
        return "mark of a collection under way"
    if name == PROVENANCE:
        return "history"
    return "manifest" if name == MANIFEST else None


def names_of(manifest: Manifest) -> frozenset[str]:
    """Names of the files that a manifest answers for."""
    return frozenset(record.file for record in manifest.files)
