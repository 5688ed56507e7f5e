"""Hooks read what Hugging Face itself reports, change only what they are told, leave nothing."""

import operator

import pytest
import torch
from tiny_models import FINAL_NORM, TEXTS

from probes.foundation.errors import InputError, StageError
from probes.models import forward
from probes.models.anatomy import blocks
from probes.models.encoding import encode_texts, pad
from probes.models.hooks import columns, editing, recording, replacing
from probes.models.sites import Site, residual_sites


@pytest.fixture
def batch(model):
    return pad(encode_texts(TEXTS, model.tokenizer, True), model.pad_id)


def record(model, batch, sites=None):
    with torch.no_grad(), recording(model.hf, sites or residual_sites(model.n_layers)) as seen:
        logits = forward.logits(model.hf, batch)
    return seen, logits


def n_hooks(hf):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules())


def test_recorded_sites_are_the_hidden_states_of_hugging_face(model, batch, architecture):
    seen, _ = record(model, batch)
    with torch.no_grad():
        given = forward.inputs(model.hf, batch)
        expected = model.hf(**given, output_hidden_states=True).hidden_states
        norm = operator.attrgetter(FINAL_NORM[architecture])(model.hf)
        assert len(seen) == len(expected) == model.n_layers + 1 == 4
        for site in residual_sites(model.n_layers)[:-1]:
            assert torch.equal(seen[site], expected[site.depth]), site
        last = seen[Site("resid_post", model.n_layers - 1)]
        torch.testing.assert_close(norm(last), expected[-1])
        assert not torch.allclose(last, expected[-1])


def test_input_of_a_block_is_the_output_of_the_one_before(model, batch):
    sites = [Site("resid_post", 0), Site("resid_pre", 1), Site("resid_pre", 2)]
    seen, _ = record(model, batch, sites)
    assert torch.equal(seen[sites[0]], seen[sites[1]])
    assert not torch.equal(seen[sites[1]], seen[sites[2]])


