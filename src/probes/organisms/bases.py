"""Where an organism can start that does not start from random weights: any Hugging Face causal LM."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from probes.foundation.errors import InputError
from probes.models.address import resolve
from probes.models.checkpoints import check_safe, weights_digest
from probes.models.pretrained import read_tokenizer, read_weights, skeleton
from probes.organisms.lora import Lora, check_lora


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
