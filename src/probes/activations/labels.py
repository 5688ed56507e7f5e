"""The labels of a part's sequences, one row each, written as they come and read when asked for."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probes.activations.format import FileRecord
from probes.activations.sequences import TokenSequence
from probes.foundation.artifact import disk_errors, sync_directory, temporary_name
from probes.foundation.digest import digest_file
from probes.prompts.records import with_design

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("pair", pa.string()),
        ("prompt_set", pa.string()),
        ("family", pa.string()),
        ("template", pa.string()),
        ("triggered", pa.bool_()),
        ("heldout", pa.string()),
        ("cue", pa.string()),
        ("able", pa.bool_()),
        ("n_tokens", pa.int64()),
        ("n_prompt_tokens", pa.int64()),
        ("completion", pa.string()),
    ]
)


class Labels:
    """A table under a temporary name that takes rows a piece at a time; `finish` names it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = temporary_name(folder / "prompts.parquet")
        try:
            self._writer = pq.ParquetWriter(self.file, SCHEMA)
        except OSError:
            self.file.unlink(missing_ok=True)
            raise

    def append(self, sequences: Sequence[TokenSequence]) -> None:
        if sequences:
            self._writer.write_table(_arrow(sequences))

    def finish(self) -> FileRecord:
        """Give the table the name that its content decides."""
        self._writer.close()
        digest = digest_file(self.file)
        record = FileRecord(
            file=f"prompts-{digest[:16]}.parquet", sha256=digest, bytes=self.file.stat().st_size
        )
        with self.file.open("rb") as file:
            os.fsync(file.fileno())
        self.file.replace(self._folder / record.file)
        sync_directory(self._folder)
        return record

    def close(self) -> None:
        """End without a table, if it was not finished."""
        try:
            self._writer.close()
        finally:
            self.file.unlink(missing_ok=True)


@contextlib.contextmanager
def labelling(folder: Path) -> Iterator[Labels]:
    """A table of labels to fill; what is not finished is gone afterwards."""
    with disk_errors(folder):
        labels = Labels(folder)
        try:
            yield labels
        finally:
            labels.close()


def read_labels(files: Sequence[Path]) -> pd.DataFrame:
    """The labels of these parts, one below the other."""
    return pd.concat([with_design(pd.read_parquet(file)) for file in files], ignore_index=True)


def label_table(sequences: Sequence[TokenSequence]) -> pd.DataFrame:
    """The labels of these sequences, as `read_labels` would give them back."""
    return _arrow(sequences).to_pandas()


def _arrow(sequences: Sequence[TokenSequence]) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {
            **sequence.prompt.as_row(),
            "n_tokens": sequence.extent.n_tokens,
            "n_prompt_tokens": sequence.extent.n_prompt,
            "completion": sequence.completion,
        }
        for sequence in sequences
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
