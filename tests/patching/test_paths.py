"""Paths: against three forward passes with hooks, against TransformerLens, and as a sum by hand."""

import contextlib

import numpy as np
import pytest
import torch
from linear_model import linear_model, logit_of_the_first
from patching_cases import random_model

from probes.foundation.errors import InputError, StageError
from probes.patching.exact import patch_cells
from probes.patching.measures import OfLogits
from probes.patching.pairs import EncodedPair, encode_pairs
from probes.patching.parts import Cell, Part, grid_cells
from probes.patching.paths import Reader, patch_paths, readers_of
from probes.patching.spans import make_columns

NONE = {"n_boot": 0, "n_flips": 0}
NATS = 1e-4
D_HEAD = 8


@pytest.fixture(scope="module")
def encoded(tokenizer, pairs):
    return encode_pairs(pairs, tokenizer)[:2]


@pytest.fixture(scope="module")
def columns(tokenizer, pairs, encoded):
    return make_columns(pairs[:2], encoded, tokenizer)


@contextlib.contextmanager
def hooked(puts):
    """puts: (module, "in" or "out", function of the activation that may return another)."""
    handles = []
    for module, side, act in puts:

        def before(_, args, kwargs, act=act):
            given = args[0] if args else kwargs["hidden_states"]
            new = act(given)
            new = given if new is None else new
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        def after(_, __, output, act=act):
            new = act(output[0] if isinstance(output, tuple) else output)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handles.append(
            module.register_forward_pre_hook(before, with_kwargs=True)
            if side == "in"
            else module.register_forward_hook(after)
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def heads(head, new):
    """A function that puts one head's part of `new`, or all of it, in place."""
    where = slice(None) if head is None else slice(head * D_HEAD, (head + 1) * D_HEAD)

    def act(found):
        changed = found.clone()
        changed[..., where] = new[..., where]
        return changed

    return act


def three_passes(hf, pair: EncodedPair, ending, sender: Part, where: list[int], reader: Reader):
    """Summed log-probability of the ending, by the recipe of the papers and nothing else."""
    layers, post = hf.model.layers, hasattr(hf.model.layers[0], "pre_feedforward_layernorm")
    attn = [b.post_attention_layernorm if post else b.self_attn for b in layers]
    mlp = [b.post_feedforward_layernorm if post else b.mlp for b in layers]

    def at(part: Part):
        block = layers[part.layer]
        return {
            "z": (block.self_attn.o_proj, "in"), "mlp_out": (mlp[part.layer], "out"),
            "attn_out": (attn[part.layer], "out"), "resid_pre": (block, "in"),
        }[part.kind]  # fmt: skip

    def run(tokens, puts=()):
        with torch.no_grad(), hooked(puts):
            return hf(torch.tensor([tokens]), use_cache=False).logits[0]

    def keep(into, key):
        return lambda found: into.__setitem__(key, found.clone())

    seen: dict = {}
    run([*pair.clean, *ending], [(*at(sender), keep(seen, "sent"))])
    tokens = [*pair.corrupted, *ending]
    everything = [(m, "out", keep(seen, ("attn", i))) for i, m in enumerate(attn)]
    everything += [(m, "out", keep(seen, ("mlp", i))) for i, m in enumerate(mlp)]
    run(tokens, everything)

    def send(found):
        changed = found.clone()
        part = slice(None)
        if sender.head is not None:
            part = slice(sender.head * D_HEAD, (sender.head + 1) * D_HEAD)
        changed[0, where, part] = seen["sent"][0, where, part]
        return changed

    frozen = []
    for i in range(len(layers)):
        for kind, modules in (("attn", attn), ("mlp", mlp)):
            is_sender = kind == {"z": "attn", "attn_out": "attn", "mlp_out": "mlp"}.get(
                sender.kind
            ) and (i == sender.layer)
            if not is_sender:
                frozen.append((modules[i], "out", lambda _, k=(kind, i): seen[k]))
    frozen.append((*at(sender), send))
    if reader.kind != "logits":
        block = layers[reader.layer]
        module, side = {
            "q": (block.self_attn.q_proj, "out"), "k": (block.self_attn.k_proj, "out"),
            "v": (block.self_attn.v_proj, "out"), "mlp_in": (block.mlp, "in"),
            "attn_in": (block.self_attn, "in"),
        }[reader.kind]  # fmt: skip
        run(tokens, [*frozen, (module, side, keep(seen, "read"))])
        logits = run(tokens, [(module, side, heads(reader.head, seen["read"]))])
    else:
        logits = run(tokens, frozen)
    logs = logits[len(pair.corrupted) - 1 :].log_softmax(-1)
    return sum(float(logs[i, token]) for i, token in enumerate(ending))


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_paths_equal_three_forward_passes(tokenizer, encoded, columns, architecture: str) -> None:
    model = random_model(architecture, tokenizer)
    parts = [Part("z", 0, 1, 9), Part("mlp_out", 0, None, 9), Part("resid_pre", 0, None, 9)]
    parts.append(Part("attn_out", 0, None, 12))
    senders = [Cell((part,), str(part), columns[part.column].label, part.column) for part in parts]
    readers = [
        Reader("q", 1, 2), Reader("k", 1, 0), Reader("v", 1, 1), Reader("mlp_in", 1),
        Reader("attn_in", 1), Reader("mlp_in", 0), Reader("logits"),
    ]  # fmt: skip
    found = patch_paths(model, encoded, senders, readers, columns, **NONE)
    assert len(found.rows) == 4 * 7 - 1  # the MLP does not read what it writes
    each = found.per_prompt["patched"].to_numpy().reshape(-1, len(encoded))
    unpatched = found.per_prompt["unpatched"].to_numpy()[: len(encoded)]
    moved = 0
    for row, seen in zip(found.rows.itertuples(), each, strict=True):
        part = parts[[cell.site for cell in senders].index(row.sender)]
        reader = next(
            r
            for r in readers
            if (r.kind, r.layer) == (row.reader, -1 if row.reader == "logits" else row.reader_layer)
        )
        pair = encoded[1]
        where = list(columns[part.column].positions[1])
        right = three_passes(model.hf, pair, pair.defect, part, where, reader) - three_passes(
            model.hf, pair, pair.safe, part, where, reader
        )
        assert seen[1] == pytest.approx(right, abs=NATS), (row.sender, str(reader))
        moved += abs(right - unpatched[1]) > 10 * NATS
    assert moved > 8


def test_in_a_linear_model_paths_add_up_to_the_patch(tokenizer, encoded, columns) -> None:
    """Every way out of a sender starts with one reader: the effects over all readers are its effect."""
    model = linear_model(tokenizer)
    senders = grid_cells(model.hf, ["z", "attn_out", "mlp_out", "resid_pre"], columns)
    senders = [cell for cell in senders if cell.column == 9]
    readers = readers_of(model.hf, ["attn_in", "mlp_in", "logits"])
    given = {"metric": OfLogits(logit_of_the_first, "linear"), **NONE}
    paths = patch_paths(model, encoded, senders, readers, columns, **given).rows
    whole = patch_cells(model, encoded, senders, columns, **given).rows.set_index("site")["mean"]
    total = paths.groupby("sender")["mean"].sum()
    assert whole.abs().max() > 100 * NATS
    for site in whole.index:
        assert total[site] == pytest.approx(whole[site], abs=NATS), site
    heads = readers_of(model.hf, ["head_in"], layers=[1], heads=True)
    one = [cell for cell in senders if cell.site == "mlp_out.0"]
    split = patch_paths(model, encoded, one, heads, columns, **given).rows
    joint = paths[(paths["sender"] == "mlp_out.0") & (paths["reader"] == "attn_in")]
    assert len(split) == 4
    assert split["mean"].sum() == pytest.approx(float(joint["mean"].iloc[0]), abs=NATS)


def test_head_to_query_equals_transformer_lens(tokenizer, encoded) -> None:
    from transformer_lens import patching

    model, pair = random_model("gpt2", tokenizer), encoded[:1]
    senders = [Cell((Part("z", 0, 1),), "z.0.1", "everywhere")]
    metric = OfLogits(lambda logits: logits.log_softmax(-1)[:, 7], "log P of token 7")
    for kind in ("q", "v"):
        readers = readers_of(model.hf, [kind], layers=[1], heads=True)
        ours = patch_paths(model, pair, senders, readers, metric=metric, **NONE).per_prompt
        clean, corrupted = (torch.tensor([ids]) for ids in (pair[0].clean, pair[0].corrupted))
        bridge = model.bridge()
        with torch.no_grad():
            caches = [bridge.run_with_cache(tokens)[1] for tokens in (clean, corrupted)]
            theirs = patching.get_act_patch_direct_path(
                bridge, corrupted, *caches, lambda logits: logits[0, -1].log_softmax(-1)[7],
                0, 1, kind, verbose=False,
            )[1]  # fmt: skip
        np.testing.assert_allclose(ours["patched"], theirs.numpy(), atol=NATS)
        assert kind == "q" or np.ptp(theirs.numpy()) > NATS


def test_mlps_in_between_answer_where_they_may(llama, encoded, columns) -> None:
    senders = grid_cells(llama.hf, ["z"], columns, layers=[0])
    senders = [cell for cell in senders if cell.column == 9]
    readers = [Reader("v", 1), Reader("logits")]
    held = patch_paths(llama, encoded, senders, readers, columns, n_boot=20, n_flips=20)
    free = patch_paths(llama, encoded, senders, readers, columns, through_mlps=True, **NONE)
    assert (free.rows["mean"] - held.rows["mean"]).abs().max() > NATS
    assert "all else held" in repr(held) and "MLPs between answer" in free._repr_html_()
    assert {"low", "high", "p"} <= set(held.rows.columns) and len(held.significant(1.0)) == 2


def test_paths_that_lead_nowhere_are_refused(llama, encoded, columns, monkeypatch) -> None:
    late = grid_cells(llama.hf, ["mlp_out"], columns, layers=[1])[:1]
    with pytest.raises(InputError, match="comes after"):
        patch_paths(llama, encoded, late, [Reader("mlp_in", 0)], columns, **NONE)
    with pytest.raises(InputError, match="kind of reader 'query'"):
        patch_paths(llama, encoded, late, [Reader("query", 1)], columns, **NONE)
    with pytest.raises(InputError, match="kind of sender 'q'"):
        patch_paths(
            llama,
            encoded,
            grid_cells(llama.hf, ["q"], columns)[:1],
            [Reader("logits")],
            columns,
            **NONE,
        )
    with pytest.raises(InputError, match="mlp_in has no heads"):
        patch_paths(llama, encoded, late, [Reader("mlp_in", 1, 0)], columns, **NONE)
    early = grid_cells(llama.hf, ["mlp_out"], columns, layers=[0])[9:10]
    monkeypatch.setattr(
        "probes.patching.paths._Run._put", lambda self, head, column, values, found: found
    )
    with pytest.raises(StageError, match="does not reach"):
        patch_paths(llama, encoded, early, [Reader("q", 1)], columns, **NONE)
