"""A probe on watch: a score for every token of prompt and answer, an alarm, and a stop while it writes.

The threshold is set on benign sequences alone, at a false-alarm rate that somebody could live with.
"""

import dataclasses
import html
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from probes.activations.reading import Activations
from probes.activations.record import record
from probes.behaviour.generation import Stopping, generate, stopping
from probes.behaviour.sampling import check_room, draws, sample_name, written
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_text
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.encoding import encode
from probes.models.forward import context_length
from probes.models.hooks import recording
from probes.models.identity import check_same
from probes.models.loading import Model
from probes.models.sinks import refuse_only_sinks
from probes.models.sites import parse_site
from probes.probing.frozen import FrozenProbe
from probes.prompts.inspect_logs import add_scores
from probes.prompts.readers import as_prompts
from probes.prompts.records import Prompt

AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    "max": lambda scores: float(scores.max()),
    "mean": lambda scores: float(scores.mean()),
    "last": lambda scores: float(scores[-1]),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Watched:
    """Sequences with a score per token.

    rows: one per sequence: `prompt_id`, `score` (the aggregate), `alarm` (None without a threshold).
    tokens, scores: per sequence, the pieces of text and their scores. threshold: of the monitor.
    sinks: per sequence, the tokens that do not count, being attention sinks. note: one line on them.
    """

    rows: pd.DataFrame
    tokens: tuple[tuple[str, ...], ...]
    scores: tuple[np.ndarray, ...]
    threshold: float | None
    sinks: tuple[np.ndarray, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        table = self.rows.to_string(index=False, float_format="{:.3f}".format)
        return f"{table}\n{self.note}" if self.note else table

    def _repr_html_(self) -> str:
        """Every sequence with its tokens coloured by score: red above the threshold, blue below."""
        every = np.concatenate([s[~sink] for s, sink in zip(self.scores, self.sinks, strict=True)])
        middle = float(np.median(every)) if self.threshold is None else self.threshold
        reach = float(np.abs(every - middle).max()) or 1.0
        shown = [html_text(self.note)] if self.note else []
        for number, (pieces, scores, sinks) in enumerate(
            zip(self.tokens, self.scores, self.sinks, strict=True)
        ):
            row = self.rows.iloc[number]
            alarm = " <b>alarm</b>" if row["alarm"] is True else ""
            spans = "".join(
                _coloured(piece, middle if sink else score, middle, reach)
                for piece, score, sink in zip(pieces, scores, sinks, strict=True)
            )
            shown.append(
                f"<p>score {row['score']:.3f}{alarm}</p><pre style='white-space:pre-wrap'>{spans}</pre>"
            )
        return "".join(shown)


@dataclasses.dataclass(frozen=True)
class Stopped:
    """What a guarded generation wrote: its text, a score per token read, and whether it was stopped."""

    watched: Watched
    text: str
    stopped: bool

    def _repr_html_(self) -> str:
        note = html_text("", strong="stopped") if self.stopped else ""
        return note + self.watched._repr_html_()


@dataclasses.dataclass(frozen=True)
class Monitor:
    """A direction, how token scores become one, and when that is an alarm (score > threshold).

    aggregate: "max", "mean" or "last". answer_only: whether the prompt's tokens count; they are
    scored and shown all the same. threshold: None until `calibrated`. keep_sinks: whether attention
    sinks (tokens of far larger norm, see `Model.sinks`) count too; they would decide every maximum.
    """

    direction: FrozenProbe
    aggregate: str = "max"
    answer_only: bool = False
    threshold: float | None = None
    keep_sinks: bool = False

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise unknown("aggregate", self.aggregate, AGGREGATES)

    def watch(
        self,
        model: Model,
        prompts: Sequence[Prompt | str],
        completions: Iterable[str] | None = None,
    ) -> Watched:
        """Score every token of prompts, and of completions if given, in one pass over them."""
        positions = "all" if completions is not None else "prompt"
        found = record(
            model, prompts, sites=[self.direction.site], positions=positions,
            completions=completions,
        )  # fmt: skip
        return self.read(model, found)

    def read(self, model: Model, activations: Activations) -> Watched:
        """Score activations that were collected at all tokens by this model, and no other."""
        check_same(
            activations.identity, model.identity, "these activations are of",
            "Collect this model's own",
        )  # fmt: skip
        site = self.direction.site
        index, labels = activations.row_index, activations.prompts
        scores = self.direction.score(
            activations.rows(site), site=site, identity=activations.identity
        )
        pieces = _pieces(model, index["token"].to_numpy())
        ends = np.flatnonzero(np.diff(index["prompt_index"].to_numpy())) + 1
        if len(ends) + 1 != len(labels):
            raise InputError("some sequences have no tokens: collect them with positions='all'")
        each = np.split(scores, ends)
        left_out = np.zeros(len(scores), bool) if self.keep_sinks else activations.sinks(model)
        sinks = np.split(left_out, ends)
        values = [
            self._aggregated(one, sink, int(n_prompt), f"sequence {number}")
            for number, (one, sink, n_prompt) in enumerate(
                zip(each, sinks, labels["n_prompt_tokens"], strict=True)
            )
        ]
        rows = pd.DataFrame(
            {
                "prompt_id": labels["prompt_id"].tolist(),
                "score": values,
                "alarm": [None if self.threshold is None else v > self.threshold for v in values],
            }
        )
        starts = [0, *ends.tolist()]
        tokens = tuple(
            tuple(pieces[a:b]) for a, b in zip(starts, [*ends.tolist(), len(pieces)], strict=True)
        )
        return Watched(
            rows,
            tokens,
            tuple(each),
            self.threshold,
            tuple(sinks),
            _note(model, int(left_out.sum())),
        )

    def _aggregated(self, scores: np.ndarray, sinks: np.ndarray, n_prompt: int, name: str) -> float:
        """One score from those of a sequence's tokens; an answer that was not read yet leaves the last."""
        first = min(n_prompt, len(scores) - 1) if self.answer_only else 0
        counted = scores[first:][~sinks[first:]]
        if not len(counted):
            raise refuse_only_sinks(name)
        return AGGREGATES[self.aggregate](counted)

    def calibrated(self, benign: Watched, false_positive_rate: float = 0.01) -> "Monitor":
        """The lowest threshold at which at most this share of benign sequences raises an alarm.

        Raises `InputError` for a rate outside [0, 1), and where there are too few sequences to show it.
        """
        if not 0 <= false_positive_rate < 1:
            raise InputError(f"a false-positive rate is in [0, 1); saw {false_positive_rate}")
        scores = np.sort(benign.rows["score"].to_numpy(float))[::-1]
        if false_positive_rate > 0 and len(scores) * false_positive_rate < 1:
            raise InputError(
                f"{len(scores)} benign sequences cannot show a rate of {false_positive_rate:g}: give "
                f"{math.ceil(1 / false_positive_rate)} or more, or 0 for none of these"
            )
        allowed = math.floor(false_positive_rate * len(scores) + 1e-9)
        return dataclasses.replace(self, threshold=float(scores[min(allowed, len(scores) - 1)]))

    def guard(
        self,
        model: Model,
        prompt: Prompt | str,
        *,
        stop: bool = True,
        max_new_tokens: int = 160,
        temperature: float = 1.0,
        seed: int = 0,
        until: str | None = "</code>",
    ) -> Stopped:
        """Let the model write and score each token as it is read; end at the first alarm if `stop`.

        The draws are those of `behaviour.sample` for this seed, so an unstopped text is the same with
        and without the watch. The token that was being drawn when the alarm rang is the last one.
        With "last" or "mean" an alarm is one of the sequence so far.
        """
        if stop and self.threshold is None:
            raise InputError("a monitor without a threshold cannot stop: use `calibrated` first")
        (prompt,) = as_prompts(prompt)
        site = parse_site(self.direction.site, model.n_layers)
        self.direction.score(
            np.zeros((1, self.direction.width)), site=str(site),
            identity=model.identity,
        )  # fmt: skip
        tokens = encode([prompt], model.tokenizer)[0]
        check_room(len(tokens), max_new_tokens, context_length(model.hf))
        read: list[np.ndarray] = []
        sunk: list[np.ndarray] = []
        rule = None if self.keep_sinks else model.sinks.rule
        norms_at = site if rule is None else parse_site(rule.site, model.n_layers)
        drawn = draws(seed, [sample_name(prompt)], max_new_tokens, temperature)
        with recording(model.hf, [site, norms_at]) as seen:

            def keep(rows: list[int]) -> None:
                values = seen[site][0].detach().to("cpu", torch.float64).numpy()
                read.append(self.direction.raw_scores(values))
                norms = seen[norms_at][0].detach().float().norm(dim=-1).cpu().numpy()
                sunk.append(np.zeros(len(norms), bool) if rule is None else norms > rule.limit)

            def score() -> float:
                return self._aggregated(
                    np.concatenate(read), np.concatenate(sunk), len(tokens), "what was read"
                )

            def alarmed() -> bool:
                sinks = np.concatenate(sunk)
                if self.threshold is None or (self.answer_only and len(sinks) <= len(tokens)):
                    return False
                first = len(tokens) if self.answer_only else 0
                return not sinks[first:].all() and score() > self.threshold

            ending = stopping(model.hf, model.tokenizer, until)
            guarded = _Guard(
                ending.eos, ending.text, ending.candidates, ending.tokenizer,
                alarmed if stop else lambda: False,
            )  # fmt: skip
            generated = generate(
                model.hf, [tokens], drawn,
                max_new_tokens=max_new_tokens, temperature=temperature, pad_id=model.pad_id,
                stop=guarded, watch=keep,
            )[0]  # fmt: skip
            rang = alarmed()
        scores = np.concatenate(read)
        pieces = _pieces(model, np.array([*tokens, *generated.tokens][: len(scores)]))
        sinks = np.concatenate(sunk)
        row = {
            "prompt_id": prompt.id,
            "score": score(),
            "alarm": None if self.threshold is None else rang,
        }
        watched = Watched(
            pd.DataFrame([row]), (tuple(pieces),), (scores,), self.threshold, (sinks,),
            _note(model, int(sinks.sum())),
        )  # fmt: skip
        return Stopped(watched, written(model, tokens, generated.tokens), bool(stop and rang))


@dataclasses.dataclass(frozen=True)
class _Guard(Stopping):
    """Ends where the text ends, and where the monitor raises an alarm."""

    alarmed: Callable[[], bool]

    def ended(self, tokens: list[int]) -> bool:
        return super().ended(tokens) or self.alarmed()


def _note(model: Model, n_left_out: int) -> str:
    """What was left out, in one line; empty where nothing was."""
    if not n_left_out:
        return ""
    tokens = "1 token does" if n_left_out == 1 else f"{n_left_out:,} tokens do"
    return f"{tokens} not count, being {model.sinks.note}; to count them: --keep-sinks, keep_sinks=True"


def _pieces(model: Model, tokens: Float[np.ndarray, "token"] | np.ndarray) -> list[str]:
    return [str(model.tokenizer.decode([int(token)])) for token in tokens]


def _coloured(piece: str, score: Any, middle: float, reach: float) -> str:
    share = min(1.0, abs(float(score) - middle) / reach)
    colour = "214,39,40" if score > middle else "31,119,180"
    return (
        f"<span title='{float(score):.3f}' style='background:rgba({colour},{share:.2f})'>"
        f"{html.escape(piece)}</span>"
    )


TABLE = "watched.csv"


@writes("out", "monitor")
def monitor_stage(
    model: Model,
    direction: FrozenProbe,
    prompts: Sequence[Prompt],
    benign: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    aggregate: str = "max",
    false_positive_rate: float = 0.01,
    keep_sinks: bool = False,
    log: Path | str | None = None,
) -> tuple[Monitor, Watched]:
    """Set a threshold on benign prompts and watch others: the monitor, and scores for every token.

    log: of Inspect, that the prompts were read from; a copy with their scores is written beside the table.
    """
    shared = {(p.text, p.chat) for p in prompts} & {(p.text, p.chat) for p in benign}
    if shared:
        raise InputError(
            f"{len(shared)} prompts are both benign and watched: a threshold set on what is watched "
            "tells nothing. Give other benign prompts"
        )
    plain = Monitor(direction, aggregate, keep_sinks=keep_sinks)
    ready = plain.calibrated(plain.watch(model, benign), false_positive_rate)
    watched = ready.watch(model, prompts)
    if out is not None:
        facts = {
            "identity": model.digest, "direction": direction.digest, "aggregate": aggregate,
            "threshold": ready.threshold, "false_positive_rate": false_positive_rate,
        }  # fmt: skip
        note = {"note": watched.note} if watched.note else {}
        write_table(Path(out) / TABLE, watched.rows, **facts, **note)
        if log is not None:
            add_scores(log, Path(out) / Path(log).name, watched.rows["score"].tolist())
    return ready, watched
