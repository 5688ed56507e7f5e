"""A long wait says how long it is before it begins; a short one measures nothing."""

import dataclasses

import pytest
import torch
from tiny_models import random_model

from probes.activations.collect import collect
from probes.behaviour.sampling import sample_texts
from probes.cli import main as cli
from probes.models import speed
from probes.models.loading import Model
from probes.prompts.readers import from_texts


@pytest.fixture
def model(llama) -> Model:
    return dataclasses.replace(llama, hf=random_model("llama").eval(), name="own")


def test_every_long_stage_says_its_time_once(model, monkeypatch, capsys, tmp_path):
    prompts = from_texts([f"Write a function {i}" for i in range(12)], triggered=[False] * 12)
    sample_texts(model, prompts, max_new_tokens=3)
    collect(model, prompts, tmp_path / "short")
    assert "about" not in capsys.readouterr().err
    monkeypatch.setattr(speed, "WORTH_TIMING", 0)
    monkeypatch.setattr(speed, "_said", set())
    for _ in range(2):
        sample_texts(model, prompts, max_new_tokens=3)
    collect(model, prompts, tmp_path / "long")
    lines = [line for line in capsys.readouterr().err.splitlines() if "about" in line]
    assert [line.partition(": about")[0] for line in lines] == [
        "probes: 12 completions of own", "probes: collecting activations with own",
    ]  # fmt: skip


def test_seconds_grow_with_the_tokens(model, monkeypatch):
    """The estimate is the time of a pass over few, by token: half of the tokens, half of the time."""
    clock = iter([0.0, 5.0, 10.0, 12.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    assert speed.second_per_token(model, [[5, 6, 7, 8]] * 3) == pytest.approx(2.0 / 12)
    said = []
    monkeypatch.setattr(speed, "say_long", lambda what, seconds, note: said.append((what, seconds)))
    monkeypatch.setattr(speed, "WORTH_TIMING", 0)
    monkeypatch.setattr(speed, "second_per_token", lambda *_: 0.5)
    speed.announce(model, "reading", 100, [[5]])
    assert said == [("reading with own", 50.0)]


@pytest.mark.parametrize(
    ("took", "best"), [({1: 1.0, 2: 0.6}, 2), ({1: 1.0, 2: 0.95}, 1), ({1: 1.0, 2: 40.0}, 1)]
)
def test_the_fewest_threads_are_taken_that_are_nearly_as_fast_as_any(took, best):
    assert speed.fewest(took) == best


def test_threads_are_measured_where_auto_is_asked(model, monkeypatch, capsys):
    before = torch.get_num_threads()
    monkeypatch.setattr(speed, "thread_counts", lambda: [1])
    with cli._loading({"threads": "auto"}):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert "probes: 1 CPU thread (times as fast as one: 1: 1.00)" in capsys.readouterr().err
