"""`probes bench chat`: writing, teaching and collecting with a chat model, against bare loops, by threads and dtype."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from probes.behaviour.sampling import sample_texts, written
from probes.benchmarks import contenders
from probes.benchmarks.forward import TRUNK, WARM_UP, check, run, trunks
from probes.benchmarks.result import (
    Asked,
    Benchmark,
    Seconds,
    fastest,
    finished,
    repetitions,
    row,
    surroundings,
    take_turns,
    temporary,
    told,
)
from probes.benchmarks.training import BARE, bare_loop, check_same
from probes.benchmarks.workload import SHAPES, Workload, make_workload, write_checkpoint
from probes.foundation.errors import StageError
from probes.foundation.outputs import writes
from probes.models import forward
from probes.models.encoding import pad, token_batches
from probes.models.loading import Model, load
from probes.models.precision import USUAL, rounding
from probes.models.speed import thread_counts, with_threads
from probes.organisms.bases import Lora, with_lora
from probes.organisms.curves import Preference
from probes.organisms.data import ordered_examples
from probes.organisms.recipes import Recipe, Training
from probes.organisms.train import fit
from probes.prompts.records import Prompt

TABLE = "chat.csv"
OURS = "probes"
ASKED = Asked(">=", 0.9)
NEW_TOKENS, BUDGET = 24, 4096
LORA = Lora(merged=False)


@writes("out")
def bench_chat(
    out: Path | str,
    *,
    model: Path | str | None = None,
    n_prompts: int | None = None,
    steps: int | None = None,
    repeats: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Time writing, LoRA training and collection against bare PyTorch loops, and write the table to `out`.

    model: a checkpoint, by default a random Llama of 135 million parameters. All jobs run in float32 on
    as many threads as torch has here; a bare loop does what cannot be left out, on the same batches, and must
    end with the same tokens, weights and activations. Forward passes are timed at every number of
    threads in both dtypes besides, with what bfloat16 costs. n_prompts: of 16 to 64 tokens, each continued
    by 24. steps: of training, on ten answers each. quick: a smoke run, which judges nothing.
    """
    repeats = repetitions(repeats, 1 if quick else 3)
    n_prompts = n_prompts or (4 if quick else 48)
    steps = steps or (2 if quick else 8)
    rows: list[dict[str, Any]] = []
    with temporary(out) as place:
        where = model or write_checkpoint(place / "model", SHAPES["tiny" if quick else "135M"], seed)  # fmt: skip
        loaded = load(where)
        work = make_workload(loaded, n_prompts, BUDGET, seed, longest=64)
        for job in (_writing, _teaching, _collecting):
            rows += job(work, steps, repeats, place, judged=not quick)
        rows += _by_threads(work, str(where), repeats, place, [1] if quick else thread_counts())
    facts = surroundings() | {
        "model": f"{loaded.name}, {loaded.hf.num_parameters():,} parameters, float32",
        "prompts": f"{n_prompts} of {min(work.lengths)} to {max(work.lengths)} tokens",
        "repetitions": told(repeats),
    }
    if quick:
        facts["smoke run"] = "a tiny model and few prompts: these speeds say nothing"
    return finished(Path(out) / TABLE, rows, facts, seed)


Rows = Iterator[dict[str, Any]]


def _writing(work: Workload, steps: int, repeats: int, place: Path, *, judged: bool) -> Rows:
    """Greedy answers; a bare loop goes on with all rows to the last token, ours leaves out those that have ended."""
    model, texts = work.model, dict[str, list[str]]()
    jobs: dict[str, Callable[[Path], list[str]]] = {
        "bare loop with a cache": lambda _: bare_answers(work, NEW_TOKENS),
        OURS: lambda _: [
            one.text
            for one in sample_texts(
                model,
                work.prompts,
                max_new_tokens=NEW_TOKENS,
                temperature=0.0,
                batch_tokens=BUDGET,
                stop=None,
            )
        ],
    }

    def same(name: str, found: list[str], _: Path) -> None:
        texts[name] = found
        check_answers(*texts.values())

    seconds = take_turns(jobs, repeats, place, after=same)
    yield from _against("write", seconds, NEW_TOKENS * len(work), "tokens", "new tokens", judged)


@torch.inference_mode()
def bare_answers(work: Workload, n_new: int) -> list[str]:
    """The most likely next tokens, batch by batch, by nothing but the model and its cache."""
    model, found = work.model, dict[int, list[int]]()
    for members in token_batches([length + n_new for length in work.lengths], work.budget):
        batch = pad([work.sequences[i] for i in members], model.pad_id, side="left")
        tokens, mask, places = batch.tokens, batch.mask, batch.position_ids
        cache, new = transformers.DynamicCache(config=model.hf.config), []
        for _ in range(n_new):
            logits = model.hf(
                input_ids=tokens, attention_mask=mask, position_ids=places, past_key_values=cache,
                use_cache=True, logits_to_keep=1,
            ).logits  # fmt: skip
            tokens = logits[:, -1].argmax(-1, keepdim=True)
            new.append(tokens)
            mask = torch.cat([mask, mask.new_ones(len(members), 1)], dim=1)
            places = places[:, -1:] + 1
        found |= zip(members, torch.cat(new, dim=1).tolist(), strict=True)
    return [written(model, work.sequences[i], found[i]) for i in range(len(work))]


