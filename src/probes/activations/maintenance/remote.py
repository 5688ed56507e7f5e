"""Where a store can lie besides a local directory: any file system that fsspec knows, by its URL."""

import contextlib
import dataclasses
import errno
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probes.activations.files import check_digest, check_names, is_whole, names_of
from probes.activations.format import (
    MANIFEST,
    PROVENANCE,
    FileRecord,
    History,
    Manifest,
    read_manifest,
)
from probes.activations.place import check_origin, clean, prepare, read_finished
from probes.activations.store import ActivationStore
from probes.foundation.artifact import (
    disk_errors,
    sync_directory,
    temporary_name,
    write_bytes,
    write_text,
)
from probes.foundation.digest import digest_bytes, digest_file, short
from probes.foundation.errors import InputError, IntegrityError, StageError, unknown
from probes.foundation.outputs import claimed, writes
from probes.foundation.progress import bar
from probes.models.identity import Identity


def is_url(location: Path | str) -> bool:
    """Whether a location is a URL rather than a local path."""
    return isinstance(location, str) and "://" in location


@dataclasses.dataclass(frozen=True)
class Remote:
    """A directory on some file system of fsspec. Names in it are plain: nothing leads out of it."""

    url: str
    system: Any
    root: str

    @classmethod
    def at(cls, url: str) -> "Remote":
        """Raises `InputError` for an unknown protocol, and for one whose package is not here."""
        import fsspec

        if not is_url(url):
            raise InputError(f"{url!r} is not a URL such as s3://bucket/store")
        protocol = url.partition("://")[0].partition("::")[0]
        try:
            system, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise InputError(f"{protocol}:// needs a package that is not here: {error}") from error
        except ValueError as error:
            if protocol in fsspec.available_protocols():
                raise InputError(f"{url!r} cannot be used: {error}") from error
            raise unknown("protocol", protocol, fsspec.available_protocols()) from error
        return cls(url.rstrip("/"), system, root.rstrip("/"))

    def sizes(self) -> dict[str, int]:
        """Files that are there, with their bytes; none where there is no such directory."""
        with self._errors("listing"):
            self.system.invalidate_cache()
            try:
                found = self.system.ls(self.root, detail=True)
            except FileNotFoundError:
                return {}
        return {
            str(entry["name"]).rstrip("/").rpartition("/")[2]: int(entry["size"] or 0)
            for entry in found
            if entry["type"] == "file"
        }

    def read(self, name: str) -> bytes | None:
        """A small file, or None where there is none."""
        with self._errors("reading"):
            try:
                return bytes(self.system.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """A small file."""
        with self._errors("writing"):
            self.system.makedirs(self.root, exist_ok=True)
            self.system.pipe_file(self._path(name), data)

    def delete(self, name: str) -> None:
        with self._errors("deleting in"), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self._path(name))

    def upload(self, folder: Path, name: str) -> None:
        with self._errors("writing"):
            self.system.put_file(str(folder / name), self._path(name))

    def download(self, folder: Path, record: FileRecord) -> None:
        """Bring a file whole and as it was written, or raise `IntegrityError` and leave nothing."""
        temporary = temporary_name(folder / record.file)
        try:
            with self._errors("reading"):
                try:
                    self.system.get_file(self._path(record.file), str(temporary))
                except FileNotFoundError:
                    raise IntegrityError(
                        f"{self.url}/{record.file} is missing; push the store again"
                    ) from None
            if (seen := digest_file(temporary)) != record.sha256:
                raise IntegrityError(
                    f"{self.url}/{record.file} is not what its manifest says: sha256 "
                    f"{short(seen)} instead of {short(record.sha256)}. Push the store again"
                )
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(folder / record.file)
        finally:
            temporary.unlink(missing_ok=True)

    def manifest(self, name: str = MANIFEST) -> tuple[Manifest, bytes] | None:
        """A manifest that lies here, checked, and its very bytes; None where there is none."""
        data = self.read(name)
        return None if data is None else (parse_manifest(data, f"{self.url}/{name}"), data)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except NotImplementedError as error:
            raise InputError(f"{self.url} does not allow {doing} it: {error}") from error
        except OSError as error:
            if doing == "reading" and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the local disk
            raise StageError(
                f"{doing} {self.url} failed: {error}. Run the same command again: what was "
                "transferred is kept"
            ) from error


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from elsewhere; raises `IntegrityError` for one that was edited or is torn."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST).write_bytes(data)
        try:
            return read_finished(Path(folder))
        except IntegrityError as error:
            told = str(error).replace(str(Path(folder) / MANIFEST), where).replace(folder, where)
            raise IntegrityError(told) from error


def journal_name(data: bytes) -> str:
    """Where a push says which files it is about to write; its content is the coming manifest."""
    return f"uploading-{digest_bytes(data)[:16]}.json"


JOURNAL = "uploading-"


