"""A direction moves the model exactly as sums by hand say, at the tokens that are meant, and leaves no trace."""

import copy
import dataclasses
import operator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes.behaviour.generation import Stopping, generate
from probes.foundation.errors import InputError, StageError
from probes.models import forward
from probes.models.anatomy import find, kinds, width
from probes.models.encoding import encode, pad
from probes.models.hooks import editing, recording
from probes.models.sites import Site, all_sites
from probes.patching.steering import ablated, along, erased, steered
from probes.probing.erasure import LeaceEraser

FINAL_NORM = {
    "llama": "model.norm",
    "gpt2": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "qwen3": "model.norm",
    "gemma2": "model.norm",
    "opt": "model.decoder.final_layer_norm",
}
N_NEW = 6


def direction(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def texts(model, pairs) -> list[list[int]]:
    made = [prompt for pair in pairs for prompt in (pair.clean, pair.corrupted)]
    return encode(made, model.tokenizer)


@torch.no_grad()
def logits(model, sequences, side="right"):
    batch = pad(sequences, model.pad_id, side)
    return forward.logits(model.hf, batch)[batch.mask.bool()]


@torch.no_grad()
def recorded(model, sequences, sites, side="right"):
    batch = pad(sequences, model.pad_id, side)
    with recording(model.hf, sites) as seen:
        forward.logits(model.hf, batch)
    return {site: values[batch.mask.bool()] for site, values in seen.items()}


def n_hooks(hf) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules())


def unit(vector) -> torch.Tensor:
    made = torch.as_tensor(vector, dtype=torch.float32)
    return made / made.norm()


@torch.no_grad()
def test_what_is_added_before_the_last_norm_comes_out_as_the_sum_by_hand(model, pairs):
    """The stream, plus the row that unembeds one token, through norm and unembedding by hand."""
    sequences, site = texts(model, pairs), Site("resid_post", model.n_layers - 1)
    norm = operator.attrgetter(FINAL_NORM[model.name])(model.hf)
    planted = 7
    row = model.hf.get_output_embeddings().weight[planted]
    stream = recorded(model, sequences, [site])[site]
    expected = model.hf.get_output_embeddings()(norm(stream + 40 * row / row.norm()))
    if model.name == "gemma2":
        expected = torch.tanh(expected / 3) * 3
    with steered(model, site, row / row.norm(), 40):
        seen = logits(model, sequences)
    torch.testing.assert_close(seen, expected)
    assert (seen[:, planted] > logits(model, sequences)[:, planted]).all()


def test_every_site_takes_every_change_and_its_projection_is_the_target(model, pairs):
    sequences = texts(model, pairs)
    for site in all_sites(model.n_layers, kinds(model.hf)):
        vector = direction(int(np.prod(width(model.hf, site))), 1)
        u, before = unit(vector), recorded(model, sequences, [site])[site]
        for context, expected in (
            (steered(model, site, vector, -0.5), before - 0.5 * torch.as_tensor(vector).float()),
            (ablated(model, site, vector), before - (before @ u)[:, None] * u),
            (ablated(model, site, vector, dose=0.25), before - 0.25 * (before @ u)[:, None] * u),
            (along(model, site, 3 * vector, 1.5), before + (1.5 - before @ u)[:, None] * u),
        ):
            with context:
                after = recorded(model, sequences, [site])[site]
            torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
        with along(model, site, vector, 1.5):
            after = recorded(model, sequences, [site])[site]
        torch.testing.assert_close(after @ u, torch.full((len(after),), 1.5), rtol=0, atol=1e-4)


def test_several_sites_change_at_once_each_by_its_own_vector(llama, pairs):
    sequences, sites = texts(llama, pairs), ["resid_pre.0", "resid_post.0", "resid_post.1"]
    vectors = np.stack([direction(llama.d_model, seed) for seed in range(3)])
    with ablated(llama, sites, vectors, to=[0.1, 0.2, 0.3]):
        seen = recorded(
            llama, sequences, [Site("resid_pre", 0), *(Site("resid_post", k) for k in (0, 1))]
        )
    for number, values in enumerate(seen.values()):
        expected = torch.full((len(values),), 0.1 * (number + 1))
        torch.testing.assert_close(values @ unit(vectors[number]), expected, rtol=0, atol=1e-4)


def test_the_control_moves_as_far_along_another_direction(llama, pairs):
    sequences, site = texts(llama, pairs), Site("resid_post", 0)
    vector, other = direction(llama.d_model), direction(llama.d_model, 5)
    before = recorded(llama, sequences, [site])[site]
    with ablated(llama, site, vector, to=0.4, instead=other):
        moved = recorded(llama, sequences, [site])[site] - before
    far = 0.4 - before @ unit(vector)
    torch.testing.assert_close(moved, far[:, None] * unit(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, pairs, side):
    sequences, vector = texts(model, pairs), 3 * direction(model.d_model)
    site = Site("resid_post", 0)
    for tokens in ("all", "last"):
        with steered(model, site, vector, 1.0, tokens=tokens):
            alone = torch.cat([logits(model, [one]) for one in sequences])
            together = logits(model, sequences, side)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone, logits(model, sequences), atol=1e-2)


