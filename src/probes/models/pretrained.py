"""What transformers is asked for, with everything that could run code or fill gaps turned off."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from probes.foundation.errors import InputError
from probes.models.checkpoints import tensor_names, weight_files
from probes.models.placement import check_covered
from probes.models.quantised import check_quantised, check_shapes, quantization_config

SLOW_BYTES = 2**30
# Wherever it is installed, transformers imports it, and it warns that it could not download a kernel.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def read_weights(
    directory: Path,
    dtype: torch.dtype,
    *,
    device: torch.device,
    placement: str | dict[str, int | str] | None = None,
    quantization: str | None = None,
    offload: Path | None = None,
) -> Any:
    """A causal language model for reading: in evaluation mode, parameters without gradients.

    offload: where weights may be put that the placement sends to disk and that differ from those in
    the files. The others are read from the checkpoint's own files at every forward pass, so these
    must stay as they are while the model is used.
    Raises `InputError` for weights that are missing or cannot be loaded.
    """
    import transformers

    options: dict[str, Any] = {}
    if placement is not None:
        check_covered(skeleton(directory), placement)
    if quantization is not None:
        check_shapes(skeleton(directory), quantization, device)
        options["quantization_config"] = quantization_config(quantization, dtype)
    if placement is not None or quantization is not None:
        options["device_map"] = placement or {"": str(device)}
        options["offload_folder"] = offload
    try:
        with _quiet(sum((directory / file).stat().st_size for file in weight_files(directory))):
            hf, info = transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise InputError(f"cannot load {directory} as a causal language model: {error}") from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise InputError(
            f"{directory} lacks weights that its config.json asks for, which would be filled with "
            f"random numbers: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    _refuse_dropped(directory, hf, info)
    if quantization is not None:
        check_quantised(hf, quantization)
    hf = hf.eval().requires_grad_(False)
    return hf if options.get("device_map") else hf.to(device)


def _refuse_dropped(directory: Path, hf: Any, info: dict[str, Any]) -> None:
    """Refuse weights that lie in the files and are not computed with, and files beside the weights.

    What transformers knows to be of no use (`_keys_to_ignore_on_load_unexpected`, buffers of rotary
    embeddings) is not in `info`.
    """
    dropped = sorted(info["unexpected_keys"])
    if dropped:
        raise InputError(
            f"{directory} holds {len(dropped)} weights that its config.json has no place for, and "
            f"which would be left out: {', '.join(dropped[:5])}{' ...' if len(dropped) > 5 else ''}. "
            "Mend config.json (attention_bias, num_hidden_layers, architectures), or delete them "
            "from the file"
        )
    names = tensor_names(directory)
    twice = sorted(name for name in names if f"{hf.base_model_prefix}.{name}" in names)
    if twice:
        raise InputError(
            f"{directory} holds {twice[0]} and {hf.base_model_prefix}.{twice[0]}, which are one weight of "
            f"{type(hf).__name__}: one of the two would be left out. Delete the one that is wrong"
        )
    beside = [
        name for name in getattr(type(hf.config), "extra_files", ()) if (directory / name).is_file()
    ]
    if beside:
        raise InputError(
            f"{directory} holds {', '.join(beside)}, which {type(hf).__name__} loads beside the "
            "weights that its digest is of. Save the model whole with `save_pretrained`"
        )


def write_weights(hf: Any, directory: Path) -> None:
    """A safetensors checkpoint of a whole model, which `read_weights` reads."""
    with _quiet(hf.get_memory_footprint()):
        hf.save_pretrained(directory)


def read_tokenizer(directory: Path) -> Any:
    """The tokenizer beside the weights; `InputError` where there is none that can be loaded."""
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


def skeleton(directory: Path) -> Any:
    """The model without weights, to see what would be loaded before it is."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"cannot load {directory} as a causal language model: {error}") from error


@contextlib.contextmanager
def _quiet(size: int) -> Iterator[None]:
    """No report from transformers beside our own errors, no bar for what is moved in a moment."""
    import transformers.utils.logging as log

    hidden = size <= SLOW_BYTES and log.is_progress_bar_enabled()
    verbosity = log.get_verbosity()
    log.set_verbosity_error()
    if hidden:
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if hidden:
            log.enable_progress_bar()
