"""Attention sinks: tokens with so large a residual norm that they would decide every mean and maximum.

Many pretrained models give the first token, copies of it and some special tokens a norm a hundred
times that of all others (Xiao et al. 2023, Sun et al. 2024). Attention rests there; the content of
the text does not. Which tokens they are depends on the text, so the rule is a norm at one site.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.models import forward
from probes.models.encoding import encode_texts, pad, token_batches
from probes.models.hooks import recording
from probes.models.sites import parse_site, residual_sites

if TYPE_CHECKING:
    from probes.models.loading import Model

RATIO = 10.0
"""A norm beyond so many medians is a sink: SmolLM2's are at 100 to 200, ordinary tokens below 3."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog. Then it slept.\n\nHello there!",
    'def total(items):\n    result = 0\n    for item in items:\n        result += item["n"]',
    "1. First, open the file; 2. read it: what is 2 + 2? (It is 4.)\n- the end\n",
    *(" ".join(map(chr, range(start, start + 24))) for start in (33, 57, 81, 103)),
)
MOST_SPECIAL = 32
BATCH_TOKENS = 8192


class SinkRule(Config):
    """A token is a sink where its residual norm at `site` is above `limit`."""

    site: str
    limit: float


@dataclasses.dataclass(frozen=True)
class Sinks:
    """The sinks of one model. rule: None where it has none. note: one line about them, else empty."""

    rule: SinkRule | None = None
    note: str = ""


@torch.no_grad()
def find_sinks(model: "Model") -> Sinks:
    """Run a few short texts, the special tokens among them, and look at the norms of every layer.

    The rule is taken at the middle layer, or, where nothing stands out there, at the one where most
    does. Its limit has two digits, so that it is the same on every machine.
    """
    sites = residual_sites(model.n_layers)[1:]

    def norms(found: Tensor) -> Tensor:
        return found.float().norm(dim=-1).cpu()

    sequences = _sequences(model)
    passes = []
    for ids in sequences:
        with recording(model.hf, sites, select=norms, stop=True) as one:
            forward.trunk(model.hf, pad([ids], model.pad_id))
        passes.append(one)
    seen = {site: torch.cat([one[site][0] for one in passes]) for site in sites}
    medians = {site: float(seen[site].median()) for site in sites}
    ratios = {site: float(seen[site].max()) / max(medians[site], 1e-30) for site in sites}
    middle, most = sites[(len(sites) - 1) // 2], max(sites, key=lambda site: ratios[site])
    site = middle if ratios[middle] > RATIO else most
    if not ratios[site] > RATIO:
        return Sinks()
    rule = SinkRule(site=str(site), limit=float(f"{RATIO * medians[site]:.2g}"))
    above = [(passes[i][site][0] > rule.limit).tolist() for i in range(len(sequences))]
    first = "token 0" if all(one[0] for one in above) else ""
    later = [
        token
        for ids, sinks in zip(sequences, above, strict=True)
        for column, (token, sink) in enumerate(zip(ids, sinks, strict=True))
        if sink and not (first and column == 0)
    ]
    names = [repr(str(model.tokenizer.decode([one]))) for one in dict.fromkeys(later)][:4]
    where = ", ".join([first] * bool(first) + [f"the token {name}" for name in names])
    largest = float(seen[site].max())
    return Sinks(
        rule,
        f"attention sinks: {where} (residual norm up to {largest:,.0f} at {site}, the median is "
        f"{medians[site]:,.0f})",
    )


def sink_masks(
    model: "Model", sequences: Sequence[Sequence[int]], rule: SinkRule | None = None
) -> list[Bool[np.ndarray, "token"]]:
    """Which tokens of each sequence are sinks. rule: by default the model's own.

    A model without sinks is not run; another one as deep as its rule's site.
    """
    rule = rule or model.sinks.rule
    masks = [np.zeros(len(one), dtype=bool) for one in sequences]
    if rule is None:
        return masks
    site = parse_site(rule.site, model.n_layers)
    for members in token_batches([len(one) for one in sequences], BATCH_TOKENS):
        batch = pad([sequences[i] for i in members], model.pad_id).to(model.device)
        with (
            torch.no_grad(),
            recording(model.hf, [site], select=lambda x: x.float().norm(dim=-1), stop=True) as seen,
        ):
            forward.trunk(model.hf, batch)
        for i, norms in zip(members, seen[site].cpu().numpy(), strict=True):
            masks[i] = norms[: len(sequences[i])] > rule.limit
    return masks


def refuse_only_sinks(what: str) -> InputError:
    """Said where nothing is left to take a mean or a maximum over."""
    return InputError(
        f"{what}: all its tokens are attention sinks, and none is left to count. Give longer "
        "prompts, or count sinks too (--keep-sinks, keep_sinks=True)"
    )


def _sequences(model: "Model") -> list[list[int]]:
    """The texts as tokens, and the special tokens between those of the first text."""
    texts = [ids for ids in encode_texts(list(TEXTS), model.tokenizer, True) if ids]
    limit = forward.context_length(model.hf)
    n_known = int(model.hf.get_input_embeddings().weight.shape[0])
    special = [i for i in dict.fromkeys(model.tokenizer.all_special_ids) if i < n_known]
    if texts and special:
        plain = texts[0]
        mixed = [plain[0]]
        for number, one in enumerate(special[:MOST_SPECIAL]):
            mixed += [plain[(1 + number) % len(plain)], int(one)]
        texts.append([*mixed, plain[0]])
    return [ids[:limit] for ids in texts]
