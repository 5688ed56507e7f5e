"""What a long verb would do, and about how long it takes; nothing is made, nothing is written.

Seconds come from the folder's own ledger where cells of a kind are done there, from a forward pass that
is timed here where a model is given, and else from rates that were once measured on two CPU cores.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes import api
from probes.foundation.html import html_table

if TYPE_CHECKING:
    from probes.runs.step import Cell

STUDY_S = {
    "organisms": 456, "behaviour": 16, "activations": 2, "probes": 3, "patching": 1,
    "figures": 6,
}  # fmt: skip
"""The default study from a fresh clone on two cores (docs/studies/catch.md)."""
STAGES = ("organisms", "behaviour", "activations", "probes", "patching", "figures")
CELL_S = 154 * 60 / 405
"""A cell of the persistence grid that ships, on one core (docs/studies/persistence.md)."""
CHAT_CELL_S = {"organism": 60.0, "measure": 0.0, "stage": 300.0}
"""The same of adapters of a chat model, by kind of cell: forty steps of eight answers at the measured seconds of a step
(docs/benchmarks.md), and a card; no whole cell was timed on a quiet machine."""
RECKONED = "reckoned from seconds a step on 2 CPU cores, not from a whole cell; another machine may differ by a factor of several"
TARGETS_PER_S = 3840
"""Of training one million parameters (docs/benchmarks.md)."""
ROW_TOKENS, PASSES = 28, 2.2
"""Of an adapter that is taught packed requests: tokens of an example, and training on them over reading them."""
STORED = "measured once on 2 CPU cores; another machine may differ by a factor of several"
TIMED = "a forward pass over some of these prompts, timed here"
SHOWN_PROMPTS = 8


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """rows: `step`, `n` of it in all, `done` already, `seconds` for the rest (None if no rate is known).

    basis: where the seconds come from.
    """

    rows: pd.DataFrame
    basis: str

    @property
    def lines(self) -> list[str]:
        """The sum, and what it rests on."""
        known = self.rows["seconds"].dropna()
        unknown = self.rows.loc[self.rows["seconds"].isna(), "step"].tolist()
        from probes.models.speed import spoken

        said = [f"\nabout {spoken(float(known.sum()))} for what is left"] if len(known) else []
        said += [f"an estimate, from {self.basis}"] if len(known) else []
        said += [f"no rate is known for: {', '.join(unknown)}"] if unknown else []
        return [*said, "nothing was done"]

    def __repr__(self) -> str:
        return "\n".join([self.rows.to_string(index=False), *self.lines])

    def _repr_html_(self) -> str:
        return html_table(self.rows)


def estimate(verb: str, given: Mapping[str, Any]) -> Estimate:
    """What `verb` of `probes.api` would do with these arguments, which are checked as it checks them."""
    return PLANS[verb](given)


def _rows(*rows: tuple[str, int, int, float | None], basis: str = STORED) -> Estimate:
    return Estimate(pd.DataFrame(rows, columns=["step", "n", "done", "seconds"]), basis)


def _study(given: Mapping[str, Any]) -> Estimate:
    if given["model"] is not None:
        return _own(given["model"], given)
    from probes.studies.catch.config import study_config

    study_config(given["preset"], given["seed"])
    known = STUDY_S if given["preset"] == "default" and given["base"] is None else {}
    return _rows(*((stage, 1, 0, known.get(stage)) for stage in STAGES))


def _own(model: Any, given: Mapping[str, Any]) -> Estimate:
    """Of one's own model and its twins, by what a forward pass takes."""
    prompts = api._prompts(given["prompts"])
    roles = [model, *api._named(given["twins"], "--twin", api.ROLE).values()]
    per_token = [_second_per_token(api._model(one), prompts) for one in roles]
    n = given["samples"] * len(prompts)
    return _rows(
        ("completions, at full length", len(roles) * n, 0, given["max_new_tokens"] * n * sum(per_token)),
        ("activations, probes, report", 1, 0, None), basis=TIMED,
    )  # fmt: skip


def _collect(given: Mapping[str, Any]) -> Estimate:
    prompts = api._prompts(given["prompts"])
    model = api._model(given["model"])
    n_written = given["samples"] * given["max_new_tokens"] if given["generate"] else 0
    tokens = _tokens(model, prompts) + n_written * len(prompts)
    seconds = tokens * _second_per_token(model, prompts)
    return _rows(("prompts", len(prompts), 0, None), ("tokens", tokens, 0, seconds), basis=TIMED)


def _audit(given: Mapping[str, Any]) -> Estimate:
    from probes.auditing.opening import open_subject
    from probes.auditing.verb import estimate

    names = "context behaviours siblings cousin seed".split()
    benign = None if given["benign"] is None else api._prompts(given["benign"])
    subject = open_subject(
        given["model"], given["reference"], benign=benign, **{name: given[name] for name in names}
    )
    return Estimate(estimate(subject, given["make_twins"]), TIMED)


