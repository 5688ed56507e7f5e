"""Every kind of site is TransformerLens' of that name, adds up, and changes what flows on."""

import contextlib

import pytest
import torch
from tiny_models import TEXTS

from probes.foundation.errors import InputError, StageError
from probes.models import forward
from probes.models.anatomy import blocks, find, kinds, width
from probes.models.encoding import encode_texts, pad
from probes.models.hooks import editing, recording, replacing
from probes.models.selftest import TOLERANCE
from probes.models.sites import KINDS, Site, all_sites

LAYER = 1
PARALLEL = {"gpt_neox"}


@pytest.fixture
def batch(model):
    return pad(encode_texts(TEXTS, model.tokenizer, True), model.pad_id)


@pytest.fixture(scope="module")
def bridges(loaded):
    made = {}

    def bridge(name):
        if name not in made:
            made[name] = loaded[name].bridge()
        return made[name]

    return bridge


def sites_of(model):
    return all_sites(model.n_layers, kinds(model.hf))


def record(model, batch, sites=None):
    with torch.no_grad(), recording(model.hf, sites or sites_of(model)) as seen:
        forward.trunk(model.hf, batch)
    return seen


def given(model, batch):
    inputs = forward.inputs(model.hf, batch)
    return inputs.pop("input_ids"), {k: v for k, v in inputs.items() if k != "use_cache"}


def close(seen, expected, case=""):
    """Within the self-test's tolerance, relative to the largest entry at each token."""
    error = (seen - expected).abs().amax(-1) / expected.abs().amax(-1)
    assert error.max() < TOLERANCE[torch.float32], f"{case}: {error.max()}"


def test_every_architecture_has_every_kind_but_parallel_blocks(model, architecture):
    absent = {"resid_mid"} if architecture in PARALLEL else set()
    assert kinds(model.hf) == tuple(kind for kind in KINDS if kind not in absent)


def test_every_kind_is_what_the_bridge_calls_so(model, batch, architecture, bridges):
    tokens, others = given(model, batch)
    seen, real = record(model, batch), batch.mask.bool()
    names = [site.hook_name for site in seen]
    with torch.no_grad():
        _, cache = bridges(architecture).run_with_cache(tokens, names_filter=names, **others)
    for site, values in seen.items():
        expected = cache[site.hook_name]
        if site.kind == "z":
            assert width(model.hf, site) == tuple(expected.shape[-2:]), site
            values = values.unflatten(-1, width(model.hf, site))
        else:
            assert width(model.hf, site) == (model.d_model,)
        close(values[real], expected.reshape(values.shape)[real], site)


def test_what_is_added_is_what_the_stream_gains(model, batch, architecture):
    seen = record(model, batch)
    for layer in range(model.n_layers):
        at = {site.kind: values for site, values in seen.items() if site.layer == layer}
        close(at["resid_pre"] + at["attn_out"] + at["mlp_out"], at["resid_post"], layer)
        if architecture not in PARALLEL:
            close(at["resid_pre"] + at["attn_out"], at["resid_mid"], layer)
        # Positive control: neither part is negligible.
        for kind in ("attn_out", "mlp_out"):
            assert at[kind].norm() > 0.05 * at["resid_post"].norm()


def test_neither_padding_nor_company_changes_a_token(model):
    sequences = encode_texts(TEXTS, model.tokenizer, True)
    alone = [record(model, pad([ids], model.pad_id)) for ids in sequences]
    for side in ("left", "right"):
        for order in ([0, 1, 2], [2, 1], [1]):
            batch = pad([sequences[i] for i in order] * 2, model.pad_id, side)
            for site, values in record(model, batch).items():
                for row, i in enumerate(order * 2):
                    close(values[row][batch.mask[row].bool()], alone[i][site][0], (site, side))


