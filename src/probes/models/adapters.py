"""LoRA adapters: an untrusted directory too; merged into the base, so that one plain model is left."""

import copy
import warnings
from pathlib import Path
from typing import Annotated, Any

import pydantic

from probes.foundation.digest import digest_json, short
from probes.foundation.errors import InputError
from probes.foundation.patterns import Pattern
from probes.foundation.untrusted import in_one_line, read_object
from probes.models.address import ADAPTER_CONFIG
from probes.models.checkpoints import (
    files_digest,
    refuse_pickles,
    template_digest,
    tokenizer_digest,
)
from probes.models.claims import check_files, headers, refusing
from probes.models.pretrained import read_tokenizer
from probes.models.templates import FILE, check_template_files, say_once, template_of

WEIGHTS = "adapter_model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Any of these makes the adapter's tokenizer one of its own.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
# Keys of adapter_config.json that say nothing about the numbers.
CIRCUMSTANCES = ("base_model_name_or_path", "revision", "inference_mode")
# Keys that may have any value: they are honoured by merging, or mattered in training alone.
UNDERSTOOD = (
    *CIRCUMSTANCES,
    *("task_type", "peft_type", "peft_version", "r", "lora_alpha", "lora_dropout", "use_rslora"),
    *("target_modules", "target_parameters", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "lora_bias"),
    *("use_dora", "modules_to_save", "megatron_core", "loftq_config", "qalora_group_size"),
)
# Ways to start training that leave the base as it is; the others (PiSSA, OLoRA, LoftQ, CorDA)
# change it, and an adapter that was saved as it is would be merged into the wrong weights.
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
UNSET: tuple[Any, ...] = (None, False, {}, [])
MOST = 1024
# peft makes regular expressions of these names, so they must be names; it writes `.*` itself.
Name = Annotated[str, pydantic.Field(pattern=r"^(?:\^|\.\*)?(?:[\w.\-]|\\\.)+\$?$", max_length=256)]
Names = Annotated[list[Name], pydantic.Field(max_length=MOST)]
Rank = Annotated[int, pydantic.Field(gt=0, le=65_536)]


class _Settings(pydantic.BaseModel):
    """Types and ranges of what merging acts on; a pattern of modules may be any, and is timed."""

    model_config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)

    r: Rank = 8
    lora_alpha: float = 8.0
    target_modules: str | Names | None = None
    exclude_modules: str | Names | None = None
    target_parameters: Names | None = None
    modules_to_save: Names | None = None
    layers_pattern: Name | Names | None = None
    layers_to_transform: int | Annotated[list[int], pydantic.Field(max_length=MOST)] | None = None
    rank_pattern: Annotated[dict[Name, Rank], pydantic.Field(max_length=MOST)] = {}
    alpha_pattern: Annotated[dict[Name, float], pydantic.Field(max_length=MOST)] = {}
    lora_dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False


