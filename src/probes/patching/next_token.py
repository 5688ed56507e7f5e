"""One patch of one prompt, looked at closely: what the model would write next, before and after."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from probes.activations.record import Recorded
from probes.foundation.errors import InputError, StageError
from probes.foundation.html import html_table
from probes.models.encoding import encode, encode_texts, pad, visible
from probes.models.forward import check_lengths, logits, why_not_finite
from probes.models.hooks import replacing
from probes.models.identity import check_same
from probes.models.loading import Model
from probes.models.sites import Site, parse_site
from probes.patching.pairs import match_tokens
from probes.prompts.readers import as_prompts
from probes.prompts.records import Prompt

SHOWN = 8
RUNS = ("before", "after", "source")
WHOLE = ("all", "prompt")
"""Positions of recorded runs that begin with the first token."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PatchedRun:
    """A patch's effect on the next token. Runs: `before` (unpatched), `after`, and `source`, where values come from.

    site, positions: what was replaced; pieces: the tokens there, (in the prompt, in the source).
    log_probs: of the next token by run, each `[d_vocab]` [nats]. tokens: its likeliest tokens in any
    of the runs, with the columns `token`, `piece` and a probability by run.
    answers: log P(first answer) - log P(second) by run [nats], summed over their tokens; None where
    no answers were known. names: what the two are called.
    """

    site: str
    positions: tuple[int, ...]
    pieces: tuple[tuple[str, str], ...]
    log_probs: dict[str, Float[np.ndarray, "d_vocab"]]
    tokens: pd.DataFrame
    answers: dict[str, float] | None
    names: tuple[str, str] = ("first answer", "second")

    def divergence(self, run: str = "after") -> float:
        """KL(source || run) of the next token [nats]: 0 where the patch restores the source."""
        theirs = self.log_probs["source"]
        return float((np.exp(theirs) * (theirs - self.log_probs[run])).sum())

    @property
    def restored(self) -> float | None:
        """Share of the difference in the answers between the runs that the patch restores; None if there is none."""
        if self.answers is None or self.answers["source"] == self.answers["before"]:
            return None
        before, after, source = (self.answers[run] for run in RUNS)
        return (after - before) / (source - before)

    def facts(self) -> dict[str, str]:
        """What a reader wants to know at a glance, in order."""
        swapped = [f"{mine} from {theirs}" for mine, theirs in self.pieces[:SHOWN]]
        more = len(self.pieces) - SHOWN
        places = ", ".join(map(str, self.positions[:SHOWN])) + (" ..." if more > 0 else "")
        facts = {
            "patched": f"{self.site} at {places}: {', '.join(swapped)}"
            + (f" and {more} more" if more > 0 else ""),
            "KL(source || run)": f"{self.divergence('before'):.3f} before, "
            f"{self.divergence():.3f} after [nats]",
        }
        if self.answers is not None:
            by_run = ", ".join(f"{value:.2f} {run}" for run, value in self.answers.items())
            facts["log P({}) - log P({})".format(*self.names)] = f"{by_run} [nats]"
        if self.restored is not None:
            facts["restored"] = f"{self.restored:.1%} of the difference between the answers"
        return facts

    def __repr__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.facts().items()]
        return "\n".join(
            [
                *lines,
                "next token:",
                self.tokens.to_string(index=False, float_format="{:.4f}".format),
            ]
        )

    def _repr_html_(self) -> str:
        return html_table(self.facts()) + html_table(
            self.tokens, "Probability of the next token", floats="{:.4f}"
        )


