"""Which tokens a forward pass reads: the prompt's, its last one, or those that the model wrote itself."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

TOKENS = ("all", "last", "new")


@dataclasses.dataclass
class Chosen:
    """What is known of the forward pass that runs. mask: over all tokens so far, None without padding.

    n_past: tokens that lie in the cache; 0 in the pass over the prompt.
    """

    mask: Tensor | None = None
    n_past: int = 0

    def columns(self, tokens: str, n_rows: int, n_pos: int) -> Bool[Tensor, "{n_rows} {n_pos}"]:
        """The tokens of this pass that are meant, whichever side the padding is on."""
        if tokens == "all":
            return torch.ones(n_rows, n_pos, dtype=torch.bool)
        if tokens == "new":
            return torch.full((n_rows, n_pos), self.n_past > 0)
        if self.n_past:
            return torch.zeros(n_rows, n_pos, dtype=torch.bool)
        mask = torch.ones(n_rows, n_pos) if self.mask is None else self.mask[:, -n_pos:].cpu()
        last = n_pos - 1 - mask.flip(-1).int().argmax(-1)
        return last[:, None] == torch.arange(n_pos)


@contextlib.contextmanager
def watching(hf: Any) -> Iterator[Chosen]:
    """Keep up to date with each forward pass of the model, or of its trunk, while the block lasts."""
    chosen = Chosen()
    # What holds the blocks: OPT's model calls it past its own base model.
    decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else hf.base_model

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs.get("input_ids")
        given = kwargs.get("inputs_embeds") if given is None else given
        mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
        chosen.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        cache = kwargs.get("past_key_values")
        if chosen.mask is not None and given is not None:
            chosen.n_past = chosen.mask.shape[1] - given.shape[1]
        else:
            chosen.n_past = int(cache.get_seq_length()) if cache is not None else 0

    handle = decoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield chosen
    finally:
        handle.remove()
