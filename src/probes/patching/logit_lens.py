"""What the model would say if it stopped after each layer: its own norm and unembedding on every stream.

The logit lens (nostalgebraist 2020) reads a stream as if it were the last. Early layers need not write in
the code that the unembedding reads, so a flat beginning is no proof that nothing is known yet.
TransformerLens has it for one prompt (`tools.analysis.logit_lens`), which the tests compare with.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.foundation.digest import short
from probes.foundation.errors import InputError, StageError
from probes.foundation.html import html_table
from probes.models.loading import Model
from probes.models.sites import residual_sites
from probes.patching.answers import RUNS, Recorded, final_norm, recorded
from probes.patching.canary import TOLERANCE
from probes.patching.engine.trunk import Trunk
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import EncodedPair
from probes.patching.refusals import check_resampling
from probes.patching.result import mean_interval

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
