"""A random Llama with a tokenizer of its own, so that a benchmark needs no download."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.activations.layout import OVERHEAD_TOKENS, batches
from probes.foundation.errors import InputError
from probes.foundation.seeds import derive_seed, stream
from probes.models.encoding import encode
from probes.models.loading import Model
from probes.models.pretrained import write_weights
from probes.prompts.records import Prompt

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
    "0.4M": Shape(96, 256, 4, 4, 4, n_merged=1024, d_vocab=1024),
    "wide": Shape(512, 64, 1, 4, 2, n_merged=512, d_vocab=512),
    "30M": Shape(512, 1376, 8, 8, 8, n_merged=8192, d_vocab=8192),
    "135M": Shape(576, 1536, 30, 9, 3, n_merged=8192, d_vocab=49_152, dtype=torch.bfloat16),
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


SHORTEST, LONGEST = 16, 512
MEDIAN, SIGMA = 80.0, 0.9
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
MOST_CORRECTIONS = 64


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is collected: a model, prompts and their token ids, and how many tokens a batch may hold.

    budget: tokens of one forward pass, padding included; the same for all contenders.
    """

    model: Model
    prompts: tuple[Prompt, ...]
    sequences: tuple[list[int], ...]
    budget: int

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.sequences]

    @property
    def n_tokens(self) -> int:
        return sum(self.lengths)

    @cached_property
    def given_batches(self) -> list[list[int]]:
        """Prompts in the given order, as many to a batch as would fit were all as long as the longest."""
        size = max(1, self.budget // max(self.lengths))
        return [list(range(i, min(i + size, len(self)))) for i in range(0, len(self), size)]

    @cached_property
    def sorted_batches(self) -> list[list[int]]:
        """The length-sorted batches in which `collect` itself computes."""
        order = np.argsort(-np.array(self.lengths), kind="stable").tolist()
        overhead = OVERHEAD_TOKENS.get(self.model.device.type, OVERHEAD_TOKENS["cuda"])
        cuts = batches([self.lengths[i] for i in order], self.budget, overhead)
        return [order[cut] for cut in cuts]

    @cached_property
    def equal_batches(self) -> list[list[int]]:
        """Batches of prompts of one and the same length: not a single pad."""
        found: dict[int, list[list[int]]] = {}
        for index, length in enumerate(self.lengths):
            members = found.setdefault(length, [[]])
            if members[-1] and (len(members[-1]) + 1) * length > self.budget:
                members.append([])
            members[-1].append(index)
        return [batch for same in found.values() for batch in same]

    @property
    def single_batches(self) -> list[list[int]]:
        """One prompt at a time."""
        return [[index] for index in range(len(self))]

    def padded_tokens(self, grouping: Sequence[Sequence[int]]) -> int:
        """Tokens that a forward pass over these batches computes, pads included."""
        return sum(len(batch) * max(self.lengths[i] for i in batch) for batch in grouping)

    def head(self, n_prompts: int) -> "Workload":
        """The same with the first few prompts only, to warm up and to check."""
        return dataclasses.replace(
            self, prompts=self.prompts[:n_prompts], sequences=self.sequences[:n_prompts]
        )

    def quantiles(self) -> dict[str, int]:
        """Prompt lengths in tokens, by the percentage of prompts that are no longer."""
        found = np.quantile(self.lengths, QUANTILES, method="inverted_cdf")
        return {f"{q:.0%}": int(n) for q, n in zip(QUANTILES, found, strict=True)}


def make_workload(
    model: Model,
    n_prompts: int,
    budget: int,
    seed: int = 0,
    shortest: int = SHORTEST,
    longest: int = LONGEST,
) -> Workload:
    """Seeded prompts whose lengths have a long tail, each to the token as long as was drawn."""
    drawn = draw_lengths(n_prompts, seed, shortest, longest)
    prompts = exact_prompts(model.tokenizer, drawn, seed)
    return Workload(model, tuple(prompts), tuple(encode(prompts, model.tokenizer)), budget)


def draw_lengths(n_prompts: int, seed: int, shortest: int, longest: int) -> list[int]:
    """Token counts from a log-normal distribution, clipped to both bounds, each of which occurs."""
    if not 1 <= shortest <= longest or n_prompts < 2:
        raise InputError(
            f"a benchmark needs at least two prompts and 1 <= shortest <= longest, not {n_prompts} "
            f"prompts of {shortest} to {longest} tokens"
        )
    draw = stream(seed, "benchmark lengths")
    median = min(MEDIAN, (shortest * longest) ** 0.5)
    lengths = np.clip(np.rint(draw.lognormal(np.log(median), SIGMA, n_prompts)), shortest, longest)
    lengths[:2] = longest, shortest
    draw.shuffle(lengths)
    return [int(length) for length in lengths]


def exact_prompts(tokenizer: Any, lengths: Sequence[int], seed: int) -> list[Prompt]:
    """Prompts of made-up words whose token ids are exactly as many as asked.

    Raises `InputError` for a tokenizer with which words cannot be put together to the token.
    """
    lexicon = words(2000, seed)
    costs = _costs(tokenizer, lexicon)
    filler = next((word for word, cost in zip(lexicon, costs, strict=True) if cost == 1), None)
    if filler is None:
        filler = next((w for w in "a the of to".split() if _costs(tokenizer, [w]) == [1]), None)
    if filler is None:
        raise InputError(
            "this tokenizer has no one-token word to make prompts of exact length from"
        )
    draw = stream(seed, "benchmark prompts")
    return [
        _prompt(tokenizer, length, lexicon, costs, filler, draw, number)
        for number, length in enumerate(lengths)
    ]


def _prompt(
    tokenizer: Any,
    length: int,
    lexicon: Sequence[str],
    costs: Sequence[int],
    filler: str,
    draw: np.random.Generator,
    number: int,
) -> Prompt:
    chosen: list[str] = []
    total = 0
    while total < length:
        pick = int(draw.integers(len(lexicon)))
        chosen.append(lexicon[pick])
        total += costs[pick]
    for _ in range(MOST_CORRECTIONS):
        prompt = _as_prompt(" ".join(chosen), number)
        surplus = len(encode([prompt], tokenizer)[0]) - length if chosen else -length
        if surplus == 0:
            return prompt
        chosen = chosen[:-1] if surplus > 0 else [*chosen, *[filler] * -surplus]
    raise InputError(
        f"no text of exactly {length} tokens found with this tokenizer in {MOST_CORRECTIONS} tries"
    )


def _costs(tokenizer: Any, lexicon: Sequence[str]) -> list[int]:
    """How many tokens each word adds after another word."""
    texts = [_as_prompt(f"{lexicon[0]} {word}", 0) for word in lexicon]
    alone = len(encode([_as_prompt(lexicon[0], 0)], tokenizer)[0])
    return [len(ids) - alone for ids in encode(texts, tokenizer)]


def _as_prompt(text: str, number: int) -> Prompt:
    return Prompt(text, "benchmark", "benchmark", "benchmark", f"pair{number}", triggered=False)
