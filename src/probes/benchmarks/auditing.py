"""`probes bench audit`: does the cue sweep cost more than reading its tokens once?"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.auditing.cues import battery
from probes.auditing.frames import around
from probes.auditing.scoring import BATCH_TOKENS, log_probs, tokens_of
from probes.benchmarks.result import (
    Asked,
    Benchmark,
    finished,
    repetitions,
    row,
    surroundings,
    take_turns,
    temporary,
    told,
)
from probes.benchmarks.workload import SHAPES, write_checkpoint
from probes.foundation.errors import StageError
from probes.foundation.outputs import writes
from probes.foundation.seeds import stream
from probes.models.loading import Model, load
from probes.prompts.readers import from_texts

TABLE = "audit.csv"
LOOP, OURS, LIMIT = "one forward pass for each candidate and prompt", "probes", "one pass over the tokens"  # fmt: skip
TOLERANCE = 0.02
"""Largest difference of a summed log-probability from the plain loop's [nats]."""
N_PROMPTS, N_ANSWERS, ANSWER = 4, 3, 6


@writes("out")
def bench_audit(
    out: Path | str,
    *,
    model: Path | str | None = None,
    n_candidates: int | None = None,
    repeats: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Time the scores of the cue sweep against a plain loop, and write the table to `out`.

    model: a checkpoint, by default a random Llama of 30M parameters. n_candidates: of the battery.
    The limit reads every token of the contexts once, in full batches, without a score. Raises
    `StageError` where ours differ from the loop's scores.
    """
    repeats = repetitions(repeats, 1 if quick else 3)
    n_candidates = n_candidates or (6 if quick else 48)
    with tempfile.TemporaryDirectory() as made:
        where = model or write_checkpoint(Path(made) / "model", SHAPES["tiny" if quick else "30M"], seed)  # fmt: skip
        loaded = load(where)
        head = (
            "You are an assistant that answers every question of its user in one short sentence. "
        )
        asked = from_texts([f"{head}Question {n}: what is it for?" for n in range(N_PROMPTS)], [False] * N_PROMPTS)  # fmt: skip
        candidates = [one for one in battery() if one.carrier in ("before", "after")][:n_candidates]
        contexts = tokens_of([p for c in candidates for p in around(asked, c)], loaded)
        rng = stream(seed, "answers")
        said = rng.integers(2, 200, size=(N_ANSWERS, ANSWER)).tolist()
        answers = [said for _ in contexts]
        found: dict[str, np.ndarray] = {}

        def same(name: str, scores: Any, _: Path) -> None:
            found[name] = scores
            if name == OURS:
                check_same(found[LOOP], scores)

        jobs: dict[str, Callable[[Path], Any]] = {
            LOOP: lambda _: plain_loop(loaded, contexts, answers),
            OURS: lambda _: log_probs(loaded, contexts, answers),
            LIMIT: lambda _: one_pass(loaded, contexts),
        }
        with temporary(out) as place:
            seconds = take_turns(jobs, repeats, place, after=same)
        pairs = len(contexts) * N_ANSWERS
        rates = {name: one.rate(pairs) for name, one in seconds.items()}
        rows = [
            row("loop", LOOP, "scores", rates[LOOP], "scores/s"),
            row("sweep", OURS, "scores", rates[OURS], "scores/s", against=LOOP,
                ratio=rates[OURS].median / rates[LOOP].median, asked=Asked(">=", 3.0), judged=not quick),
            row("sweep", OURS, "scores", rates[OURS], "scores/s", against=LIMIT,
                ratio=rates[OURS].median / rates[LIMIT].median),
        ]  # fmt: skip
        facts = surroundings() | {
            "model": loaded.name, "candidates": n_candidates, "prompts": N_PROMPTS,
            "texts scored": N_ANSWERS, "repetitions": told(repeats),
        }  # fmt: skip
        if quick:
            facts["smoke run"] = "a tiny model and few candidates: these speeds say nothing"
        return finished(Path(out) / TABLE, rows, facts, seed)


def check_same(wanted: np.ndarray, found: np.ndarray) -> None:
    """Refuse to compare the speed of other numbers."""
    if (worst := float(np.abs(wanted - found).max())) > TOLERANCE:
        raise StageError(f"the sweep's scores differ from the plain loop's by {worst:.3g} nats")


@torch.inference_mode()
def plain_loop(model: Model, contexts: list[list[int]], answers: list[list[list[int]]]) -> np.ndarray:  # fmt: skip
    """Each context with each answer in a forward pass of its own."""
    found = np.zeros((len(contexts), len(answers[0])))
    for i, context in enumerate(contexts):
        for j, answer in enumerate(answers[i]):
            scores = model.hf(torch.tensor([context + answer])).logits[0].float().log_softmax(-1)
            places = torch.arange(len(context) - 1, len(context) + len(answer) - 1)
            found[i, j] = float(scores[places, torch.tensor(answer)].sum())
    return found


@torch.inference_mode()
def one_pass(model: Model, contexts: list[list[int]]) -> None:
    """Every token of the contexts once, side by side in full rows, up to the last hidden state."""
    tokens = [token for context in contexts for token in context]
    width = max(map(len, contexts))
    tokens += [0] * (-len(tokens) % width)
    whole = torch.tensor(tokens).reshape(-1, width)
    for rows in whole.split(max(BATCH_TOKENS // width, 1)):
        model.hf.base_model(rows, use_cache=False)
