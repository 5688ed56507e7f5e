"""LoRA: a base of any size is taught through a few small matrices, which become part of it at the end."""

from typing import Annotated, Any

import pydantic
import torch
from transformers.pytorch_utils import Conv1D

from probes.foundation.config import Config
from probes.foundation.errors import unknown
from probes.foundation.seeds import derive_seed
from probes.models.adapters import check_peft


class Lora(Config):
    """Low-rank updates, W + (alpha / rank) B A (Hu et al. 2021).

    targets: the last names of the linear layers that get one ("q_proj"); by default all of them but
        the unembedding.
    """

    rank: pydantic.PositiveInt = 8
    alpha: pydantic.PositiveFloat = 16.0
    dropout: float = pydantic.Field(default=0.0, ge=0.0, lt=1.0)
    targets: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = None


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
