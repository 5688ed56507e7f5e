"""A checkpoint is an untrusted folder: find it, refuse what could run code, know it by content."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from probes.foundation.digest import digest_tensors
from probes.foundation.errors import InputError
from probes.foundation.progress import bar

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
DOWNLOADED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "tokenizer*")
DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors$")
NEVER_DOWNLOADED = tuple(f"*{suffix}" for suffix in PICKLES)


def resolve(name: str | Path) -> Path:
    """Turn what a user calls a model into a folder on this machine.

    A local directory is returned as it is; anything else is taken for a Hugging Face hub id
    ("organisation/name") and its safetensors, configuration and tokenizer files are fetched, never
    a pickle. Raises `InputError` saying what was tried where neither leads to a folder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{name} is a file; a model is the directory that holds {SINGLE}")
    if isinstance(name, Path) or not _like_hub_id(name):
        raise InputError(
            f"no model at {name!r}: there is no such directory, and it is not a hub id "
            "('organisation/name'). Give a Hugging Face checkpoint directory or a hub id."
        )
    return _download(name)


def _like_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "\\" not in name


def _download(name: str) -> Path:
    import httpx
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(DOWNLOADED), ignore_patterns=list(NEVER_DOWNLOADED)
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise InputError(
            f"no model {name!r}: there is no such directory here, and the hub did not give it "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        ) from error
    return Path(folder)


def check_safe(directory: Path | str) -> None:
    """Refuse a checkpoint that could run code when it is loaded, or that holds no safetensors.

    Looks at the files of the directory itself, which is all that loading reads. Raises `InputError`
    for pickled weights (also a Trainer's `training_args.bin`), for missing safetensors, for
    `auto_map` (remote code), and for an adapter, which transformers would apply unasked.
    """
    directory = Path(directory)
    refuse_pickles(directory)
    if (directory / ADAPTER_CONFIG).is_file():
        raise InputError(
            f"{directory} holds an adapter ({ADAPTER_CONFIG}). Give its base model as the model "
            "and the adapter, in a directory of its own, as `adapter`; for a merged model, delete "
            f"{ADAPTER_CONFIG} from its directory"
        )
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory} is not a Hugging Face checkpoint: it has no config.json")
    if not (directory / SINGLE).is_file() and not (directory / INDEX).is_file():
        raise InputError(
            f"{directory} holds no safetensors weights (neither {SINGLE} nor {INDEX}). Save the "
            "model with `save_pretrained`; merge an adapter into its base model first."
        )
    _refuse_other_files(directory)
    for file in ("config.json", "tokenizer_config.json"):
        if (directory / file).is_file() and "auto_map" in read_object(directory / file):
            raise InputError(
                f"{directory / file} has `auto_map`: the checkpoint wants to run its own Python "
                "code. Refused. Convert it to an architecture of transformers itself."
            )


def _refuse_other_files(directory: Path) -> None:
    """Refuse what makes transformers load other weights than those that the digest is of."""
    if others := list(found_in(read_object(directory / "config.json"), "transformers_weights")):
        raise InputError(
            f"{directory / 'config.json'} has `transformers_weights` ({others[0]!r}): the weights "
            f"would come from another file than {SINGLE}, whose digest tells models apart. Rename "
            f"that file to {SINGLE} and delete the key"
        )
    if parts := sorted(file.name for file in directory.iterdir() if DISTRIBUTED.match(file.name)):
        raise InputError(
            f"{directory} holds {parts[0]}, a part of a distributed checkpoint, which transformers "
            f"would load instead of {SINGLE} or {INDEX}. Move it elsewhere, or save the model whole "
            "with `save_pretrained`"
        )


def found_in(tree: Any, key: str) -> Iterator[Any]:
    """Every value that is set for a key, however deep: configs of several models nest theirs."""
    match tree:
        case dict():
            if tree.get(key):
                yield tree[key]
            for value in tree.values():
                yield from found_in(value, key)
        case list():
            for value in tree:
                yield from found_in(value, key)


def refuse_pickles(directory: Path) -> None:
    """Refuse a directory with a file that can run code when it is loaded, by its name alone."""
    pickles = sorted(file.name for file in directory.iterdir() if file.suffix.lower() in PICKLES)
    if pickles:
        raise InputError(
            f"{directory} holds pickled files, which can run code when they are loaded: "
            f"{', '.join(pickles)}. Refused. If you trust them, load the model in a sandbox, save "
            "it with `model.save_pretrained(new_directory)`, which writes safetensors, and give "
            "that; files of a training run (training_args.bin, optimizer.pt) can be deleted."
        )


def weights_digest(directory: Path | str) -> str:
    """sha256 over names, dtypes, shapes and values of the weights in files, whatever their sharding.

    Read from the files at every call, one tensor at a time, because a path is not an identity: a
    checkpoint saved again under the same name has another digest.
    """
    return files_digest(Path(directory), weight_files(Path(directory)))


def files_digest(directory: Path, files: Sequence[str]) -> str:
    """sha256 over the tensors of these safetensors files, as if they were one."""
    with _OnDisk(directory, files) as tensors:
        return digest_tensors(tensors)


def tensor_names(directory: Path) -> frozenset[str]:
    """Names of the tensors in the files that hold the weights."""
    with _OnDisk(directory, weight_files(directory)) as tensors:
        return frozenset(tensors)


class _OnDisk(Mapping[str, Tensor]):
    """The tensors of some files by name, read when asked for and not kept, with a bar in bytes."""

    def __init__(self, directory: Path, files: Sequence[str]) -> None:
        self._handles: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        size = sum((directory / file).stat().st_size for file in files)
        self._bar = bar(f"digest of {directory.name}", total=size)
        for file in files:
            try:
                handle = safetensors.safe_open(directory / file, framework="pt")
            except (safetensors.SafetensorError, OSError) as error:
                raise InputError(
                    f"{directory / file} is not a whole safetensors file ({error}); copy or "
                    "download the checkpoint again"
                ) from error
            self._handles[file] = handle
            if twice := sorted(self._file_of.keys() & set(handle.keys())):
                raise InputError(
                    f"{directory} has {twice[0]} in two shards, {self._file_of[twice[0]]} and {file}: "
                    "which is loaded is left to chance. Save the model again with `save_pretrained`"
                )
            self._file_of |= dict.fromkeys(handle.keys(), file)

    def __enter__(self) -> "_OnDisk":
        for handle in self._handles.values():
            handle.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        for handle in self._handles.values():
            handle.__exit__(*error)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._handles[self._file_of[name]].get_tensor(name)
        self._bar.update(tensor.nbytes)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def weight_files(directory: Path) -> list[str]:
    """Names of the files that hold the weights; where both kinds lie, what transformers prefers."""
    if (directory / SINGLE).is_file():
        return [SINGLE]
    if not (directory / INDEX).is_file():
        raise InputError(f"{directory} holds no safetensors weights ({SINGLE} or {INDEX})")
    files = sorted(set(read_object(directory / INDEX).get("weight_map", {}).values()))
    odd = [file for file in files if Path(file).name != file or not file.endswith(".safetensors")]
    if odd or not files:
        raise InputError(f"{directory / INDEX} names files that cannot be shards: {odd}")
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise InputError(f"{directory} lacks shards that {INDEX} names: {', '.join(missing)}")
    return files


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `InputError` naming the file where it holds anything else."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object")
    return value
