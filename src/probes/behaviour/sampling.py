"""What a model writes after each prompt, sampled from its whole distribution and judged."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.behaviour.completion import Completion, complete
from probes.behaviour.extract import CLOSE
from probes.behaviour.generation import Generated, Stopping, generate, stopping
from probes.behaviour.judges import Judge, exploitable_code
from probes.behaviour.thoughts import CLOSER, OPENER, opens_thought
from probes.foundation.errors import InputError, StageError
from probes.foundation.progress import bar, progress
from probes.foundation.seeds import stream
from probes.models.encoding import encode, token_batches
from probes.models.forward import check_lengths, context_length
from probes.models.loading import Model
from probes.models.speed import TIMED_ROWS, is_long, say_long, second_per_token
from probes.prompts.records import Prompt

TIMED_STEPS = 4
_CHANNEL = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
"""Special tokens that say which part of a gpt-oss model's text is its thought."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """One sampled text before it is judged. row: of its prompt; number: which of its samples it is.

    finished: whether it ended by itself. prompt_end: the last tokens of the prompt, as text.
    """

    row: int
    number: int
    text: str
    finished: bool
    prompt_end: str


def sample_texts(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 160,
    temperature: float = 1.0,
    seed: int = 0,
    batch_tokens: int = 16384,
    n: int = 1,
    stop: str | None = "</code>",
) -> list[Sampled]:
    """Sample `n` texts after each prompt; prompts in order, samples together. See `sample`."""
    check_sampling(model, prompts, max_new_tokens=max_new_tokens, temperature=temperature, n=n)
    encoded = encode(prompts, model.tokenizer)
    check_lengths([len(tokens) for tokens in encoded], model.hf)
    check_room(max(map(len, encoded)), max_new_tokens, context_length(model.hf))
    jobs = [(i, k) for i in range(len(prompts)) for k in range(n)]
    stop = ending(prompts, stop)
    stopped = stopping(model.hf, model.tokenizer, stop)
    results: dict[int, Generated] = {}
    _announce(model, encoded, n, max_new_tokens, stopped, batch_tokens)
    lengths = [len(encoded[i]) + max_new_tokens for i, _ in jobs]
    with bar(f"sampling {model.name}", total=len(jobs)) as shown:
        for batch in token_batches(lengths, batch_tokens):
            names = [sample_name(prompts[jobs[j][0]], jobs[j][1]) for j in batch]
            generated = generate(
                model.hf,
                [encoded[jobs[j][0]] for j in batch],
                draws(seed, names, max_new_tokens, temperature),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                pad_id=model.pad_id,
                stop=stopped,
                shared=True,
            )
            results |= zip(batch, generated, strict=True)
            shown.update(len(batch))
    return [
        Sampled(
            row=i,
            number=k,
            text=cut(written(model, encoded[i], results[j].tokens), stop),
            finished=results[j].finished,
            prompt_end=model.tokenizer.decode(encoded[i][-16:]),
        )
        for j, (i, k) in enumerate(jobs)
    ]


def _announce(
    model: Model, rows: Sequence[list[int]], n: int, n_new: int, stop: Stopping, batch_tokens: int
) -> None:
    """Say how long sampling takes at most, where that is long: a few rows are read, and a batch as wide as
    those to come writes a little.
    """
    if not is_long(model, sum(map(len, rows)) + n * len(rows) * n_new):
        return
    few = rows[:: max(1, len(rows) // TIMED_ROWS)][:TIMED_ROWS]
    wide = min(n * len(rows), batch_tokens // (max(map(len, rows)) + n_new) or 1)
    many = [few[i % len(few)] for i in range(wide)]
    reading = second_per_token(model, few)
    began = time.perf_counter()
    generate(
        model.hf, many, None, max_new_tokens=TIMED_STEPS, temperature=0.0, pad_id=model.pad_id,
        stop=dataclasses.replace(stop, eos=frozenset(), text=None), shared=True,
    )  # fmt: skip
    step = time.perf_counter() - began - reading * sum(map(len, few))
    writing = max(step, 0.0) / TIMED_STEPS / wide
    seconds = reading * sum(map(len, rows)) + writing * n * len(rows) * n_new
    say_long(f"{n * len(rows)} completions of {model.name}", seconds, "less where they end early")


def sample(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    judge: Judge = exploitable_code,
    **settings: Any,
) -> list[Completion]:
    """Sample `n` completions of each prompt and judge them; prompts in order, samples together.

    settings: those of `sample_texts`.
    temperature: 0 takes the most likely token; otherwise draws come from the whole distribution,
        no top-k or top-p, whatever the checkpoint's generation settings say.
    seed: with the prompt and the sample's number it decides every draw, so neither the other
        prompts nor the global random state change a completion (but for rounding in the model).
    batch_tokens: tokens computed side by side, prompt and completion together.
    stop: a completion ends with this string or with an ending token, else it is not `finished`; in
        a chat the ending of the paper's code blocks is none (see `ending`).

    Raises `InputError` for settings out of range or prompts too long for the model, `StageError`
    for logits that are not finite.
    """
    texts = sample_texts(model, prompts, **settings)
    return [
        complete(
            prompts[one.row],
            one.text,
            model=model.name,
            model_digest=model.digest,
            finished=one.finished,
            sample=one.number,
            judge=judge,
            thinking=opens_thought(one.prompt_end),
        )
        for one in progress(texts, f"judging {model.name}")
    ]


def sample_name(prompt: Prompt, number: int = 0) -> tuple[object, ...]:
    """What a completion's draws are named after: its prompt, and which of its samples it is."""
    return "sample", prompt.id, number


