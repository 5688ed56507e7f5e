"""Where a model lies: a folder here, or the hub, which is asked only for an id in full, and said so."""

import difflib
import os
import re
import sys
from pathlib import Path

from probes.foundation.errors import InputError
from probes.foundation.folders import plain_file

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
DOWNLOADED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "tokenizer*")
NEVER_DOWNLOADED = tuple(f"*{suffix}" for suffix in PICKLES)
ADAPTER_CONFIG = "adapter_config.json"
PLUS = "+"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)


BOTH = "Give both, as BASE+ADAPTER (in Python: adapter=)"


def resolve(name: str | Path, adapter: str | Path | None = None) -> Path:
    """Turn what a user calls a model into a folder on this machine.

    A local directory is returned as it is. Only a Hugging Face hub id in full ("organisation/name")
    is looked up on the hub, after a line on standard error that says so; its safetensors,
    configuration and tokenizer files are fetched, never a pickle. With HF_HUB_OFFLINE or
    TRANSFORMERS_OFFLINE set, what was fetched earlier is used, and no request is made.
    adapter: that names it as its base. Raises `InputError` saying what was tried where neither leads
    to a folder.
    """
    _check_plain(name)
    path = Path(name).expanduser()
    if not path.is_dir():
        try:
            return _download(str(name))
        except InputError as error:
            if adapter is None:
                raise
            raise InputError(
                f"{adapter} is an adapter of {str(name)!r}: {error}. {BOTH}"
            ) from error
    check_links(path)
    return path


def check_links(directory: Path) -> None:
    """Refuse a checkpoint with a link, a pipe or a device among its files; raises `IntegrityError`.

    A link of the hub's cache leads from a snapshot to the blobs of the very same repository: that is
    how they are stored, and nothing else.
    """
    blobs = (directory.resolve().parent.parent / "blobs").resolve()
    for file in directory.iterdir():
        cached = file.is_symlink() and directory.resolve().parent.name == "snapshots"
        if cached and file.resolve().parent == blobs and file.is_file():
            continue
        if file.is_symlink() or not file.is_dir():
            plain_file(file)


def base_and_adapter(name: str | Path) -> tuple[str | Path, str | Path | None]:
    """The two that a model's name stands for: `BASE+ADAPTER`, an adapter's folder alone, or a base.

    An adapter's folder names its base itself: a folder (from here, or from the adapter) or a hub id.
    Raises `InputError` for one whose base is not to be found.
    """
    path = Path(name).expanduser()
    try:
        there = path.is_dir()
    except (OSError, ValueError):  # said by `_check_plain`
        return name, None
    if there:
        return (_base_of(path), name) if _is_adapter(path) else (name, None)
    base, plus, adapter = str(name).rpartition(PLUS)
    return (base, adapter) if plus and base and adapter else (name, None)


def _is_adapter(directory: Path) -> bool:
    """An adapter and nothing else: beside a whole model it is refused, for it would be applied unasked."""
    return (directory / ADAPTER_CONFIG).is_file() and not (directory / "config.json").is_file()


def _base_of(adapter: Path) -> str:
    from probes.foundation.untrusted import read_object

    named = read_object(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise InputError(f"{adapter} is an adapter that does not say of which model. {BOTH}")
    try:
        beside = adapter / named
        return str(beside) if not Path(named).is_dir() and beside.is_dir() else _checked(named)
    except InputError as error:
        raise InputError(f"{adapter} is an adapter of {named!r}: {error} {BOTH}") from error


def _checked(name: str) -> str:
    _check_plain(name)
    return name


def check_address(name: str | Path) -> None:
    """Refuse what is neither a folder here nor a hub id in full, nor BASE+ADAPTER of such two.

    Asks nobody, and loads no library.
    """
    for each in base_and_adapter(name):
        if each is not None:
            _check_plain(each)


def _check_plain(name: str | Path) -> None:
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return
        there = path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"no model at {str(name)[:200]!r}: {error}") from error
    if there:
        raise InputError(f"{name} is a file; a model is the directory that holds its safetensors")
    if not isinstance(name, Path) and _HUB_ID.fullmatch(name) and not path.parent.is_dir():
        return
    raise InputError(
        f"no model at {str(name)!r}: there is no such directory, and it is not a hub id in full "
        f"('organisation/name').{near(path)} Give a Hugging Face checkpoint directory or a hub id."
    )


def near(path: Path) -> str:
    """What may have been meant by a path that leads nowhere: the nearest name beside it, as a question."""
    try:
        beside = [each.name for each in path.parent.iterdir()]
    except OSError:
        return ""
    found = difflib.get_close_matches(path.name, beside, n=1)
    return f" Did you mean {str(path.parent / found[0])!r}?" if found else ""


def _download(name: str) -> Path:
    import httpx
    import huggingface_hub
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "0") not in (
        "",
        "0",
    )
    if not offline:
        print(
            f"probes: no directory {name!r} here; asking {constants.ENDPOINT} for it",
            file=sys.stderr,
        )
    try:
        folder = huggingface_hub.snapshot_download(
            name,
            allow_patterns=list(DOWNLOADED),
            ignore_patterns=list(NEVER_DOWNLOADED),
            local_files_only=offline,
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise InputError(
            f"no model {name!r}: there is no such directory here, and the hub did not give it "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        ) from error
    return Path(folder)
