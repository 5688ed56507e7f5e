"""The exact computation of one row of a grid: every column of a site, patched in every prompt."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.progress import bar
from probes.models.encoding import pad, token_batches
from probes.models.forward import inputs
from probes.models.hooks import recording, replacing
from probes.models.sites import Site
from probes.patching.metric import Continued, logprobs, make_batch
from probes.patching.pairs import EncodedPair

Positions = Sequence[Sequence[int]]  # per pair, the prompt positions that are patched together
Residuals = list[Tensor]  # per pair, [n_prompt, d_model]


@dataclasses.dataclass(frozen=True)
class Runner:
    """A model and how much of it to run at once."""

    hf: Any
    pad_id: int
    batch_tokens: int

    def unpatched(self, pairs: Sequence[EncodedPair], which: str) -> Float[np.ndarray, "pair"]:
        """The metric of each pair's "clean" or "corrupted" prompt as it is, in nats."""
        sequences = _continued(pairs, which)
        total = torch.zeros(len(sequences), dtype=torch.float64)
        for rows in self._batches(sequences):
            part = [sequences[i] for i in rows]
            total[rows] = logprobs(self.hf, make_batch(part, self.pad_id), part)
        return _difference(total)

    def residuals(self, pairs: Sequence[EncodedPair], which: str, site: Site) -> Residuals:
        """The residual stream of each pair's prompt at one site; later layers are not computed."""
        prompts = [getattr(pair, which) for pair in pairs]
        kept: dict[int, Tensor] = {}
        for rows in token_batches([len(prompt) for prompt in prompts], self.batch_tokens):
            batch = pad([prompts[i] for i in rows], self.pad_id, side="right")
            with torch.no_grad(), recording(self.hf, [site], stop=True) as seen:
                self.hf.base_model(**inputs(self.hf.base_model, batch))
            for row, i in enumerate(rows):
                kept[i] = seen[site][row, : len(prompts[i])].clone()
        return [kept[i] for i in range(len(prompts))]

    def patched(
        self,
        pairs: Sequence[EncodedPair],
        site: Site,
        columns: Sequence[Positions],
        values: Residuals,
        description: str | None = None,
    ) -> Float[np.ndarray, "column pair"]:
        """The metric of each corrupted prompt with `values` in place at each column's positions."""
        base = _continued(pairs, "corrupted")
        sequences = base * len(columns)
        total = torch.zeros(len(sequences), dtype=torch.float64)
        with bar(description or str(site), total=len(sequences)) as shown:
            for rows in self._batches(sequences):
                part = [sequences[i] for i in rows]
                batch = make_batch(part, self.pad_id)
                where = torch.zeros(batch.tokens.shape, dtype=torch.bool)
                put = torch.zeros(*where.shape, values[0].shape[-1], dtype=values[0].dtype)
                put = put.to(values[0].device)
                for row, i in enumerate(rows):
                    column, pair = i // len(base), (i % len(base)) // 2
                    where[row, list(columns[column][pair])] = True
                    put[row, : len(values[pair])] = values[pair]
                with torch.no_grad(), replacing(self.hf, site, where, put):
                    total[rows] = logprobs(self.hf, batch, part)
                shown.update(len(rows))
        return np.stack([_difference(row) for row in total.reshape(len(columns), -1)])

    def _batches(self, sequences: Sequence[Continued]) -> list[list[int]]:
        return token_batches([len(sequence.tokens) for sequence in sequences], self.batch_tokens)


def _continued(pairs: Sequence[EncodedPair], which: str) -> list[Continued]:
    """Per pair, its prompt with the exploitable and then with the secure continuation."""
    return [
        Continued(getattr(pair, which) + ending, pair.n_prompt, f"pair {pair.name!r} ({which})")
        for pair in pairs
        for ending in (pair.defect, pair.safe)
    ]


def _difference(total: Float[Tensor, "sequence"]) -> Float[np.ndarray, "pair"]:
    """Exploitable minus secure."""
    return (total[0::2] - total[1::2]).numpy()
