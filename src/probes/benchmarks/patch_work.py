"""Pairs to patch for the benchmark: of one length, because TransformerLens patches one position in all."""

import collections
import dataclasses

import torch
from torch import Tensor

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.encoding import pad
from probes.models.loading import Model
from probes.patching.pairs import EncodedPair, encode_pairs, make_pairs
from probes.prompts.corpus import CorpusConfig, build_corpus


@dataclasses.dataclass(frozen=True)
class PatchWork:
    """A model and pairs whose prompts all have `n_prompt` tokens.

    metric: of every contender, log P(exploitable) - log P(secure continuation), teacher-forced.
    """

    model: Model
    pairs: tuple[EncodedPair, ...]

    @property
    def n_prompt(self) -> int:
        return self.pairs[0].n_prompt

    @property
    def n_full(self) -> int:
        """Tokens of the longest prompt with a continuation."""
        return self.n_prompt + max(max(len(p.safe), len(p.defect)) for p in self.pairs)

    def tokens(self, which: str) -> Tensor:
        """Every prompt with its two continuations, one row each, padded on the right."""
        rows = [
            [*getattr(pair, which), *ending]
            for pair in self.pairs
            for ending in (pair.defect, pair.safe)
        ]
        return pad(rows, self.model.pad_id, side="right").tokens.to(self.model.device)

    def metric(self, logits: Tensor) -> Tensor:
        """One number per row of `tokens`: the log-probability of its continuation, signed."""
        rows, columns, targets, signs = self._targets
        logs = logits[rows, columns].float().log_softmax(-1)
        each = logs.gather(1, targets[:, None])[:, 0].double() * signs
        total = torch.zeros(2 * len(self.pairs), dtype=torch.float64, device=logits.device)
        return total.index_add(0, rows, each)

    @property
    def _targets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flat = [
            (2 * i + b, pair.n_prompt - 1 + j, token, 1.0 - 2.0 * b)
            for i, pair in enumerate(self.pairs)
            for b, ending in enumerate((pair.defect, pair.safe))
            for j, token in enumerate(ending)
        ]
        device = self.model.device
        rows, columns, targets, signs = zip(*flat, strict=True)
        return (
            torch.tensor(rows, device=device),
            torch.tensor(columns, device=device),
            torch.tensor(targets, device=device),
            torch.tensor(signs, device=device, dtype=torch.float64),
        )


def organism_work(model: Model, n_pairs: int, seed: int) -> PatchWork:
    """The corpus' own pairs, of the prompt length that most of them have."""
    config = CorpusConfig(seed=seed, pretrain=60, train=60, test_per_family=16)
    prompts = [p for p in build_corpus(config).test if p.defect is not None]
    encoded = encode_pairs(make_pairs(prompts), model.tokenizer)
    length, _ = collections.Counter(pair.n_prompt for pair in encoded).most_common(1)[0]
    chosen = [pair for pair in encoded if pair.n_prompt == length]
    if len(chosen) < 2:
        raise InputError(f"only {len(chosen)} pairs of the corpus have {length} tokens")
    return PatchWork(model, tuple(chosen[:n_pairs]))


def random_work(model: Model, n_pairs: int, n_prompt: int, n_answer: int, seed: int) -> PatchWork:
    """Random token ids; the two prompts of a pair differ in one token, an eighth of the way in."""
    draw = stream(seed, "benchmark pairs")
    d_vocab = int(model.hf.config.get_text_config().vocab_size)

    def some(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in draw.integers(2, d_vocab, n))

    pairs = []
    for number in range(n_pairs):
        clean = some(n_prompt)
        at = n_prompt // 8
        other = 2 + (clean[at] - 1) % (d_vocab - 2)
        corrupted = (*clean[:at], other, *clean[at + 1 :])
        pairs.append(
            EncodedPair(f"random {number}", clean, corrupted, some(n_answer), some(n_answer))
        )
    return PatchWork(model, tuple(pairs))
