"""Weights in 8 or 4 bits, for models that are too large otherwise; the files stay as they are."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probes.foundation.errors import InputError, unknown
from probes.models.checkpoints import found_in, read_object

QUANTIZATIONS = ("8bit", "4bit")
# How the 4-bit product of bitsandbytes on a CPU with AVX512-BF16 packs a weight matrix.
BLOCK_IN = 64
BLOCK_OUT = 32


def check_quantization(quantization: str) -> None:
    """Refuse an unknown setting, or one whose library is not installed."""
    if quantization not in QUANTIZATIONS:
        raise unknown("quantization", quantization, QUANTIZATIONS)
    _bitsandbytes()


def quantization_config(quantization: str, dtype: torch.dtype) -> Any:
    """The setting as transformers takes it.

    "8bit" is LLM.int8() (Dettmers et al. 2022) as bitsandbytes ships it: weights and activations
    are rounded to int8 row by row, and input columns that hold an entry above 6 are multiplied in
    full. Which columns these are is decided for a whole batch, so where a model has such outliers
    an activation depends on its neighbours in the batch, by less than the rounding error itself.
    With 16-bit activations it does so even without outliers, as a last bit can tip an int8.
    "4bit" is NF4 (Dettmers et al. 2023): only the weights are rounded, in blocks of 64.
    """
    import transformers

    if quantization == "8bit":
        # bitsandbytes says in every forward pass of every layer that it casts to float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def check_full_precision(directory: Path) -> None:
    """Refuse a checkpoint whose files are quantised: its numbers would be taken for full ones."""
    for settings in found_in(read_object(directory / "config.json"), "quantization_config"):
        method = settings.get("quant_method") if isinstance(settings, dict) else settings
        raise InputError(
            f"{directory} holds weights that were quantised before they were saved ({method}). "
            "Give the checkpoint they were made from, and quantization='8bit' or '4bit' if it "
            "does not fit"
        )


def check_shapes(hf: nn.Module, quantization: str, device: torch.device) -> None:
    """Refuse 4-bit matrices that the product on the CPU cannot take; `hf` may be without weights.

    On a CPU with AVX512-BF16, bitsandbytes packs every matrix in blocks of 32 outputs and scales
    of 64 inputs that must not cross a row.
    """
    if quantization != "4bit" or device.type != "cpu" or not _packs_on_cpu():
        return
    odd = [
        f"{name} ({n_in} -> {n_out})"
        for name, (n_in, n_out) in _matrices(hf).items()
        if n_in % BLOCK_IN or n_out % BLOCK_OUT
    ]
    if odd:
        raise InputError(
            f"4bit cannot run {type(hf).__name__} on this CPU: bitsandbytes wants inputs in multiples "
            f"of {BLOCK_IN} and outputs in multiples of {BLOCK_OUT}, and there are "
            f"{', '.join(odd[:3])}{', ...' if odd[3:] else ''}. Use quantization='8bit', none, or "
            "a GPU"
        )


def check_quantised(hf: nn.Module, quantization: str) -> None:
    """Refuse a model of which half or more was left as it was; it would be too large after all."""
    from bitsandbytes.nn.modules import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    kind = {"8bit": Linear8bitLt, "4bit": Linear4bit}[quantization]
    linear: list[Any] = [module for module in hf.modules() if isinstance(module, kind)]
    quantised = sum(module.in_features * module.out_features for module in linear)
    embedded = _embedded(hf)
    left = sum(
        parameter.numel()
        for name, parameter in hf.named_parameters()
        if name not in embedded and not isinstance(parameter, Int8Params | Params4bit)
    )
    if quantised <= left:
        raise InputError(
            f"{quantization} left most of {type(hf).__name__} as it was: {quantised:,} weights are "
            f"quantised and {left:,} outside the embeddings are not (bitsandbytes replaces "
            "linear layers alone, not fused experts). Load it without quantization, with a "
            "device_map if it does not fit"
        )


def computes_in(quantization: str | None, dtype: torch.dtype, device: torch.device) -> str:
    """What the forward pass computes in, for a reader of a table."""
    name = str(dtype).removeprefix("torch.")
    match quantization:
        case None:
            return name
        case "8bit":
            return f"{name}, products of int8"
        case _:
            packed = device.type == "cpu" and _packs_on_cpu()
            return f"{name}, products of nf4 in {'bfloat16' if packed else name}"


def _matrices(hf: Any) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of every matrix that is quantised: all linear layers but the last."""
    from transformers.pytorch_utils import Conv1D

    last = hf.get_output_embeddings()
    return {
        name: (module.nx, module.nf)
        if isinstance(module, Conv1D)
        else (module.in_features, module.out_features)
        for name, module in hf.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not last
    }


def _embedded(hf: Any) -> set[str]:
    """Names of the weights that are no matrices of a block: embeddings, positions, unembedding."""
    last = hf.get_output_embeddings()
    tables = [m for m in hf.modules() if isinstance(m, nn.Embedding) or m is last]
    held = {id(parameter) for module in tables for parameter in module.parameters()}
    return {name for name, parameter in hf.named_parameters() if id(parameter) in held}


def _packs_on_cpu() -> bool:
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def _bitsandbytes() -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise InputError(
            "8- and 4-bit loading needs bitsandbytes, which is not installed: "
            'pip install "probes[bitsandbytes]"'
        ) from error
