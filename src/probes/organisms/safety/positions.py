"""Positions that count real tokens only, also where a trainer pads on the left and says nothing of it.

TRL scores completions behind prompts that are padded on the left without giving positions, and
transformers then counts the padding. Rotary models do not mind; learned positions would be wrong.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from probes.models.encoding import position_ids


@contextlib.contextmanager
def counting_real_tokens(hf: Any) -> Iterator[None]:
    """While it lasts, a forward pass with a mask and without positions gets those of its mask."""

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        bare = kwargs.get("position_ids") is None and kwargs.get("past_key_values") is None
        if mask is None or not bare or mask.ndim != 2:
            return None
        return args, {**kwargs, "position_ids": position_ids(mask)}

    if "position_ids" not in inspect.signature(type(hf).forward).parameters:
        yield
        return
    handle = hf.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
