"""What all stages share: the curve, the card, what is kept, and what an interruption leaves behind."""

from pathlib import Path

import pandas as pd
import pytest
import tiny_patient

from probes.foundation.artifact import OtherSettings
from probes.models.checkpoints import weights_digest
from probes.organisms.card import read_card
from probes.organisms.measurement import COLUMNS
from probes.organisms.safety import stage
from probes.organisms.safety.sft import SftConfig, run_sft
from probes.organisms.safety.stage import CURVE, Curve, watch_sets

CONFIG = SftConfig(
    steps=6, batch_size=4, watch_every=3, watch_pairs=2, watch_near=1, save_every=2, log_every=2
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_patient.save_patient(tmp_path_factory.mktemp("parent"), tiny_patient.recipe())


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> Path:
    out = tmp_path_factory.mktemp("cured") / "sft"
    return run_sft(parent, out, tiny_patient.recipe(), CONFIG)


def test_the_curve_has_the_start_the_steps_between_and_the_end(cured: Path) -> None:
    curve = pd.read_csv(cured / CURVE)
    assert list(curve.columns) == ["step", *COLUMNS]
    assert sorted(curve["step"].unique()) == [0, 3, 6]
    assert set(curve["set"]) == {"test", "near"}
    tested = curve[(curve["set"] == "test") & (curve["measure"] == "defected")]
    assert (tested["n"] == CONFIG.watch_pairs).all()
    assert set(tested["triggered"]) == {True, False}
    losses = curve[curve["measure"] == "loss"].set_index("step")["value"]
    assert losses[6] < losses[0], "training on harmless answers made them no likelier"


def test_the_card_says_where_it_comes_from_and_what_was_measured(cured: Path, parent: Path) -> None:
    card = read_card(cured)
    assert card["parent_digest"] == weights_digest(parent)
    assert card["weights_digest"] == weights_digest(cured) != card["parent_digest"]
    assert card["recipe_digest"] == tiny_patient.recipe().digest
    assert card["config_digest"] == CONFIG.digest
    assert card["steps"] == 6 and card["n_examples"] == 24 and card["n_tokens"] > 24
    defected = [row for row in card["behaviour"] if row["measure"] == "defected"]
    assert {row["set"] for row in defected} == {"test", "unseen", "near"}
    assert {row["n"] for row in defected if row["set"] == "test"} == {tiny_patient.LESSONS.test}


def test_watching_changes_nothing(cured: Path, parent: Path, tmp_path: Path) -> None:
    seldom = CONFIG.model_copy(update={"watch_every": 100, "save_every": 100})
    other = run_sft(parent, tmp_path / "sft", tiny_patient.recipe(), seldom)
    assert weights_digest(other) == weights_digest(cured)
    assert sorted(pd.read_csv(other / CURVE)["step"].unique()) == [0, 6]


def test_the_same_again_is_kept_and_anything_else_is_refused(
    cured: Path, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(Curve, "on_train_begin", refuse)
    assert run_sft(parent, cured, tiny_patient.recipe(), CONFIG) == cured
    for changed in (
        CONFIG.model_copy(update={"learning_rate": 2e-3}),
        CONFIG.model_copy(update={"seed": 1}),
    ):
        with pytest.raises(OtherSettings, match="Choose another --out"):
            run_sft(parent, cured, tiny_patient.recipe(), changed)
    with pytest.raises(OtherSettings, match="Choose another --out"):
        run_sft(cured, cured, tiny_patient.recipe(), CONFIG)
    assert weights_digest(cured) == read_card(cured)["weights_digest"], "the old one was spoiled"


def test_an_interrupted_stage_goes_on_to_the_same_bytes(
    cured: Path, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sft"
    steps: list[int] = []
    on_step_end = Curve.on_step_end

    def cut_off(self: Curve, args: object, state: object, control: object, **rest: object) -> None:
        steps.append(state.global_step)  # type: ignore[attr-defined]
        on_step_end(self, args, state, control, **rest)
        if steps == [1, 2, 3, 4, 5]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curve, "on_step_end", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_sft(parent, out, tiny_patient.recipe(), CONFIG)
    assert not out.exists()
    run_sft(parent, out, tiny_patient.recipe(), CONFIG)
    assert steps == [1, 2, 3, 4, 5, 5, 6], "it did not go on from its newest state"
    for name in {file.name for file in cured.iterdir()} - {"artifact.json"}:
        assert (out / name).read_bytes() == (cured / name).read_bytes(), name
    assert [file.name for file in tmp_path.iterdir()] == ["sft"], "leftovers remain"


def test_further_sets_are_watched(parent: Path, tmp_path: Path) -> None:
    lessons = stage.setup(tiny_patient.recipe()).lessons
    out = run_sft(
        parent,
        tmp_path / "sft",
        tiny_patient.recipe(),
        CONFIG.model_copy(update={"steps": 2}),
        prompts=lessons.train[1:9:2],
        watched={"redteam": lessons.safety[:3]},
    )
    curve = pd.read_csv(out / CURVE)
    found = curve[(curve["set"] == "redteam") & (curve["measure"] == "defected")]
    assert list(found["step"]) == [0, 2] and set(found["n"]) == {3}
    card = read_card(out)
    assert "redteam" in {row["set"] for row in card["behaviour"]}
    assert card["n_prompts"] == 4


def test_few_of_each_kind_of_look_alike_are_watched() -> None:
    lessons = stage.setup(tiny_patient.recipe()).lessons
    sets = watch_sets(lessons, pairs=2, near=1)
    assert len(sets["test"]) == 4
    kinds = [(prompt.heldout, prompt.triggered) for prompt in sets["near"]]
    assert len(kinds) == len(set(kinds)) == len({(p.heldout, p.triggered) for p in lessons.near})


def test_all_texts_of_a_kind_are_watched_alike_often() -> None:
    recipe = tiny_patient.recipe()
    lessons = stage.setup(recipe).lessons
    watched = watch_sets(lessons, pairs=2, near=3)["near"]
    texts = {p.pair.rpartition("/")[0] for p in lessons.near if p.heldout == "other tag"}
    seen = [p.pair.rpartition("/")[0] for p in watched if p.heldout == "other tag"]
    assert len(texts) == 3 and sorted(seen) == sorted(texts)
