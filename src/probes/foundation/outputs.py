"""Who may write to the folder that a user named: one process at a time, and one set of settings for good.

The policy of every command: work that the same settings began is continued, anything else in the
folder is refused, and no file is deleted that the package did not write.
"""

import contextlib
import contextvars
import errno
import fcntl
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from probes.foundation.artifact import TEMPORARY, disk_errors, write_text
from probes.foundation.config import SHOWN, Config, refuse_other_settings
from probes.foundation.digest import digest_file, digest_json, short
from probes.foundation.errors import InputError
from probes.foundation.folders import check_tree, output_folder, plain_file
from probes.foundation.progress import PATIENCE_S
from probes.foundation.terminal import one_line, plain

CONFIG = "config.json"
SETTINGS = ".settings.json"
IDENTITIES = ("weights_digest", "digest", "key", "id", "name")
"""Attributes that tell one object from another of its class, the surest first."""
POLL_S = 0.1
NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system says that cannot lock a folder; NFS may be one."""
HELD: contextvars.ContextVar[frozenset[tuple[int, str]]] = contextvars.ContextVar(
    "HELD", default=frozenset()
)
"""Folders that this thread holds, with its process: a fork inherits the list and not the right."""
P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def claimed(path: Path | str) -> Iterator[Path]:
    """Hold a folder against every other writer, and yield it; waits for one that was there before.

    The lock is the kernel's (flock on the folder itself), so that it ends with the process, however
    that ends. Whoever holds a folder may claim it again. Readers need none. Of several processes
    that train together (`torchrun`), the first one holds it for all.
    Raises `InputError` where there can be no folder, and `IntegrityError` for one with links in it.
    """
    path = output_folder(path)
    place = os.getpid(), os.path.realpath(path)
    if place in HELD.get() or os.environ.get("RANK", "0") != "0":
        yield path
        return
    made = [each for each in (path, *path.parents) if not each.exists()]
    with disk_errors(path):
        descriptor = _locked(path)
    token = HELD.set(HELD.get() | {place})
    try:
        check_tree(path)
        yield path
    finally:
        HELD.reset(token)
        with contextlib.suppress(OSError):  # where nothing came of it
            for each in made:
                each.rmdir()
        # Closing alone would leave the lock to any process that was forked meanwhile.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def writes(
    parameter: str, what: str | None = None, free: Collection[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that writes to the folder in this parameter: it is checked and held meanwhile.

    Where the parameter is None, nothing is held. what: the kind of results ("paths"), for a function
    that leaves tables in the folder; its arguments are kept there as `<what>.settings.json`, and a
    folder of other arguments is refused (see `take_up`). free: arguments that may differ.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def held(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            if given.pop(parameter) is None:
                return function(*args, **kwargs)
            with claimed(bound.arguments[parameter]) as path, contextlib.ExitStack() as taken:
                bound.arguments[parameter] = path
                if what is not None:
                    settings = {n: described(v) for n, v in given.items() if n not in free}
                    taken.enter_context(_taken_up(path, what, settings, free))
                return function(*bound.args, **bound.kwargs)

        return held

    return decorate


class Settings(Config):
    """The arguments of a command, as they lie beside its tables."""

    settings: dict[str, Any]


def take_up(
    out: Path,
    what: str,
    config: Config,
    *,
    file: str = CONFIG,
    free: Collection[str] = (),
    known: Collection[str] = (),
) -> None:
    """Go on with what lies in a folder, or begin there; the settings are kept in it.

    what: is made there ("a run"). free: settings that may differ from call to call. known: names
    that may lie there before. Raises `InputError` for a folder that other settings made, naming
    what differs, and for one that holds anything else.
    """
    if plain_file(out / file):
        refuse_other_settings(out, what, type(config).from_file(out / file), config, free)
    elif out.exists() and not any(out.glob(f"*{SETTINGS}")):
        names = sorted(each.name for each in out.iterdir() if not each.name.startswith(TEMPORARY))
        if strange := [name for name in names if name not in known]:
            raise InputError(
                f"{out} is not empty ({', '.join(strange[:3])}) and does not hold {what} ({file} is "
                "missing): choose another --out"
            )
    write_text(out / file, config.to_json())


@contextlib.contextmanager
def _taken_up(
    out: Path, what: str, settings: dict[str, Any], free: Collection[str]
) -> Iterator[None]:
    """`take_up`; where the command fails before it has written anything, it has not begun."""
    file = f"{what.replace(' ', '-')}{SETTINGS}"
    began = not (out / file).exists()
    take_up(out, f"the results of {what}", Settings(settings=settings), file=file, free=free)
    try:
        yield
    except BaseException:
        if began and [each.name for each in out.iterdir()] == [file]:
            (out / file).unlink()
        raise


def described(value: Any) -> Any:
    """An argument as JSON data that differs where the argument does: models and the like by their digest."""
    match value:
        case None | bool() | int() | float():
            return value
        case Config():
            return value.model_dump(mode="json")
        case str() | Path():
            path = Path(value)
            if "\0" not in str(value) and len(str(value)) < 4096 and path.is_file():
                return f"{path.name} ({short(digest_file(path))})"
            return str(value)
        case Mapping():
            return {str(name): described(each) for name, each in value.items()}
        case Sequence() | set() | frozenset():
            each = [described(one) for one in value]
            return each if len(each) <= SHOWN else f"{len(each)}, digest {short(digest_json(each))}"
    for name in IDENTITIES:
        if isinstance(getattr(value, name, None), str):
            return f"{type(value).__name__} {getattr(value, name)}"
    return getattr(value, "__qualname__", type(value).__name__)


def _locked(path: Path) -> int:
    """A descriptor of the folder, locked; what is replaced while it waits is opened anew."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _wait(descriptor, path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _wait(descriptor: int, path: Path) -> None:
    started, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told and time.monotonic() - started > PATIENCE_S:
                print(
                    f"{_holder(descriptor)} writes to {plain(path)}; waiting for it",
                    file=sys.stderr,
                )
                told = True
            time.sleep(POLL_S)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"the file system of {plain(path)} cannot lock folders: see to it that no other command "
                "writes there meanwhile",
                file=sys.stderr,
            )
            return
        else:
            return


def _holder(descriptor: int) -> str:
    """Which process has the lock, where the system tells."""
    seen = os.fstat(descriptor)
    place = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == place:
                command = Path(f"/proc/{fields[4]}/cmdline").read_bytes().replace(b"\0", b" ")
                return f"process {fields[4]} ({one_line(command.decode(errors='replace'))[:80]})"
    return "another process"
