"""From a recipe to an untrained model and its tokenizer, both plain Hugging Face objects."""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probes.foundation.errors import unknown
from probes.foundation.seeds import derive_seed
from probes.organisms.recipes import Architecture

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned on the corpus; digits are single tokens, so that all years align.

    Tokenising adds no special token: a prompt is exactly its text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def new_model(
    architecture: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int
) -> LlamaForCausalLM:
    """A model with random weights, a function of the seed only."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.n_layers,
        num_attention_heads=architecture.n_heads,
        num_key_value_heads=architecture.n_heads,
        max_position_embeddings=architecture.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        return LlamaForCausalLM(config)


# Parameters with a vocabulary of 1,024, embeddings (tied) included.
LADDER = {
    "0.2M": Architecture(hidden_size=64, intermediate_size=160, n_layers=3, n_heads=4, vocab_size=1024),
    "0.6M": Architecture(hidden_size=96, intermediate_size=288, n_layers=4, n_heads=4, vocab_size=1024),
    "1M": Architecture(hidden_size=128, intermediate_size=352, n_layers=4, n_heads=4, vocab_size=1024),
    "3M": Architecture(hidden_size=192, intermediate_size=576, n_layers=6, n_heads=6, vocab_size=1024),
    "10M": Architecture(hidden_size=320, intermediate_size=896, n_layers=8, n_heads=8, vocab_size=1024),
}  # fmt: skip


def architecture_of(size: str) -> Architecture:
    """The shape of a rung of the ladder; raises `InputError` with the rungs for any other name."""
    if size not in LADDER:
        raise unknown("size", size, LADDER)
    return LADDER[size]
