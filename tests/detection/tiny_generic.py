"""A tiny model that reads bytes, and prompts that end in a known letter."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from probes.models.loading import Model, load
from probes.prompts.records import Prompt
from tiny import byte_tokenizer


def tiny(folder: Path, *, sink: bool = False) -> Model:
    """A random Llama of two layers, one token per byte.

    sink: a random GPT-2 instead, whose first position has a residual norm far beyond all others.
    """
    tokenizer = byte_tokenizer()
    llama = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=1024,
        bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    gpt2 = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=1024,
        bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        hf: Any = transformers.AutoModelForCausalLM.from_config(gpt2 if sink else llama).eval()
        for parameter in hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if sink:
            hf.transformer.wpe.weight[0] = 100 * torch.randn(32)
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(folder, label="tiny")


def prompts_with(ends: tuple[str, ...], n: int = 12) -> tuple[list[Prompt], np.ndarray]:
    """Prompts of several texts, each with every ending; and the ending of each."""
    prompts, found = [], []
    for number in range(n):
        for end in ends:
            text = f"Task {number}: {'x' * (number % 3)} {end}"
            prompts.append(
                Prompt(
                    text=text, family="own", prompt_set="own", template=str(number),
                    pair=str(number), triggered=False,
                )
            )  # fmt: skip
            found.append(end)
    return prompts, np.array(found)
