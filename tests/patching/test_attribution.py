"""Estimates by slopes: exact where the model is linear, complete where it is not, and TransformerLens's."""

import dataclasses

import numpy as np
import pytest
import torch
from linear_model import linear_model, logit_of_the_first
from patching_cases import random_model

from probes.foundation.errors import InputError
from probes.models import anatomy
from probes.models.loading import Model
from probes.patching.attribution import attribute_cells, compare
from probes.patching.exact import patch_cells
from probes.patching.measures import Divergence, OfLogits
from probes.patching.pairs import encode_pairs
from probes.patching.parts import PATCHABLE, Part, cell_set, grid_cells
from probes.patching.sources import Plan
from probes.patching.spans import make_columns

NONE = {"n_boot": 0, "n_flips": 0}
NATS = 1e-4


@pytest.fixture(scope="module")
def encoded(tokenizer, pairs):
    return encode_pairs(pairs, tokenizer)


@pytest.fixture(scope="module")
def columns(tokenizer, pairs, encoded):
    return make_columns(pairs, encoded, tokenizer)


@pytest.mark.parametrize("values", ["paired", "mean", "zero"])
def test_in_a_linear_model_estimates_are_exact(tokenizer, encoded, columns, values: str) -> None:
    model = linear_model(tokenizer)
    kinds = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "v"]
    cells = grid_cells(model.hf, kinds, columns)
    cells += grid_cells(model.hf, ["z", "v"], columns, heads=True)
    cells = [cell for cell in cells if cell.column in (9, len(columns) - 1)]
    cells += grid_cells(model.hf, ["mlp_out"], None)
    parts = [Part("z", 1, 1, 9), Part("z", 1, 2, 12), Part("z", 1, 2, 12)]
    cells.append(cell_set(parts, columns, "set"))
    assert columns[9].label == "3→4"
    given = {"metric": OfLogits(logit_of_the_first, "linear"), "plan": Plan(values=values), **NONE}
    exact = patch_cells(model, encoded, cells, columns, **given)
    for n_steps in (0, 1):
        found = attribute_cells(model, encoded, cells, columns, n_steps=n_steps, **given)
        np.testing.assert_allclose(found.rows["mean"], exact.rows["mean"], atol=NATS)
        assert found.rows["site"].tolist() == exact.rows["site"].tolist()
    assert (exact.rows["mean"].abs() > 100 * NATS).sum() > 10


def test_along_the_site_estimates_add_up_to_the_patched_site(
    model: Model, encoded, columns
) -> None:
    """The fundamental theorem of calculus, for every kind of site of every architecture."""
    kinds = [kind for kind in PATCHABLE if kind not in anatomy.missing(model.hf)]
    whole = grid_cells(model.hf, kinds, None)
    encoded = encoded[:1]
    exact = patch_cells(model, encoded, whole, **NONE)
    once = attribute_cells(model, encoded, whole, **NONE)
    found = attribute_cells(model, encoded, whole, n_steps=16, **NONE)
    scale = exact.rows["mean"].abs().max()
    errors = [
        float((f.rows["mean"] - exact.rows["mean"]).abs().max() / scale) for f in (once, found)
    ]
    limit = (
        0.05 if model.name == "opt" else 0.02
    )  # its ReLU has kinks, between which points may fall
    assert errors[1] < limit < errors[0]
    assert (found.rows["mean"].abs() > 0.01 * scale).mean() > 0.5


def test_along_the_inputs_estimates_of_the_embedding_add_up(llama: Model, encoded, columns) -> None:
    cells = grid_cells(llama.hf, ["resid_pre"], columns, layers=[0])
    found = attribute_cells(llama, encoded, cells, columns, n_steps=6, along="inputs", **NONE)
    each = found.per_prompt
    assert each.groupby("pair")["effect"].sum().to_numpy() == pytest.approx(
        (each["other"] - each["unpatched"]).groupby(each["pair"]).first().to_numpy(), rel=0.02
    )


