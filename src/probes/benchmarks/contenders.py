"""What competes in collecting: ways to compute activations, and the proof that all computed the same ones.

Peers do it as their own manuals show it. All get token ids ready-made, in batches of the same token budget; all
write one safetensors file per batch, without waiting for the disk. What `collect` does beyond that (tokenising,
digests, syncing) it alone pays for.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.activations.collect import collect
from probes.activations.record import record
from probes.benchmarks.workload import Workload
from probes.foundation.errors import InputError, StageError
from probes.models import forward
from probes.models.anatomy import blocks
from probes.models.encoding import Batch, pad
from probes.models.hooks import recording
from probes.models.loading import Model
from probes.models.sites import residual_sites

# Per token, the length of the difference relative to the length of the vector. float32 leaves four
# digits to other orders of summation; the shorter types have that much less.
BOUND = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}

Read = Callable[[], Tensor]


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to do a job.

    run: does it, writing into an empty folder; this alone is timed. Returns how to read the result
        afterwards, `[site, row, d_model]`.
    gives: which of `expected` that result must be.
    lent: whether it is handed the batches of `collect`, so that what is left is not the batching.
    """

    name: str
    run: Callable[[Workload, Path], Read]
    gives: str
    lent: bool = False


def expected(work: Workload) -> dict[str, Tensor]:
    """The right results, from plain forward passes of one prompt at a time, without a pad.

    "all": every token of every prompt, `[site, token, d_model]`, on the CPU. "last": the last token
    of each prompt. "trunk": what leaves the trunk there. "hidden_states": as Hugging Face gives
    them, where that takes the place of the last block's output.
    """
    sites = residual_sites(work.model.n_layers)
    parts = []
    ends = []
    with torch.inference_mode():
        for ids in work.sequences:
            with recording(work.model.hf, sites) as seen:
                final = forward.trunk(work.model.hf, pad([ids], work.model.pad_id))
            parts.append(torch.stack([seen[site][0] for site in sites]).cpu())
            ends.append(final[0, -1].cpu())
    everything = torch.cat(parts, dim=1)
    last = everything[:, torch.tensor(work.lengths).cumsum(0) - 1]
    trunk = torch.stack(ends)[None]
    hidden_states = torch.cat([last[:-1], trunk])
    return {"all": everything, "last": last, "trunk": trunk, "hidden_states": hidden_states}


def run_trunk(work: Workload, grouping: list[list[int]]) -> Read:
    """The trunk-only forward pass over these batches; keeps one vector per prompt."""
    found: dict[int, Tensor] = {}
    hf = work.model.hf
    with torch.inference_mode():
        for members in grouping:
            batch = pad([work.sequences[i] for i in members], work.model.pad_id)
            ends = forward.trunk(hf, batch)[torch.arange(len(members)), batch.last]
            found |= zip(members, ends, strict=True)
    return lambda: torch.stack([found[i] for i in range(len(work))])[None].cpu()


def compare(contender: Contender, found: Tensor, right: Mapping[str, Tensor]) -> float:
    """The largest relative error of a token; raises `StageError` where it is no rounding error."""
    wanted = right[contender.gives]
    if found.shape != wanted.shape:
        raise StageError(
            f"{contender.name} gave activations of shape {tuple(found.shape)}, not "
            f"{tuple(wanted.shape)}: what it does is not the same job, so its time says nothing"
        )
    bound = BOUND[wanted.dtype]
    difference = (found.float() - wanted.float()).norm(dim=-1)
    tiny = torch.finfo(torch.float32).tiny
    errors = (difference / wanted.float().norm(dim=-1).clamp_min(tiny)).nan_to_num(torch.inf)
    worst = float(errors.max())
    if worst > bound:
        site, row = divmod(int(errors.argmax()), errors.shape[1])
        raise StageError(
            f"{contender.name} differs from plain forward passes by {worst:.2g} of the activation's "
            f"length at site {site}, row {row} (allowed {bound:g}): no time is reported for a wrong "
            "result"
        )
    return worst


MEMORY_LAST, MEMORY_ALL = "record, last token", "record, all tokens"
DISK_LAST, DISK_ALL = "collect, last token", "collect, all tokens"
STORE = "store"


def own() -> list[Contender]:
    """`record` to memory and `collect` to disk, each of the last token and of all tokens."""
    return [
        Contender(MEMORY_LAST, functools.partial(_to_memory, positions="last"), "last"),
        Contender(MEMORY_ALL, functools.partial(_to_memory, positions="all"), "all"),
        Contender(DISK_LAST, functools.partial(_to_disk, positions="last"), "last"),
        Contender(DISK_ALL, functools.partial(_to_disk, positions="all"), "all"),
    ]


def _to_memory(work: Workload, folder: Path, positions: str) -> Read:
    found = record(
        work.model, work.prompts, positions=positions, token_budget=work.budget, dtype=_dtype(work)
    )
    return functools.partial(_stack, found, work)


def _to_disk(work: Workload, folder: Path, positions: str) -> Read:
    found = collect(
        work.model,
        work.prompts,
        folder / STORE,
        positions=positions,
        token_budget=work.budget,
        dtype=_dtype(work),
    )
    return functools.partial(_stack, found, work)


