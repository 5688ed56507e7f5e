"""One shard: ragged rows of activations and the index that says which prompt and token each is."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.activations.format import FileRecord, ShardRecord
from probes.activations.spec import Positions
from probes.foundation.artifact import write_bytes
from probes.foundation.digest import digest_bytes, digest_file
from probes.foundation.errors import InputError, IntegrityError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which tokens a shard stores, before any is computed.

    offsets: rows of the shard's i-th prompt are `offsets[i]` to `offsets[i + 1]`.
    prompt_index: row of the prompts table. position: token index in the unpadded prompt.
    """

    offsets: Int[Tensor, "prompt_and_end"]
    prompt_index: Int[Tensor, "row"]
    position: Int[Tensor, "row"]

    @property
    def n_rows(self) -> int:
        return len(self.position)

    def rows_of(self, member: int) -> slice:
        """Rows of the shard's i-th prompt."""
        return slice(int(self.offsets[member]), int(self.offsets[member + 1]))


def lay_out(lengths: Sequence[int], first_prompt: int, positions: Positions) -> Layout:
    """The rows of a shard whose prompts have these token counts, by prompt and then by token."""
    chosen = [
        torch.tensor(stored_positions(length, positions, first_prompt + member))
        for member, length in enumerate(lengths)
    ]
    counts = torch.tensor([len(tokens) for tokens in chosen])
    members = torch.arange(first_prompt, first_prompt + len(lengths))
    return Layout(
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]),
        prompt_index=members.repeat_interleave(counts),
        position=torch.cat(chosen),
    )


def stored_positions(length: int, positions: Positions, prompt: int) -> list[int]:
    """Token indices that are stored of a prompt of this length."""
    if positions == "all":
        return list(range(length))
    from_end = -1 if positions == "last" else int(positions)
    if length + from_end < 0:
        raise InputError(f"prompt {prompt} has {length} tokens, so none at position {from_end}")
    return [length + from_end]


def write_shard(
    file: Path, layout: Layout, values: Mapping[str, Float[Tensor, "row d_model"]]
) -> ShardRecord:
    """Write a shard so that it is there whole or not at all; same values, same bytes."""
    index = {"offsets": layout.offsets, "prompt_index": layout.prompt_index}
    data = safetensors.torch.save({**values, **index, "position": layout.position})
    write_bytes(file, data)
    return ShardRecord(
        file=file.name,
        sha256=digest_bytes(data),
        bytes=len(data),
        first_prompt=int(layout.prompt_index[0]),
        n_prompts=len(layout.offsets) - 1,
        n_rows=layout.n_rows,
    )


def check_size(path: Path, record: FileRecord) -> None:
    """Cheap check that a file of a store is there and of its length; for every opening."""
    file = path / record.file
    if not file.is_file():
        raise IntegrityError(f"{file} is missing; delete {path} and collect again")
    if (size := file.stat().st_size) != record.bytes:
        raise IntegrityError(
            f"{file} has {size} bytes, the manifest says {record.bytes}: it was cut or changed. "
            f"Delete {path} and collect again"
        )


def check_digest(path: Path, record: FileRecord) -> None:
    """Full check of a file of a store: every byte is as written."""
    check_size(path, record)
    if (seen := digest_file(path / record.file)) != record.sha256:
        raise IntegrityError(
            f"{path / record.file} was changed after it was written: sha256 {seen}, the manifest "
            f"says {record.sha256}. Delete {path} and collect again"
        )
