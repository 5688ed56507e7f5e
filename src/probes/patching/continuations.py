"""What the patched model writes, judged: the behaviour itself, not a log-probability that stands for it.

The patch is on while the prompt is read; what is written afterwards follows from the keys and values
that it left behind. Every cell is a run of its own, so this is for few cells, not for whole grids.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from probes.behaviour.generation import generate, stopping
from probes.behaviour.judges import Judge, exploitable_code, judge_answer
from probes.behaviour.sampling import check_room, check_sampling, cut, draws, ending, written
from probes.evaluation.bootstrap import wilson
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.progress import bar
from probes.models.encoding import token_batches
from probes.models.forward import context_length
from probes.models.hooks import editing
from probes.models.loading import Model
from probes.patching.engine.packing import pack
from probes.patching.engine.trunk import HOOKED, Place, Trunk, site_of
from probes.patching.pairs import EncodedPair, PatchPair
from probes.patching.parts import EVERYWHERE, Cell
from probes.patching.sources import Plan
from probes.patching.spans import Column

UNPATCHED, OTHER = "unpatched", "other run"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Written:
    """Rates of defection by cell, and every text.

    rows: `site`, `head`, `column`, `label`, `defected` (share), `low`, `high` (Wilson 95%), `n`, those
    that could be judged; the first two rows are the run that is patched and the other version of the prompts, both as they are.
    texts: one per completion: `cell` (row number), `pair`, `sample`, `text`, `defected` (missing where
    it could not be judged), `not_judged` (why).
    """

    rows: pd.DataFrame
    texts: pd.DataFrame

    def __repr__(self) -> str:
        return f"Written({len(self.rows) - 2} cells, {len(self.texts)} texts)\n{self.rows}"

    def _repr_html_(self) -> str:
        return html_table(self.rows)


def defection_when_patched(
    model: Model,
    pairs: Sequence[PatchPair],
    encoded: Sequence[EncodedPair],
    cells: Sequence[Cell],
    columns: Sequence[Column] = (),
    *,
    direction: str = "denoise",
    n: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 160,
    stop: str | None = "</code>",
    judge: Judge = exploitable_code,
    batch_tokens: int = 16384,
    seed: int = 0,
) -> Written:
    """Sample with each cell patched and judge what was written; nothing is executed.

    pairs, encoded: the same pairs, as made and as token ids. cells: of the residual stream, z,
    attn_out, resid_mid or mlp_out, with the other version's values at prompt tokens. n: samples per
    prompt, drawn alike under every cell. Raises `InputError` for cells of other kinds.
    """
    for cell in cells:
        if not can_write(cell):
            raise InputError(
                f"{cell.site} cannot be patched while the model writes; cells of the residual "
                f"stream, {', '.join(HOOKED)} can"
            )
    if len(pairs) != len(encoded) or not pairs:
        raise InputError(f"{len(pairs)} pairs and {len(encoded)} encoded ones; give the same pairs")
    plan = Plan(direction)
    run = [list(plan.run(pair)) for pair in encoded]
    other = [list(plan.other(pair)) for pair in encoded]
    asked_all = [prompt for pair in pairs for prompt in (pair.clean, pair.corrupted)]
    check_sampling(model, asked_all, max_new_tokens=max_new_tokens, temperature=temperature, n=n)
    check_room(max(map(len, run + other)), max_new_tokens, context_length(model.hf))
    stop = ending(asked_all, stop)
    stopped = stopping(model.hf, model.tokenizer, stop)
    places = sorted({part.place for cell in cells for part in cell.parts})
    values = _values(model, other, places)
    prompts = [p.corrupted if direction == "denoise" else p.clean for p in pairs]
    others = [p.clean if direction == "denoise" else p.corrupted for p in pairs]
    runs: list[tuple[str, Cell | None]] = [(UNPATCHED, None), (OTHER, None)]
    runs += [(cell.site, cell) for cell in cells]
    jobs = [(i, k) for i in range(len(pairs)) for k in range(n)]
    lengths = [len(run[i]) + max_new_tokens for i, _ in jobs]
    texts: list[dict[str, Any]] = []
    with bar("writing, patched", total=len(runs) * len(jobs)) as shown:
        for number, (name, patched) in enumerate(runs):
            tokens, asked = (other, others) if name == OTHER else (run, prompts)
            for batch in token_batches(lengths, batch_tokens):
                rows = [jobs[j] for j in batch]
                names = [("written", encoded[i].name, k) for i, k in rows]
                sequences = [tokens[i] for i, _ in rows]
                members = [i for i, _ in rows]
                with _patched(
                    model, patched, columns, encoded, members, sequences, values, plan.runs_clean
                ):
                    found = generate(
                        model.hf, sequences, draws(seed, names, max_new_tokens, temperature),
                        max_new_tokens=max_new_tokens, temperature=temperature,
                        pad_id=model.pad_id, stop=stopped,
                    )  # fmt: skip
                for (i, k), one in zip(rows, found, strict=True):
                    text = cut(written(model, tokens[i], one.tokens), stop)
                    judged = judge_answer(judge, asked[i], text, finished=one.finished)
                    texts.append(
                        {
                            "cell": number, "pair": encoded[i].name, "sample": k, "text": text,
                            "defected": judged.defected, "not_judged": judged.not_judged,
                        }
                    )  # fmt: skip
                shown.update(len(batch))
    return _summary(runs, pd.DataFrame(texts).astype({"defected": "boolean"}))


def can_write(cell: Cell) -> bool:
    """Whether a cell can be patched while the model writes: all its parts can be hooked."""
    return all(part.place[0] in ("stream", *HOOKED) for part in cell.parts)


def _values(
    model: Model, prompts: Sequence[Sequence[int]], places: Sequence[Place]
) -> dict[Place, Tensor]:
    trunk = Trunk(model.hf, model.pad_id)
    with torch.no_grad():
        kept = trunk.record([pack("other", ids, ()) for ids in prompts], places)
    return {place: kept.at(place) for place in places}


@contextlib.contextmanager
def _patched(
    model: Model,
    cell: Cell | None,
    columns: Sequence[Column],
    encoded: Sequence[EncodedPair],
    members: Sequence[int],
    sequences: Sequence[Sequence[int]],
    values: dict[Place, Tensor],
    runs_clean: bool,
) -> Iterator[None]:
    """Replace the cell's activations while the prompts, padded on the left, are read."""
    width = max(map(len, sequences))

    def put(part_place: Place, head: int | None, column: int) -> Callable[[Tensor], Tensor]:
        read = False

        def act(activation: Tensor) -> Tensor:
            nonlocal read
            changed = activation.clone()
            if read:  # what follows the prompt is written, one token at a time
                return changed
            read = True
            parted = changed.view(len(members), width, *values[part_place].shape[2:])
            for row, (pair, ids) in enumerate(zip(members, sequences, strict=True)):
                slots: Sequence[int] = range(len(encoded[pair].slots))
                if column != EVERYWHERE:
                    slots = [s for s in columns[column].positions[pair] if s in slots]
                here, there = (encoded[pair].where(slots, c) for c in (runs_clean, not runs_clean))
                to = [width - len(ids) + p for p in here]
                source = values[part_place][pair, list(there)].to(changed)
                if head is None:
                    parted[row, to] = source
                else:
                    parted[row, to, head] = source[:, head]
            return changed

        return act

    with contextlib.ExitStack() as stack:
        for part in () if cell is None else cell.parts:
            act = put(part.place, part.head, part.column)
            stack.enter_context(editing(model.hf, site_of(part.place, model.n_layers), act))
        yield


def _summary(runs: Sequence[tuple[str, Cell | None]], texts: pd.DataFrame) -> Written:
    rows = []
    for number, (name, cell) in enumerate(runs):
        judged = texts.loc[texts["cell"] == number, "defected"].dropna().astype(bool)
        low, high = wilson(int(judged.sum()), len(judged)) if len(judged) else (math.nan, math.nan)
        rows.append(
            {
                "site": name,
                "head": None if cell is None else cell.head,
                "column": EVERYWHERE if cell is None else cell.column,
                "label": "" if cell is None else cell.label,
                "defected": float(judged.mean()),
                "low": low,
                "high": high,
                "n": len(judged),
            }
        )
    return Written(pd.DataFrame(rows).astype({"head": "Int64"}), texts)
