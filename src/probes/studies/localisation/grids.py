"""One organism's grids: every site by named column, every head, restored and destroyed, beside a placebo."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.models import anatomy
from probes.models.loading import Model
from probes.patching.canary import TOLERANCE
from probes.patching.exact import patch_cells
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell, Part, n_heads
from probes.patching.sources import Plan
from probes.patching.spans import Column
from probes.studies.localisation.config import WhereConfig
from probes.studies.localisation.questions import ANSWER, CONTINUATION, CUE, LAST

RESIDUAL = ("resid_pre", "resid_mid", "resid_post")
COMPONENTS = ("attn_out", "mlp_out")
IN_BLOCK = ("attn_out", "resid_mid", "mlp_out", "resid_post")


@dataclasses.dataclass(frozen=True)
class Asked:
    """One organism's pairs as token ids, and their named columns."""

    pairs: tuple[EncodedPair, ...]
    columns: tuple[Column, ...]

    def index(self, label: str) -> int | None:
        labels = [column.label for column in self.columns]
        return labels.index(label) if label in labels else None

    @property
    def answer(self) -> tuple[int, ...]:
        """The columns at which answers are decided: the last token, and the continuation's."""
        found = (self.index(label) for label in (LAST, CONTINUATION))
        return tuple(i for i in found if i is not None)


def sites_of(model: Model) -> list[tuple[str, int]]:
    """Sites from the bottom up, in the order in which a block computes them; no stream twice."""
    known = [kind for kind in IN_BLOCK if kind not in anatomy.missing(model.hf)]
    return [("resid_pre", 0), *((kind, i) for i in range(model.n_layers) for kind in known)]


def site_cells(model: Model, asked: Asked) -> list[Cell]:
    """Every site by every column, and by the last token and the continuation at once."""
    found = []
    for kind, layer in sites_of(model):
        for i, column in enumerate(asked.columns):
            found.append(Cell((Part(kind, layer, None, i),), f"{kind}.{layer}", column.label, i))
        parts = tuple(Part(kind, layer, None, i) for i in asked.answer)
        found.append(Cell(parts, f"{kind}.{layer}", ANSWER, len(asked.columns)))
    return found


def head_cells(model: Model, asked: Asked) -> list[Cell]:
    """What each head writes where answers are decided (z), and what it can read at the cue (kv).

    A head reads by what it attends to (k) and by what it takes from there (v). Keys of versions that
    differ in length are turned by different positions; then its values alone are patched.
    """
    found = []
    cue = asked.index(CUE)
    read = ("k", "v") if all(pair.matched is None for pair in asked.pairs) else ("v",)
    for layer in range(model.n_layers):
        if "z" not in anatomy.missing(model.hf):
            for head in range(n_heads(model.hf, "z")):
                parts = tuple(Part("z", layer, head, i) for i in asked.answer)
                found.append(Cell(parts, f"z.{layer}", ANSWER, len(asked.columns)))
        if cue is None:
            continue
        for head in range(n_heads(model.hf, "v")):
            parts = tuple(Part(kind, layer, head, cue) for kind in read)
            found.append(Cell(parts, f"{''.join(read)}.{layer}", CUE, cue))
    return found


def differences(model: Model, pairs: Sequence[EncodedPair]) -> Float[np.ndarray, "pair"]:
    """How far the trigger moves the metric in each pair as a whole [nats]."""
    job = Job(model, pairs, (), LogProbDifference(), Settings())
    clean, corrupted = job.unpatched(Plan("noise"))
    return clean - corrupted


def is_moved(model: Model, apart: Float[np.ndarray, "pair"]) -> bool:
    """Whether there is an effect to locate at all: more than rounding."""
    return abs(float(apart.mean())) > 10 * TOLERANCE[model.dtype]


def grid(
    model: Model, asked: Asked, direction: str, config: WhereConfig, *, placebo: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and their effects by pair, in nats; p is corrected over all cells of the direction together."""
    cells = site_cells(model, asked) + head_cells(model, asked)
    found = patch_cells(
        model, asked.pairs, cells, asked.columns,
        plan=Plan(direction, seed=config.seed), placebo=placebo, n_boot=config.n_boot,
        n_flips=config.n_flips, settings=Settings(seed=config.seed), seed=config.seed,
    )  # fmt: skip
    rows = with_kinds(found.rows).assign(direction=direction)
    return rows, found.per_prompt.assign(direction=direction)


def with_kinds(rows: pd.DataFrame) -> pd.DataFrame:
    """The site's name as `kind` and `block`, and the label as `where`."""
    named = rows["site"].str.rsplit(".", n=1, expand=True)
    return rows.drop(columns=["layer", "column", "normalised"], errors="ignore").rename(
        columns={"label": "where"}
    ).assign(kind=named[0], block=named[1].astype(int))  # fmt: skip
