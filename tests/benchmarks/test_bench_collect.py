"""The benchmark compares like with like: same numbers, exact prompts, turns taken, ratios judged right."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from probes.activations.record import record
from probes.benchmarks import contenders as own
from probes.benchmarks import forward, memory, reading
from probes.benchmarks.collecting import PARTS, QUICK, TABLE, bench_collect
from probes.benchmarks.contenders import Contender, compare, expected
from probes.benchmarks.forward import write_sequentially
from probes.benchmarks.patching import bench_patch
from probes.benchmarks.probing import bench_probe
from probes.benchmarks.result import Asked, Benchmark, Seconds, row, take_turns
from probes.benchmarks.training import bench_train
from probes.benchmarks.workload import (
    SHAPES,
    Workload,
    draw_lengths,
    exact_prompts,
    make_workload,
    write_checkpoint,
)
from probes.foundation.errors import InputError, StageError
from probes.foundation.tables import read_table
from probes.models.encoding import encode, pad
from probes.models.loading import Model, load
from probes.models.sites import residual_sites
from shell import run_cli

BALLAST_BYTES = 1 << 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_checkpoint(tmp_path_factory.mktemp("model"), SHAPES["tiny"]))


@pytest.fixture(scope="module")
def work(model: Model) -> Workload:
    return make_workload(model, 10, 128, shortest=3, longest=40)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path]:
    """All parts, run by a process that is larger than any of those whose peak it measures."""
    out = tmp_path_factory.mktemp("bench")
    ballast = np.ones(BALLAST_BYTES, dtype=np.uint8)
    found = bench_collect(out, quick=True)
    assert ballast.all()
    return found, out


@pytest.mark.slow
def test_a_smoke_run_has_every_row_and_judges_nothing(quick: tuple[Benchmark, Path]) -> None:
    found, _ = quick
    table = found.table
    pairs = set(zip(table["job"], table["contender"], strict=True))
    assert {("limit", name) for name in forward.TRUNK} <= pairs
    assert {("collect", name) for name in forward.OURS} <= pairs
    assert {name.split()[0] for job, name in pairs if job == "peer"} == {
        "TransformerLens", "Hugging", "nnsight",
    }  # fmt: skip
    asked = table[table["asked"] != ""].set_index(["job", "contender"])["asked"].to_dict()
    assert asked == {
        ("collect", own.MEMORY_LAST): ">= 0.95",
        ("collect", own.MEMORY_ALL): ">= 0.95",
        ("collect", own.DISK_LAST): ">= 0.85",
        ("against TransformerLens", own.DISK_LAST): ">= 2.5",
        ("against Hugging Face", own.DISK_LAST): "> 1",
        ("against nnsight", own.DISK_LAST): "> 1",
        **{
            (f"read one layer, {QUICK.n_rows:,} rows of 512", reading.STORE + kind): ">= 0.8"
            for kind in ("", reading.COLD)
        },
        ("peak memory of collect", f"{QUICK.many} prompts"): "<= 1.1",
    }
    assert (table["reached"] == "").all()
    assert (table.loc[table["unit"] != "", "value"] > 0).all()


@pytest.mark.slow
def test_the_table_is_saved_and_nothing_else_is_left(quick: tuple[Benchmark, Path]) -> None:
    found, out = quick
    saved = read_table(out / TABLE)
    pd.testing.assert_frame_equal(
        saved[["value", "ratio"]], found.table[["value", "ratio"]], rtol=1e-9
    )
    assert sorted(file.name for file in out.iterdir()) == [TABLE, f"{TABLE}.provenance.json"]


@pytest.mark.slow
def test_the_peak_is_the_childs_own(quick: tuple[Benchmark, Path]) -> None:
    """Linux reports a large parent's peak as that of its children."""
    peaks = quick[0].table.query("unit == 'bytes'")["value"]
    assert len(peaks) == 2
    assert (peaks > 50e6).all()
    assert (peaks < BALLAST_BYTES).all()


@pytest.mark.slow
def test_the_result_reads_as_text_and_html(quick: tuple[Benchmark, Path]) -> None:
    found, _ = quick
    assert "44,256 parameters" in repr(found)
    assert "TransformerLens run_with_cache" in repr(found)
    assert "<table" in found._repr_html_()


def test_peers_and_own_give_the_plain_forward_pass(work: Workload, tmp_path: Path) -> None:
    right = expected(work)
    recorded = record(work.model, work.prompts)
    sites = residual_sites(work.model.n_layers)
    ours = torch.stack([torch.from_numpy(recorded.matrix(site)) for site in sites])
    torch.testing.assert_close(ours, right["last"], rtol=1e-4, atol=1e-4)
    contenders = [*own.own(), *own.transformer_lens(work.model)]
    contenders += [*own.hugging_face(work.model), *own.nnsight(work.model)]
    for number, contender in enumerate(contenders):
        (folder := tmp_path / str(number)).mkdir()
        found = contender.run(work, folder)()
        assert compare(contender, found, right) < 1e-4
        shifted = {name: values.roll(1, dims=1) for name, values in right.items()}
        with pytest.raises(StageError, match="no time is reported"):
            compare(contender, found, shifted)


