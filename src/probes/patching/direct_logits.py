"""The direction that tells two tokens apart at the end of the model, in logits."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.evaluation.sign_flips import max_t
from probes.foundation.errors import InputError, StageError
from probes.models import anatomy
from probes.models.loading import Model
from probes.models.sites import Site
from probes.patching.answers import RUNS, Recorded, final_norm, recorded
from probes.patching.canary import TOLERANCE
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.pairs import EncodedPair
from probes.patching.parts import check_kind
from probes.patching.refusals import check_resampling
from probes.patching.result import Ranked, mean_interval


def contrast(
    trunk: Trunk,
    final: Float[Tensor, "row d_model"],
    plus: Int[Tensor, "row"],
    minus: Int[Tensor, "row"],
) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, "row"]]:
    """Per row a direction and a constant: direction . final + constant = logit of plus minus of minus.

    Scaling of the logits is in both. Where the model bends its logits (a soft cap, as in Gemma 2) the
    difference is that before the bend, which has the same sign. Raises `InputError` where the logits are
    not a linear map of the final states otherwise.
    """
    head = trunk.hf.get_output_embeddings()
    weight, own = head.weight.double(), getattr(head, "bias", None)
    bias = torch.zeros(len(weight), device=weight.device).double() if own is None else own.double()
    model = trunk.logits(final).double()
    raw = final.double() @ weight.T + bias
    cap = getattr(trunk.hf.config.get_text_config(), "final_logit_softcapping", None)
    factor = 1.0
    if cap is None:
        factor = float((model * raw).sum() / raw.square().sum())
        expected = raw * factor
    else:
        expected = cap * torch.tanh(raw / cap)
    error = float((expected - model).abs().max())
    if not error <= 10 * TOLERANCE[final.dtype] * max(1.0, float(model.abs().max())):
        raise InputError(
            f"the logits of {type(trunk.hf).__name__} are not its unembedding times its final states "
            f"(they differ by {error:.2g}), so nothing can be attributed to them directly. Patch the "
            "parts with `patch_cells` instead."
        )
    return (weight[plus] - weight[minus]) * factor, (bias[plus] - bias[minus]) * factor


Norm = Callable[[Float[Tensor, "row d_model"]], Float[Tensor, "row d_model"]]
LARGE = 1e3  # so that the small number that norms add to the variance does not count


@dataclasses.dataclass(frozen=True)
class FrozenNorm:
    """gain, bias: `[d_model]`. centred: whether the mean is taken off first. norm: the module's own."""

    norm: Norm
    gain: Float[Tensor, "d_model"]
    bias: Float[Tensor, "d_model"]
    centred: bool

    def passed_on(
        self, whole: Float[Tensor, "row d_model"], terms: Float[Tensor, "row term d_model"]
    ) -> Float[Tensor, "row term d_model"]:
        """What each term of a sum gives to the norm of `whole`; with `bias` they add up to it.

        Float64. Raises `InputError` where the norm is not of this form.
        """
        right = self.norm(whole).double() - self.bias
        straight = self._centred(whole.double()) * self.gain
        scale = (right * straight).sum(-1) / straight.square().sum(-1).clamp_min(1e-300)
        error = (straight * scale[:, None] - right).abs().max()
        if not float(error) <= 10 * TOLERANCE[whole.dtype] * float(
            right.abs().max().clamp_min(1e-6)
        ):
            raise InputError(
                "this norm is neither RMSNorm nor LayerNorm: with its scale held it is not linear in "
                "its input, so that no part of the model has a share in what it gives. Patch the parts "
                "with `patch_cells` instead."
            )
        return self._centred(terms.double()) * self.gain * scale[:, None, None]

    def _centred(self, values: Tensor) -> Tensor:
        return values - values.mean(-1, keepdim=True) if self.centred else values


