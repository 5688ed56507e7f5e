"""Lenses as a stage: what each part writes into the answer, and the answer as each layer has it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.direct_logits import DirectLogits, direct_logits
from probes.patching.logit_lens import LogitLens, logit_lens
from probes.plotting.depth import lens_by_depth
from probes.plotting.style import figure, save, style
from probes.prompts.records import Prompt
from probes.studies.ready_pairs import facts, ready_pairs


@dataclasses.dataclass(frozen=True, eq=False)
class Lenses:
    """Both readings of the same pairs."""

    lens: LogitLens
    direct: DirectLogits

    def _repr_html_(self) -> str:
        return self.lens._repr_html_() + self.direct._repr_html_()


@writes("out", "lens")
def lenses(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    n_pairs: int = 24,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int = 0,
) -> Lenses:
    """The logit lens and direct logits, on pairs that carry reference continuations.

    out: a folder for `lens.csv`, `lens_per_prompt.csv`, `parts.csv`, `parts_per_prompt.csv` and the
    figure `lens_by_depth`.
    """
    ready = ready_pairs(model, prompts, n_pairs=n_pairs, seed=seed)
    lens = logit_lens(model, ready.encoded, n_boot=n_boot, seed=seed)
    direct = direct_logits(model, ready.encoded, n_boot=n_boot, n_flips=n_flips, seed=seed)
    if out is not None:
        said = facts(model, seed=seed)
        tables = {
            "lens": lens.rows, "lens_per_prompt": lens.per_prompt, "parts": direct.rows,
            "parts_per_prompt": direct.per_prompt,
        }  # fmt: skip
        for name, table in tables.items():
            write_table(Path(out) / f"{name}.csv", table, **said)
        with style():
            picture = figure()
            label = "log P(defect) − log P(safe)\nwhere they part [nats]"
            drawn = lens_by_depth(picture.subplots(), lens.rows, label=label)
            save(picture, Path(out) / "lens_by_depth", drawn, **said)
    return Lenses(lens, direct)
