"""The engine against full forward passes and TransformerLens, cell for cell, on every architecture."""

import numpy as np
import pytest
import torch
from patching_cases import TASKS, prompt, random_model

from probes.foundation.errors import InputError, StageError
from probes.models import anatomy
from probes.models.loading import Model
from probes.patching.checks import slow_score
from probes.patching.engine import rows as filling
from probes.patching.engine import trunk as trunks
from probes.patching.engine.packing import pack
from probes.patching.engine.rows import batches
from probes.patching.exact import patch_cells
from probes.patching.jobs import Job, Settings
from probes.patching.measures import Divergence, LogProbDifference, OfLogits
from probes.patching.pairs import EncodedPair, PatchPair, encode_pairs, make_pairs
from probes.patching.parts import Cell, Part, cell_set, grid_cells
from probes.patching.sources import Plan
from probes.patching.spans import Column, make_columns

NATS = 1e-4
NONE = {"n_boot": 0, "n_flips": 0}
KINDS = (
    "resid_pre",
    "resid_post",
    "resid_mid",
    "attn_out",
    "mlp_out",
    "z",
    "q",
    "k",
    "v",
    "pattern",
)


@pytest.fixture(scope="module")
def encoded(tokenizer, pairs: list[PatchPair]) -> list[EncodedPair]:
    return encode_pairs(pairs, tokenizer)


@pytest.fixture(scope="module")
def columns(tokenizer, pairs, encoded) -> list[Column]:
    return make_columns(pairs, encoded, tokenizer)


def kinds_of(model: Model) -> list[str]:
    return [kind for kind in KINDS if kind not in anatomy.missing(model.hf)]


def compared(job: Job, plan: Plan, cells: list[Cell], every: int) -> tuple[float, int]:
    """The largest difference from full forward passes, and how many cells have an effect."""
    prepared = job._prepare(
        plan, tuple(range(len(job.pairs))), sorted({p.place for c in cells for p in c.parts})
    )
    scorer = job._scorer(plan)
    rows = scorer.rows(prepared, cells)
    largest, moved = 0.0, 0
    for batch in batches(rows, 1500):
        for row, seen in list(zip(batch, scorer.run(prepared, batch), strict=True))[::every]:
            right = slow_score(scorer, prepared, row)
            largest = max(largest, abs(right - seen))
            moved += abs(seen - prepared.unpatched[row.pair]) > 10 * NATS
    return largest, moved


def test_every_kind_of_cell_equals_full_forward_passes(
    model: Model, encoded, columns: list[Column]
) -> None:
    n_moved = 0
    for direction, kind in enumerate(kinds_of(model)):
        plan = Plan(("denoise", "noise")[direction % 2])
        job = Job(model, encoded, columns, LogProbDifference(), Settings())
        cells = grid_cells(model.hf, [kind], columns)
        if kind in ("z", "q", "k", "v", "pattern"):
            cells += grid_cells(model.hf, [kind], None, heads=True)
        error, moved = compared(job, plan, cells, every=23)
        assert error < NATS, kind
        n_moved += moved
    assert n_moved > 5


@pytest.mark.parametrize("values", ["mean", "zero", "resampled", "placebo"])
def test_other_values_equal_full_forward_passes(llama: Model, encoded, columns, values) -> None:
    for kinds, where in ((["resid_post"], columns), (["mlp_out", "z"], columns), (["v"], None)):
        job = Job(llama, encoded, columns, LogProbDifference(), Settings())
        cells = grid_cells(llama.hf, kinds, where)
        plan = Plan(values=values)
        job.look_ahead(cells)
        job.scores(plan, cells)
        error, moved = compared(job, plan, cells, every=17)
        assert error < NATS and moved


