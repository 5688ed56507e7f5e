"""Without a terminal a wait is a line for every tenth of the way, with the time left; short ones are silent."""

import io
import re

import pytest

from probes.foundation import progress


def said(monkeypatch: pytest.MonkeyPatch, patience: float, **wait: object) -> list[str]:
    error = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", error)
    monkeypatch.setattr(progress, "PATIENCE_S", patience)
    monkeypatch.setattr(progress.Lines, "monitor_interval", 0)
    with progress.bar("count", **wait) as shown:
        shown.mininterval, shown.miniters = 0, 1
        for _ in range(40):
            shown.update()
    return error.getvalue().splitlines()


def test_a_line_for_every_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, 0.0, total=40)
    assert len(lines) == 10
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"count: {10 * number}% in \d\d:\d\d, about \d\d:\d\d left", line)


def test_short_waits_and_those_without_an_end_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, 60.0, total=40) == said(monkeypatch, 0.0) == []
