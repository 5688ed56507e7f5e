"""A monitor's scores are the model's own activations, its threshold keeps to benign data, and it stops."""

import dataclasses

import numpy as np
import pytest
from tiny_generic import prompts_with, tiny

from probes.activations.collect import collect
from probes.activations.record import record
from probes.behaviour.sampling import sample
from probes.detection.monitor import Monitor
from probes.evaluation.auroc import auroc
from probes.foundation.errors import InputError
from probes.models.identity import Identity
from probes.probing.attention import AttentionProbe
from probes.probing.frozen import Direction

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


@pytest.fixture(scope="module")
def sinking(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("sinking"), sink=True)


@pytest.fixture
def told_apart(sinking):
    """Prompts of two classes, and a direction that is 1 at the token "z", 5 at token 0, else 0."""
    prompts, ends = prompts_with(("z", "a"), n=10)
    every = record(sinking, prompts, sites=[SITE], positions="prompt")
    index = every.row_index
    wanted = (index["token"] == sinking.tokenizer("z")["input_ids"][0]) + 5.0 * (
        index["position"] == 0
    )
    coef = np.linalg.lstsq(every.rows(SITE).astype(float), wanted.to_numpy(float))[0]
    direction = Direction(
        estimator="mean_difference", site=SITE, coef=coef, intercept=0.0,
        identity=sinking.identity, fitted_on="0" * 64, seed=0,
    )  # fmt: skip
    return prompts, ends == "z", direction


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_a_sink_decides_no_score_unless_it_is_kept(sinking, told_apart, aggregate):
    prompts, positive, direction = told_apart
    watched = Monitor(direction, aggregate).watch(sinking, prompts)
    kept = Monitor(direction, aggregate, keep_sinks=True).watch(sinking, prompts)
    by_hand = [getattr(np.asarray(one[1:]), aggregate)() for one in kept.scores]
    np.testing.assert_allclose(watched.rows["score"], by_hand)
    assert watched.note.startswith("20 tokens do not count, being attention sinks: token 0 (")
    assert "--keep-sinks" in watched.note and watched.note in repr(watched) and kept.note == ""
    if aggregate == "max":
        assert auroc(positive, watched.rows["score"]) == 1.0
        assert auroc(positive, kept.rows["score"].round(4)) == 0.5
    strongest = [view._repr_html_().count(",1.00)") for view in (watched, kept)]
    assert strongest[0] < strongest[1] == len(prompts), "the sink may not set the scale of colours"


def test_thresholds_and_guards_leave_the_sink_out_too(sinking, told_apart):
    prompts, positive, direction = told_apart
    calm = [prompt for prompt, one in zip(prompts, positive, strict=True) if not one]
    monitor = Monitor(direction)
    ready = monitor.calibrated(monitor.watch(sinking, calm), 0.0)
    assert ready.watch(sinking, prompts).rows["alarm"].tolist() == positive.tolist()
    for prompt, expected in zip(prompts[:2], positive[:2], strict=True):
        seen = ready.guard(sinking, prompt, max_new_tokens=1, until=None)
        assert seen.watched.rows["alarm"][0] == expected
        assert seen.watched.rows["score"][0] < float(seen.watched.scores[0][0])
    one = dataclasses.replace(prompts[0], text="T")
    with pytest.raises(InputError, match="all its tokens are attention sinks"):
        monitor.watch(sinking, [one])


def test_means_of_tokens_and_attention_are_without_sinks(sinking, told_apart, tmp_path):
    prompts, positive, _ = told_apart
    every = record(sinking, prompts, sites=[SITE], positions="prompt")
    assert every.sinks(sinking).tolist() == (every.row_index["position"] == 0).tolist()
    by_hand = np.stack([every.tokens(SITE, i)[1:].mean(0) for i in range(len(prompts))])
    means = record(sinking, prompts, sites=[SITE], positions="mean:prompt")
    store = collect(sinking, prompts, tmp_path / "store", sites=[SITE], positions="mean:prompt")
    for found in (means, store):
        np.testing.assert_allclose(found.matrix(SITE), by_hand, rtol=1e-4, atol=1e-4)
    assert "attention sinks" in repr(store)
    whole = record(sinking, prompts, sites=[SITE], positions="mean:prompt", keep_sinks=True)
    assert np.linalg.norm(whole.matrix(SITE) - by_hand) > 5 * np.linalg.norm(by_hand)
    other = collect(
        sinking, prompts, tmp_path / "kept", sites=[SITE], positions="mean:prompt", keep_sinks=True
    )
    np.testing.assert_allclose(other.matrix(SITE), whole.matrix(SITE), rtol=1e-6)
    with pytest.raises(InputError, match="sinks"):
        collect(sinking, prompts, tmp_path / "kept", sites=[SITE], positions="mean:prompt")
    kept = every.sequences(SITE, sinking)
    assert [len(one) for one in kept] == [len(p.text) - 1 for p in prompts]
    assert AttentionProbe().fit(kept, positive).loss_ < 0.3
