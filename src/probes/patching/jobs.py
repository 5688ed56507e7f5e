"""The numbers of a grid, site by site, in groups of pairs that fit into memory."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probes.foundation.artifact import PROCEDURES
from probes.foundation.digest import digest_json
from probes.foundation.procedures import versions
from probes.foundation.progress import bar
from probes.models.loading import Model
from probes.models.speed import announce
from probes.patching.checks import check_noise, check_resuming, check_sample, watched_cells
from probes.patching.engine.rows import batches
from probes.patching.engine.scoring import Prepared, Scorer
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.measures import Metric
from probes.patching.pairs import EncodedPair, digest_pairs
from probes.patching.parts import Cell
from probes.patching.sources import Plan
from probes.patching.spans import Column

# As many as a processor's caches hold, or as keep a GPU busy.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
AUDITED = 500


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a grid is computed; of all of these only the metric and the pairs decide what comes out.

    batch_tokens: run at once, padding included; None for what suits the device. memory_budget: bytes
    for what is kept of whole runs. n_audit: cells per site that are computed a second time by full
    forward passes; None for one in `AUDITED`, and at least one of each kind of site, one more in
    the last layer.
    """

    batch_tokens: int | None = None
    memory_budget: int = 2 << 30
    n_audit: int | None = None
    seed: int = 0

    def tokens_at_once(self, device: torch.device) -> int:
        """`batch_tokens`, or what suits the device."""
        return self.batch_tokens or BATCH_TOKENS.get(device.type, 2048)