def freeze(norm: Norm, like: Float[Tensor, "row d_model"]) -> FrozenNorm:
    """Read gain, bias and centring off a norm; like: some rows of what it normally gets."""
    signs = torch.ones_like(like[:1])
    signs[:, 1::2] = -1
    plus, minus = norm(LARGE * signs).double(), norm(-LARGE * signs).double()
    shifted = norm(like + like.abs().max()).double()
    plain = norm(like).double()
    centred = bool((shifted - plain).abs().max() <= 1e-2 * plain.abs().max())
    return FrozenNorm(
        norm, ((plus - minus) / 2 * signs.double())[0], ((plus + minus) / 2)[0], centred
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DirectLogits(Ranked):
    """Terms of logit(defect) - logit(safe) at the first token in which the continuations differ.

    rows: one per part, from the bottom up: `component`, `kind` ("embed", "z", "attn_bias", "mlp_out"
        or "bias", what norm and unembedding add by themselves), `layer` and `head` where it has them,
        `clean` and `corrupted` (mean over pairs), `mean` (clean minus corrupted) with `low`, `high`
        (bootstrap 95% over pairs) and `p` (sign flips, corrected for all parts), `n`.
    per_prompt: one per part and pair: `component`, `pair`, `clean`, `corrupted`.
    totals: the logit difference itself by `pair`: `clean`, `corrupted`; the parts add up to it.
    """

    totals: pd.DataFrame

    def __repr__(self) -> str:
        best = self.strongest(1).iloc[0]
        return (
            f"DirectLogits({self._what()}; most of it by {best['component']}: {best['mean']:+.3g})"
        )

    def _what(self) -> str:
        means = ", ".join(f"{run} {self.totals[run].mean():+.3g}" for run in RUNS)
        return (
            f"{super()._what()}, {len(self.totals)} pairs, logit(defect) - "
            f"logit(safe) where they part: {means}"
        )


def direct_logits(
    model: Model,
    pairs: Sequence[EncodedPair],
    *,
    n_boot: int = 1000,
    n_flips: int = 2000,
    batch_tokens: int = 4096,
    seed: int = 0,
) -> DirectLogits:
    """Split the logit difference of both versions of every pair into what each part wrote.

    Raises `InputError` where the model's parts are not known to add up to its stream, or its ends are
    not linear at a held scale; `StageError` if the terms do not add up to the model's own logits.
    """
    for kind in ("z", "attn_out", "mlp_out"):
        check_kind(model.hf, kind)
    check_resampling(pairs, n_boot, n_flips)
    places: list[Place] = [
        (kind, i) for i in range(model.n_layers) for kind in ("z", "attn_out", "mlp_out")
    ]
    names: list[dict[str, Any]] = []
    found: dict[str, dict[int, np.ndarray]] = {run: {} for run in RUNS}
    totals: dict[str, dict[int, float]] = {run: {} for run in RUNS}
    for trunk, batch in recorded(model, pairs, places, batch_tokens, "direct logits"):
        names, terms, total = _terms(model, trunk, batch)
        for row, i in enumerate(batch.members):
            found[batch.run][i] = terms[row].cpu().numpy()
            totals[batch.run][i] = float(total[row])
    values = {run: np.stack([found[run][i] for i in range(len(pairs))], 1) for run in RUNS}
    change = values["clean"] - values["corrupted"]
    rows = pd.DataFrame(names).astype({"layer": "Int64", "head": "Int64"})
    rows["clean"], rows["corrupted"] = (values[run].mean(1) for run in RUNS)
    rows["mean"] = change.mean(1)
    if n_boot:
        rows["low"], rows["high"] = mean_interval(change, n_boot, seed)
    if n_flips:
        floor = TOLERANCE[model.dtype] * max(1.0, float(np.abs(values["clean"]).max()))
        rows["p"] = max_t(change, n_flips=n_flips, floor=floor, seed=seed)
    rows["n"] = len(pairs)
    pair_names = [pair.name for pair in pairs]
    per_prompt = pd.DataFrame(
        {
            "component": rows["component"].repeat(len(pairs)).to_numpy(),
            "pair": pair_names * len(rows),
            **{run: values[run].ravel() for run in RUNS},
        }
    )
    whole = pd.DataFrame(
        {"pair": pair_names, **{r: [totals[r][i] for i in range(len(pairs))] for r in RUNS}}
    )
    return DirectLogits(rows, per_prompt, model.name, model.digest, whole)


def _terms(
    model: Model, trunk: Trunk, batch: Recorded
) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
    """What the parts are called, their terms `[pair, part]`, and the model's own logit difference."""
    kept = batch.kept
    names: list[dict[str, Any]] = [_name("embed", "embed", None)]
    written = [batch.at_reads(kept.streams[0]).double()[:, None]]
    for layer in range(trunk.n_layers):
        by_head, rest = _heads(trunk, batch, layer)
        names += [_name(f"z.{layer}.{h}", "z", layer, h) for h in range(trunk.n_heads)]
        names += [
            _name(f"attn_bias.{layer}", "attn_bias", layer),
            _name(f"mlp_out.{layer}", "mlp_out", layer),
        ]
        mlp = batch.at_reads(kept.at(("mlp_out", layer))).double()
        written += [by_head, rest[:, None], mlp[:, None]]
    parts = torch.cat(written, 1)
    last = batch.at_reads(kept.streams[-1])
    _check_sum(model, "the stream", parts.sum(1), last)

    def norm(rows: Tensor) -> Tensor:
        """The final norm of single rows, which the trunk computes for a batch of its own shape."""
        n_rows, width, d_model = kept.streams[-1].shape
        found = []
        for part in rows.split(n_rows * width):
            entry = part.new_zeros(n_rows * width, d_model)
            entry[: len(part)] = part
            entry = entry.reshape(n_rows, width, d_model)
            found.append(final_norm(trunk, kept, entry).flatten(0, 1)[: len(part)])
        return torch.cat(found)

    frozen = freeze(norm, last)
    passed = frozen.passed_on(last, parts)
    final = batch.at_reads(kept.final)
    plus, minus = (
        torch.tensor([getattr(p, which) for p in batch.partings], device=final.device)
        for which in ("defect", "safe")
    )
    direction, own = contrast(trunk, final, plus, minus)
    total = (final.double() * direction).sum(-1) + own
    names.append(_name("bias", "bias", None))
    rest = own + (frozen.bias * direction).sum(-1)
    terms = torch.cat([(passed * direction[:, None]).sum(-1), rest[:, None]], 1)
    _check_sum(model, "the logit difference", terms.sum(1), total)
    return names, terms, total


def _heads(trunk: Trunk, batch: Recorded, layer: int) -> tuple[Tensor, Tensor]:
    """What each head adds to the stream, `[pair, head, d_model]`, and what no head does, float64."""
    z_site, out_site = Site("z", layer), Site("attn_out", layer)
    where = anatomy.find(trunk.hf, [z_site, out_site])
    projection, behind = where[z_site].module, where[out_site]
    z = batch.at_reads(batch.kept.at(("z", layer)))
    alone = torch.diag_embed(torch.ones(trunk.n_heads)).to(z)[None, :, :, None] * z[:, None]
    nothing = projection(torch.zeros_like(z[:1]).flatten(1))
    by_head = (projection(alone.flatten(2)) - nothing).double()
    rest = nothing.double().expand(len(z), -1)
    if not _inside(projection, behind.module):
        whole = projection(z.flatten(1))
        frozen = freeze(behind.module, whole)
        passed = frozen.passed_on(whole, torch.cat([by_head, rest[:, None]], 1))
        by_head, rest = passed[:, :-1], passed[:, -1] + frozen.bias
    by_head, rest = by_head * behind.scale, rest * behind.scale
    own = batch.at_reads(batch.kept.at(("attn_out", layer)))
    error = float((by_head.sum(1) + rest - own).abs().max())
    if not error <= 10 * TOLERANCE[own.dtype] * max(1.0, float(own.abs().max())):
        raise InputError(
            f"the heads of layer {layer} of {type(trunk.hf).__name__} do not add up to what its attention "
            f"writes (by {error:.2g}): something stands between them. Patch heads with `patch_cells`."
        )
    return by_head, rest


def _inside(module: nn.Module, other: nn.Module) -> bool:
    return any(part is module for part in other.modules())


def _name(component: str, kind: str, layer: int | None, head: int | None = None) -> dict[str, Any]:
    return {"component": component, "kind": kind, "layer": layer, "head": head}


def _check_sum(model: Model, what: str, parts: Tensor, whole: Tensor) -> None:
    error = float((parts - whole.double()).abs().max())
    if not error <= 10 * TOLERANCE[model.dtype] * max(1.0, float(whole.abs().max())):
        raise StageError(
            f"the parts of {model.name} do not add up to {what}: they differ by {error:.2g}. Run "
            "`probes doctor` on this model."
        )
