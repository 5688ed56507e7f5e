"""A loaded model that knows which weights it is."""

import contextlib
import dataclasses
import html
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from probes.foundation.digest import short
from probes.foundation.errors import InputError, unknown
from probes.models.checkpoints import (
    check_safe,
    resolve,
    tokenizer_digest,
    weight_files,
    weights_digest,
)
from probes.models.hooks import blocks

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SLOW_BYTES = 2**30


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A causal language model for reading: plain Hugging Face module, tokenizer, and their digests.

    hf: in evaluation mode, its parameters without gradients (activations may still have them).
    name: what tables and figures call it. directory: where its files lie.
    """

    hf: Any
    tokenizer: Any
    name: str
    directory: Path
    weights_digest: str
    tokenizer_digest: str

    @cached_property
    def n_layers(self) -> int:
        return len(blocks(self.hf))

    @property
    def d_model(self) -> int:
        return int(self.hf.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.hf.parameters()).dtype

    @property
    def pad_id(self) -> int:
        """A valid id to fill batches with; which one is of no matter, because pads are masked."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    def bridge(self) -> Any:
        """This model as a TransformerLens `TransformerBridge`, weights unprocessed.

        The bridge rebuilds the module that it is given, so it gets a copy: this model stays plain,
        and the two take twice the memory.
        """
        from probes.models.lens import boot

        return boot(self.hf, self.tokenizer, str(self.directory.resolve()))

    def facts(self) -> dict[str, str | int]:
        """What a reader wants to know at a glance, in order."""
        return {
            "model": self.name,
            "architecture": type(self.hf).__name__,
            "layers": self.n_layers,
            "d_model": self.d_model,
            "vocabulary": int(self.hf.config.get_text_config().vocab_size),
            "parameters": sum(parameter.numel() for parameter in self.hf.parameters()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "weights": short(self.weights_digest),
            "tokenizer": short(self.tokenizer_digest),
        }

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts().items())
        return f"Model({facts})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(_show(value))}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<table>{rows}</table>"


def load(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    label: str | None = None,
) -> Model:
    """Load a checkpoint directory or hub id for reading, after refusing everything unsafe in it.

    dtype: what to compute in, whatever the files hold. label: a name for tables; by default the
    name of the directory, or the hub id.
    Raises `InputError` for an unknown name, an unsafe or incomplete checkpoint, an unknown device.
    """
    where = _device(device)
    directory = resolve(name)
    check_safe(directory)
    digest = weights_digest(directory)
    tokenizer = _load_tokenizer(directory)
    hf = _load_weights(directory, dtype).to(where)
    blocks(hf)
    return Model(
        hf=hf,
        tokenizer=tokenizer,
        name=label or (directory.resolve().name if Path(name).expanduser().is_dir() else str(name)),
        directory=directory,
        weights_digest=digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
    )


def _load_weights(directory: Path, dtype: torch.dtype) -> Any:
    import transformers

    if dtype not in DTYPES.values():
        raise unknown("dtype", dtype, DTYPES)
    try:
        with _quiet(directory):
            hf, info = transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise InputError(f"cannot load {directory} as a causal language model: {error}") from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise InputError(
            f"{directory} lacks weights that its config.json asks for, which would be filled with "
            f"random numbers: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    return hf.eval().requires_grad_(False)


def _load_tokenizer(directory: Path) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{directory} has no tokenizer that can be loaded ({error}); save one beside the "
            "weights with `tokenizer.save_pretrained`"
        ) from error


@contextlib.contextmanager
def _quiet(directory: Path) -> Iterator[None]:
    """No bar from transformers for a checkpoint that is read in a moment."""
    import transformers.utils.logging as log

    size = sum((directory / name).stat().st_size for name in weight_files(directory))
    if size > SLOW_BYTES or not log.is_progress_bar_enabled():
        yield
        return
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.enable_progress_bar()


def _device(device: str | torch.device) -> torch.device:
    choices = ["cpu"]
    if torch.cuda.is_available():
        choices += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        choices.append("mps")
    if str(device) not in choices:
        raise unknown("device", str(device), choices)
    return torch.device(device)


def _show(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value