def test_windows_and_sets_equal_full_forward_passes(model: Model, encoded, columns) -> None:
    cells = grid_cells(model.hf, ["mlp_out", "attn_out"], columns, window=2)
    assert {cell.site for cell in cells} == {"mlp_out.0-1", "attn_out.0-1"}
    parts = [Part("z", 0, 1, 9), Part("z", 1, 2), Part("resid_post", 0, None, 10), Part("k", 1, 0)]
    cells.append(cell_set(parts, columns, "circuit"))
    job = Job(model, encoded, columns, LogProbDifference(), Settings())
    error, moved = compared(job, Plan(), cells, every=19)
    assert error < NATS and moved


def test_attention_windows_hold_across_a_prefix_that_is_not_run(tokenizer, pairs) -> None:
    """The tests' Gemma looks back 16 tokens: prompts are longer, so the window decides."""
    gemma = random_model("gemma2", tokenizer)
    encoded = encode_pairs(pairs, tokenizer)
    assert gemma.hf.config.sliding_window < min(p.n_prompt for p in encoded)
    trunk = trunks.Trunk(gemma.hf, 0)
    batch = trunk.pack([pack("x", encoded[0].clean, (encoded[0].safe,))])
    assert set(batch.visible) == {None, 16}
    narrow, wide = batch.visible[16][0], batch.visible[None][0]
    assert narrow.sum() < wide.sum() and int(narrow.sum(-1).max()) == 16


LENS = {
    "resid_pre": "resid_pre",
    "attn_out": "attn_out",
    "mlp_out": "mlp_out",
    "z": "attn_head_out_all_pos",
    "q": "attn_head_q_all_pos",
    "v": "attn_head_v_all_pos",
    "k": "attn_head_k_all_pos",
    "pattern": "attn_head_pattern_all_pos",
}


def test_every_cell_equals_transformer_lens(model: Model, tokenizer) -> None:
    from transformer_lens import patching

    members = [prompt(t, t, flag) for t in ("read it", "load it") for flag in (True, False)]
    pairs = make_pairs(members)[:1]
    encoded = encode_pairs(pairs, tokenizer)
    columns = make_columns(pairs, encoded, tokenizer, alignment="position")
    pair = encoded[0]
    endings = (pair.defect, pair.safe)
    width = pair.n_prompt + max(map(len, endings))

    def batch(prompt_ids: tuple[int, ...]) -> torch.Tensor:
        rows = [[*prompt_ids, *ending] for ending in endings]
        return torch.tensor([row + [0] * (width - len(row)) for row in rows])

    def metric(logits: torch.Tensor) -> torch.Tensor:
        totals = []
        for row, ending in enumerate(endings):
            logs = logits[row, pair.n_prompt - 1 :].log_softmax(-1)
            totals.append(sum(logs[i, token] for i, token in enumerate(ending)))
        return totals[0] - totals[1]

    bridge = model.bridge()
    with torch.no_grad():
        _, cache = bridge.run_with_cache(batch(pair.clean))
    for kind in [kind for kind in kinds_of(model) if kind in LENS]:
        heads = kind in ("z", "q", "k", "v", "pattern")
        with torch.no_grad():
            grid = getattr(patching, f"get_act_patch_{LENS[kind]}")(
                bridge, batch(pair.corrupted), cache, metric
            )
        theirs = torch.as_tensor(grid)
        cells = grid_cells(model.hf, [kind], None if heads else columns, heads=heads)
        ours = patch_cells(model, encoded, cells, columns, **NONE)
        got = ours.per_prompt["patched"].to_numpy().reshape(model.n_layers, -1)
        theirs = theirs[:, : got.shape[1]]
        assert np.ptp(got) > 10 * NATS, kind
        if (model.name, kind) == ("opt", "pattern"):
            assert np.ptp(theirs.numpy()) == 0  # its hook there patches nothing, and says nothing
            continue
        np.testing.assert_allclose(got, theirs.numpy(), atol=2 * NATS, err_msg=kind)


