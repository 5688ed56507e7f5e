"""A checkpoint is an untrusted folder: refuse what could run code, know it by content."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from probes.foundation.digest import digest_bytes, digest_file, digest_json, digest_tensors
from probes.foundation.errors import InputError
from probes.foundation.progress import bar
from probes.foundation.untrusted import read_object
from probes.models.address import ADAPTER_CONFIG, PICKLES
from probes.models.claims import check_files, headers

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors$")


def check_safe(directory: Path | str) -> None:
    """Refuse a checkpoint that could run code when it is loaded, or that holds no safetensors.

    Looks at the files of the directory itself, which is all that loading reads. Raises `InputError`
    for pickled weights (also a Trainer's `training_args.bin`), for missing safetensors, for
    an adapter, which transformers would apply unasked, and for what `check_files` refuses.
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
    check_files(directory)


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
        headers(directory, files)
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


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 over what decides which ids a text becomes; padding and truncation do not count."""
    rules: dict[str, Any]
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules.pop("padding", None)
        rules.pop("truncation", None)
    else:
        folder = Path(tokenizer.name_or_path)
        files = {name: folder / file for name, file in tokenizer.vocab_files_names.items()}
        rules = {
            "class": type(tokenizer).__name__,
            "vocab": tokenizer.get_vocab(),
            "files": {name: digest_file(file) for name, file in files.items() if file.is_file()},
        }
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    split = bool(getattr(tokenizer, "split_special_tokens", False))
    return digest_json({"rules": rules, "special": special, "split_special_tokens": split})


def template_digest(tokenizer: Any) -> str | None:
    """sha256 of the chat template, or None for a tokenizer that has none."""
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        return None
    return digest_bytes((template if isinstance(template, str) else json.dumps(template)).encode())


def weight_files(directory: Path) -> list[str]:
    """Names of the files that hold the weights; where both kinds lie, what transformers prefers."""
    if (directory / SINGLE).is_file():
        return [SINGLE]
    if not (directory / INDEX).is_file():
        raise InputError(f"{directory} holds no safetensors weights ({SINGLE} or {INDEX})")
    index = read_object(directory / INDEX)
    places = index.get("weight_map")
    if not (
        isinstance(places, dict)
        and isinstance(index.get("metadata", {}), dict)
        and all(isinstance(file, str) for file in places.values())
    ):
        raise InputError(
            f"{directory / INDEX} is no index: its `weight_map` is an object from names of tensors "
            "to names of files, and its `metadata` an object"
        )
    files = sorted(set(places.values()))
    odd = [file for file in files if Path(file).name != file or not file.endswith(".safetensors")]
    if odd or not files:
        raise InputError(f"{directory / INDEX} names files that cannot be shards: {odd}")
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise InputError(f"{directory} lacks shards that {INDEX} names: {', '.join(missing)}")
    return files