def test_heads_and_mlps_agree_with_transformer_lens(tokenizer, encoded, columns) -> None:
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    model, pair = random_model("gpt2", tokenizer), encoded[:1]
    cells = grid_cells(model.hf, ["mlp_out"], None) + grid_cells(model.hf, ["z"], None, heads=True)
    metric = OfLogits(lambda logits: logits.log_softmax(-1)[:, 7], "log P of token 7")
    ours = attribute_cells(model, pair, cells, metric=metric, **NONE).rows
    clean, corrupted = (torch.tensor([ids]) for ids in (pair[0].clean, pair[0].corrupted))
    bridge = model.bridge()
    bridge.requires_grad_(True)
    theirs = attribution_patch(
        bridge, clean, corrupted, lambda logits: logits[0, -1].log_softmax(-1)[7]
    ).node_scores
    totals: dict[tuple, float] = {}
    for node, score in theirs.items():
        key = node.kind, node.layer, node.head
        totals[key] = totals.get(key, 0.0) + score
    seen = [
        totals[
            "mlp_out" if row.site.startswith("mlp") else "attn_head_out",
            int(row.site[-1]),
            None if row.site.startswith("mlp") else int(row.head),
        ]
        for row in ours.itertuples()
    ]
    assert np.ptp(seen) > 100 * NATS
    np.testing.assert_allclose(ours["mean"], seen, atol=NATS)


def test_what_has_no_gradient_is_refused(llama: Model, encoded, columns) -> None:
    cells = grid_cells(llama.hf, ["mlp_out"], columns)
    flat = OfLogits(lambda logits: logits.argmax(-1).double(), "argmax")
    with pytest.raises(InputError, match="no gradient of 'argmax'"):
        attribute_cells(llama, encoded, cells, columns, metric=flat, **NONE)
    rounded = dataclasses.replace(
        llama, loaded_as=llama.loaded_as.model_copy(update={"quantization": "8bit"})
    )
    with pytest.raises(InputError, match="quantised"):
        attribute_cells(rounded, encoded, cells, columns, **NONE)
    with pytest.raises(InputError, match="site, inputs"):
        attribute_cells(llama, encoded, cells, columns, n_steps=1, along="paths", **NONE)
    with pytest.raises(InputError, match="other prompt"):
        attribute_cells(
            llama,
            encoded,
            cells,
            columns,
            n_steps=1,
            along="inputs",
            plan=Plan(values="zero"),
            **NONE,
        )


def test_a_model_that_cuts_its_gradient_is_refused(tokenizer, encoded, columns) -> None:
    model = random_model("llama", tokenizer)
    model.hf.model.layers[1].register_forward_hook(lambda _, __, out: out.detach())
    cells = grid_cells(model.hf, ["mlp_out"], columns)
    with pytest.raises(InputError, match="no gradient"):
        attribute_cells(model, encoded, cells, columns, **NONE)


def test_agreement_of_a_table_with_itself_and_with_its_opposite(
    llama: Model, encoded, columns
) -> None:
    cells = grid_cells(llama.hf, ["mlp_out", "resid_pre"], columns)
    exact = patch_cells(llama, encoded, cells, columns, **NONE)
    found = attribute_cells(llama, encoded, cells, columns, n_flips=50, n_boot=50)
    same = compare(exact, exact)
    assert (same.spearman, same.top, same.slope) == pytest.approx((1, 1, 1))
    turned = exact.per_prompt.assign(effect=-exact.per_prompt["effect"])
    rows = exact.rows.assign(mean=-exact.rows["mean"])
    opposite = compare(exact, dataclasses.replace(exact, rows=rows, per_prompt=turned))
    assert opposite.spearman == pytest.approx(-1) and opposite.slope == pytest.approx(-1)
    seen = compare(exact, found)
    assert -1 < seen.low <= seen.spearman <= seen.high <= 1 and "rank correlation" in repr(seen)
    assert "estimated by gradient x difference" in repr(found) and "exact" in seen._repr_html_()
    kl = attribute_cells(llama, encoded, cells, columns, metric=Divergence(), **NONE)
    with pytest.raises(InputError, match="different metric"):
        compare(exact, kl)
