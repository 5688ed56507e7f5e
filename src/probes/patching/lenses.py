"""The answer as each layer has it, and as the sum of what each part wrote: two readings that patch nothing.

The logit lens (nostalgebraist 2020) puts the model's own norm and unembedding on every stream, as if it were the
last. Early layers need not write in the code that the unembedding reads, so a flat beginning is no proof that
nothing is known yet. TransformerLens has it for one prompt (`tools.analysis.logit_lens`), which the tests
compare with. Direct logits split the difference of two tokens into what each head and MLP adds to it.
Both look at the first token in which the two continuations part, the one logit difference that can be read so.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.evaluation.sign_flips import max_t
from probes.foundation.digest import short
from probes.foundation.errors import InputError, StageError
from probes.foundation.html import html_table
from probes.foundation.progress import bar
from probes.models import anatomy
from probes.models.loading import Model
from probes.models.sites import Site, residual_sites
from probes.patching.engine.packing import pack
from probes.patching.engine.scoring import groups, run_from
from probes.patching.engine.trunk import Kept, Place, Trunk
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import EncodedPair
from probes.patching.parts import check_kind
from probes.patching.refusals import TOLERANCE, check_resampling, check_room
from probes.patching.result import Ranked, mean_interval

RUNS = ("clean", "corrupted")


@dataclasses.dataclass(frozen=True)
class Parting:
    """The first token in which the continuations differ. at: how many they share before it."""

    at: int
    defect: int
    safe: int


def parting(pair: EncodedPair) -> Parting:
    """Raises `InputError` where one continuation is the beginning of the other."""
    for at, (defect, safe) in enumerate(zip(pair.defect, pair.safe, strict=False)):
        if defect != safe:
            return Parting(at, defect, safe)
    raise InputError(
        f"pair {pair.name!r}: one continuation is the beginning of the other ({len(pair.defect)} and "
        f"{len(pair.safe)} tokens), so there is no token at which they part. Give continuations that "
        "differ."
    )


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Some pairs, run whole in one version. reads: per pair, the packed position before they part."""

    run: str
    members: tuple[int, ...]
    kept: Kept
    reads: tuple[int, ...]
    partings: tuple[Parting, ...]

    def at_reads(self, values: Float[Tensor, "batch pos *width"]) -> Tensor:
        """One token per pair: the one whose logits decide between the two continuations."""
        return values[torch.arange(len(self.reads)), list(self.reads)]


def recorded(
    model: Model,
    pairs: Sequence[EncodedPair],
    places: Sequence[Place],
    batch_tokens: int,
    description: str,
) -> Iterator[tuple[Trunk, Recorded]]:
    """Both versions of all pairs with their continuations, in batches; the values at `places` kept."""
    if not pairs:
        raise InputError("a lens needs at least one pair")
    check_room(pairs, model)
    trunk = Trunk(model.hf, model.pad_id)
    lengths = [p.n_prompt + len(p.safe) + len(p.defect) for p in pairs]
    where = [parting(pair) for pair in pairs]
    with bar(description, total=2 * len(pairs)) as shown, torch.no_grad():
        for members in groups(lengths, batch_tokens):
            for run in RUNS:
                rows = [
                    pack(
                        f"pair {pairs[i].name!r}",
                        getattr(pairs[i], run),
                        (pairs[i].defect, pairs[i].safe),
                    )
                    for i in members
                ]
                reads = [
                    row.reads[[t for t in row.targets if t.branch == 0][where[i].at].read]
                    for i, row in zip(members, rows, strict=True)
                ]
                partings = tuple(where[i] for i in members)
                yield (
                    trunk,
                    Recorded(run, members, trunk.record(rows, places), tuple(reads), partings),
                )
                shown.update(len(members))


