"""From sequences as they came to groups on disk that can be computed one by one."""

import dataclasses
from pathlib import Path

import numpy as np

from probes.activations.files import write_named
from probes.activations.format import FileRecord, GroupRecord, PartRecord
from probes.activations.groups import groups
from probes.activations.index import Index
from probes.activations.layout import Layout, lay_out
from probes.activations.positions import first_row_tokens, is_one_each
from probes.activations.spool import Spool


@dataclasses.dataclass(frozen=True)
class Limits:
    """How large a group may be: what an interruption costs, and what memory holds at a time."""

    max_tokens: int
    max_rows: int


def limits(shard_tokens: int, shard_bytes: int, n_sites: int, row_bytes: int) -> Limits:
    """Groups of at most `shard_tokens` tokens, whose residual stream is at most `shard_bytes`.

    The bound takes the residual stream at every layer, whatever sites are asked for, so that sites
    which are added later fit into the same groups.
    """
    return Limits(shard_tokens, max(1, shard_bytes // (n_sites * row_bytes)))


def plan_part(
    path: Path,
    spool: Spool,
    labels: FileRecord,
    positions: str,
    first_group: int,
    limit: Limits,
) -> PartRecord:
    """A part without activations yet: its layouts and its index are written, group by group."""
    n_sequences = len(spool)
    n_rows = np.zeros(n_sequences, dtype=np.int64)
    for i in range(n_sequences):
        n_rows[i] = first_row_tokens(positions, spool.extent(i))[2]
    group = np.empty(n_sequences, dtype=np.int32)
    first_row = np.empty(n_sequences, dtype=np.int64)
    planned = []
    chosen = groups(spool.lengths, n_rows, is_one_each(positions), limit.max_tokens, limit.max_rows)
    for number, members in enumerate(chosen):
        layout = _layout(spool, members, positions)
        group[members] = number
        first_row[members] = layout.row_offsets[:-1]
        planned.append(
            GroupRecord(
                n_sequences=layout.n_sequences,
                n_rows=layout.n_rows,
                n_tokens=layout.n_tokens,
                layout=write_named(path, "layout", layout.to_bytes()),
                shards=(),
            )
        )
    index = Index(
        sequence_id=np.frombuffer(spool.ids.tobytes(), dtype=np.uint8).reshape(-1, 32),
        group=group,
        first_row=first_row,
        n_rows=n_rows.astype(np.int32),
        n_tokens=spool.lengths.astype(np.int32),
        n_prompt_tokens=spool.n_prompt_tokens.astype(np.int32),
    )
    return PartRecord(
        n_sequences=n_sequences,
        n_rows=int(n_rows.sum()),
        first_group=first_group,
        prompts=labels,
        index=write_named(path, "index", index.to_bytes()),
        groups=tuple(planned),
    )


def _layout(spool: Spool, members: np.ndarray, positions: str) -> Layout:
    chosen = [int(i) for i in members]
    return lay_out(
        [spool.id(i) for i in chosen],
        [spool.tokens(i) for i in chosen],
        [spool.extent(i) for i in chosen],
        positions,
    )