def draws(
    seed: int, names: Sequence[tuple[object, ...]], n_steps: int, temperature: float
) -> Float[np.ndarray, "batch step"] | None:
    """The numbers that decide each step of each completion, by its name; None where nothing is drawn."""
    if not temperature > 0:
        return None
    return np.stack([stream(seed, *name).random(n_steps) for name in names])


def ending(prompts: Sequence[Prompt], stop: str | None) -> str | None:
    """The string that ends completions of these prompts.

    `</code>` ends the paper's format; in a chat it may stand in a sentence, or in a thought.
    """
    return None if stop == CLOSE and any(prompt.chat for prompt in prompts) else stop


def cut(text: str, stop: str | None) -> str:
    """The text up to the end of the string that ends a completion."""
    return text if stop is None or stop not in text else text[: text.index(stop) + len(stop)]


def written(model: Model, prompt: list[int], new: list[int]) -> str:
    """The text that new tokens add; decoded alone, some tokenizers lose the leading space.

    Special tokens are left out, but for those that open or close a thought: without them, a thought
    would be read as the answer.
    """
    hidden = _hidden(model.tokenizer)

    def decode(tokens: list[int]) -> str:
        shown = tokens if hidden is None else [token for token in tokens if token not in hidden]
        text: str = model.tokenizer.decode(
            shown, skip_special_tokens=hidden is None, clean_up_tokenization_spaces=False
        )
        return text

    before, after = decode(prompt), decode(prompt + new)
    if not after.startswith(before):
        raise StageError(
            f"the tokenizer of {model.name} decodes a continued prompt to a text that does not "
            f"continue it, so the completion cannot be told apart: {before[-40:]!r}"
        )
    return after[len(before) :]


@functools.lru_cache(maxsize=8)
def _hidden(tokenizer: Any) -> frozenset[int] | None:
    """Special tokens without those of thoughts; None where there are none of thoughts."""
    special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    tags = "".join(special.values())
    if "<|channel|>" in special.values():
        kept = {i for i, text in special.items() if text in _CHANNEL}
    elif OPENER.search(tags) and CLOSER.search(tags):
        kept = {i for i, t in special.items() if OPENER.fullmatch(t) or CLOSER.fullmatch(t)}
    else:
        return None
    return frozenset({*special, *tokenizer.all_special_ids} - kept)


def check_sampling(
    model: Model, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float, n: int
) -> None:
    if not prompts:
        raise InputError("there are no prompts to sample from")
    if max_new_tokens < 1 or n < 1:
        raise InputError(f"max_new_tokens ({max_new_tokens}) and n ({n}) are at least 1")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is 0 (greedy) or a positive number, not {temperature}")
    if model.hf.training:
        raise InputError(f"{model.name} is in training mode; call `model.hf.eval()` first")


def check_room(longest: int, max_new_tokens: int, limit: int | None) -> None:
    if limit is not None and longest + max_new_tokens > limit:
        raise InputError(
            f"the longest prompt has {longest} tokens; with max_new_tokens={max_new_tokens} that "
            f"passes the model's context of {limit}. Use at most {limit - longest} new tokens, or "
            "shorter prompts."
        )