def test_nothing_behind_the_last_wanted_site_is_computed(model, batch):
    """Not the MLP behind attention, not even the projection behind z."""
    full, calls = record(model, batch), []
    block = blocks(model.hf)[LAYER]
    modules = {"projection": find(model.hf, [Site("z", LAYER)])[Site("z", LAYER)].module}
    modules["attention"] = next(
        getattr(block, name) for name in ("self_attn", "attn", "attention") if hasattr(block, name)
    )
    modules["mlp"] = block.fc2 if hasattr(block, "fc2") else block.mlp
    modules["next block"] = blocks(model.hf)[LAYER + 1]
    ran = {
        "z": [],
        "attn_out": ["projection", "attention"],
        "resid_mid": ["projection", "attention"],
        "mlp_out": ["projection", "attention", "mlp"],
    }
    with contextlib.ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(lambda *_, name=name: calls.append(name))
            stack.callback(handle.remove)
        for kind in ran.keys() & set(kinds(model.hf)):
            calls.clear()
            last = Site(kind, LAYER)
            wanted = [last, Site("resid_pre", 0)]
            with torch.no_grad(), recording(model.hf, wanted, stop=True) as seen:
                forward.trunk(model.hf, batch)
            assert torch.equal(seen[last], full[last])
            assert calls == ran[kind], kind


@pytest.mark.parametrize("kind", ["resid_pre", "z", "attn_out", "mlp_out", "resid_post"])
def test_an_edit_is_the_bridges_edit_at_the_same_hook(model, batch, architecture, bridges, kind):
    site = Site(kind, LAYER)
    generator = torch.Generator().manual_seed(1)
    shift = torch.randn(record(model, batch, [site])[site].shape[-1], generator=generator)

    def shifted(values):
        return 0.5 * values + shift

    def shifted_in_the_bridge(values, hook):
        """Its z has an axis of heads."""
        return shifted(values.flatten(2)).view_as(values)

    tokens, others = given(model, batch)
    real = batch.mask.bool()
    hooks = [(site.hook_name, shifted_in_the_bridge)]
    with torch.no_grad():
        clean = forward.logits(model.hf, batch)[real]
        with editing(model.hf, site, shifted):
            ours = forward.logits(model.hf, batch)[real]
        theirs = bridges(architecture).run_with_hooks(tokens, fwd_hooks=hooks, **others)[real]
    close(ours, theirs)
    assert not torch.isclose(ours, clean).all(-1).any()


def test_an_edit_between_attention_and_mlp_reaches_the_stream(model, batch, architecture, bridges):
    """What is added to resid_mid might as well have been added by attention."""
    site, real = Site("resid_mid", LAYER), batch.mask.bool()
    if architecture in PARALLEL:
        with (
            pytest.raises(InputError, match=r"both read resid_pre.* has resid_pre, z, attn_out"),
            editing(model.hf, site, torch.clone),
        ):
            pass
        return
    shift = torch.randn(model.d_model, generator=torch.Generator().manual_seed(2))
    tokens, others = given(model, batch)
    hook = [(Site("attn_out", LAYER).hook_name, lambda values, hook: values + shift)]
    after = [Site("resid_mid", LAYER), Site("mlp_out", LAYER), Site("resid_post", LAYER)]
    with torch.no_grad():
        with editing(model.hf, site, lambda values: values + shift):
            seen = record(model, batch, after)
            ours = forward.logits(model.hf, batch)[real]
        theirs = bridges(architecture).run_with_hooks(tokens, fwd_hooks=hook, **others)[real]
    close(ours, theirs)
    assert torch.equal(seen[after[0]] + seen[after[1]], seen[after[2]])


def test_the_stream_between_decides_everything_after_it(model, batch, architecture):
    """The theorem of patching, at resid_mid: all of it from another run gives that run, exactly."""
    if architecture in PARALLEL:
        pytest.skip("parallel blocks have no resid_mid")
    site, real = Site("resid_mid", LAYER), batch.mask.bool()
    other = type(batch)(batch.tokens.flip(0, 1) % 7, batch.mask, batch.position_ids)
    clean = record(model, batch, [site])
    with torch.no_grad():
        expected = forward.logits(model.hf, batch)[real]
        assert not torch.allclose(forward.logits(model.hf, other)[real], expected)
        with replacing(model.hf, site, torch.ones_like(real), clean[site]):
            assert torch.equal(forward.logits(model.hf, other)[real], expected)


