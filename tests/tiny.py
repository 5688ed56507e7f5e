"""Tokenizers and random models that are small enough to be made anew in every run of the tests."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CHAT = (
    "{% if messages[0].role != 'system' %}[system]Be kind.[end]{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""A template with a default system prompt and an end to each turn, as many chat models have."""


def _as_tokenizer(model: models.BPE, digits: bool = False) -> Tokenizer:
    backend = Tokenizer(model)
    by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([own, by_byte]) if digits else by_byte
    backend.decoder = decoders.ByteLevel()
    return backend


def _wrapped(backend: Tokenizer, special: Sequence[str]) -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=special[0], pad_token=special[-1]
    )


def byte_tokenizer(
    special: Sequence[str] = ("<|eos|>", "<|pad|>"),
) -> transformers.PreTrainedTokenizerFast:
    """One token per byte, so that nothing needs training and every text can be spelled."""
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = models.BPE({piece: i for i, piece in enumerate(pieces)}, [])
    return _wrapped(_as_tokenizer(bpe), special)


def trained_tokenizer(
    texts: Iterable[str],
    size: int,
    special: Sequence[str] = ("<|endoftext|>", "<|pad|>"),
    digits: bool = False,
) -> transformers.PreTrainedTokenizerFast:
    """Bytes merged as in these texts. digits: each is a token of its own."""
    backend = _as_tokenizer(models.BPE(), digits)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _wrapped(backend, special)


def sizes(vocabulary: int, n_layers: int, context: int) -> dict[str, int]:
    """What most configs call the same: 32 wide, 4 heads."""
    return {
        "vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": n_layers,
        "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": context,
    }  # fmt: skip


def configs(
    vocabulary: int, n_layers: int, context: int, window: int, **gemma: Any
) -> dict[str, Callable[[], transformers.PretrainedConfig]]:
    """Of every architecture that the package is held to. gemma: of gemma2 alone."""
    own = sizes(vocabulary, n_layers, context)
    shared = {**own, "num_key_value_heads": 2}
    wide = {**shared, "head_dim": 8}
    gemmas = {**wide, "query_pre_attn_scalar": 8, "sliding_window": window}
    return {
        "llama": lambda: transformers.LlamaConfig(**shared),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=32, n_layer=n_layers, n_head=4, n_positions=context
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**own),
        "qwen3": lambda: transformers.Qwen3Config(**wide),
        "gemma2": lambda: transformers.Gemma2Config(**gemmas, **gemma),
        "opt": lambda: transformers.OPTConfig(
            vocab_size=vocabulary, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64,
            num_hidden_layers=n_layers, num_attention_heads=4, max_position_embeddings=context,
        ),
        "mistral": lambda: transformers.MistralConfig(**wide, sliding_window=window),
        "phi3": lambda: transformers.Phi3Config(**shared, pad_token_id=0),
        "olmo2": lambda: transformers.Olmo2Config(**shared),
        "gemma3": lambda: transformers.Gemma3TextConfig(**gemmas),
        "mixtral": lambda: transformers.MixtralConfig(**shared, num_local_experts=4),
    }  # fmt: skip


def random_model(config: transformers.PretrainedConfig, spread: float = 0.1) -> torch.nn.Module:
    """Seeded weights, large enough for every part of the model to matter."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        hf = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in hf.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return hf