def test_padding_changes_no_real_token(model):
    sequences = encode_texts(TEXTS, model.tokenizer, True)
    for side in ("left", "right"):
        batch = pad(sequences, model.pad_id, side)
        seen, logits = record(model, batch)
        for row, ids in enumerate(sequences):
            alone, alone_logits = record(model, pad([ids], model.pad_id))
            real = batch.mask[row].bool()
            for site, values in alone.items():
                torch.testing.assert_close(seen[site][row, real], values[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(logits[row, real], alone_logits[0], rtol=1e-4, atol=1e-5)


def test_the_trunk_stopped_early_records_the_same(model, batch):
    full, _ = record(model, batch)
    with torch.no_grad(), recording(model.hf, full, stop=True) as seen:
        forward.trunk(model.hf, batch)
    assert all(torch.equal(seen[site], full[site]) for site in full)


def test_replacing_every_token_restores_the_run_that_the_values_come_from(model, batch):
    """The theorem of patching: the residual stream at one depth decides everything after it."""
    other = pad([ids[::-1] for ids in batch.tokens.tolist()], model.pad_id)
    corrupted = type(batch)(other.tokens, batch.mask, batch.position_ids)
    clean, clean_logits = record(model, batch)
    real = batch.mask.bool()
    with torch.no_grad():
        assert not torch.allclose(forward.logits(model.hf, corrupted)[real], clean_logits[real])
        for site in residual_sites(model.n_layers):
            everywhere = torch.ones_like(real)
            with replacing(model.hf, site, everywhere, clean[site]):
                patched = forward.logits(model.hf, corrupted)
            assert torch.equal(patched[real], clean_logits[real]), site


def test_replacing_changes_only_the_chosen_token_and_what_can_see_it(model, batch):
    site = Site("resid_post", 0)
    clean, _ = record(model, batch)
    where = torch.tensor([5, 0, 5])
    with torch.no_grad(), replacing(model.hf, site, where, torch.full((model.d_model,), 0.5)):
        seen, _ = record(model, batch)
    # The recording hook comes after the replacing one, so it sees what the model goes on with.
    chosen = columns(where, batch.tokens.shape[1])
    assert torch.equal(seen[site][chosen], torch.full((3, model.d_model), 0.5))
    assert torch.equal(seen[site][~chosen], clean[site][~chosen])
    last = Site("resid_post", model.n_layers - 1)
    assert torch.equal(seen[last][0, :5], clean[last][0, :5])
    # The sliding windows of some architectures are 8 tokens.
    assert not torch.isclose(seen[last][0, 5:13], clean[last][0, 5:13]).all(-1).any()


def test_values_may_be_one_vector_one_per_row_or_one_per_token(llama):
    batch = pad([[5, 6, 7], [8, 9, 10]], llama.pad_id)
    site, where = Site("resid_pre", 1), torch.tensor([[True, False, True], [False, True, False]])
    per_row = torch.randn(2, llama.d_model)
    results = []
    for values in (per_row, per_row[:, None].expand(2, 3, -1).contiguous()):
        with torch.no_grad(), replacing(llama.hf, site, where, values):
            results.append(forward.logits(llama.hf, batch))
    assert torch.equal(*results)
    with torch.no_grad(), replacing(llama.hf, site, where, per_row[0]):
        single = forward.logits(llama.hf, batch)
    assert torch.equal(single[0], results[0][0])
    assert not torch.equal(single[1], results[0][1])


def test_a_patch_writes_neither_into_the_stream_nor_into_its_values(llama):
    batch = pad([[5, 6, 7]], llama.pad_id)
    site, values = Site("resid_pre", 1), torch.zeros(1, 3, llama.d_model)
    before, _ = record(llama, batch)
    with (
        torch.no_grad(),
        recording(llama.hf, [Site("resid_post", 0)], select=lambda x: x) as kept,
        replacing(llama.hf, site, torch.tensor([1]), values),
    ):
        forward.logits(llama.hf, batch)
    assert torch.equal(kept[Site("resid_post", 0)], before[Site("resid_post", 0)])
    assert values.count_nonzero() == 0


def test_an_edit_in_place_is_an_error(llama):
    batch, own = pad([[5, 6, 7]], llama.pad_id), n_hooks(llama.hf)
    with (
        pytest.raises(StageError, match="wrote into its input"),
        torch.no_grad(),
        editing(llama.hf, Site("resid_post", 0), lambda x: x.mul_(2)),
    ):
        forward.logits(llama.hf, batch)
    assert n_hooks(llama.hf) == own


def test_recorded_values_survive_later_writing(llama):
    batch = pad([[5, 6, 7]], llama.pad_id)
    before, _ = record(llama, batch)

    def spoil(_, args):
        args[0].zero_()

    handle = blocks(llama.hf)[1].register_forward_pre_hook(spoil)
    try:
        seen, _ = record(llama, batch, [Site("resid_post", 0)])
    finally:
        handle.remove()
    assert torch.equal(seen[Site("resid_post", 0)], before[Site("resid_post", 0)])


def test_gradients_reach_recorded_and_edited_activations(llama):
    batch = pad([[5, 6, 7]], llama.pad_id)
    delta = torch.zeros(llama.d_model, requires_grad=True)
    shifted = editing(llama.hf, Site("resid_post", 0), lambda x: x + delta)
    with shifted, recording(llama.hf, [Site("resid_post", 1)]) as seen:
        forward.logits(llama.hf, batch)
    seen[Site("resid_post", 1)].sum().backward()
    assert delta.grad is not None
    assert delta.grad.abs().sum() > 0


def test_hooks_go_when_the_forward_fails(model, batch):
    site, own = Site("resid_post", 1), n_hooks(model.hf)
    for context in (
        recording(model.hf, [site]),
        replacing(model.hf, site, batch.last, torch.zeros(model.d_model)),
    ):
        with pytest.raises(ZeroDivisionError), context:
            assert n_hooks(model.hf) > own
            raise ZeroDivisionError
        assert n_hooks(model.hf) == own


def test_what_never_happened_is_an_error(llama):
    site, zero = Site("resid_post", 1), torch.zeros(llama.d_model)
    idle = {
        r"reached resid_post\.1: nothing was recorded": recording(llama.hf, [site]),
        r"reached resid_post\.1: nothing was edited": replacing(
            llama.hf, site, torch.tensor([0]), zero
        ),
    }
    for said, context in idle.items():
        with pytest.raises(StageError, match=said), context:
            pass
    nowhere = torch.zeros(1, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="no token"), replacing(llama.hf, site, nowhere, zero):
        pass


def test_patches_that_do_not_fit_are_refused(llama):
    batch = pad([[5, 6, 7]], llama.pad_id)
    site, zero = Site("resid_post", 1), torch.zeros(llama.d_model)
    unfit = {
        "has shape": replacing(llama.hf, site, torch.ones(1, 2, dtype=torch.bool), zero),
        "columns 0 to 2": replacing(llama.hf, site, torch.tensor([3]), zero),
        "returned shape": editing(llama.hf, site, lambda x: x[:, :1]),
        "layers 0 to 2": recording(llama.hf, [Site("resid_post", 3)]),
    }
    for said, context in unfit.items():
        with pytest.raises(InputError, match=said), context:
            forward.logits(llama.hf, batch)


def test_an_unknown_architecture_is_named():
    with pytest.raises(InputError, match="no decoder blocks found in Linear"):
        blocks(torch.nn.Linear(2, 2))