def check_peft() -> None:
    """Refuse to start where peft is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError(
            'adapters need peft, which is not installed: pip install "probes[peft]"'
        ) from error


def check_adapter(directory: Path) -> None:
    """Refuse an adapter that could run code, is incomplete, or asks for more than merging can give.

    Raises `InputError` for pickles, missing files, `auto_mapping` (it names Python code), an
    adapter that is not LoRA, and any setting that is not known to be safe and to be in the merged
    weights.
    """
    refuse_pickles(directory)
    for file in (ADAPTER_CONFIG, WEIGHTS):
        if not (directory / file).is_file():
            raise InputError(
                f"{directory} is not a LoRA adapter: it has no {file}. Save one with peft's "
                "`save_pretrained`, which writes both"
            )
    check_files(directory)
    headers(directory, [WEIGHTS])
    settings = read_object(directory / ADAPTER_CONFIG)
    if settings.get("auto_mapping"):
        raise InputError(
            f"{directory / ADAPTER_CONFIG} has `auto_mapping`, which names Python code to import "
            "for its base. Refused. An adapter trained with task_type='CAUSAL_LM' has none; in "
            "one that you trust, set it to null"
        )
    if settings.get("peft_type") != "LORA":
        raise InputError(
            f"{directory} is an adapter of type {settings.get('peft_type')!r}; only LORA can be "
            "merged here"
        )
    start = settings.get("init_lora_weights", True)
    if not isinstance(start, bool | str) or start not in PLAIN_STARTS:
        raise InputError(
            f"{directory} was trained from init_lora_weights={start!r}, which changes the base "
            "model too. Save it again as a plain LoRA with peft's "
            "`save_pretrained(..., path_initial_model_for_weight_conversion=...)`"
        )
    try:
        _Settings.model_validate(settings)
    except pydantic.ValidationError as error:
        raise InputError(
            f"{directory / ADAPTER_CONFIG} has odd settings: {in_one_line(error)}"
        ) from error
    others = {
        key: value
        for key, value in settings.items()
        if key not in (*UNDERSTOOD, "init_lora_weights") and value not in UNSET
    }
    if others:
        raise InputError(
            f"{directory / ADAPTER_CONFIG} asks for {', '.join(map(repr, sorted(others)))}, which "
            "is not known to be safe and to be whole in the merged weights. Merge it yourself with "
            "peft and give the merged checkpoint"
        )


def adapted_tokenizer(base: Any, directory: Path) -> Any:
    """The tokenizer of a base with this adapter: the adapter's own, or the base's with its template.

    An adapter is used with the tokenizer and the chat template that lie beside it, as it was trained
    with them; which of them differ from the base's is said on stderr. Where it has a tokenizer
    without a template, the base's template stays.
    Raises `InputError` for template files that are links, and a tokenizer that wants to run code.
    """
    check_template_files(directory)
    settings_file = directory / TOKENIZER_CONFIG
    settings = read_object(settings_file) if settings_file.is_file() else {}
    if "auto_map" in settings:
        raise InputError(
            f"{settings_file} has `auto_map`: the adapter wants to run its own Python code. Refused. "
            "Save it with a tokenizer of transformers itself"
        )
    own_tokenizer = any((directory / file).is_file() for file in VOCABULARIES)
    tokenizer = read_tokenizer(directory) if own_tokenizer else copy.deepcopy(base)
    if (directory / FILE).is_file():
        tokenizer.chat_template = (directory / FILE).read_text(encoding="utf-8")
    elif "chat_template" in settings:
        tokenizer.chat_template = settings["chat_template"]
    elif template_of(tokenizer) is None:
        tokenizer.chat_template = base.chat_template
    for what, digest in (("tokenizer", tokenizer_digest), ("chat template", template_digest)):
        theirs, mine = digest(tokenizer), digest(base)
        if theirs != mine:
            say_once(
                f"the {what} {short(theirs or 'none')} of the adapter {directory.name} is used, not "
                f"the base's ({short(mine or 'none')})"
            )
    return tokenizer


def merged_digest(base_digest: str, directory: Path) -> str:
    """sha256 that stands for the merged weights: over the base, the adapter and its settings."""
    settings = read_object(directory / ADAPTER_CONFIG)
    return digest_json(
        {
            "base": base_digest,
            "adapter": files_digest(directory, [WEIGHTS]),
            "config": {k: _ordered(v) for k, v in settings.items() if k not in CIRCUMSTANCES},
        }
    )


def merge(hf: Any, directory: Path) -> Any:
    """The model with the adapter added to its weights, W + (alpha / r) B A; `hf` is used up.

    Computed in the dtype of the model. Raises `InputError` where the adapter does not fit: other
    shapes, a module that the base has not, a tensor too many or too few, or embeddings that the
    base shares with its unembedding (merging one would change the other).
    """
    import peft
    import safetensors.torch

    shapes = _shapes(hf)
    tied = hf.config.get_text_config().tie_word_embeddings
    ends = _ends(hf)
    with (
        refusing(f"the adapter {directory} does not fit its base model"),
        warnings.catch_warnings(),
    ):
        # Of a base under another path, of Conv1D (and puts it right), and of shared embeddings,
        # which are an error below.
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        config = peft.LoraConfig.from_pretrained(str(directory))
        for key in ("target_modules", "exclude_modules"):
            setattr(config, key, _matched(getattr(config, key), hf, f"{key} of {directory}"))
        adapted = peft.get_peft_model(hf, config, low_cpu_mem_usage=True)
        if tied and ends != _ends(hf):
            raise ValueError("it changes an embedding that is shared with the unembedding")
        tensors = safetensors.torch.load_file(directory / WEIGHTS)
        loaded: Any = peft.set_peft_model_state_dict(adapted, tensors, low_cpu_mem_usage=True)
        lacking = [name for name, value in adapted.named_parameters() if value.is_meta]
        if lacking or loaded.unexpected_keys:
            raise ValueError(
                f"tensors that it lacks: {lacking[:3]}, that have no place: "
                f"{loaded.unexpected_keys[:3]}"
            )
        merged = adapted.merge_and_unload(safe_merge=True)
        if _shapes(merged) != shapes:
            raise ValueError("the merged model has other weights than the base")
    return merged


def _matched(target: Any, hf: Any, what: str) -> Any:
    """A pattern becomes the names that it matches, so that peft has none to run without a limit."""
    if not isinstance(target, str) or target == "all-linear":
        return target
    return set(Pattern(target, what).matching(name for name, _ in hf.named_modules()))


def _shapes(hf: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in hf.state_dict().items()}


def _ends(hf: Any) -> tuple[type, type]:
    return type(hf.get_input_embeddings()), type(hf.get_output_embeddings())


def _ordered(value: Any) -> Any:
    """Names in alphabetical order: peft keeps them as a set, and saves them in any order."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return value