def test_a_contender_that_reads_a_pad_is_refused(work: Workload, tmp_path: Path) -> None:
    def step(batch, row, last):
        states = work.model.hf(batch.tokens, attention_mask=batch.mask, output_hidden_states=True)
        return [state[row, -1] for state in states.hidden_states]

    wrong = own._contender("reads a pad", step, own.given, "hidden_states")
    with pytest.raises(StageError, match="reads a pad differs from plain forward passes"):
        forward.check([wrong], work, tmp_path)
    with pytest.raises(StageError, match="reads a pad"):
        forward.run([wrong], work, 1, tmp_path)


def test_a_contender_that_does_less_is_refused(work: Workload, tmp_path: Path) -> None:
    lazy = Contender("lazy", lambda work, _: lambda: expected(work)["last"][:, :1], "last")
    with pytest.raises(StageError, match="not the same job"):
        forward.check([lazy], work, tmp_path)
    broken = Contender("broken", lambda work, _: lambda: expected(work)["last"] * np.nan, "last")
    with pytest.raises(StageError, match="differs"):
        forward.check([broken], work, tmp_path)


def test_prompts_are_exactly_as_long_as_drawn(model: Model) -> None:
    lengths = draw_lengths(300, 7, 16, 512)
    prompts = exact_prompts(model.tokenizer, lengths, 7)
    assert [len(ids) for ids in encode(prompts, model.tokenizer)] == lengths
    assert (min(lengths), max(lengths)) == (16, 512)
    assert np.mean(lengths) > 1.2 * np.median(lengths)  # a long tail
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert lengths == draw_lengths(300, 7, 16, 512) != draw_lengths(300, 8, 16, 512)


def test_every_grouping_has_every_prompt_once(work: Workload) -> None:
    groupings = [work.given_batches, work.sorted_batches, work.equal_batches, work.single_batches]
    for grouping in groupings:
        assert sorted(i for batch in grouping for i in batch) == list(range(len(work)))
        for batch in grouping:
            padded = pad([work.sequences[i] for i in batch], 0)
            assert padded.tokens.numel() <= work.budget
    assert work.padded_tokens(work.equal_batches) == work.n_tokens
    assert work.padded_tokens(work.given_batches) > work.padded_tokens(work.sorted_batches)


def test_contenders_take_turns_in_empty_folders(tmp_path: Path) -> None:
    order: list[str] = []
    folders: list[Path] = []

    def job(name: str, folder: Path) -> str:
        assert not list(folder.iterdir())
        (folder / "left behind").touch()
        order.append(name)
        folders.append(folder)
        return name

    def after(name: str, result: str, folder: Path) -> None:
        assert result == name
        assert (folder / "left behind").exists()

    jobs = {name: functools.partial(job, name) for name in "ABC"}
    seconds = take_turns(jobs, 2, tmp_path, after=after)
    assert order == list("ABCABC")
    assert len(set(folders)) == 6
    assert not any(folder.exists() for folder in folders)
    assert all(len(found.each) == 2 for found in seconds.values())


def hand_made(**changed: tuple[float, ...]) -> dict[str, Seconds]:
    seconds: dict[str, tuple[float, ...]] = {
        forward.TRUNK[0]: (10.0, 9.0, 30.0),
        forward.TRUNK[1]: (12.0, 12.0, 12.0),
        forward.TRUNK[2]: (11.0, 11.0, 11.0),
        own.MEMORY_LAST: (10.0, 10.0, 10.0),
        own.MEMORY_ALL: (11.0, 11.0, 11.0),
        own.DISK_LAST: (10.0, 12.5, 8.0),
        own.DISK_ALL: (20.0, 20.0, 20.0),
        forward.DISK: (16.0, 16.0, 16.0),
        "slow lens": (40.0, 40.0, 40.0),
        "fast lens": (24.0, 24.0, 24.0),
        "plain": (10.0, 10.0, 10.0),
        "lent": (9.0, 9.0, 9.0),
    }
    return {name: Seconds(each) for name, each in {**seconds, **changed}.items()}


def judge(seconds: dict[str, Seconds], judged: bool = True) -> pd.DataFrame:
    def peer(name: str, lent: bool = False) -> Contender:
        return Contender(name, lambda work, folder: pytest.fail("is not run here"), "last", lent)

    libraries = {
        "TransformerLens": [peer("slow lens"), peer("fast lens")],
        "Hugging Face": [peer("plain"), peer("lent", lent=True)],
    }
    found = forward.rows(seconds, libraries, n_prompts=100, stored=4000, judged=judged)
    return pd.DataFrame(found).set_index(["job", "contender", "against"])


