"""A key-value cache that is written in place: concatenating costs most of a small model's time."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class ReservedLayer(DynamicLayer):
    """transformers' growing layer with room for `capacity` positions taken once.

    `keys` and `values` are views of the filled part, `[batch, heads, pos, d_head]`.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new positions and return all so far; raises `IndexError` past the capacity."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self.capacity:
            raise IndexError(f"the cache has room for {self.capacity} positions, not {end}")
        if self._room is None:
            self._room = (self._reserve(key_states), self._reserve(value_states))
        self._room[0][..., start:end, :] = key_states
        self._room[1][..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch only."""
        if self._room is None:
            return
        end = self.get_seq_length()
        self._room = (self._room[0][indices], self._room[1][indices])
        self._show(end)

    def _reserve(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:-2], self.capacity, states.shape[-1]))

    def _show(self, end: int) -> None:
        assert self._room is not None
        self.keys = self._room[0][..., :end, :]
        self.values = self._room[1][..., :end, :]


def reserved_cache(hf: Any, capacity: int) -> DynamicCache:
    """An empty cache for one batch: full-attention layers reserved, others growing as ever."""
    cache = DynamicCache(config=hf.config)
    cache.layers = [
        ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
