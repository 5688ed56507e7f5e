"""The only door to TransformerLens, whose import takes seconds and changes global settings."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any


def boot(hf: Any, tokenizer: Any, name: str) -> Any:
    """A `TransformerBridge` around a copy of a loaded model, with its weights as they are.

    TransformerLens silences transformers' log and adds special tokens to the tokenizer it is
    given; both stay as they were for the caller. `name` should be a path: to
    TransformerLens short names can be aliases of public models.
    """
    with _settings_kept():
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(
            name,
            hf_model=copy.deepcopy(hf),
            tokenizer=_own(tokenizer),
            device=str(next(hf.parameters()).device),
            dtype=next(hf.parameters()).dtype,
        )
    bridge.cfg.default_prepend_bos = bridge.cfg.tokenizer_prepends_bos
    bridge.eval()
    return bridge


def patching() -> Any:
    """The module `transformer_lens.patching`, which the engine is compared with."""
    with _settings_kept():
        from transformer_lens import patching as module
    return module


def _own(tokenizer: Any) -> Any:
    """A copy that TransformerLens keeps, instead of reloading it with a forced first token.

    With it `bridge.to_tokens(text)` gives the ids that `encode` gives.
    """
    copied = copy.deepcopy(tokenizer)
    copied.init_kwargs["add_bos_token"] = True
    return copied


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        try:
            yield
        finally:
            logger.setLevel(level)