def test_batches_of_any_size_give_the_same_numbers(llama: Model, encoded, columns) -> None:
    cells = grid_cells(llama.hf, ["resid_post"], columns, layers=[0])
    found = [
        patch_cells(llama, encoded, cells, columns, settings=settings, **NONE)
        for settings in (Settings(), Settings(batch_tokens=60), Settings(memory_budget=1))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(
            found[0].per_prompt["patched"], other.per_prompt["patched"], atol=NATS
        )


def test_less_memory_halves_the_batch_and_changes_nothing(
    llama: Model, encoded, columns, monkeypatch, capsys
) -> None:
    cells = grid_cells(llama.hf, ["resid_pre"], columns)
    whole = patch_cells(llama, encoded, cells, columns, **NONE)
    resume = trunks.Trunk.resume

    def poor(self, kept, run, *rest):
        if len(run.rows) > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return resume(self, kept, run, *rest)

    monkeypatch.setattr(trunks.Trunk, "resume", poor)
    settings = Settings(batch_tokens=500)
    job_cells = [cell for cell in cells if cell.layer == 1]
    job = Job(llama, encoded, columns, LogProbDifference(), settings)
    monkeypatch.setattr("probes.patching.jobs.check_noise", lambda *_: None)
    got = job.scores(Plan(), job_cells)
    assert "out of memory: going on with 250" in capsys.readouterr().err
    right = whole.per_prompt["patched"].to_numpy().reshape(len(cells), -1)[-len(job_cells) :]
    np.testing.assert_allclose(got, right, atol=NATS)


def test_metrics_by_hand(llama: Model, encoded, columns) -> None:
    cells = grid_cells(llama.hf, ["resid_pre"], columns)
    year = next(i for i, c in enumerate(cells) if c.label == "3→4" and c.layer == 0)

    def first_tokens(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, encoded[0].defect[0]] - logits[:, encoded[0].safe[0]]

    own = patch_cells(
        llama, encoded, cells, columns, metric=OfLogits(first_tokens, "first token"), **NONE
    )
    for pair in encoded:
        with torch.no_grad():
            last = llama.hf(torch.tensor([pair.clean])).logits[0, -1]
        right = float(last[pair.defect[0]] - last[pair.safe[0]])
        table = own.per_prompt
        cell = table[(table["cell"] == year) & (table["pair"] == pair.name)]
        assert cell["patched"].tolist() == pytest.approx([right], abs=NATS)
    for metric in (Divergence(), Divergence(continuation=True)):
        kl = patch_cells(llama, encoded, cells, columns, metric=metric, **NONE).per_prompt
        assert (kl["other"].abs() < 1e-6).all() and (kl["unpatched"] > 0).all()
        assert (kl.loc[kl["cell"] == year, "patched"].abs() < 1e-5).all()
        job = Job(llama, encoded, columns, metric, Settings())
        error, _ = compared(job, Plan(), cells, every=29)
        assert error < NATS


@pytest.mark.parametrize("wrong", [lambda x: x.mean(), lambda x: x, lambda x: 0.0])
def test_a_metric_that_is_not_one_number_per_prompt_is_refused(
    llama: Model, encoded, columns, wrong
) -> None:
    cells = grid_cells(llama.hf, ["resid_pre"], columns)
    with pytest.raises(InputError, match="one number per prompt"):
        patch_cells(llama, encoded, cells, columns, metric=OfLogits(wrong, "mine"), **NONE)


def test_runs_that_do_not_differ_in_the_metric_are_refused(llama: Model, encoded, columns) -> None:
    cells = grid_cells(llama.hf, ["resid_pre"], columns)
    flat = OfLogits(lambda logits: logits[:, 0] * 0, "nothing")
    with pytest.raises(InputError, match="no effect to locate"):
        patch_cells(llama, encoded, cells, columns, metric=flat, **NONE)


def test_unknown_and_missing_sites_show_the_choices(llama: Model, tokenizer) -> None:
    with pytest.raises(InputError, match=r"resid_pre.*pattern"):
        grid_cells(llama.hf, ["rezid_pre"])
    with pytest.raises(InputError, match="layers 0 to 1"):
        grid_cells(llama.hf, ["z"], layers=[7])
    with pytest.raises(InputError, match="no heads"):
        grid_cells(llama.hf, ["mlp_out"], heads=True)
    with pytest.raises(InputError, match="a window has 1 to 2"):
        grid_cells(llama.hf, ["z"], window=3)
    neox = random_model("gpt_neox", tokenizer)
    with pytest.raises(InputError, match="both read resid_pre"):
        grid_cells(neox.hf, ["resid_mid"])
    assert len(grid_cells(llama.hf, ["k"], heads=True, layers=[0])) == 2  # key heads are shared
    assert len(grid_cells(llama.hf, ["q"], heads=True, layers=[0])) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_that_patches_nothing_is_caught(
    llama: Model, encoded, columns, kind, monkeypatch
) -> None:
    monkeypatch.setattr(filling, "_putter", lambda puts, source: lambda activation: activation)
    monkeypatch.setattr(filling, "_pattern_putter", lambda *_: lambda activation: activation)
    cells = grid_cells(llama.hf, [kind], columns, layers=[1])
    with pytest.raises(StageError, match="patches nothing"):
        patch_cells(llama, encoded, cells, columns, **NONE)


def test_wrong_values_are_caught_by_the_audit(llama: Model, encoded, columns, monkeypatch) -> None:
    putter = filling._putter
    monkeypatch.setattr(filling, "_putter", lambda puts, source: putter(puts, source * 1.05))
    cells = grid_cells(llama.hf, ["attn_out"], columns)
    with pytest.raises(StageError, match="computed twice differs"):
        patch_cells(llama, encoded, cells, columns, settings=Settings(n_audit=8), **NONE)


@pytest.mark.parametrize("fault", ["mask", "prefix", "positions"])
def test_a_model_that_is_continued_wrongly_is_refused(
    llama: Model, encoded, columns, fault, monkeypatch
) -> None:
    forward = trunks.Trunk._forward

    def broken(self, tokens, entry, positions, masks, cache):
        if entry is not None and fault == "mask":
            masks = {w: torch.zeros_like(mask) for w, mask in masks.items()}
        if entry is not None and fault == "positions":
            positions = positions + 3 * (positions > 20)
        if cache._prefix is not None and fault == "prefix":
            own = cache._prefix
            cache._prefix = lambda i: tuple(x * 0 for x in own(i))
        return forward(self, tokens, entry, positions, masks, cache)

    monkeypatch.setattr(trunks.Trunk, "_forward", broken)
    cells = grid_cells(llama.hf, ["resid_pre"], columns)
    with pytest.raises(StageError, match="full forward pass"):
        patch_cells(llama, encoded, cells, columns, **NONE)


def test_model_is_left_as_it_was(model: Model, encoded, columns) -> None:
    before = {name: value.clone() for name, value in model.hf.state_dict().items()}
    attention = model.hf.config._attn_implementation
    kinds = [kind for kind in ("resid_pre", "z", "q", "pattern") if kind in kinds_of(model)]
    patch_cells(model, encoded, grid_cells(model.hf, kinds, None), columns, **NONE)
    for name, value in model.hf.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.hf.config._attn_implementation == attention
    for module in model.hf.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_packed_continuations_do_not_see_each_other() -> None:
    row = pack("x", (5, 6, 7), ((1, 2, 3), (4,)))
    assert row.tokens == (5, 6, 7, 1, 2) and row.positions == (0, 1, 2, 3, 4)
    assert row.reads == (2, 3, 4)
    assert [(t.read, t.token, t.branch) for t in row.targets] == [
        (0, 1, 0), (1, 2, 0), (2, 3, 0), (0, 4, 1),
    ]  # fmt: skip
    both = pack("x", (5, 6), ((1, 2), (3, 4)))
    assert both.tokens == (5, 6, 1, 3) and both.positions == (0, 1, 2, 2)
    from probes.patching.engine.packing import make_batch

    seen = make_batch([both], 0, [None], torch.device("cpu")).visible[None][0]
    assert seen.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_tokens_that_all_continuations_begin_with_stand_once() -> None:
    row = pack("x", (5, 6), ((1, 2, 3), (1, 2, 4, 8)), contrast=True)
    assert row.tokens == (5, 6, 1, 2, 4) and row.positions == (0, 1, 2, 3, 4)
    assert row.branch == (-1, -1, -1, -1, 1) and row.reads == (3, 4)
    assert [(t.read, t.token, t.branch) for t in row.targets] == [(0, 3, 0), (0, 4, 1), (1, 8, 1)]
    every = pack("x", (5, 6), ((1, 2, 3), (1, 2, 4, 8)))
    assert every.tokens == row.tokens and every.reads == (1, 2, 3, 4)
    assert len(every.targets) == 7
    inside = pack("x", (5, 6), ((1, 2), (1, 2, 4)), contrast=True)  # one ends where they part
    assert inside.tokens == (5, 6, 1, 2) and inside.reads == (3,)
    assert [(t.read, t.token, t.branch) for t in inside.targets] == [(0, 4, 1)]


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_shared_beginning_changes_no_number(tokenizer, architecture: str) -> None:
    endings = {"safe": "    return open(name)\n", "defect": "    return eval(name)\n"}
    made = make_pairs([prompt(t, t, f, **endings) for t in TASKS for f in (True, False)])
    encoded = encode_pairs(made, tokenizer)
    columns = make_columns(made, encoded, tokenizer)
    model = random_model(architecture, tokenizer)
    cells = grid_cells(model.hf, ["resid_pre", "k", "mlp_out"], columns)
    cells += grid_cells(model.hf, ["z", "q", "v"], None, heads=True)
    contrast, apart = (
        Job(model, encoded, columns, LogProbDifference(contrasts=c), Settings())
        for c in (True, False)
    )
    numbers = [job.scores(Plan(), cells) for job in (contrast, apart)]
    assert np.ptp(numbers[0], axis=0).min() > 10 * NATS
    np.testing.assert_allclose(numbers[0], numbers[1], atol=NATS)
    n_reads = [len(job._prepared[1].kept.batch.rows[0].reads) for job in (contrast, apart)]
    assert n_reads[0] < n_reads[1]
    error, moved = compared(contrast, Plan(), cells, every=23)
    assert error < NATS and moved


def test_only_what_a_cell_can_change_is_run(model: Model, encoded, columns) -> None:
    """The last block runs changed and read tokens alone; attention below a head's output is not run."""
    job = Job(model, encoded, columns, LogProbDifference(), Settings())
    last = model.n_layers - 1
    prepared = job._prepare(Plan(), (0, 1, 2), [("stream", last), ("z", 0), ("z", last)])
    scorer = job._scorer(Plan())
    assert scorer.trunk.reads_last == (model.name != "opt")  # its MLP sees flattened tokens
    if not scorer.trunk.reads_last:
        return
    at = 1 + next(i for i, column in enumerate(columns) if column.label == "3→4")
    cells = [Cell((Part("resid_pre", last, None, at),), "one", "x", at)]
    cells += [Cell((Part("z", layer, 1),), "head", "everywhere") for layer in (0, last)]
    rows = {row.result: row for row in scorer.rows(prepared, cells) if row.pair == 0}
    one, low, high = (rows[cell, 0] for cell in range(3))
    n_reads = len(prepared.kept.batch.rows[0].reads)
    assert one.lead.tolist() == list(columns[at].positions[0]) and one.n_tail == n_reads
    assert low.attended and high.attended and not one.attended
    assert not len(high.lead) and high.n_tail == n_reads
    assert scorer.final(prepared, prepared.values, [high]).shape[1] == n_reads


def test_cells_that_cannot_matter_are_exactly_zero_and_not_run(
    llama: Model, encoded, columns
) -> None:
    found = patch_cells(
        llama, encoded, grid_cells(llama.hf, ["resid_post"], columns), columns, **NONE
    )
    year = next(i for i, column in enumerate(columns) if column.label == "3→4")
    rows = found.rows
    assert (rows.loc[rows["column"] < year, "mean"] == 0).all()
    assert (rows.loc[(rows["column"] == year) & (rows["layer"] == 1), "mean"].abs() > 1e-3).all()