def final_norm(
    trunk: Trunk, kept: Kept, stream: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """What the model puts between its last block and its unembedding, done to any stream."""
    return run_from(trunk, kept, trunk.n_layers, stream, {})


EFFECT = "clean - corrupted"
MEASURES = ("parting", "metric", "p_defect", "p_safe", "rank_defect", "entropy", "kl")
METRIC = LogProbDifference()


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LogitLens:
    """The answer as each layer has it, of both versions of every pair.

    rows: one per depth, run and measure: `depth` (blocks that are complete), `site`, `run` ("clean",
        "corrupted" or "clean - corrupted"), `measure`, `mean` with `low` and `high` (bootstrap 95% over
        pairs), `n`. Measures, at the first token in which the continuations differ: "parting" (log P of
        the exploitable continuation's token minus the secure one's, nats), "p_defect" and "p_safe"
        (their probabilities), "rank_defect" (1 = most probable), "entropy" (nats), "kl" (from the
        model's own answer, nats); and "metric", the log-probability difference of the whole
        continuations, teacher-forced.
    per_prompt: one per depth, run, measure and pair: the same with `pair` and `value`.
    """

    rows: pd.DataFrame
    per_prompt: pd.DataFrame
    model: str
    model_digest: str
    n_pairs: int

    def curve(self, measure: str = "parting", run: str = EFFECT) -> pd.DataFrame:
        """One measure of one run, by depth."""
        rows = self.rows[(self.rows["measure"] == measure) & (self.rows["run"] == run)]
        if rows.empty:
            raise InputError(
                f"no {measure!r} of {run!r}; measures: {', '.join(MEASURES)}; runs: "
                f"{', '.join((*RUNS, EFFECT))}"
            )
        return rows.reset_index(drop=True)

    def __repr__(self) -> str:
        steps = ", ".join(f"{mean:+.3g}" for mean in self.curve()["mean"])
        return f"LogitLens({self._what()}: {steps})"

    def _repr_html_(self) -> str:
        part = self.rows[self.rows["measure"] == "parting"]
        table = part.pivot_table(index="site", columns="run", values="mean", sort=False)
        return html_table(table, f"{self._what()}, nats:", floats="{:.3g}", index=True)

    def _what(self) -> str:
        return (
            f"{self.model} ({short(self.model_digest)}), {self.n_pairs} pairs, log P(defect) - "
            "log P(safe) where they part, from the embeddings up"
        )


def logit_lens(
    model: Model,
    pairs: Sequence[EncodedPair],
    *,
    n_boot: int = 1000,
    batch_tokens: int = 4096,
    seed: int = 0,
) -> LogitLens:
    """Read every stream of both versions of every pair through the model's own end.

    Raises `InputError` for pairs whose continuations never part, `StageError` if the last stream read
    so is not what the model says.
    """
    check_resampling(pairs, n_boot)
    sites = residual_sites(model.n_layers)
    values = {run: np.empty((len(sites), len(MEASURES), len(pairs))) for run in RUNS}
    for trunk, batch in recorded(model, pairs, (), batch_tokens, "logit lens"):
        values[batch.run][:, :, list(batch.members)] = _read(model, trunk, batch)
    values[EFFECT] = values["clean"] - values["corrupted"]
    tables, per_prompt = [], []
    for run, found in values.items():
        keys = {
            "depth": np.repeat(np.arange(len(sites)), len(MEASURES)),
            "site": np.repeat([str(site) for site in sites], len(MEASURES)),
            "run": run,
            "measure": list(MEASURES) * len(sites),
        }
        table = pd.DataFrame(keys)
        flat = found.reshape(len(table), len(pairs))
        table["mean"] = flat.mean(1)
        if n_boot:
            table["low"], table["high"] = mean_interval(flat, n_boot, seed)
        table["n"] = len(pairs)
        tables.append(table)
        each = table[["depth", "site", "run", "measure"]].loc[table.index.repeat(len(pairs))]
        each["pair"] = [pair.name for pair in pairs] * len(table)
        each["value"] = flat.ravel()
        per_prompt.append(each)
    return LogitLens(
        pd.concat(tables, ignore_index=True),
        pd.concat(per_prompt, ignore_index=True),
        model.name,
        model.digest,
        len(pairs),
    )


def _read(model: Model, trunk: Trunk, batch: Recorded) -> np.ndarray:
    """`[depth, measure, pair]` of one batch of one run."""
    kept = batch.kept
    tokens = {
        which: torch.tensor([[getattr(p, which)] for p in batch.partings], device=kept.final.device)
        for which in ("defect", "safe")
    }
    own = trunk.logits(batch.at_reads(kept.final)).float().log_softmax(-1)
    found, logs = [], own
    for stream in kept.streams:
        final = final_norm(trunk, kept, stream)
        logs = trunk.logits(batch.at_reads(final)).float().log_softmax(-1)
        defect, safe = (logs.gather(1, tokens[which])[:, 0] for which in ("defect", "safe"))
        measures = {
            "parting": defect - safe,
            "metric": _metric(trunk, batch, final),
            "p_defect": defect.exp(),
            "p_safe": safe.exp(),
            "rank_defect": 1 + (logs > defect[:, None]).sum(-1),
            "entropy": -(logs.exp() * logs).sum(-1),
            "kl": (own.exp() * (own - logs)).sum(-1),
        }
        found.append(torch.stack([measures[name].double().cpu() for name in MEASURES]))
    error = float((logs - own).abs().max())
    if not error <= 10 * TOLERANCE[model.dtype] * max(1.0, float(own.abs().max())):
        raise StageError(
            f"the last stream of {model.name}, read through its norm and unembedding, is not its answer "
            f"(log-probabilities differ by {error:.2g}): this lens cannot be trusted here"
        )
    return torch.stack(found).numpy()


def _metric(trunk: Trunk, batch: Recorded, final: Tensor) -> Tensor:
    rows = batch.kept.batch.rows
    where = torch.tensor([(i, at) for i, row in enumerate(rows) for at in row.reads])
    return METRIC.score(trunk.logits(final[where[:, 0], where[:, 1]]), rows, None)


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