def _stack(found: Any, work: Workload) -> Tensor:
    sites = residual_sites(work.model.n_layers)
    return torch.stack([torch.from_numpy(found.rows(site)) for site in sites])


def _dtype(work: Workload) -> str:
    return str(work.model.dtype).removeprefix("torch.")


Grouping = Callable[[Workload], list[list[int]]]
Step = Callable[[Batch, Tensor, Tensor], list[Tensor]]


def given(work: Workload) -> list[list[int]]:
    """Padded batches in the order of the prompts: what comes of not thinking about it."""
    return work.given_batches


def same(work: Workload) -> list[list[int]]:
    """The batches of `collect`, so that what is left is not the batching."""
    return work.sorted_batches


def transformer_lens(model: Model) -> list[Contender]:
    """`run_with_cache` as it is called by default, and caching the residual stream only."""
    bridge = model.bridge()
    names = [site.hook_name for site in residual_sites(model.n_layers)]

    def step(batch: Batch, row: Tensor, last: Tensor, **options: Any) -> list[Tensor]:
        _, cache = bridge.run_with_cache(batch.tokens, attention_mask=batch.mask, **options)
        return [cache[name][row, last] for name in names]

    chosen = functools.partial(step, names_filter=set(names).__contains__)
    return [
        _contender("TransformerLens run_with_cache", step, given),
        _contender("TransformerLens run_with_cache, names_filter", chosen, given),
    ]


def hugging_face(model: Model) -> list[Contender]:
    """`output_hidden_states=True`; where the model can, also without the logits of every token."""

    def step(batch: Batch, row: Tensor, last: Tensor, **options: Any) -> list[Tensor]:
        inputs = forward.inputs(model.hf, batch)
        out = model.hf(**inputs, output_hidden_states=True, **options)
        return [states[row, last] for states in out.hidden_states]

    name = "Hugging Face output_hidden_states"
    if "logits_to_keep" not in inspect.signature(model.hf.forward).parameters:
        return [
            _contender(name, step, given, "hidden_states"),
            _contender(f"{name}, same batches", step, same, "hidden_states"),
        ]
    short = functools.partial(step, logits_to_keep=1)
    return [
        _contender(name, step, given, "hidden_states"),
        _contender(f"{name}, logits_to_keep=1", short, given, "hidden_states"),
        _contender(f"{name}, logits_to_keep=1, same batches", short, same, "hidden_states"),
    ]


def nnsight(model: Model) -> list[Contender]:
    """A trace that saves every block's output, and one that also stops after the last block.

    nnsight replaces the forward of every module that it wraps, so it gets a copy of the model.
    """
    try:
        import nnsight as library
    except ImportError as error:
        raise InputError(
            'the comparison needs nnsight, which is not installed: pip install "probes[bench]"'
        ) from error
    traced = library.TransformersModel(
        copy.deepcopy(model.hf), tokenizer=copy.deepcopy(model.tokenizer), dispatch=True
    )
    layers = functools.reduce(getattr, _blocks_name(model.hf).split("."), traced)

    def step(batch: Batch, row: Tensor, last: Tensor, stop: bool = False) -> list[Tensor]:
        given_ids = {"input_ids": batch.tokens, "attention_mask": batch.mask}
        with traced.trace(given_ids, use_cache=False) as tracer:
            kept = library.save([layers[0].input[row, last]])
            for layer in layers:
                out = layer.output
                kept.append((out[0] if isinstance(out, tuple) else out)[row, last])
            if stop:
                tracer.stop()
        return list(kept)

    stopped = functools.partial(step, stop=True)
    return [
        _contender("nnsight trace", step, given),
        _contender("nnsight trace, same batches, stopped after the last block", stopped, same),
    ]


def _contender(name: str, step: Step, grouping: Grouping, gives: str = "last") -> Contender:
    """A contender that runs `step` on every batch and saves what it returns."""

    def run(work: Workload, folder: Path) -> Read:
        from safetensors.torch import save_file

        device = work.model.device
        batches = grouping(work)
        with torch.inference_mode():
            for number, members in enumerate(batches):
                batch = pad([work.sequences[i] for i in members], work.model.pad_id).to(device)
                row = torch.arange(len(members), device=device)
                kept = torch.stack(step(batch, row, batch.last)).cpu()
                save_file({"last": kept}, folder / f"{number:05d}.safetensors")
        return functools.partial(_read, folder, batches)

    return Contender(name, run, gives, lent=grouping is same)


def _read(folder: Path, batches: list[list[int]]) -> Tensor:
    """The saved vectors in the order of the prompts, `[site, prompt, d_model]`."""
    from safetensors.torch import load_file

    parts = [
        load_file(folder / f"{number:05d}.safetensors")["last"] for number in range(len(batches))
    ]
    order = torch.tensor([index for members in batches for index in members])
    return torch.cat(parts, dim=1)[:, order.argsort()]


def _blocks_name(hf: Any) -> str:
    """Where the list of decoder blocks lies in the model, as a dotted name."""
    first = blocks(hf)[0]
    name = next(name for name, module in hf.named_modules() if module is first)
    return name.removesuffix(".0")
