"""A monitor's scores are the model's own activations, its threshold keeps to benign data, and it stops."""

import dataclasses

import numpy as np
import pytest
from tiny_generic import prompts_with, tiny

from probes.activations.record import record
from probes.behaviour.sampling import sample
from probes.foundation.errors import InputError
from probes.models.identity import Identity
from probes.probing.direction import Direction
from probes.studies.monitor import Monitor

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def direction(model):
    return Direction(
        estimator="mean_difference", site=SITE, coef=np.linspace(-1, 1, 32), intercept=0.5,
        identity=model.identity, fitted_on="0" * 64, seed=0,
    )  # fmt: skip


def test_token_scores_are_projections_of_every_token(model, direction):
    prompts, _ = prompts_with(("z",), n=3)
    texts = ["one", "two words", "3"]
    watched = Monitor(direction).watch(model, prompts, texts)
    found = record(model, prompts, sites=[SITE], positions="all", completions=texts)
    for number, prompt in enumerate(prompts):
        by_hand = found.tokens(SITE, number) @ direction.coef + 0.5
        np.testing.assert_allclose(watched.scores[number], by_hand, atol=1e-6)
        assert "".join(watched.tokens[number]) == prompt.text + texts[number]
        assert watched.rows["score"][number] == pytest.approx(by_hand.max())
    kinds = {
        name: Monitor(direction, name).watch(model, prompts, texts) for name in ("mean", "last")
    }
    assert kinds["last"].rows["score"][1] == pytest.approx(watched.scores[1][-1])
    assert kinds["mean"].rows["score"][1] == pytest.approx(watched.scores[1].mean())
    answers = Monitor(direction, answer_only=True).watch(model, prompts, texts)
    assert answers.rows["score"][1] == pytest.approx(watched.scores[1][-9:].max())


def test_the_threshold_is_set_on_benign_data_and_never_exceeded(model, direction):
    prompts, _ = prompts_with(("z", "a"), n=10)
    monitor = Monitor(direction, "mean")  # the largest of a sequence may be a token that all share
    benign = monitor.watch(model, prompts)
    assert benign.rows["score"].nunique() == 20
    for rate in (0.05, 0.25):
        ready = monitor.calibrated(benign, rate)
        assert ready.watch(model, prompts).rows["alarm"].mean() <= rate
        lower = dataclasses.replace(ready, threshold=ready.threshold - 1e-6)
        assert lower.watch(model, prompts).rows["alarm"].mean() > rate
    with pytest.raises(
        InputError, match=r"20 benign sequences cannot show a rate of 0\.01: give 100"
    ):
        monitor.calibrated(benign, 0.01)


def test_a_guarded_text_is_the_sampled_one_with_the_scores_of_a_second_pass(model, direction):
    prompts, _ = prompts_with(("z",), n=2)
    free = sample(model, prompts, max_new_tokens=12, seed=5, stop=None)
    for prompt, completion in zip(prompts, free, strict=True):
        seen = Monitor(direction).guard(
            model, prompt, stop=False, max_new_tokens=12, seed=5, until=None
        )
        assert seen.text == completion.text and not seen.stopped
        again = record(model, [prompt], sites=[SITE], positions="all")
        own = again.tokens(SITE, 0) @ direction.coef + 0.5
        np.testing.assert_allclose(seen.watched.scores[0][: len(own)], own, atol=1e-4)
        assert len(seen.watched.scores[0]) > len(own)


def test_it_stops_at_the_alarm_and_not_before(model, direction):
    prompt = prompts_with(("z",), n=1)[0][0]
    free = Monitor(direction, answer_only=True).guard(
        model, prompt, stop=False, max_new_tokens=20, until=None
    )
    n_prompt = len(prompt.text)
    answer = free.watched.scores[0][n_prompt:]
    high = float(np.sort(answer)[-2])  # one answer token scores higher
    first = int(np.flatnonzero(answer > high)[0])
    ready = Monitor(direction, answer_only=True, threshold=high)
    stopped = ready.guard(model, prompt, max_new_tokens=20, until=None)
    assert stopped.stopped and stopped.watched.rows["alarm"][0]
    assert len(stopped.watched.scores[0]) == n_prompt + first + 1
    np.testing.assert_allclose(stopped.watched.scores[0][-1], answer[first], atol=1e-6)
    calm = dataclasses.replace(ready, threshold=float(answer.max()))
    whole = calm.guard(model, prompt, max_new_tokens=20, until=None)
    assert not whole.stopped and whole.text == free.text
    with pytest.raises(InputError, match="without a threshold cannot stop"):
        Monitor(direction).guard(model, prompt)


def test_the_view_escapes_text_and_marks_what_is_above(model, direction):
    prompt = dataclasses.replace(prompts_with(("z",), n=1)[0][0], text="<b> & more")
    watched = Monitor(direction).watch(model, [prompt])
    level = float(np.median(watched.scores[0]))
    shown = dataclasses.replace(watched, threshold=level)._repr_html_()
    assert "&lt;" in shown and "<b>" not in shown
    above = int((watched.scores[0] > level).sum())
    assert shown.count("214,39,40") == above and shown.count("31,119,180") == 10 - above


def test_another_model_and_an_unknown_aggregate_are_refused(model, direction):
    prompts, _ = prompts_with(("z",), n=1)
    other = dataclasses.replace(direction, identity=Identity(weights_digest="f" * 64))
    with pytest.raises(InputError, match="fitted on activations of another model"):
        Monitor(other).watch(model, prompts)
    with pytest.raises(InputError, match="fitted on activations of another model"):
        Monitor(other, threshold=0.0).guard(model, prompts[0])
    with pytest.raises(InputError, match="unknown aggregate"):
        Monitor(direction, "median")
