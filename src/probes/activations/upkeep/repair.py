"""Mend a damaged store: exactly the damaged files are made again, from what the store knows."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pandas as pd
import torch

from probes.activations import format as records
from probes.activations.compute import Job, compute
from probes.activations.files import write_tensors
from probes.activations.filling import make_maker, publish
from probes.activations.format import GroupRecord, Maker, Manifest, ShardRecord, with_shards
from probes.activations.layout import Layout
from probes.activations.manifests import read_finished
from probes.activations.origin import Origin
from probes.activations.place import claimed
from probes.activations.upkeep.checking import Damage, damage_table, find_damage
from probes.activations.upkeep.rebuilding import read_sequences, rebuild
from probes.foundation.artifact import disk_errors
from probes.foundation.errors import InputError
from probes.foundation.procedures import VERSIONS
from probes.foundation.progress import progress
from probes.foundation.provenance import provenance
from probes.models.loading import Model
from probes.prompts.records import Prompt


@dataclasses.dataclass(frozen=True, repr=False)
class Repaired:
    """What a repair came to. restored: in the very bytes that were lost. remade: with other bytes,
    as the numbers are rounded otherwise by another machine or library, or in reading what the model
    once wrote; the manifest has their new digests. left: as they were, and why.
    """

    path: Path
    restored: tuple[Damage, ...]
    remade: tuple[Damage, ...]
    left: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        return not self.left

    @property
    def table(self) -> pd.DataFrame:
        """One row per file that was damaged, with what became of it."""
        named = {"restored": self.restored, "remade": self.remade, "left": self.left}
        tables = [damage_table(each).assign(outcome=name) for name, each in named.items()]
        return pd.concat(tables, ignore_index=True)

    @property
    def summary(self) -> str:
        if not (self.restored or self.remade or self.left):
            return f"{self.path}: nothing is damaged"
        told = [f"{len(self.restored)} files restored byte for byte"]
        if self.remade:
            told.append(
                f"{len(self.remade)} remade with other bytes (rounded otherwise here than where they "
                "were made; the manifest has the new digests)"
            )
        if self.left:
            told.append(f"{len(self.left)} still damaged")
        return f"{self.path}: {', '.join(told)}"

    def __repr__(self) -> str:
        return "\n".join([self.summary, *map(str, self.left)])


def repair(
    path: Path | str,
    model: Model,
    prompts: Iterable[Prompt] | Path | str | None = None,
    completions: Iterable[str] | None = None,
) -> Repaired:
    """Make the damaged files of a store again and touch no other.

    Activations follow from the layout of their group and the model, with the dtype, the token
    budget and the number of threads that made them. The index follows from labels and layouts;
    these two from the prompts (and completions), if they are given. What comes out is compared
    with the recorded sha256: activations that differ get a new record, with their new maker.
    Raises `InputError` for another model than the store's, before anything is written.
    """
    path = Path(path)
    check_model(read_finished(path).origin, model)
    with disk_errors(path), claimed(path):
        manifest = read_finished(path)
        damaged = find_damage(path, manifest)
        sequences = None
        if prompts is not None and any(each.holding.kind != "shard" for each in damaged):
            sequences = read_sequences(model, manifest.origin, prompts, completions)
        made: list[Damage] = []
        left: list[Damage] = []
        parts = []
        for number, part in enumerate(manifest.parts):
            of_part = [
                damage
                for damage in damaged
                if damage.holding.part == number and damage.holding.kind != "shard"
            ]
            rebuilt = rebuild(path, part, manifest.origin, of_part, sequences)
            parts.append(rebuilt.part)
            made += rebuilt.made
            left += rebuilt.left
        mended = manifest.model_copy(update={"parts": tuple(parts)})
        lost = {damage.holding.record.file for damage in left}
        shards = {each.holding.record.file: each for each in damaged if each.holding.sites}
        for group, record in progress(_records(manifest, shards), "repair activations"):
            damage = shards[record.file]
            if group.layout.file in lost:
                why = f"{damage.fault}; not made again: its layout {group.layout.file} is damaged"
                left.append(dataclasses.replace(damage, fault=why))
            else:
                mended = _remake(path, mended, group, record, model)
                made.append(damage)
        if mended != manifest:
            _publish(path, mended, manifest, made)
        same = {record.sha256 for record in mended.files}
        return Repaired(
            path=path,
            restored=tuple(each for each in made if each.holding.record.sha256 in same),
            remade=tuple(each for each in made if each.holding.record.sha256 not in same),
            left=tuple(left),
        )


def check_model(origin: Origin, model: Model) -> None:
    """Refuse a model that would compute other activations than this origin says."""
    mine = model.identity.model_dump()
    seen = {name: mine[name] for name in ("weights_digest", "config_digest", "quantization")}
    seen |= {
        "compute_dtype": str(model.dtype).removeprefix("torch."),
        "procedure": VERSIONS["activations"],
    }
    differing = [
        f"{name}: the store's {getattr(origin, name)}, the model's {here}"
        for name, here in seen.items()
        if getattr(origin, name) != here
    ]
    if differing:
        raise InputError(
            f"{model.name} did not make these activations and cannot repair them: "
            f"{'; '.join(differing)}. Give the checkpoint that made them, loaded as it was"
        )


def _records(manifest: Manifest, shards: Collection[str]) -> list[tuple[GroupRecord, ShardRecord]]:
    """The shards of these names, each with its group."""
    return [
        (group, shard)
        for group in manifest.groups
        for shard in group.shards
        if shard.file in shards
    ]


def _remake(
    path: Path, manifest: Manifest, group: GroupRecord, record: ShardRecord, model: Model
) -> Manifest:
    """Compute and write one shard; the manifest then has its record, old or new."""
    former = manifest.makers[record.maker]
    job = Job(
        Layout.from_file(path / group.layout.file),
        record.sites,
        manifest.origin.dtype,
        former.token_budget,
    )
    with _threads_of(former, model):
        values = compute(model, job)
        maker = make_maker(model, former.token_budget)
    written = write_tensors(path / record.file, values)
    if written.record.sha256 == record.sha256:
        return manifest
    makers = manifest.makers if maker in manifest.makers else (*manifest.makers, maker)
    made = written.shard(values, makers.index(maker))

    def mended(number: int, group: GroupRecord) -> list[ShardRecord]:
        return [made if old.file == made.file else old for old in group.shards]

    parts = with_shards(manifest.parts, mended)
    return manifest.model_copy(update={"makers": makers, "parts": parts})


@contextlib.contextmanager
def _threads_of(maker: Maker, model: Model) -> Iterator[None]:
    """As many threads as the maker had: on a CPU, sums are rounded by how they are divided."""
    before = torch.get_num_threads()
    if maker.n_threads and model.device.type == "cpu":
        torch.set_num_threads(maker.n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _publish(path: Path, mended: Manifest, former: Manifest, made: Iterable[Damage]) -> None:
    """The history tells of the files whose bytes are new."""
    kept = {record.sha256 for record in mended.files}
    changed = [each for each in made if each.holding.record.sha256 not in kept]
    collection = records.Collection(
        provenance=provenance(),
        n_new_sequences=0,
        n_shards_made=sum(each.holding.kind == "shard" for each in changed),
        sites=tuple(dict.fromkeys(site for each in changed for site in each.holding.sites)),
    )
    publish(path, mended, collection)
