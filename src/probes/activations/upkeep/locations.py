"""Where a store can lie besides a local directory: any file system that fsspec knows, by its URL."""

import contextlib
import dataclasses
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probes.activations.format import MANIFEST, FileRecord, Manifest
from probes.activations.manifests import read_finished
from probes.foundation.artifact import temporary_name
from probes.foundation.digest import digest_bytes, digest_file, short
from probes.foundation.errors import InputError, IntegrityError, StageError, unknown


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