def test_ratios_are_of_medians_and_judged_against_the_faster_limit_and_every_peer() -> None:
    table = judge(hand_made())
    limit, disk = forward.TRUNK[0], forward.DISK
    found = table[["ratio", "reached"]].apply(tuple, axis=1).to_dict()
    assert found["collect", own.MEMORY_LAST, limit] == (1.0, "yes")
    assert found["collect", own.MEMORY_ALL, limit] == (pytest.approx(10 / 11), "no")
    assert found["collect", own.DISK_LAST, limit] == (1.0, "yes")
    assert found["against TransformerLens", own.DISK_LAST, "slow lens"] == (4.0, "yes")
    assert found["against TransformerLens", own.DISK_LAST, "fast lens"] == (2.4, "no")
    assert found["against Hugging Face", own.DISK_LAST, "plain"] == (1.0, "no")  # not faster
    assert found["against Hugging Face", own.DISK_LAST, "lent"] == (0.9, "")
    line = table.loc["collect", own.DISK_LAST, limit]
    assert tuple(line[["value", "low", "high"]]) == (10.0, 8.0, 12.5)
    job = "collect, all tokens, bytes"
    assert found[job, own.DISK_ALL, limit][0] == pytest.approx(0.5)
    assert found[job, own.DISK_ALL, disk][0] == pytest.approx(0.8)
    assert found[job, own.DISK_ALL, f"the slower of disk and trunk: {disk}"][0] == pytest.approx(
        0.8
    )
    assert table.loc[job, own.DISK_ALL, disk]["value"] == 4000 / 20
    assert (judge(hand_made(), judged=False)["reached"] == "").all()


def test_the_limit_is_the_faster_way_whichever_that_is() -> None:
    table = judge(hand_made(**{forward.TRUNK[1]: (5.0, 5.0, 5.0)}))
    assert table.loc["collect", own.MEMORY_LAST, forward.TRUNK[1]]["ratio"] == 0.5
    line = judge(hand_made(**{"fast lens": (25.0, 25.0, 25.0)}))
    assert line.loc["against TransformerLens", own.DISK_LAST, "fast lens"]["reached"] == "yes"


@pytest.mark.parametrize(
    ("asked", "kept", "broken"),
    [
        (Asked(">=", 2.5), 2.5, 2.4999),
        (Asked(">", 1.0), 1.0001, 1.0),
        (Asked("<=", 1.1), 1.1, 1.1001),
    ],
)
def test_a_bound_is_reached_or_not(asked: Asked, kept: float, broken: float) -> None:
    for ratio, said in ((kept, "yes"), (broken, "no")):
        line = row("job", "ours", "speed", 1.0, "x/s", against="peer", ratio=ratio, asked=asked)
        assert line["reached"] == said
    with pytest.raises(ValueError, match="sense"):
        Asked("<", 1.0).met(0.5)


def test_the_disk_writes_as_many_bytes_as_asked(tmp_path: Path) -> None:
    n_bytes = (8 << 20) * 2 + 12345
    assert write_sequentially(tmp_path / "file", n_bytes) == n_bytes


def test_other_rows_than_were_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = reading.write_rows_store
    rolled = lambda path, rows, *rest: write(path, np.roll(rows, 1, axis=0), *rest)  # noqa: E731
    monkeypatch.setattr(reading, "write_rows_store", rolled)
    with pytest.raises(StageError, match="did not read the rows"):
        reading.measure(2000, 1, tmp_path, judged=False)


def test_a_cold_file_is_read_from_the_disk_and_a_warm_one_is_not(tmp_path: Path) -> None:
    write_sequentially(tmp_path / "file", n_bytes := 4 << 20)

    def from_disk() -> int:
        before = reading.bytes_from_disk()
        (tmp_path / "file").read_bytes()
        return reading.bytes_from_disk() - before

    os.sync()  # a page that is still to be written is not forgotten
    (tmp_path / "file").read_bytes()
    assert from_disk() == 0
    reading.forget(tmp_path)
    if (found := from_disk()) == 0:
        pytest.skip("this file system keeps files in memory, or does not count what it reads")
    assert found >= n_bytes


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="GB free"):
        reading.measure(10**13, 1, tmp_path, judged=False)
    assert not list(tmp_path.iterdir())


def test_prompts_of_the_memory_part_come_one_at_a_time() -> None:
    endless = memory.prompts(10**12)
    assert next(endless).text != next(endless).text


@pytest.mark.parametrize("bench", [bench_collect, bench_patch, bench_probe, bench_train])
def test_no_repetition_is_refused(bench: Callable[..., Benchmark], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least once"):
        bench(tmp_path, repeats=0)


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"Choose one of: {', '.join(PARTS)}"):
        bench_collect(tmp_path, parts=["forwards"])
    found = run_cli(["bench", "collect", "--part", "disk", "--out", str(tmp_path)])
    assert found.code == 2
