"""Means that are patched in: of tokens by hand, with attention sinks apart."""

import numpy as np
import pytest
import torch
from patching_cases import random_model

from probes.patching.engine.packing import pack
from probes.patching.engine.trunk import Trunk
from probes.patching.pairs import encode_pairs
from probes.patching.sources import Means
from probes.patching.spans import Column

STREAM = ("stream", 1)


@pytest.mark.parametrize("sinking", [False, True])
def test_sinks_have_a_mean_of_their_own(tokenizer, pairs, sinking):
    model = random_model("gpt2", tokenizer)
    if sinking:
        with torch.no_grad():
            model.hf.transformer.wpe.weight[0] = 100 * torch.randn(32)
    rule = model.sinks.rule
    assert (rule is not None) is sinking
    encoded = encode_pairs(pairs, model.tokenizer)
    columns = [Column("begin", tuple((0, 1, 2) for _ in encoded))]
    means = Means(columns, columns, rule)
    trunk, members = Trunk(model.hf, model.pad_id), range(len(encoded))
    with torch.no_grad():
        kept = trunk.record([pack(p.name, p.clean, (p.defect,)) for p in encoded], [STREAM])
    means.add(kept, [STREAM], members)
    found = means.values(STREAM, members, 8, kept)
    values = kept.at(STREAM).double()
    first, others = values[:, 0].mean(0), values[:, 1:3].mean((0, 1))
    if not sinking:
        first = others = values[:, :3].mean((0, 1))
    prompts = [values[i, int(sinking) : len(p.clean)] for i, p in enumerate(encoded)]
    np.testing.assert_allclose(found[0, 0], first, rtol=1e-5)
    np.testing.assert_allclose(found[0, 1], others, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0, 5], torch.cat(prompts).mean(0), rtol=1e-4, atol=1e-6)
