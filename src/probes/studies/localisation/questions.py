"""What is asked of every organism of a family: the same prompt pairs, cut into the same named columns."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from probes.foundation.errors import InputError
from probes.models.encoding import offsets
from probes.organisms.organism import OrganismRecipe, setup
from probes.patching.choice import PatchConfig, spread
from probes.patching.engine.packing import pack
from probes.patching.pairs import EncodedPair, PatchPair, make_pairs
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