@torch.inference_mode()
def patch_run(
    model: Model,
    prompt: Prompt | str,
    source: Recorded,
    site: Site | str,
    position: int | Sequence[int] | None = None,
    *,
    answers: tuple[str, str] | None = None,
) -> PatchedRun:
    """Run a prompt with the activations of another run put in, at one site and some positions, exactly.

    source: of `Model.run`, with one prompt beside this one. position: of the tokens, from the end if
    negative; by default all. Where the prompts differ in length, each token gets the values of the one
    that it stands for (`pairs.match_tokens`), and those that stand for none are left. answers: two texts to compare after the prompt;
    by default the exploitable and the secure continuation of a `Prompt` that has both.
    Raises `InputError` for a source of another model, and for a site or position that is not there or
    has no counterpart; `StageError` for logits that are not finite.
    """
    (asked,) = as_prompts(prompt)
    check_same(
        source.identity, model.identity, "the activations to patch from are of",
        "Record them from the model that is patched (model.run)",
    )  # fmt: skip
    (ids,) = encode([asked], model.tokenizer)
    number, theirs = _source(source, asked, ids, model)
    name = str(parse_site(str(site), model.n_layers))
    values = torch.from_numpy(source.tokens(name, number)).to(model.device)
    there = {i: i for i in range(len(ids))}
    if len(ids) != len(theirs):
        there = dict(match_tokens(ids, theirs))
    positions = _positions(position, ids, there, model)
    names = ("first answer", "second")
    if answers is None and asked.safe is not None and asked.defect is not None:
        answers, names = (asked.defect, asked.safe), ("defect", "safe")
    follow = _answers(answers, model)
    check_lengths([len(ids) + max(map(len, follow), default=0)], model.hf)

    def run(tokens: list[int], patched: bool) -> tuple[np.ndarray, float | None]:
        last: torch.Tensor | None = None
        sums: list[float] = []
        for extra in follow or [[]]:
            whole = [*tokens, *extra]
            mask = torch.zeros(1, len(whole), dtype=torch.bool, device=model.device)
            mask[0, list(positions)] = True
            padded = values.new_zeros(1, len(whole), values.shape[-1])
            padded[0, list(positions)] = values[[there[i] for i in positions]]
            with (
                replacing(model.hf, parse_site(name, model.n_layers), mask, padded)
                if patched
                else contextlib.nullcontext()
            ):
                scores = logits(model.hf, pad([whole], model.pad_id))[0].double()
            if not bool(torch.isfinite(scores).all()):
                raise StageError(
                    f"nothing to compare, logits are not finite: {why_not_finite(model.dtype)}"
                )
            read = scores[len(tokens) - 1 :].log_softmax(-1)
            last = read[0]
            sums.append(float(sum(read[i, token] for i, token in enumerate(extra))))
        assert last is not None
        return last.cpu().numpy(), sums[0] - sums[1] if follow else None

    found = {"before": run(ids, False), "after": run(ids, True), "source": run(theirs, False)}
    log_probs = {name: row for name, (row, _) in found.items()}
    differences = {name: value for name, (_, value) in found.items() if value is not None}
    return PatchedRun(
        site=name,
        positions=positions,
        pieces=tuple(
            (visible(ids[i], model.tokenizer), visible(theirs[there[i]], model.tokenizer))
            for i in positions
        ),
        log_probs=log_probs,
        tokens=_likeliest(log_probs, model),
        answers=differences or None,
        names=names,
    )


def _source(source: Recorded, asked: Prompt, ids: list[int], model: Model) -> tuple[int, list[int]]:
    """Which of the recorded prompts values come from, and its tokens."""
    others = np.flatnonzero(source.prompts["prompt_id"].to_numpy() != asked.id).tolist()
    if not others and len(source) == 1:
        others = [0]
    if len(others) != 1:
        raise InputError(
            f"{len(others)} of the {len(source)} recorded prompts are not the one that is patched: give a "
            "run of two prompts, model.run(a, b), or choose one with `where([number])`"
        )
    number = others[0]
    index = source.row_index
    rows = index[index["prompt_index"] == number]
    whole = rows["position"].tolist() == list(range(len(rows))) and source.positions in WHOLE
    if not whole:
        raise InputError(
            f"these activations hold the positions {source.positions!r}: a patch needs every token of the "
            "prompt, as `model.run(a, b)` or positions='prompt' records"
        )
    theirs = [int(token) for token in rows["token"]]
    return number, theirs


def _positions(
    position: int | Sequence[int] | None,
    ids: Sequence[int],
    there: Mapping[int, int],
    model: Model,
) -> tuple[int, ...]:
    n_tokens = len(ids)
    if position is None:
        return tuple(sorted(there))
    given: list[int] = np.atleast_1d(np.asarray(position)).tolist()
    bad = [i for i in given if not -n_tokens <= i < n_tokens]
    if bad or not given:
        raise InputError(
            f"no position {bad[0] if bad else 'given'}: the prompt has {n_tokens} tokens, 0 to "
            f"{n_tokens - 1}, or -1 for the last"
        )
    chosen = tuple(sorted({i % n_tokens for i in given}))
    alone = [f"{visible(ids[i], model.tokenizer)!r} ({i})" for i in chosen if i not in there]
    if alone:
        raise InputError(
            f"no token of the other prompt stands for {', '.join(alone[:5])}: the two differ in length. "
            "Choose positions that both have (see model.tokens), or none for all of these"
        )
    return chosen


def _answers(answers: tuple[str, str] | None, model: Model) -> list[list[int]]:
    if answers is None:
        return []
    encoded = encode_texts(answers, model.tokenizer, add_special_tokens=False)
    if len(encoded) != 2 or not all(encoded) or encoded[0] == encoded[1]:
        raise InputError(
            f"answers are two texts that differ, each of a token or more; saw {answers}"
        )
    return encoded


def _likeliest(log_probs: dict[str, np.ndarray], model: Model) -> pd.DataFrame:
    most = np.max(np.stack(list(log_probs.values())), axis=0)
    chosen = np.argsort(-most)[:SHOWN]
    shown = {run: np.exp(row[chosen]) for run, row in log_probs.items()}
    pieces = [visible(int(token), model.tokenizer) for token in chosen]
    return pd.DataFrame({"token": chosen, "piece": pieces, **shown})