class Job:
    """One model, its pairs and a metric: gives the numbers of any cells under any plan."""

    def __init__(
        self,
        model: Model,
        pairs: Sequence[EncodedPair],
        columns: Sequence[Column],
        metric: Metric,
        settings: Settings,
    ) -> None:
        self.model = model
        self.pairs = tuple(pairs)
        self.columns = tuple(columns)
        self.metric = metric
        self.settings = settings
        self._scorers: dict[Plan, Scorer] = {}
        self._prepared: tuple[Plan, Prepared] | None = None
        self._ahead: tuple[Place, ...] = ()
        self._trusted = False
        self._audited: set[tuple[Any, ...]] = set()
        self._owed = 0.0

    @cached_property
    def trunk(self) -> Trunk:
        return Trunk(self.model.hf, self.model.pad_id)

    def facts(self, plan: Plan, cells: Sequence[Cell] = ()) -> dict[str, Any]:
        """Everything that determines the numbers, as JSON data."""
        return {
            **self.model.identity.model_dump(),
            PROCEDURES: versions("patching"),
            "dtype": str(self.model.dtype),
            "pairs": digest_pairs(self.pairs),
            "columns": digest_json([[c.label, c.positions] for c in self.columns]),
            "metric": self.metric.name,
            "plan": plan.facts,
            **self._sinks(plan),
            "cells": digest_json([dataclasses.asdict(cell) for cell in cells]),
        }

    def _sinks(self, plan: Plan) -> dict[str, Any]:
        """What decides means besides the plan, in a model that has attention sinks."""
        rule = self.model.sinks.rule if plan.values == "mean" else None
        return {} if rule is None else {"sinks": rule.model_dump()}

    def look_ahead(self, cells: Sequence[Cell]) -> None:
        """Keep the values of all these cells from one whole run, but for patterns, which are large."""
        places = {part.place for cell in cells for part in cell.parts}
        self._ahead = tuple(
            sorted(place for place in places if place[0] not in ("pattern", "stream"))
        )

    def announce(self, cells: Sequence[Cell], what: str = "patching", times: int = 1) -> None:
        """Say how long it takes to score these cells in every pair, where that is long."""
        lengths = [p.n_prompt + len(p.safe) + len(p.defect) for p in self.pairs]
        left = sum(1 - cell.layer / self.trunk.n_layers for cell in cells)
        rows = [list(pair.clean) for pair in self.pairs]
        note = f"{len(cells)} cells, {len(self.pairs)} pairs; at most"
        announce(self.model, what, times * left * sum(lengths), rows, note)

    def unpatched(self, plan: Plan) -> Float[np.ndarray, "run pair"]:
        """The metric of the run that is patched, and of the other version of each prompt."""
        found = [np.empty((2, 0))]
        for members in self._groups(self._ahead):
            paired = dataclasses.replace(plan, values="paired", along=())
            prepared = self._prepare(paired, members, ())
            found.append(np.stack([prepared.unpatched, prepared.other]))
        return np.concatenate(found, 1)

    def scores(self, plan: Plan, cells: Sequence[Cell]) -> Float[np.ndarray, "cell pair"]:
        """The metric of every cell in every pair; cells of one site belong together."""
        places = sorted({part.place for cell in cells for part in cell.parts})
        groups = self._groups(sorted({*places, *self._ahead}))
        if plan.values == "mean":
            scorer = self._scorer(plan)
            scorer.means = None
            for members in groups:
                scorer.add_means(members, sorted({*places, *self._ahead}), self.model.sinks.rule)
            self._prepared = None
        found = np.empty((len(cells), len(self.pairs)))
        for members in groups:
            prepared = self._prepare(plan, members, places)
            found[:, list(members)] = self._group(plan, prepared, cells)
        return found

    def _group(
        self, plan: Plan, prepared: Prepared, cells: Sequence[Cell]
    ) -> Float[np.ndarray, "cell pair"]:
        scorer, settings = self._scorer(plan), self.settings
        found = np.repeat(prepared.unpatched[None], len(cells), 0)
        rows = scorer.rows(prepared, cells)
        watched = watched_cells(rows)
        with bar(_called(plan, cells), total=len(rows)) as shown:
            for batch in batches(rows, scorer.batch_tokens):
                scores = scorer.run(prepared, batch, watched)
                for row, score in zip(batch, scores, strict=True):
                    found[row.result] = score
                shown.update(len(batch))
        check_noise(scorer, prepared, rows, watched, settings.seed)
        n_audit = self._n_audit(plan, cells, len(rows))
        check_sample(
            scorer, prepared, rows, [found[row.result] for row in rows], n_audit, settings.seed
        )
        return found

    def _n_audit(self, plan: Plan, cells: Sequence[Cell], n_rows: int) -> int:
        if self.settings.n_audit is not None:
            return self.settings.n_audit
        kinds = tuple(sorted({part.kind for cell in cells for part in cell.parts}))
        what = plan, kinds, min(cell.layer for cell in cells) >= self.trunk.n_layers - 1
        self._owed += n_rows / AUDITED
        n = max(int(self._owed), int(what not in self._audited and n_rows > 0))
        if n:
            self._audited.add(what)
        self._owed -= n
        return n

    def _prepare(self, plan: Plan, members: tuple[int, ...], places: Sequence[Place]) -> Prepared:
        """Whole runs of a group; those of the last site serve again where they hold what is needed."""
        if self._prepared is not None:
            same, prepared = self._prepared
            streams = all(kind == "stream" for kind, _ in places) and prepared.given is not None
            if same == plan and prepared.pairs == members:
                if set(places) <= prepared.values.keys():
                    return prepared
                if streams:
                    return self._scorer(plan).with_streams(prepared, places)
        wanted = sorted({*places, *self._ahead}) if places else ()
        prepared = self._scorer(plan).prepare(members, wanted)
        if not self._trusted:
            check_resuming(self._scorer(plan), prepared, self.settings.seed)
            self._trusted = True
        self._prepared = plan, prepared
        return prepared

    def _scorer(self, plan: Plan) -> Scorer:
        if plan not in self._scorers:
            self._scorers[plan] = Scorer(
                self.trunk,
                self.metric,
                self.pairs,
                self.columns,
                plan,
                self.settings.tokens_at_once(self.trunk.device),
            )
        return self._scorers[plan]

    def _groups(self, places: Sequence[Place]) -> list[tuple[int, ...]]:
        """Pairs in the given order, as many together as the memory budget holds."""
        config = self.model.hf.config.get_text_config()
        longest = max(p.n_prompt + len(p.safe) + len(p.defect) for p in self.pairs)
        width = int(config.hidden_size)
        per_token = (self.trunk.n_layers + 1) * width * 2 + self.trunk.n_layers * width * 4
        per_token += 2 * len(places) * width
        per_pair = per_token * longest * self.model.dtype.itemsize + 2 * longest**2
        n_patterns = sum(kind == "pattern" for kind, _ in places)
        per_pair += 2 * n_patterns * self.trunk.n_heads * longest**2 * self.model.dtype.itemsize
        size = max(1, self.settings.memory_budget // per_pair)
        whole = range(len(self.pairs))
        return [tuple(whole[i : i + size]) for i in range(0, len(self.pairs), size)]


def _called(plan: Plan, cells: Sequence[Cell]) -> str:
    return cells[0].site + (" (placebo)" if plan.values == "placebo" else "")
