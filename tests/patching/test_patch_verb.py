"""`probes patch --kind`: a table on disk that is found again, and wrong requests that name the choices."""

import shutil
from pathlib import Path

import pytest

from probes.foundation.tables import read_table
from probes.models.loading import Model
from probes.patching.jobs import Job
from probes.patching.stages import PER_PROMPT, ROWS, TEXTS, WRITTEN
from probes.prompts.readers import write_prompts
from shell import run_cli


@pytest.fixture(scope="module")
def given(llama: Model, pairs, tmp_path_factory) -> list[str]:
    place = tmp_path_factory.mktemp("given")
    llama.hf.save_pretrained(place / "model")
    llama.tokenizer.save_pretrained(place / "model")
    prompts = [prompt for pair in pairs for prompt in (pair.clean, pair.corrupted)]
    return [str(place / "model"), "--prompts", str(write_prompts(place / "p.jsonl", prompts))]


def run(given: list[str], out: Path, *more: str):
    return run_cli(["patch", *given, "--out", str(out), *more])


def test_a_stopped_grid_goes_on_from_its_finished_sites(
    given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--kind", "z", "--heads", "--everywhere", "--kind", "q", "--direction", "noise"]
    first = run(given, tmp_path, *asked)
    assert first.code == 0, first.err
    rows, each = (read_table(tmp_path / name) for name in (ROWS, PER_PROMPT))
    assert rows["site"].drop_duplicates().tolist() == ["z.0", "z.1", "q.0", "q.1"]
    assert len(rows) == 16 and len(each) == 16 * 3 and set(rows["head"]) == {0, 1, 2, 3}
    assert {"p", "low", "high"} <= set(rows) and "noise with paired" in first.out
    finished = next(found for found in tmp_path.rglob("q.1") if found.is_dir())
    shutil.rmtree(finished)
    scored = []
    scores = Job.scores
    monkeypatch.setattr(
        Job, "scores", lambda self, plan, cells: scored.append(cells[0].site) or scores(self, plan, cells)
    )  # fmt: skip
    assert run(given, tmp_path, *asked).code == 0
    assert scored == ["q.1"]
    assert read_table(tmp_path / ROWS).equals(rows)


def test_the_strongest_cells_are_patched_once_more_while_the_model_writes(
    given, tmp_path: Path
) -> None:
    asked = ["--kind", "q", "--kind", "resid_pre", "--write", "2", "--samples", "2"]
    done = run(given, tmp_path, *asked, "--max-new-tokens", "8", "--temperature", "0")
    assert done.code == 0, done.err
    rows, cells = read_table(tmp_path / WRITTEN), read_table(tmp_path / ROWS)
    able = cells[~cells["site"].str.startswith("q")]
    best = able.loc[able["mean"].abs().sort_values(ascending=False, kind="stable").index][:2]
    assert rows["site"].tolist() == ["unpatched", "other run", *best["site"]]
    assert rows["label"].tolist()[2:] == best["label"].tolist() and set(rows["n"]) == {6}
    texts = read_table(tmp_path / TEXTS)
    assert len(texts) == 4 * 6
    # Greedy: the strongest cell restores all, so the other run's very words are written.
    told = texts.groupby("cell")["text"].apply(list)
    assert best["normalised"].iloc[0] == pytest.approx(1, abs=1e-3) and told[2] == told[1]
    assert told[1] != told[0] and "other run" in done.out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--kind", "rezid_pre"], "resid_pre, q, k, v, pattern"),
        (["--kind", "mlp_out", "--heads"], "mlp_out has no heads"),
        (["--kind", "z", "--layer", "7"], "layers 0 to 1"),
        (["--kind", "z", "--window", "3"], "1 to 2 layers"),
        (["--kind", "z", "--site", "resid_pre.0"], "not both"),
        (["--kind", "q", "--write", "1"], "of q nothing can be patched while the model writes"),
        (["--kind", "z", "--write", "-1"], "0 or more cells"),
        (["--kind", "z", "--metric", "auroc"], "logprob, kl, kl-continuation"),
        (["--kind", "z", "--direction", "up"], "denoise, noise"),
        (["--kind", "z", "--values", "other"], "paired, mean, zero"),
        (["--kind", "z", "--engine", "spark"], "process, ray"),
        (["--kind", "z", "--span", "task"], "NAME=REGEX"),
    ],
)
def test_wrong_requests_say_what_would_do(given, tmp_path: Path, asked, said) -> None:
    found = run(given, tmp_path, *asked)
    assert found.code == 2
    assert said in found.err
    assert not (tmp_path / ROWS).exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--alignment", "shared"], "--alignment belongs to --kind"),
        (["--heads", "--metric", "kl"], "--heads, --metric belong to --kind"),
        (["--kind", "z", "--samples", "2"], "--samples belongs to --write"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(given, tmp_path: Path, more, message) -> None:
    result = run(given, tmp_path, *more)
    assert result.code == 2 and message in result.err
    assert not list(tmp_path.iterdir())