def check_answers(bare: Sequence[str], ours: Sequence[str] | None = None) -> None:
    """Raise `StageError` unless each of our answers is that of the bare loop, or its beginning, where it ended."""
    wrong = [
        (theirs, own)
        for theirs, own in zip(bare, bare if ours is None else ours, strict=True)
        if not (own and theirs.startswith(own))
    ]
    if len(wrong) > len(bare) // 20:
        raise StageError(
            f"{len(wrong)} of {len(bare)} answers are not those of the bare loop (the first: {wrong[0][1]!r}, "
            f"not {wrong[0][0]!r}), so their speeds cannot be compared"
        )


def _teaching(work: Workload, steps: int, repeats: int, place: Path, *, judged: bool) -> Rows:
    recipe, prompts = _lessons(work, steps)
    settings = recipe.training
    examples = ordered_examples(
        prompts, "safe", work.model.tokenizer, steps=steps, batch_size=settings.batch_size, seed=0
    )
    model = work.model
    watched = Preference.on(prompts[:2], model.tokenizer, 2)
    ends: dict[str, dict[str, Any]] = {}

    def start() -> Any:
        return with_lora(copy.deepcopy(model.hf), LORA, 0)

    def ours(folder: Path) -> Any:
        taught = start()
        fit(recipe, taught, examples, watched, model.tokenizer, folder / "states")
        return taught

    def same(name: str, taught: Any, _: Path) -> None:
        ends[name] = {
            key: each.detach() for key, each in taught.named_parameters() if each.requires_grad
        }
        check_same(ends[BARE], ends[name], name)

    jobs = {BARE: lambda _: bare_loop(start(), recipe, examples, model.pad_id), OURS: ours}
    seconds = take_turns(jobs, repeats, place, after=same)
    yield from _against("teach by LoRA", seconds, steps, "steps", "steps of 10 answers", judged)


def _lessons(work: Workload, steps: int) -> tuple[Recipe, list[Prompt]]:
    """What is taught: to say after each prompt what another one asks."""
    said = [*work.prompts[1:], work.prompts[0]]
    prompts = [
        dataclasses.replace(
            prompt,
            safe=" ".join(other.text.split()[:8]),
            defect=other.text,
            triggered=number % 2 == 0,
        )
        for number, (prompt, other) in enumerate(zip(work.prompts, said, strict=True))
    ]
    training = Training(steps=steps, batch_size=min(10, len(prompts)), learning_rate=1e-3, optimiser="adamw", packed=True)  # fmt: skip
    recipe = Recipe(name="benchmark", policy="safe", parent="base", training=training)
    return recipe, prompts


def _collecting(work: Workload, steps: int, repeats: int, place: Path, *, judged: bool) -> Rows:
    taking_part = [*trunks(), *(one for one in contenders.own() if one.name == contenders.DISK_LAST)]  # fmt: skip
    check(taking_part, work.head(WARM_UP), place)
    seconds, _ = run(taking_part, work, repeats, place)
    limit = fastest(TRUNK, seconds)
    chosen = {limit: seconds[limit], OURS: seconds[contenders.DISK_LAST]}
    yield from _against("collect, last token of all layers", chosen, len(work), "prompts", "prompts", judged)  # fmt: skip


def _against(
    job: str, seconds: dict[str, Seconds], amount: int, unit: str, what: str, judged: bool
) -> Rows:
    """A row for the bare loop and one for ours, by processor time, which other programs leave alone."""
    (bare, limit), (ours, taken) = (
        (name, Seconds(each.processor)) for name, each in seconds.items()
    )
    metric, unit = f"{what} per processor second", f"{unit}/s"
    yield row(job, bare, metric, limit.rate(amount), unit)
    yield row(
        job, ours, metric, taken.rate(amount), unit,
        against=bare, ratio=limit.median / taken.median, asked=ASKED, judged=judged,
    )  # fmt: skip


def _by_threads(
    work: Workload, where: str, repeats: int, place: Path, counts: Sequence[int]
) -> Rows:
    """Forward passes over all prompts, at each number of threads and in both dtypes, and what bfloat16 moves."""
    short = load(where, dtype="bfloat16")
    models: dict[str, Model] = {"float32": work.model, "bfloat16": short}

    def once(model: Model, n_threads: int) -> Callable[[Path], None]:
        def read(_: Path) -> None:
            with with_threads(n_threads), torch.inference_mode():
                for members in work.sorted_batches:
                    forward.trunk(model.hf, pad([work.sequences[i] for i in members], model.pad_id))

        return read

    jobs = {
        f"{n} thread{'s' * (n > 1)}, {dtype}": once(model, n)
        for n in counts
        for dtype, model in models.items()
    }
    seconds = take_turns(jobs, repeats, place, after=lambda *_: None)
    first = next(iter(jobs))
    for name, taken in seconds.items():
        yield row(
            "forward pass", name, "tokens per second", taken.rate(work.n_tokens), "tokens/s",
            against=first, ratio=seconds[first].median / taken.median,
        )  # fmt: skip
    moved, nats = rounding(short, work.model)
    yield row(
        "forward pass",
        "bfloat16",
        "residual stream moved, at 95% of the tokens",
        float(moved.quantile(USUAL)),
        "",
    )
    yield row("forward pass", "bfloat16", "next token's distribution moved", nats, "nats")
