"""What the files of a checkpoint claim is checked before transformers acts on it.

A configuration decides which code runs, what is fetched and how much memory is taken, so it is held
to the weights that lie beside it: nothing may be built that they could not fill.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from probes.foundation.errors import InputError
from probes.foundation.patterns import check_linear
from probes.foundation.untrusted import parse_json, read_json

MAX_HEADER = 32 * 2**20
"""Bytes that describe the tensors of one safetensors file; 100,000 tensors take about 10 MB."""
MAX_COUNT = 65_536
"""Layers, heads, experts or labels."""
MAX_SIZE = 2**31
MAX_GROWTH = 64
"""How much longer a tokenizer may make a text before it splits it."""
SPARE_ELEMENTS = 2**26
"""Numbers that a model may compute for itself, such as masks, however small its weights are."""

# Keys that name code, a place to fetch code from, or a permission to do so.
CODE = (
    *("auto_map", "custom_generate", "custom_pipelines", "code_revision", "trust_remote_code"),
    *("kernel_config", "use_kernels", "hub_kernels", "quantization_config", "compression_config"),
)
ATTENTION = ("eager", "sdpa")
EXPERTS = ("eager", "grouped_mm", "batched_mm")
IMPLEMENTATIONS = {
    f"{before}{part}_implementation{after}": allowed
    for part, allowed in (("attn", ATTENTION), ("experts", EXPERTS))
    for before in ("", "_")
    for after in ("", "_internal")
}
POSITIVE = (
    *("hidden_size", "n_embd", "d_model", "intermediate_size", "vocab_size", "head_dim"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "num_hidden_layers", "n_layer"),
)
_SIZE = re.compile(
    r"(n|num)_.*|.*_(size|dim|rank|layers|heads|experts|labels|positions|groups)"
    r"|.*position_embeddings|n_inner|d_model"
)
_COUNT = re.compile(r".*(layer|head|expert|label|block)s?")
# Mamba's configurations hold an upper limit of infinity.
INFINITE = ("time_step_limit",)


def check_files(directory: Path) -> None:
    """Refuse a checkpoint or adapter whose JSON files claim what must not be acted on.

    Raises `InputError` for JSON beyond the limits of `probes.foundation.untrusted`; keys that name
    code or kernels, at any depth; attention other than eager and sdpa; sizes and counts that are no
    whole numbers in range; a tokenizer that names files elsewhere, or regular expressions that may
    take for ever.
    """
    for file in sorted(directory.glob("*.json")):
        value = read_json(file, finite=False)
        if not isinstance(value, dict) and file.name != "chat_template.json":
            raise InputError(f"{file} is not a JSON object but {type(value).__name__}")
        if file.name.startswith("tokenizer") and "model" in value:
            _check_tokenizer(file, value)
        elif file.name.endswith("config.json"):
            _check_config(file, value)


def headers(directory: Path, files: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in safetensors files, from their headers alone.

    Raises `InputError` for a header that is longer than its file or than `MAX_HEADER`, and for
    one that is not what safetensors writes.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name in files:
        file = directory / name
        with file.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            if not 2 <= size <= min(MAX_HEADER, file.stat().st_size - 8):
                raise InputError(
                    f"{file} is not a whole safetensors file: its header claims {size:,} bytes, "
                    f"the file has {file.stat().st_size:,}, and at most {MAX_HEADER:,} are read"
                )
            header = parse_json(handle.read(size), f"the header of {file}")
        try:
            header.pop("__metadata__", None)
            found |= {key: tuple(map(int, each["shape"])) for key, each in header.items()}
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise InputError(f"the header of {file} describes no tensors: {error}") from error
    return found


def n_elements(shapes: dict[str, tuple[int, ...]]) -> int:
    """Numbers in all of these tensors."""
    return sum(math.prod(shape) for shape in shapes.values())


@contextlib.contextmanager
def building_no_more_than(shapes: dict[str, tuple[int, ...]], directory: Path) -> Iterator[None]:
    """Stop the building of a model at the first parameter that these tensors could not fill.

    Counts what modules register while the block runs, so that it is stopped after as little work
    as the weights deserve; tied weights are registered twice, hence twice the size is let through.
    Raises `InputError`.
    """
    from torch.nn.modules import module as registry

    allowed = 2 * n_elements(shapes) + SPARE_ELEMENTS
    most = 8 * len(shapes) + 64
    seen = {"weights": 0, "tensors": 0, "buffers": 0}

    def count(kind: str, size: int) -> None:
        seen[kind] += size
        seen["tensors"] += 1
        if seen[kind] > allowed or seen["tensors"] > most:
            raise InputError(
                f"{directory / 'config.json'} asks for a larger model than its weights can fill: "
                f"they are {n_elements(shapes):,} numbers in {len(shapes):,} tensors, and more than "
                f"{seen['tensors'] - 1:,} tensors with {seen[kind]:,} {kind} would be built. "
                "Refused before memory is taken; give the config.json that was saved with them"
            )

    def parameter(module: Any, name: str, value: Any) -> None:
        count("weights", 0 if value is None else value.numel())

    def buffer(module: Any, name: str, value: Any) -> None:
        count("buffers", 0 if value is None else value.numel())

    handles = [
        registry.register_module_parameter_registration_hook(parameter),
        registry.register_module_buffer_registration_hook(buffer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_filled(model: Any, shapes: dict[str, tuple[int, ...]], directory: Path) -> None:
    """Refuse a model without weights that is larger than these tensors, by more than it may be.

    Raises `InputError` with the sizes of both.
    """
    built = sum(parameter.numel() for parameter in model.parameters())
    if built > n_elements(shapes) + SPARE_ELEMENTS:
        raise InputError(
            f"{directory / 'config.json'} asks for {built:,} weights, the files hold "
            f"{n_elements(shapes):,}. Refused before memory is taken; give the config.json that "
            "was saved with them"
        )


@contextlib.contextmanager
def refusing(message: str) -> Iterator[None]:
    """Errors of a library that acts on files of others become an `InputError` of one line.

    Only calls of the library belong into the block. tokenizers raises plain `Exception`.
    """
    from huggingface_hub.errors import StrictDataclassError

    expected = (
        *(ValueError, OSError, RuntimeError, LookupError, TypeError, AttributeError),
        *(ArithmeticError, AssertionError, ImportError, StrictDataclassError),
    )
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of a library in Rust
        if not isinstance(error, expected) and type(error) is not Exception and not panic:
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{message}: {why[:300]}") from error


def _check_config(file: Path, config: dict[str, Any]) -> None:
    for key, value in _settings(config):
        if key in CODE and value not in (None, False, {}, [], ""):
            _refuse_code(file, key, value)
        if key in IMPLEMENTATIONS:
            _check_implementation(file, key, value)
        if file.name == "config.json":
            _check_number(file, key, value)
        if isinstance(value, float) and not math.isfinite(value) and key not in INFINITE:
            raise InputError(f"{file} has {key} = {value}; it is a finite number")
    for key in ("tokenizer_class", "model_type"):
        if not isinstance(config.get(key), str | None):
            raise InputError(f"{file} has {key} = {config[key]!r}; it is a name")
    if file.name == "tokenizer_config.json":
        _check_places(file, config)
        longest = config.get("model_max_length")
        if longest is not None and (
            isinstance(longest, bool) or not isinstance(longest, int | float)
        ):
            raise InputError(f"{file} has model_max_length = {longest!r}; it is a number")


def _settings(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting at any depth (which the reader has limited); items of a list under its key."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name, each
            yield from _settings(each, name)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict | list):
                yield from _settings(each, key)
            elif isinstance(each, float):
                yield key, each


def _refuse_code(file: Path, key: str, value: Any) -> None:
    if key.endswith(("quantization_config", "compression_config")):
        if file.name != "config.json":
            return
        method = value.get("quant_method") if isinstance(value, dict) else value
        raise InputError(
            f"{file.parent} holds weights that were quantised before they were saved ({method}). "
            "Give the checkpoint they were made from, and quantization='8bit' or '4bit' if it "
            "does not fit"
        )
    raise InputError(
        f"{file} has `{key}`: the checkpoint wants to run its own Python code, or code that it "
        "names. Refused. Convert it to an architecture of transformers itself, or delete the key"
    )


def _check_implementation(file: Path, key: str, value: Any) -> None:
    names = value.values() if isinstance(value, dict) else [value]
    allowed = IMPLEMENTATIONS[key]
    odd = [name for name in names if name is not None and name not in allowed]
    if odd:
        raise InputError(
            f"{file} has {key} = {value!r}: names outside {', '.join(allowed)} can be code from "
            "the hub. Refused; delete the key"
        )


def _check_number(file: Path, key: str, value: Any) -> None:
    if value is None or isinstance(value, dict | list):
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    most = MAX_COUNT if _COUNT.fullmatch(key) else MAX_SIZE
    if key in POSITIVE:
        wrong = not whole or not 1 <= value <= most
    else:
        wrong = whole and _SIZE.fullmatch(key) is not None and abs(value) > most
    if wrong:
        raise InputError(
            f"{file} has {key} = {str(value)[:40]!r}; it is a whole number "
            f"{'from 1 ' if key in POSITIVE else ''}to {most:,}"
        )


def _check_places(file: Path, config: dict[str, Any]) -> None:
    """Files that a tokenizer names lie beside it; two that transformers writes are never read."""
    for key, value in config.items():
        if not key.endswith("_file") or key in ("special_tokens_map_file", "tokenizer_file"):
            continue
        if value is not None and not (
            isinstance(value, str) and (file.parent / value).is_file() and Path(value).name == value
        ):
            raise InputError(
                f"{file} has {key} = {value!r}, which is no file beside it. Refused; delete the key"
            )


def _check_tokenizer(file: Path, rules: dict[str, Any]) -> None:
    growth = 1.0
    for key, value in _settings({k: v for k, v in rules.items() if k != "model"}):
        if key == "Regex" and isinstance(value, str):
            check_linear(value, str(file))
    for step in _steps(rules.get("normalizer")):
        pattern, content = step.get("pattern"), step.get("content")
        if step.get("type") == "Replace" and isinstance(content, str):
            plain = pattern.get("String") if isinstance(pattern, dict) else None
            growth *= max(1.0, len(content) / max(1, len(plain or "")))
    if growth > MAX_GROWTH:
        raise InputError(
            f"{file} has a normalizer that makes a text {growth:,.0f} times as long; at most "
            f"{MAX_GROWTH} times is allowed"
        )


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    if isinstance(normalizer, dict):
        yield normalizer
        steps = normalizer.get("normalizers")
        for each in steps if isinstance(steps, list) else ():
            yield from _steps(each)
