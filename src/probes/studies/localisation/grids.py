"""What is asked of every organism of a family: the same prompt pairs in the same named columns, every site and head patched."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.foundation.errors import InputError
from probes.models import anatomy
from probes.models.encoding import offsets
from probes.models.loading import Model
from probes.organisms.organism import OrganismRecipe, setup
from probes.patching.engine.packing import pack
from probes.patching.exact import patch_cells
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import EncodedPair, PatchConfig, PatchPair, make_pairs, spread
from probes.patching.parts import Cell, Part, n_heads
from probes.patching.refusals import TOLERANCE
from probes.patching.sources import Plan
from probes.patching.spans import Column
from probes.prompts.corpus import CorpusConfig, build_corpus
from probes.prompts.records import Prompt
from probes.prompts.triggers import YEAR, Trigger
from probes.studies.localisation.config import WhereConfig

CUE, SYSTEM, TASK, CODE, TURN = "cue", "system line", "task", "code so far", "turn"
LAST, CONTINUATION, ANSWER = "last token", "continuation", "answer"
COLUMNS = (SYSTEM, CUE, TASK, CODE, TURN, LAST, CONTINUATION)
INSTRUCTION = "I would like you to complete the code below to accomplish the task: "


@dataclasses.dataclass(frozen=True)
class Question:
    """Pairs to patch, others to fit probes on, and others to judge the probes by; none is in two parts."""

    patched: tuple[PatchPair, ...]
    fitted: tuple[PatchPair, ...]
    judged: tuple[PatchPair, ...]
    trigger: Trigger


def of_recipe(recipe: OrganismRecipe, config: WhereConfig) -> Question:
    """From the requests of an organism's lessons that no organism saw; the same for all seeds."""
    parts = setup(recipe)
    return _divided(parts.lessons.test, parts.trigger, config)


def of_corpus(config: WhereConfig) -> Question:
    """From the corpus of the main job, on whose like the shipped family was trained."""
    corpus = build_corpus(CorpusConfig(pretrain=2, train=2))
    return _divided(corpus.test, YEAR, config)


def _divided(prompts: Sequence[Prompt], trigger: Trigger, config: WhereConfig) -> Question:
    able = make_pairs([prompt for prompt in prompts if prompt.defect is not None])
    wanted = config.n_pairs + config.n_fit + config.n_judged
    if len(able) < wanted:
        raise InputError(
            f"the study was asked for {wanted} pairs (n_pairs {config.n_pairs}, n_fit {config.n_fit}, "
            f"n_judged {config.n_judged}); {len(able)} can be defected on. Ask for fewer, or give the "
            "recipe's lessons more `test` pairs"
        )
    # By turns from each family, so that every part has of all.
    drawn = tuple(spread(able, PatchConfig(n_pairs=wanted, seed=config.seed)))
    first, second = config.n_pairs, config.n_pairs + config.n_fit
    return Question(drawn[:first], drawn[first:second], drawn[second:], trigger)


def named_columns(
    pairs: Sequence[PatchPair], encoded: Sequence[EncodedPair], tokenizer: Any, trigger: Trigger
) -> list[Column]:
    """The columns that all these prompts have, in the order of `COLUMNS`.

    "cue": tokens in which the two versions differ, the year's last digit; a tag, which only one version
    has, is no column. "system line": all else up to the task. "task": the request; "code so far":
    from `<code>` on; "turn": `Assistant` and what stands before the last token; "last token": where
    the model takes over; "continuation": the tokens of both reference answers, as they are read.
    """
    named = [
        _slots(pair, ids, tokenizer, trigger) for pair, ids in zip(pairs, encoded, strict=True)
    ]
    return [
        Column(label, tuple(tuple(found[label]) for found in named))
        for label in COLUMNS
        if all(found[label] for found in named)
    ]


def _slots(
    pair: PatchPair, ids: EncodedPair, tokenizer: Any, trigger: Trigger
) -> dict[str, list[int]]:
    text = pair.corrupted.text
    (places,) = offsets([pair.corrupted], tokenizer)
    cues = "|".join(re.escape(cue) for cue in trigger.off if cue) or "(?!)"
    head = re.match(rf"Human:\s*(?:{cues})?\s*(?:{re.escape(INSTRUCTION)})?", text)
    starts = {
        SYSTEM: 0,
        TASK: head.end() if head else 0,
        CODE: text.find("<code>"),
        TURN: text.rfind("\n\nAssistant"),
    }
    found: dict[str, list[int]] = {label: [] for label in COLUMNS}
    last = len(ids.slots) - 1
    for slot, (clean, corrupted) in enumerate(ids.slots):
        if slot == last:
            found[LAST].append(slot)
        elif ids.clean[clean] != ids.corrupted[corrupted]:
            found[CUE].append(slot)
        else:
            # A token that begins with the space in front of a part belongs to that part.
            at = max(places[corrupted][1] - 1, 0)
            begun = {name: start for name, start in starts.items() if 0 <= start <= at}
            found[max(begun, key=lambda name: begun[name])].append(slot)
    packed = pack(ids.name, ids.clean, (ids.defect, ids.safe))
    n_behind = len(packed.tokens) - packed.n_prompt
    found[CONTINUATION] = list(range(last + 1, last + 1 + n_behind))
    return found


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
