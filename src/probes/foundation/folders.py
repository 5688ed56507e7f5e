"""Nothing outside the folders that a user named is read, written or deleted, through links or names.

A run, a store or a checkpoint may come from elsewhere: its links may lead anywhere, its manifests
may name anything, and a pipe in it would never end. So a folder of the package holds plain files
and folders alone, and a name from a file is a path below it. The folder itself, and what lies
above it, may be a link: the user named it.
"""

import os
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath

from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError, IntegrityError

LONGEST_NAME = 255
"""Bytes of a file's name, on the file systems in use."""
RESERVED = 48
"""Of these, what may be added to the name of a folder for what lies beside it while it is made."""


def inside(root: Path, name: str) -> Path:
    """The path of a file below `root` that a manifest names; raises `IntegrityError` for any other name.

    Refused are absolute names, "..", names with control characters or of another system (a drive, a
    backslash), and those that a link or anything else but folders leads to.
    """
    plain = PurePosixPath(name)
    if (
        not plain.parts
        or plain.is_absolute()
        or ".." in plain.parts
        or str(plain) != name
        or not name.isprintable()
        or "\\" in name
        or PureWindowsPath(name).drive
        or any(len(os.fsencode(part)) > LONGEST_NAME for part in plain.parts)
    ):
        raise IntegrityError(
            f"{root} has a manifest that names {name!r}: names are those of files below that folder, "
            "such as tables/rows.csv. It was edited; delete that folder, or get it again"
        )
    path = root
    for part in plain.parts:
        path = path / part
        if path.is_symlink():
            raise _strange(path)
    return path


def plain_file(path: Path) -> bool:
    """Whether a file is there; raises `IntegrityError` for a link, a pipe, a device or a folder."""
    if not os.path.lexists(path):
        return False
    if path.is_symlink() or not path.is_file():
        raise _strange(path)
    return True


def check_tree(root: Path) -> None:
    """Refuse a folder that holds anything but plain files and folders; raises `IntegrityError`."""
    files_below(root)


def files_below(root: Path) -> list[Path]:
    """The files of a folder and of those in it, sorted; links and the like raise `IntegrityError`."""
    files, todo = [], [root]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    files.append(Path(entry.path))
                else:
                    raise _strange(Path(entry.path))
    return sorted(files)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def beside(path: Path, before: str, after: str = "") -> Path:
    """A path in the same folder, named after `path`, whose name is cut where the whole is too long."""
    name = os.fsencode(path.name)
    if len(name) > LONGEST_NAME - RESERVED:
        mark = f"-{short(digest_bytes(name))}"
        cut = name[: LONGEST_NAME - RESERVED - len(mark)].decode(errors="ignore")
        return path.with_name(f"{before}{cut}{mark}{after}")
    return path.with_name(f"{before}{path.name}{after}")


def output_folder(out: Path | str) -> Path:
    """The folder to write to, which may be absent; raises `InputError` for what cannot become one.

    "~" is the home folder. A link to a folder is followed, as the user named it.
    """
    if not str(out).strip() or "\0" in str(out):
        raise InputError(
            f"--out is {str(out)!r}, which is no folder: give a path such as runs/mine"
        )
    try:
        path = Path(out).expanduser()
    except RuntimeError as error:
        raise InputError(f"--out {out}: {error}. Write the path in full") from error
    long = [part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME]
    if long:
        raise InputError(
            f"--out has a name of {len(os.fsencode(long[0]))} bytes ({long[0][:20]}...): a name has at "
            f"most {LONGEST_NAME}"
        )
    if path.is_symlink():
        if not path.exists():
            raise InputError(
                f"--out {path} is a link to {path.readlink()}, which is not there: choose another "
                "--out, or delete the link"
            )
        path = Path(os.path.realpath(path))
    existing = next(p for p in [path, *path.absolute().parents] if os.path.lexists(p))
    if not existing.is_dir():
        where = "is" if existing == path else f"lies below {existing}, which is"
        raise InputError(f"--out {path} {where} no folder: choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"no permission to write to {existing}: choose another --out, or make it writable"
        )
    return path


def _strange(path: Path) -> IntegrityError:
    what = "a link" if path.is_symlink() else "no plain file (a folder, pipe, socket or device)"
    return IntegrityError(
        f"{path} is {what}: what is read or written lies in plain files of that very folder. Put the "
        "file or folder itself there, or delete it"
    )