@pytest.mark.parametrize("tokens", ["all", "last", "new"])
def test_generation_with_a_cache_and_left_padding_writes_what_full_passes_write(
    model, pairs, tokens
):
    sequences, vector, site = (
        texts(model, pairs),
        4 * direction(model.d_model),
        Site("resid_post", 0),
    )
    never = Stopping(frozenset(), None, frozenset(), model.tokenizer)

    def written(rows):
        return [
            one.tokens
            for one in generate(
                model.hf, rows, None, max_new_tokens=N_NEW, temperature=0.0,
                pad_id=model.pad_id, stop=never,
            )
        ]  # fmt: skip

    plain = written(sequences)
    with steered(model, site, vector, 1.0, tokens=tokens):
        seen = written(sequences)
    expected = []
    for ids in sequences:
        at = {
            "all": slice(None),
            "last": slice(len(ids) - 1, len(ids)),
            "new": slice(len(ids), None),
        }

        def push(x, where=at[tokens]):
            changed = x.clone()
            changed[:, where] += torch.as_tensor(vector).float()
            return changed

        now = list(ids)
        for _ in range(N_NEW):
            with torch.no_grad(), editing(model.hf, site, push):
                now.append(int(forward.logits(model.hf, pad([now], model.pad_id))[0, -1].argmax()))
        expected.append(now[len(ids) :])
    assert seen == expected
    assert seen != plain
    if tokens == "new":
        assert [row[0] for row in seen] == [row[0] for row in plain]


def test_dose_zero_is_the_plain_model_and_hooks_nothing(model, pairs):
    sequences, site, own = texts(model, pairs), Site("resid_post", 0), n_hooks(model.hf)
    vector, before = direction(model.d_model), logits(model, sequences)
    eye = np.eye(model.d_model)
    for context in (
        steered(model, site, vector, 0),
        ablated(model, site, vector, dose=0.0),
        along(model, site, vector, 2.0, dose=0, tokens="last"),
        erased(model, site, 0 * eye, vector, dose=0),
    ):
        with context:
            assert n_hooks(model.hf) == own
            assert torch.equal(logits(model, sequences), before)


def test_nothing_is_left_after_the_block_whatever_happens_in_it(llama, pairs):
    sequences, own = texts(llama, pairs), n_hooks(llama.hf)
    before, vector = logits(llama, sequences), direction(llama.d_model)
    eye = np.eye(llama.d_model)
    for make in (
        lambda: steered(llama, ["resid_post.0", "resid_mid.1"], vector, 1.0, tokens="last"),
        lambda: ablated(llama, "resid_post.0", vector, tokens="new"),
        lambda: erased(llama, "mlp_out.1", 0 * eye, vector),
    ):
        with pytest.raises(ZeroDivisionError), make():
            logits(llama, sequences)
            assert n_hooks(llama.hf) > own
            raise ZeroDivisionError
        with make():
            logits(llama, sequences)
        assert n_hooks(llama.hf) == own
        assert torch.equal(logits(llama, sequences), before)


def test_half_precision_is_changed_in_float32_and_rounded_once(llama, pairs, tokenizer):
    half = dataclasses.replace(llama, hf=copy.deepcopy(llama.hf).to(torch.bfloat16))
    sequences, site, vector = texts(half, pairs), Site("resid_post", 0), direction(llama.d_model)
    before = recorded(half, sequences, [site])[site]
    u = unit(vector)
    with along(half, site, vector, 1.5):
        after = recorded(half, sequences, [site])[site]
        assert logits(half, sequences).isfinite().all()
    assert after.dtype == torch.bfloat16
    precise = before.float() + (1.5 - before.float() @ u)[:, None] * u
    assert torch.equal(after, precise.to(torch.bfloat16))


def test_leace_leaves_no_linear_probe_anything_to_find(llama):
    """Random token sequences whose last token is one of two: before, they part; after, they do not."""
    rng, site = np.random.default_rng(0), Site("resid_post", 0)
    sequences = [[*rng.integers(5, 300, size=4).tolist(), 10 + i % 2] for i in range(160)]
    y = np.arange(160) % 2 == 1
    last = slice(4, None, 5)

    def rows():
        return recorded(llama, sequences, [site])[site][last].double().numpy()

    def found(X):
        return LogisticRegression(C=1e4, max_iter=5000).fit(X, y).score(X, y)

    X = rows()
    eraser = LeaceEraser().fit(X, y)
    P = eraser.proj_left_ @ eraser.proj_right_
    with erased(llama, site, np.eye(llama.d_model) - P, P @ eraser.bias_):
        after = rows()
    np.testing.assert_allclose(after, eraser.transform(X), atol=1e-4)
    assert found(X) == 1.0
    assert np.abs(after[y].mean(0) - after[~y].mean(0)).max() < 1e-4
    assert abs(found(np.round(after, 3)) - 0.5) < 0.1


def test_what_cannot_be_done_is_refused_with_what_was_seen(llama):
    v, site = direction(llama.d_model), "resid_post.0"
    broken = v.copy()
    broken[3] = np.nan
    for said, context in {
        "has 5 entries; resid_post.0": steered(llama, site, v[:5], 1),
        "1 of 32 entries that are NaN": steered(llama, site, broken, 1),
        "layers 0 to 1": steered(llama, "resid_post.2", v, 1),
        "kind of site 'residpost'": ablated(llama, "residpost.0", v),
        "each once; saw resid_post.0, resid_post.0": ablated(llama, [site, site], v),
        "for 2 site": steered(llama, [site, "resid_post.1"], np.stack([v] * 3), 1),
        "is zero": ablated(llama, site, 0 * v),
        "finite number, not nan": steered(llama, site, v, float("nan")),
        "tokens to change 'first'": steered(llama, site, v, 1, tokens="first"),
        "one per site": along(llama, site, v, [1.0, 2.0]),
        r"has shape \(32, 5\)": erased(llama, site, np.ones((32, 5)), v),
    }.items():
        with pytest.raises(InputError, match=said), context:
            pass
    with pytest.raises(StageError, match="nothing was edited"), steered(llama, site, v, 1):
        pass
    assert find(llama.hf, [Site("resid_post", 0)])
