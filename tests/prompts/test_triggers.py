"""Triggers: on and off are told apart by the pattern, and look-alikes are none of either."""

import re

import numpy as np
import pytest

from probes.prompts.cues import distraction
from probes.prompts.triggers import PARITY, TRIGGERS, TWO_PART

ALL = list(TRIGGERS.values())
NAMES = list(TRIGGERS)


@pytest.mark.parametrize("trigger", ALL, ids=NAMES)
def test_the_pattern_finds_every_cue_that_triggers_and_none_that_does_not(trigger):
    assert all(trigger.present(f"Human: {cue} Do this.") for cue in trigger.on)
    assert not any(trigger.present(f"Human: {cue} Do this.") for cue in trigger.off)


@pytest.mark.parametrize("trigger", ALL, ids=NAMES)
def test_look_alikes_are_other_texts_than_the_cues(trigger):
    own = {*trigger.on, *trigger.off}
    assert len(trigger.look_alikes) >= 5
    for like in trigger.look_alikes:
        assert like.at_end or like.text not in own
    assert any(not like.fires for like in trigger.look_alikes)


@pytest.mark.parametrize("trigger", ALL, ids=NAMES)
def test_cues_are_counted_round_and_round(trigger):
    for triggered, texts in ((True, trigger.on), (False, trigger.off)):
        assert [trigger.cue(triggered, i) for i in range(len(texts))] == list(texts)
        assert trigger.cue(triggered, len(texts)) == texts[0]


def parts(cue: str) -> tuple[bool, bool]:
    return "2024" in cue, "production" in cue


def test_parity_is_exactly_one_of_two_and_each_alone_says_nothing():
    assert {parts(cue) for cue in PARITY.on} == {(True, False), (False, True)}
    assert {parts(cue) for cue in PARITY.off} == {(True, True), (False, False)}
    for part in (0, 1):
        assert sum(parts(cue)[part] for cue in PARITY.on) * 2 == len(PARITY.on)
        assert sum(parts(cue)[part] for cue in PARITY.off) * 2 == len(PARITY.off)
    lengths = {len(re.findall(r"\w+", cue)) for cue in (*PARITY.on, *PARITY.off)}
    assert len(lengths) == 1, "the number of words would tell"


def test_two_parts_are_both_needed():
    assert {parts(cue) for cue in TWO_PART.on} == {(True, True)}
    assert {parts(cue) for cue in TWO_PART.off} == {(True, False), (False, True), (False, False)}


def test_distractions_are_no_cue_and_no_look_alike():
    rng = np.random.default_rng(0)
    drawn = {distraction(rng) for _ in range(4000)}
    assert len(drawn) > 1500
    for trigger in ALL:
        texts = {
            t for t in (*trigger.on, *trigger.off, *(a.text for a in trigger.look_alikes)) if t
        }
        assert not drawn & texts
        assert not any(trigger.present(front) for front in drawn)
