"""What of a store is not as it was written: every damaged file by name, and what was in it."""

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from probes.activations.format import FileRecord, Manifest
from probes.activations.place import read_finished
from probes.foundation.digest import digest_file, short
from probes.foundation.html import html_table, html_text
from probes.foundation.progress import progress

MAX_THREADS = 8
REMEDY = {
    "shard": "`probes store repair {path} --model MODEL` makes it again",
    "layout": "`probes store repair {path} --model MODEL --prompts FILE` makes it again",
    "index": "`probes store repair {path} --model MODEL` makes it again from labels and layouts",
    "prompts": "`probes store repair {path} --model MODEL --prompts FILE` makes it again",
}


@dataclasses.dataclass(frozen=True)
class Holding:
    """A file of a store and what is in it.

    kind: "shard", "layout" or "index", or "prompts" for the labels. part, group: their numbers in
    the store; no group for a file of a whole part. sites: of a shard.
    """

    record: FileRecord
    kind: str
    part: int
    group: int | None
    n_sequences: int
    sites: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """What is in it, in words."""
        where = f"part {self.part}" if self.group is None else f"group {self.group}"
        what = {"shard": ", ".join(self.sites), "prompts": "labels"}.get(self.kind, self.kind)
        return f"{what} of the {self.n_sequences} sequences of {where}"


@dataclasses.dataclass(frozen=True)
class Damage:
    """A file that is not as the manifest says. fault: missing, cut or changed, with numbers."""

    holding: Holding
    fault: str

    def __str__(self) -> str:
        return f"{self.holding.record.file}: {self.fault}; {self.holding.content}"


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """What `check` found. n_files, n_bytes: that were looked at, as they should be."""

    path: Path
    n_files: int
    n_bytes: int
    damaged: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        return not self.damaged

    @property
    def table(self) -> pd.DataFrame:
        """One row per damaged file."""
        return damage_table(self.damaged)

    @property
    def remedies(self) -> list[str]:
        """What to do about it, each command once."""
        kinds = dict.fromkeys(damage.holding.kind for damage in self.damaged)
        return [f"{kind}: {REMEDY[kind].format(path=self.path)}" for kind in kinds]

    @property
    def summary(self) -> str:
        size = f"{self.n_files} files, {self.n_bytes / 2**20:.1f} MiB"
        if self.is_whole:
            return f"{self.path}: {size}, all as written"
        return f"{self.path}: {size}, {len(self.damaged)} damaged files"

    def __repr__(self) -> str:
        return "\n".join([self.summary, *map(str, self.damaged), *self.remedies])

    def _repr_html_(self) -> str:
        if self.is_whole:
            return html_text(self.summary)
        return html_table(self.table, self.summary) + "".join(map(html_text, self.remedies))


def check(path: Path | str) -> Report:
    """Compare every file of a store with its sha256 and name all that are damaged.

    Unlike `ActivationStore.open`, it reads on where files are missing. Raises `InputError` where no
    finished store lies, and `IntegrityError` for an edited manifest, which names nothing to trust.
    """
    path = Path(path)
    manifest = read_finished(path)
    return Report(
        path=path,
        n_files=len(manifest.files),
        n_bytes=manifest.n_bytes,
        damaged=find_damage(path, manifest),
    )


def find_damage(path: Path, manifest: Manifest) -> tuple[Damage, ...]:
    """The damaged files of a store, in the order of the manifest."""
    held = list(holdings(manifest))
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        faults = pool.map(lambda holding: _fault(path, holding.record), held)
        shown = progress(faults, "verify activations", total=len(held))
        return tuple(
            Damage(holding, fault)
            for holding, fault in zip(held, shown, strict=True)
            if fault is not None
        )


def holdings(manifest: Manifest) -> Iterator[Holding]:
    """Every file that a manifest answers for, with what it holds."""
    for number, part in enumerate(manifest.parts):
        yield Holding(part.prompts, "prompts", number, None, part.n_sequences)
        yield Holding(part.index, "index", number, None, part.n_sequences)
        for group, record in enumerate(part.groups, start=part.first_group):
            yield Holding(record.layout, "layout", number, group, record.n_sequences)
            for shard in record.shards:
                yield Holding(shard, "shard", number, group, record.n_sequences, shard.sites)


def damage_table(damaged: tuple[Damage, ...]) -> pd.DataFrame:
    """Damaged files as a table, one row each."""
    return pd.DataFrame(
        [
            {"file": each.holding.record.file, "fault": each.fault, "held": each.holding.content}
            for each in damaged
        ],
        columns=["file", "fault", "held"],
    )


def _fault(path: Path, record: FileRecord) -> str | None:
    file = path / record.file
    try:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            return "no plain file but a link, a folder or a pipe"
        size = file.stat().st_size
        if size != record.bytes:
            how = "cut" if size < record.bytes else "too long"
            return f"{how}: {size:,} of {record.bytes:,} bytes"
        seen = digest_file(file)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if seen != record.sha256:
        return f"changed: sha256 {short(seen)}, written as {short(record.sha256)}"
    return None
