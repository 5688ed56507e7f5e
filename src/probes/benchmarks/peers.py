"""The other ways to get the last token's residual stream onto disk, each as its own manual shows it.

All get token ids ready-made, in batches of the same token budget; all write one safetensors file
per batch, without waiting for the disk. What `collect` does beyond that (tokenising, digests,
syncing) it alone pays for.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.benchmarks.contenders import Contender, Read
from probes.benchmarks.workload import Workload
from probes.foundation.errors import InputError
from probes.models import forward
from probes.models.anatomy import blocks
from probes.models.encoding import Batch, pad
from probes.models.loading import Model
from probes.models.sites import residual_sites

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
