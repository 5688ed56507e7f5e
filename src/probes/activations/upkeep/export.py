"""Activations for other programs: one file with what each row is, written while it is read."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from probes.activations.store import ActivationStore
from probes.activations.upkeep import export_arrays, export_tables
from probes.activations.upkeep.selection import Selection, select
from probes.foundation.artifact import disk_errors, sync_directory, temporary_name
from probes.foundation.errors import InputError, unknown
from probes.models.sites import Site

WRITERS: dict[str, Callable[[Path, Selection], None]] = {
    ".npy": export_arrays.write_npy,
    ".npz": export_arrays.write_npz,
    ".parquet": export_tables.write_parquet,
    ".safetensors": export_arrays.write_safetensors,
    ".csv": export_tables.write_csv,
}
ONE_SITE = (".npy", ".npz", ".csv")


def export(
    store: ActivationStore,
    out: Path | str,
    sites: Iterable[Site | str] | None = None,
    position: int | None = None,
) -> Path:
    """Write rows of a store to one file, whose suffix says what it will be.

    Every row that the store (or the view of it) has, sequence after sequence; with `position`, one
    row per sequence, as `ActivationStore.matrix` gives it. sites: None for all; .npy, .npz and .csv
    hold one site.

    .npy: the matrix alone. .npz: the matrix `X`, and an array for each label and each column of
    `row_index`; the text of completions is left out. .parquet and .csv: a table of labels,
    position and token, with a list of numbers per site, or a column per feature. .safetensors: a
    matrix per site in the stored dtype, and the columns of `row_index` as tensors.

    All but .csv and .npy say which model and store they come from. Memory stays bounded by a piece
    of the rows. Every number is checked against its checksum. Raises `InputError` for another
    suffix, for a file that exists, and for a site or a position that the store does not have.
    """
    out = Path(out)
    if out.suffix not in WRITERS:
        raise unknown("suffix of an export", out.suffix, WRITERS)
    if os.path.lexists(out):
        raise InputError(f"{out} is there already; choose another name, or delete it")
    chosen = select(store, sites, position)
    if out.suffix in ONE_SITE and len(chosen.names) != 1:
        raise InputError(
            f"a {out.suffix} file holds one site; choose one of: {', '.join(chosen.names)}; or "
            "write .parquet or .safetensors"
        )
    chosen.check()
    temporary = temporary_name(out)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            WRITERS[out.suffix](temporary, chosen)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(out)
            sync_directory(out.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return out
