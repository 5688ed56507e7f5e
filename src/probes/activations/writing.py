"""Finished shards go to disk in a thread of their own, so that the model need not wait for the disk."""

import queue
import threading
from types import TracebackType

from torch import Tensor

from probes.activations.files import check_digest, write_tensors
from probes.activations.format import Finished, Maker, ShardRecord
from probes.activations.tasks import Task
from probes.foundation.errors import InputError, IntegrityError

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
