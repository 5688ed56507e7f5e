"""Whether bfloat16 is worth it: its speed and its error, measured on the model and machine at hand."""

import sys
import time

import psutil
import torch
from torch import Tensor

from probes.foundation.terminal import say
from probes.models import forward
from probes.models.encoding import Batch, encode_texts, pad
from probes.models.hooks import recording
from probes.models.loading import Model, load_from
from probes.models.selftest import TEXTS, TOLERANCE
from probes.models.sites import residual_sites

N_TOKENS, REPEATS = 64, 2
FASTER = 1.2
"""Times as fast as float32, at least, for the numbers to be rounded."""
USUAL, NATS = 0.95, 0.01
"""Share of tokens that must be near (a token at the edge of being a sink falls to either side), and KL."""


def bfloat16_will_do(model: Model) -> bool:
    """Measure a model, loaded in bfloat16, against itself in float32; says what was found on stderr.

    It will do if it is `FASTER`, the residual stream moves within the self-test's tolerance at most
    tokens, and the distribution of the next token by less than `NATS`. A model of which float32 would
    fill half of the free memory, a quantised or a spread one, is not measured.
    """
    name = f"probes: {model.name} is computed in"
    on_gpu = model.device.type == "cuda"
    room = torch.cuda.mem_get_info(model.device)[0] if on_gpu else psutil.virtual_memory().available
    if model.quantization or model.no_bridge or 4 * model.hf.num_parameters() > room / 2:
        say(f"{name} bfloat16 (not measured: float32 has no room beside it)", file=sys.stderr)
        return True
    assert model.source is not None
    exact = load_from(model.source.model_copy(update={"dtype": "float32"}), model.loaded_as)
    batch = _text(model)
    ratio = _seconds(exact, batch) / _seconds(model, batch)
    if ratio < FASTER:
        say(f"{name} float32: bfloat16 is {ratio:.1f} times as fast here", file=sys.stderr)
        return False
    moved, nats = rounding(model, exact)
    usual, worst = (float(moved.quantile(at)) for at in (USUAL, 1.0))
    limit = TOLERANCE[torch.bfloat16]
    will_do = usual <= limit and nats <= NATS
    say(
        f"{name} {'bfloat16' if will_do else 'float32'}: bfloat16 is {ratio:.1f} times as fast here, "
        f"moves the residual stream by {usual:.1%} at {USUAL:.0%} of the tokens (allowed "
        f"{limit:.0%}) and {worst:.0%} at worst, and the next token's distribution by {nats:.1e} nats "
        f"(allowed {NATS})",
        file=sys.stderr,
    )
    return will_do


def _text(model: Model) -> Batch:
    ids = encode_texts([" ".join(TEXTS * 8)], model.tokenizer, True)[0]
    return pad([ids[: min(N_TOKENS, forward.context_length(model.hf) or N_TOKENS)]], 0)


def _seconds(model: Model, batch: Batch) -> float:
    """Of one forward pass, the best of some: processor time, which other programs leave alone, or a GPU's."""
    on_gpu = model.device.type == "cuda"
    clock, found = time.perf_counter if on_gpu else time.process_time, []
    with torch.inference_mode():
        for _ in range(REPEATS):
            began = clock()
            forward.trunk(model.hf, batch)
            if on_gpu:
                torch.cuda.synchronize(model.device)
            found.append(clock() - began)
    return max(min(found), 1e-9)


def rounding(model: Model, exact: Model) -> tuple[Tensor, float]:
    """What a short dtype moves. By site and token, the largest difference relative to the largest entry; and the mean KL in nats."""
    batch, streams, logs = _text(model), [], []
    for one in (exact, model):
        with torch.inference_mode(), recording(one.hf, residual_sites(one.n_layers)) as seen:
            found = forward.logits(one.hf, batch)[0].float().log_softmax(-1)
        logs.append(found.cpu())
        streams.append(torch.stack([values[0].float().cpu() for values in seen.values()]))
    apart = (streams[1] - streams[0]).abs().amax(-1) / streams[0].abs().amax(-1).clamp(min=1e-9)
    return apart.flatten(), float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())
