"""The slow reference: one sequence at a time, unpadded, with hooks of its own on a Llama."""

from collections.abc import Sequence

import numpy as np
import torch

from probes.models.loading import Model
from probes.prompts.records import Prompt

# float32 rounding over three layers of entries of order 1.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def prompt_ids(model: Model, prompt: Prompt) -> list[int]:
    """Tokens of a prompt as the tokenizer itself gives them."""
    if not prompt.chat:
        return model.tokenizer(prompt.text)["input_ids"]
    messages = [{"role": role, "content": content} for role, content in prompt.chat]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def completion_ids(model: Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def activations(model: Model, ids: Sequence[int]) -> dict[str, np.ndarray]:
    """`[pos, width]` of every site of a Llama."""
    found: dict[str, torch.Tensor] = {}
    handles = []

    def keep(name):
        def hook(module, args, output):
            found[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_input(name):
        def hook(module, args):
            found[name] = args[0]

        return hook

    for i, block in enumerate(model.hf.model.layers):
        handles += [
            block.self_attn.register_forward_hook(keep(f"attn_out.{i}")),
            block.self_attn.o_proj.register_forward_pre_hook(keep_input(f"z.{i}")),
            block.mlp.register_forward_hook(keep(f"mlp_out.{i}")),
            block.register_forward_hook(keep(f"resid_post.{i}")),
        ]
    try:
        with torch.no_grad():
            states = model.hf(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
    finally:
        for handle in handles:
            handle.remove()
    for i in range(model.n_layers):
        found[f"resid_pre.{i}"] = states[i]
        found[f"resid_mid.{i}"] = states[i] + found[f"attn_out.{i}"]
    return {name: value.reshape(len(ids), -1).float().numpy() for name, value in found.items()}


def window(model: Model, ids: Sequence[int], wanted: str) -> tuple[int, int]:
    """The shortest run of tokens whose text contains what is wanted, found by trying all."""
    runs = sorted(
        ((i, j) for i in range(len(ids)) for j in range(i + 1, len(ids) + 1)),
        key=lambda run: run[1] - run[0],
    )
    return next((i, j) for i, j in runs if wanted in model.tokenizer.decode(list(ids[i:j])))


def kept_tokens(
    positions: str, n_prompt: int, n_tokens: int, span: tuple[int, int]
) -> list[list[int]]:
    """The tokens that each row is the mean of, spelled out by hand."""
    base = positions.removeprefix("mean:")
    tokens = {
        "last": [n_prompt - 1],
        "-2": [n_prompt - 2],
        "first_answer": [n_prompt],
        "last_answer": [n_tokens - 1],
        "prompt": list(range(n_prompt)),
        "answer": list(range(n_prompt, n_tokens)),
        "all": list(range(n_tokens)),
    }.get(base, list(range(*span)))
    return [tokens] if positions.startswith("mean:") else [[token] for token in tokens]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in units of the largest entry."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
