"""Finished shards go to disk in a thread of their own, so that the model need not wait for the disk."""

import dataclasses
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from probes.activations.engine import Engine, Task, make_tasks
from probes.activations.files import check_digest, write_tensors
from probes.activations.format import (
    MANIFEST,
    PROVENANCE,
    VERSIONED,
    Collection,
    Finished,
    GroupRecord,
    History,
    Maker,
    Manifest,
    PartRecord,
    ShardRecord,
    manifest_key,
    read_manifest,
    with_shards,
)
from probes.activations.index import find, read_index
from probes.activations.origin import Origin
from probes.activations.place import read_history
from probes.foundation.artifact import write_text
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.progress import bar
from probes.foundation.provenance import provenance
from probes.models.loading import Model

Item = tuple[Task, dict[str, Tensor]]


class Writer:
    """Writes shards in the order they come; holds one while it writes another.

    What went wrong in the thread is raised by the next `put`, or at the end of the `with`.
    """

    def __init__(self, maker: Maker, maker_index: int) -> None:
        self.records: dict[int, list[ShardRecord]] = {}
        self._maker = maker
        self._maker_index = maker_index
        self._waiting: queue.Queue[Item | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write activations", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiting.put(None)
        self._thread.join()
        if error is None:
            self._raise_failure()

    def put(self, task: Task, values: dict[str, Tensor]) -> None:
        """Hand over a shard; waits while the one before it has not begun to be written."""
        self._raise_failure()
        self._waiting.put((task, values))

    def keep(self, task: Task, record: ShardRecord) -> None:
        """Take over a shard that an earlier run finished."""
        self.records.setdefault(task.group, []).append(
            record.model_copy(update={"maker": self._maker_index})
        )

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._write(*item)
            except BaseException as error:  # noqa: BLE001 - raised again where it can be seen
                self._failure = error

    def _write(self, task: Task, values: dict[str, Tensor]) -> None:
        path = task.layout_file.with_name(task.file)
        record = write_tensors(path, values).shard(values, self._maker_index)
        # Not synced: a torn sidecar is no sidecar, and its shard is made again.
        task.sidecar.write_text(Finished(maker=self._maker, shard=record).to_json())
        self.keep(task, record)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def finished_shard(task: Task, maker: Maker) -> ShardRecord | None:
    """The record of a shard that an earlier run finished, if every byte of it can be trusted.

    One that other libraries, another kind of device or another token budget made is made again.
    """
    if not task.sidecar.exists():
        return None
    try:
        finished = Finished.from_file(task.sidecar)
        if finished.maker != maker or finished.shard.file != task.file:
            return None
        check_digest(task.sidecar.parent, finished.shard)
    except (InputError, IntegrityError, UnicodeDecodeError):
        return None
    return finished.shard


@dataclasses.dataclass(frozen=True)
class Request:
    """One call, its settings checked. widths: of the asked sites, in order of depth."""

    model: Model
    path: Path
    origin: Origin
    widths: dict[str, tuple[int, ...]]
    maker: Maker
    shard_tokens: int
    shard_bytes: int
    engine: Engine


def extended(
    request: Request,
    there: Manifest | None,
    part: PartRecord,
    makers: tuple[Maker, ...] | None = None,
) -> Manifest:
    """The manifest of the store with one more part, still without a key. makers: by default those there."""
    known = there.makers if there else ()
    return Manifest(
        key="",
        origin=request.origin,
        model=request.model.name,
        n_layers=request.model.n_layers,
        widths={**(there.widths if there else {}), **request.widths},
        makers=known if makers is None else makers,
        parts=(*(there.parts if there else ()), part),
    )


def make_maker(model: Model, token_budget: int) -> Maker:
    """What computes here and now."""
    versions = provenance()["versions"]
    device = model.device.type
    return Maker(
        versions={name: versions[name] for name in VERSIONED},
        device=device,
        n_threads=torch.get_num_threads() if device == "cpu" else 0,
        token_budget=positive("token_budget", token_budget),
    )


def fill(request: Request, manifest: Manifest, asked: np.ndarray) -> Manifest:
    """Make every asked site of every group that holds an asked sequence; returns what is now there.

    asked: ids. Shards that an interrupted run finished are taken over. The manifest is written last,
    and only if there is something new to say.
    """
    groups = manifest.groups
    tasks = make_tasks(
        request.path,
        [(number, groups[number]) for number in _groups_of(request.path, manifest, asked)],
        list(request.widths),
        request.origin.dtype,
        request.maker.token_budget,
        request.origin.sinks,
    )
    there = read_manifest(request.path)
    n_old = there.n_sequences if there else 0
    if there and not tasks and manifest.n_sequences == n_old and manifest.widths == there.widths:
        return there
    makers = manifest.makers
    if request.maker not in makers:
        makers = (*makers, request.maker)
    records = run(request, tasks, makers.index(request.maker))

    def joined(number: int, group: GroupRecord) -> list[ShardRecord]:
        return [*group.shards, *records.get(number, ())]

    parts = with_shards(manifest.parts, joined)
    filled = manifest.model_copy(update={"makers": makers, "parts": parts})
    made = Collection(
        provenance=provenance(),
        n_new_sequences=manifest.n_sequences - n_old,
        n_shards_made=len(tasks),
        sites=tuple(request.widths),
    )
    return publish(request.path, filled, made)


def run(
    request: Request, tasks: Sequence[Task], maker_index: int
) -> Mapping[int, Sequence[ShardRecord]]:
    """The shards of these tasks by group, made now or found finished."""
    with (
        bar("collect activations", total=sum(task.n_tokens for task in tasks)) as tokens,
        Writer(request.maker, maker_index) as writer,
    ):
        left = []
        for task in tasks:
            if record := finished_shard(task, request.maker):
                writer.keep(task, record)
                tokens.update(task.n_tokens)
            else:
                left.append(task)
        if left:
            for task, values in request.engine(request.model, left, request.maker):
                writer.put(task, values)
                tokens.update(task.n_tokens)
    return writer.records


def publish(path: Path, manifest: Manifest, made: Collection) -> Manifest:
    """Write the history and then the manifest, in one rename: from here on its files count."""
    collections = (*read_history(path).collections, made)
    write_text(path / PROVENANCE, History(collections=collections).to_json())
    key = manifest_key(manifest.origin, manifest.widths, manifest.parts)
    published = manifest.model_copy(update={"key": key})
    write_text(path / MANIFEST, published.to_json())
    return published


def positive(name: str, value: int) -> int:
    """The value, or an `InputError` that names the setting."""
    if value < 1:
        raise InputError(f"{name} is a positive number, not {value}")
    return value


def _groups_of(path: Path, manifest: Manifest, asked: np.ndarray) -> list[int]:
    """Numbers of the groups that hold these sequences."""
    index = read_index(path, manifest.parts)
    places = find(index.ids, asked)
    return [int(number) for number in np.unique(index.group[places])]
