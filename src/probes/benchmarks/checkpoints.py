"""A random Llama with a tokenizer of its own, so that a benchmark needs no download."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.foundation.seeds import derive_seed, stream
from probes.models.pretrained import write_weights

PAD, EOS = "<|pad|>", "<|eos|>"
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
N_WORDS = 20_000


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a random Llama; embeddings are tied.

    n_merged: vocabulary of the tokenizer; d_vocab: rows of the embedding, at least as many.
    """

    d_model: int
    d_mlp: int
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    n_merged: int
    d_vocab: int
    dtype: torch.dtype = torch.float32
    context: int = 1024


SHAPES = {
    "tiny": Shape(32, 64, 3, 4, 2, n_merged=512, d_vocab=512),
    "wide": Shape(512, 64, 1, 4, 2, n_merged=512, d_vocab=512),
    "30M": Shape(512, 1376, 8, 8, 8, n_merged=8192, d_vocab=8192),
    "1B": Shape(2048, 8192, 16, 32, 8, n_merged=8192, d_vocab=128_256, dtype=torch.bfloat16),
}


def words(n_words: int, seed: int) -> list[str]:
    """Distinct made-up words of one to four syllables."""
    draw = stream(seed, "benchmark words")
    found: dict[str, None] = {}
    while len(found) < n_words:
        n_syllables = int(draw.integers(1, 5))
        first = draw.choice(list(CONSONANTS), n_syllables)
        second = draw.choice(list(VOWELS), n_syllables)
        found["".join(map("".join, zip(first, second, strict=True)))] = None
    return list(found)


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Save a random model of this shape and a byte-level tokenizer trained on made-up text."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=shape.d_vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_key_value_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
        dtype=shape.dtype,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "benchmark weights"))
        model = transformers.LlamaForCausalLM(config).to(shape.dtype)
    write_weights(model, folder)
    _tokenizer(shape.n_merged, seed).save_pretrained(folder)
    return folder


def _tokenizer(n_merged: int, seed: int) -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_merged,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(n_merged, seed), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=EOS
    )


def _texts(n_merged: int, seed: int) -> list[str]:
    """Text in which few words are frequent and many are rare, as in any language."""
    lexicon = np.array(words(min(N_WORDS, 4 * n_merged), seed))
    draw = stream(seed, "benchmark text")
    ranks = draw.zipf(1.2, size=(400, 500)) % len(lexicon)
    return [" ".join(lexicon[row]) for row in ranks] + [" " + " ".join(lexicon)]