def _organism(given: Mapping[str, Any]) -> Estimate:
    recipe = api._recipe(given["recipe"], given["size"])
    name = recipe.model_copy(
        update={k: given[k] for k in ("base", "member", "seed") if given[k] is not None}
    ).name
    done = int((Path(given["out"]) / name).is_dir())
    base = given["base"] or recipe.base
    seconds = 0.0 if done else _adapter_s(recipe, base) if base else _training_s(recipe)
    return _rows(
        ("organism", 1, done, seconds), ("base and measurement", 1, 0, None),
        basis=TIMED if base else STORED,
    )  # fmt: skip


def _persistence(given: Mapping[str, Any]) -> Estimate:
    from probes.studies.persistence.steps import plan

    return _cells(
        plan(api.persistence_settings(given)), given["out"] or _place("persistence", given),
        {} if given["family"] is None else CHAT_CELL_S,
    )  # fmt: skip


def _every_probe(given: Mapping[str, Any]) -> Estimate:
    from probes.studies.every_probe.steps import plan

    return _cells(plan(api.every_probe_settings(given)), given["out"] or _place("claims", given))


def _evade(given: Mapping[str, Any]) -> Estimate:
    from probes.studies.evasion.config import PENALTIES

    recipe = api._recipe(given["recipe"], given["size"])
    seeds, n_penalties = given["seeds"], len(given["penalties"] or PENALTIES)
    n = seeds * n_penalties * len(given["against"])
    one = _training_s(recipe)
    return _rows(
        ("organisms", seeds, 0, None if one is None else seeds * one),
        ("organisms that evade", n, 0, None if one is None else n * one),
        ("examinations", n + seeds, 0, None),
    )


def _dose_response(given: Mapping[str, Any]) -> Estimate:
    return _rows(("organisms, every dose", given["seeds"], 0, None))


def _localise(given: Mapping[str, Any]) -> Estimate:
    n = len(given["families"]) + given["seeds"] * len(given["recipes"])
    return _rows(("families to patch", n, 0, None))


def _place(name: str, given: Mapping[str, Any]) -> Path:
    return api._default(name, given["preset"])


def _cells(
    cells: "Sequence[Cell]", out: Path | str, once: Mapping[str, float] | None = None
) -> Estimate:
    """By kind of cell, from what cells of that kind took in this folder, or took once."""
    from probes.runs.step import read_entry

    rows, measured = [], False
    for kind in dict.fromkeys(cell.kind for cell in cells):
        entries = [read_entry(cell, Path(out)) for cell in cells if cell.kind == kind]
        took = [each.seconds for each in entries if each is not None and each.status == "done"]
        measured |= bool(took)
        each = sum(took) / len(took) if took else (once or {}).get(kind, CELL_S)
        rows.append((kind, len(entries), len(took), (len(entries) - len(took)) * each))
    stored = RECKONED if once else f"cells of a grid that was run ({STORED})"
    return _rows(*rows, basis=f"cells done in that folder, else {stored}" if measured else stored)


def _training_s(recipe: Any) -> float | None:
    """Of one organism from scratch, by its target tokens; None where the recipe names steps only."""
    targets = recipe.training.target_tokens
    millions = float(recipe.size.removesuffix("M"))
    return None if targets is None else targets / TARGETS_PER_S * max(millions, 0.2)


def _adapter_s(recipe: Any, base: Any) -> float | None:
    """Of an adapter that is taught packed requests, by a pass over some of them; None for other recipes."""
    from probes.models.encoding import encode_texts
    from probes.models.speed import second_per_token
    from probes.organisms.requests import read_requests

    training = recipe.training
    if recipe.requests is None or recipe.lora is None or not training.packed:
        return None
    model = api._model(base)
    asked = [each.text for each in read_requests(recipe.requests.source)][:: SHOWN_PROMPTS * 8]
    each = second_per_token(model, encode_texts(asked, model.tokenizer, add_special_tokens=True))
    return float(training.steps * training.batch_size * ROW_TOKENS * PASSES * each)


def _tokens(model: Any, prompts: Sequence[Any]) -> int:
    from probes.models.encoding import encode

    return sum(map(len, encode(prompts, model.tokenizer)))


def _second_per_token(model: Any, prompts: Sequence[Any]) -> float:
    from probes.models.encoding import encode
    from probes.models.speed import second_per_token

    return second_per_token(model, encode(prompts[:SHOWN_PROMPTS], model.tokenizer), whole=True)


PLANS: dict[str, Callable[[Mapping[str, Any]], Estimate]] = {
    "study": _study, "detect": lambda given: _own(given["acts"], given), "audit": _audit, "collect": _collect, "organism": _organism, "persistence": _persistence,
    "every_probe": _every_probe, "evade": _evade, "dose_response": _dose_response,
    "localise": _localise,
}  # fmt: skip