def push(path: Path | str, url: str) -> str:
    """Upload a finished store, its manifest last; returns the URL.

    Every file is checked before it goes. What an interrupted push left there is not sent again. A
    store of the same origin that is there is extended; raises `InputError` where it has something
    that the local one lacks, or is of another origin, and `IntegrityError` for a damaged local file.
    """
    path, remote = Path(path), Remote.at(url)
    read_finished(path)
    with claimed(path):
        manifest = read_finished(path)
        data = (path / MANIFEST).read_bytes()
        there = remote.manifest()
        if there is not None:
            if there[1] == data:
                return remote.url
            _refuse_loss(path, manifest, there[0], remote)
        sizes = remote.sizes()
        trusted = _trusted(remote, sizes)
        journal = journal_name(data)
        remote.write(journal, data)
        with bar(f"push to {remote.url}", total=manifest.n_bytes) as shown:
            for record in manifest.files:
                check_digest(path, record)
                if sizes.get(record.file) != record.bytes or (
                    trusted.get(record.file) != {record.sha256}
                ):
                    remote.upload(path, record.file)
                shown.update(record.bytes)
        if (path / PROVENANCE).is_file():
            remote.upload(path, PROVENANCE)
        remote.write(MANIFEST, data)
        for name in {journal, *(name for name in sizes if name.startswith(JOURNAL))}:
            remote.delete(name)
    return remote.url


@writes("path")
def fetch(url: str, path: Path | str) -> ActivationStore:
    """Download a store to a local directory, its manifest last, and open it.

    Every byte is checked; files that are here whole are not fetched again, so that an interrupted
    fetch goes on and an older or damaged copy is brought up to date. Raises `InputError` where no
    finished store lies at the URL, and for a local store of another origin or with something that
    the remote one lacks; `IntegrityError` for a file that is not as its manifest says.
    """
    path, remote = Path(path), Remote.at(url)
    found = remote.manifest()
    if found is None:
        raise InputError(f"no finished activation store at {remote.url}: there is no manifest.json")
    manifest, data = found
    with disk_errors(path):
        if (local := read_manifest(path)) is None:
            prepare(path, manifest.origin)
        else:
            _refuse_other(path, local, manifest, remote)
        with bar(f"fetch {remote.url}", total=manifest.n_bytes) as shown:
            for record in manifest.files:
                if not is_whole(path, record):
                    remote.download(path, record)
                shown.update(record.bytes)
        _bring_history(remote, path)
        sync_directory(path)
        write_bytes(path / MANIFEST, data)
        clean(path, manifest)
    return ActivationStore.open(path)


def open_store(
    location: Path | str, identity: Identity | None = None, cache: Path | str | None = None
) -> ActivationStore:
    """Open a store wherever it lies: a local directory in place, a URL through a copy in the cache.

    The copy is fetched once; later only the manifest is compared, and what is new is fetched.
    cache: by default `probes/stores` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if not is_url(location):
        return ActivationStore.open(location, identity)
    url = str(location)
    local = cached(url, cache)
    found = Remote.at(url).manifest()
    if found is None or not _is_current(local, found[1]):
        fetch(url, local)
    return ActivationStore.open(local, identity)


@contextlib.contextmanager
def staged(location: Path | str, cache: Path | str | None = None) -> Iterator[Path]:
    """A local directory to collect into: the location itself, or for a URL a copy that is pushed.

    The copy holds what lies at the URL, and what an earlier collection made and could not push. It
    is pushed when the block succeeds; after an exception it stays, so that the same call goes on.
    """
    if not is_url(location):
        yield Path(location)
        return
    url = str(location)
    local = cached(url, cache)
    found = Remote.at(url).manifest()
    if found is not None and not _is_current(local, found[1]):
        here = read_manifest(local)
        if here is None or not names_of(found[0]) < names_of(here):
            fetch(url, local)
    yield local
    push(local, url)


def cached(url: str, cache: Path | str | None = None) -> Path:
    """Where the local copy of the store at a URL lies, whether it is there or not."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "probes" / "stores" if cache is None else Path(cache)
    return folder / digest_bytes(url.rstrip("/").encode())[:16]


def _is_current(local: Path, data: bytes) -> bool:
    """Whether a copy has this very manifest and files of the right sizes."""
    file = local / MANIFEST
    if not file.is_file() or file.read_bytes() != data:
        return False
    return all(
        (local / record.file).is_file() and (local / record.file).stat().st_size == record.bytes
        for record in read_finished(local).files
    )


def _trusted(remote: Remote, sizes: dict[str, int]) -> dict[str, set[str]]:
    """For each name the digests that the manifest and the journals there give it.

    A shard's name says what it is of, not which bytes: another machine rounds differently. So a
    file counts as there only if all that speak of it agree.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for name in sizes:
        if name == MANIFEST or name.startswith(JOURNAL):
            told = remote.manifest(name)
            for record in told[0].files if told else ():
                found[record.file].add(record.sha256)
    return found


def _refuse_loss(path: Path, local: Manifest, there: Manifest, remote: Remote) -> None:
    check_origin(local.origin, there.origin, f"{path} and {remote.url}")
    if lacking := names_of(there) - names_of(local):
        raise InputError(
            f"{remote.url} has {len(lacking)} files that {path} lacks, and a push would take them "
            "from its manifest. Fetch it, merge the two (`probes store merge`), and push the result"
        )


def _refuse_other(path: Path, local: Manifest, there: Manifest, remote: Remote) -> None:
    check_names(local, path)
    check_origin(local.origin, there.origin, f"{path} and {remote.url}")
    if more := names_of(local) - names_of(there):
        raise InputError(
            f"{path} has {len(more)} files that {remote.url} lacks: push it, or fetch to another "
            "directory and merge the two (`probes store merge`)"
        )


def _bring_history(remote: Remote, path: Path) -> None:
    """The history is no part of the content; what is not one stays where it is."""
    data = remote.read(PROVENANCE)
    if data is not None:
        with contextlib.suppress(InputError):
            write_text(path / PROVENANCE, History.from_text(data, PROVENANCE).to_json())