def test_edits_in_one_block_add_up_in_any_order(llama):
    """Each edit moves the sum by what it adds, whichever `with` was entered first."""
    batch = pad([[5, 6, 7, 8]], llama.pad_id)
    places = ["resid_mid", "mlp_out", "resid_mid", "resid_post"]
    steps = [torch.full((llama.d_model,), 2.0**-n) for n in range(len(places))]
    mid, mlp_out, post = (Site(k, LAYER) for k in ("resid_mid", "mlp_out", "resid_post"))
    results = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
        with contextlib.ExitStack() as stack:
            for n in order:
                step = steps[n]
                edit = editing(llama.hf, Site(places[n], LAYER), lambda x, step=step: x + step)
                stack.enter_context(edit)
            seen = record(llama, batch, [mid, mlp_out, post])
        torch.testing.assert_close(seen[mid] + seen[mlp_out] + steps[3], seen[post])
        results.append(seen[post])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def test_an_edit_survives_a_forward_that_stopped_within_it(llama):
    batch, mid = pad([[5, 6, 7, 8]], llama.pad_id), Site("resid_mid", LAYER)
    own = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in llama.hf.modules())
    with torch.no_grad(), editing(llama.hf, mid, lambda x: x + 1):
        once = forward.logits(llama.hf, batch)
        with recording(llama.hf, [mid, Site("resid_pre", 0)], stop=True):
            forward.trunk(llama.hf, batch)
        hooks = [len(m._forward_hooks) for m in llama.hf.modules()]
        assert torch.equal(forward.logits(llama.hf, batch), once)
        assert [len(m._forward_hooks) for m in llama.hf.modules()] == hooks
    after = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in llama.hf.modules())
    assert after == own


def test_each_site_may_keep_something_else(llama):
    batch = pad([[5, 6, 7], [8, 9, 10]], llama.pad_id)
    z, mid = Site("z", 0), Site("resid_mid", 2)
    heads = width(llama.hf, z)
    select = {z: lambda x: x[:, -1].unflatten(-1, heads), mid: lambda x: x.mean(1)}
    full = record(llama, batch, [z, mid])
    with torch.no_grad(), recording(llama.hf, [z, mid], select=select) as seen:
        forward.trunk(llama.hf, batch)
    assert seen[z].shape == (2, 4, 8)
    assert torch.equal(seen[z][1, 2], full[z][1, -1, 16:24])
    assert torch.equal(seen[mid], full[mid].mean(1))
    with (
        pytest.raises(InputError, match=r"no function for resid_mid\.2"),
        recording(llama.hf, [z, mid], select={z: torch.clone}),
    ):
        pass


def test_gradients_at_every_kind_are_those_of_finite_differences(model):
    """What attribution rests on: the slope along a direction added at one token of one site."""
    batch = pad(encode_texts(TEXTS[:1], model.tokenizer, True), model.pad_id)
    where = torch.arange(batch.tokens.shape[1])[None, :, None] == 5
    weights = torch.randn(model.d_model, generator=torch.Generator().manual_seed(3))

    def metric(site, shift):
        with editing(model.hf, site, lambda values: values + where * shift):
            return (forward.trunk(model.hf, batch)[0, 5:10] @ weights).double().sum()

    for kind in kinds(model.hf):
        site = Site(kind, LAYER)
        size = torch.Size(width(model.hf, site)).numel()
        shift = torch.zeros(size, requires_grad=True)
        (gradient,) = torch.autograd.grad(metric(site, shift), shift)
        step = 1e-3 * gradient / gradient.norm()
        with torch.no_grad():
            rise = metric(site, step) - metric(site, -step)
        assert float(gradient.norm()) == pytest.approx(float(rise) / 2e-3, rel=1e-2), site


def test_refusals_name_what_there_is(llama):
    batch = pad([[5, 6, 7]], llama.pad_id)
    with pytest.raises(InputError, match="layers 0 to 2"), recording(llama.hf, [Site("z", 3)]):
        pass
    with (
        pytest.raises(StageError, match=r"z\.0 wrote into its input"),
        torch.no_grad(),
        editing(llama.hf, Site("z", 0), lambda x: x.mul_(2)),
    ):
        forward.trunk(llama.hf, batch)
    with (
        pytest.raises(StageError, match=r"reached resid_mid\.1: nothing was edited"),
        editing(llama.hf, Site("resid_mid", 1), torch.clone),
    ):
        pass
