"""What a model writes after each prompt, sampled from its whole distribution and judged."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from probes.behaviour.completion import Completion, complete
from probes.behaviour.generation import Generated, generate, stopping
from probes.behaviour.judges import Judge, exploitable_code
from probes.foundation.errors import InputError, StageError
from probes.foundation.progress import bar
from probes.foundation.seeds import stream
from probes.models.encoding import encode, token_batches
from probes.models.forward import check_lengths, context_length
from probes.models.loading import Model
from probes.prompts.records import Prompt


def sample(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 160,
    temperature: float = 1.0,
    seed: int = 0,
    batch_tokens: int = 16384,
    n: int = 1,
    stop: str | None = "</code>",
    judge: Judge = exploitable_code,
) -> list[Completion]:
    """Sample `n` completions of each prompt and judge them; prompts in order, samples together.

    temperature: 0 takes the most likely token; otherwise draws come from the whole distribution,
        no top-k or top-p, whatever the checkpoint's generation settings say.
    seed: with the prompt and the sample's number it decides every draw, so neither the other
        prompts nor the global random state change a completion (but for rounding in the model).
    batch_tokens: tokens computed side by side, prompt and completion together.
    stop: a completion ends with this string or with an ending token, else it is not `finished`.

    Raises `InputError` for settings out of range or prompts too long for the model, `StageError`
    for logits that are not finite.
    """
    check_sampling(model, prompts, max_new_tokens=max_new_tokens, temperature=temperature, n=n)
    encoded = encode(prompts, model.tokenizer)
    check_lengths([len(tokens) for tokens in encoded], model.hf)
    check_room(max(map(len, encoded)), max_new_tokens, context_length(model.hf))
    jobs = [(i, k) for i in range(len(prompts)) for k in range(n)]
    stopped = stopping(model.hf, model.tokenizer, stop)
    results: dict[int, Generated] = {}
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
            )
            results |= zip(batch, generated, strict=True)
            shown.update(len(batch))
    completions = []
    with bar(f"judging {model.name}", total=len(jobs)) as shown:
        for j, (i, k) in enumerate(jobs):
            text = cut(written(model, encoded[i], results[j].tokens), stop)
            completions.append(
                complete(
                    prompts[i],
                    text,
                    model=model.name,
                    model_digest=model.digest,
                    finished=results[j].finished,
                    sample=k,
                    judge=judge,
                )
            )
            shown.update()
    return completions


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


def cut(text: str, stop: str | None) -> str:
    """The text up to the end of the string that ends a completion."""
    return text if stop is None or stop not in text else text[: text.index(stop) + len(stop)]


def written(model: Model, prompt: list[int], new: list[int]) -> str:
    """The text that new tokens add; decoded alone, some tokenizers lose the leading space."""

    def decode(tokens: list[int]) -> str:
        text: str = model.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    before, after = decode(prompt), decode(prompt + new)
    if not after.startswith(before):
        raise StageError(
            f"the tokenizer of {model.name} decodes a continued prompt to a text that does not "
            f"continue it, so the completion cannot be told apart: {before[-40:]!r}"
        )
    return after[len(before) :]


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
