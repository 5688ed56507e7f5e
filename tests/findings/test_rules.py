"""A rule answers by its own numbers, from enough seeds, and of nothing it says that nothing was run."""

import math

import jinja2
import pandas as pd
import pytest

from probes.evaluation.bootstrap import Estimate
from probes.findings.rules import Criterion, Finding, Rule, at_least, decide, to_markdown

MORE = at_least(0.1)


@pytest.mark.parametrize(
    ("finding", "answer", "reason"),
    [
        (Finding("a", 0.10, 0.01, 0.2, 3), "agrees", ""),
        (Finding("a", 0.10, 0.00, 0.2, 3), "not resolved", ""),
        (Finding("a", 0.09, 0.01, 0.2, 3), "not resolved", ""),
        (Finding("a", 0.05, 0.01, 0.0999, 3), "disagrees", ""),
        (Finding("a", 0.50, math.nan, math.nan, 3), "not resolved", ""),
        (Finding("a", 0.50, 0.4, 0.6, 2), "not resolved", "2 seeds, and 3 are needed"),
        (Finding("a", 0.50, n=1, reason="x"), "not resolved", "1 seed, and 3 are needed; x"),
        (Finding("a", 0.50, 0.4, 0.6, 3).because("disagrees", "a control"), "disagrees", "a control"),
        (Finding("a", 0.50, 0.4, 0.6, 2).because("agrees", "y"), "not resolved",
         "2 seeds, and 3 are needed; y"),
        (Finding("a"), "not run", ""),
        (Finding(answer="not run", reason="no rows"), "not run", "no rows"),
        (Finding("a", answer="not resolved", reason="none"), "not resolved", "none"),
    ],
)  # fmt: skip
def test_every_way_to_an_answer(finding: Finding, answer: str, reason: str) -> None:
    decided = MORE.decide(finding)
    assert (decided.answer, decided.reason) == (answer, reason)
    assert decided.source == finding.source and decided.n == finding.n


def test_the_words_of_a_criterion_hold_the_numbers_that_it_decides_by() -> None:
    assert MORE.statement.startswith("agrees: at least 0.10, lower bound over 0")
    other = MORE.at({"margin": 0.6})
    found = Finding("a", 0.5, 0.4, 0.55, 3)
    assert "0.60" in other.statement
    assert (MORE.decide(found).answer, other.decide(found).answer) == ("agrees", "disagrees")


def test_the_first_condition_that_holds_decides_and_facts_count() -> None:
    steps = Criterion(
        "low below {low}, then high",
        {"low": 1},
        {"low": lambda f, t: f.value < t["low"], "high": lambda f, t: f.facts["x"] > f.value},
        otherwise="neither",
        least=1,
    )

    def answer(value: float, x: float) -> str:
        return steps.decide(Finding("a", value, n=1, facts={"x": x})).answer

    assert [answer(0, 5), answer(2, 5), answer(2, 1)] == ["low", "high", "neither"]


def test_a_table_has_a_row_for_every_finding_in_the_order_of_the_rules() -> None:
    def each(values: list[float]) -> list[Finding]:
        return [Finding.of(f"s{v}", Estimate(v, v - 0.1, v + 0.1, 3), p=v / 2) for v in values]

    rules = [Rule("first", MORE, each, {"paper": "x"}), Rule("second", at_least(0.9), each)]
    table = decide(rules, [0.5, 0.05], source="organism", n="seeds")
    assert table["finding"].tolist() == ["first", "first", "second", "second"]
    assert table["organism"].tolist() == ["s0.5", "s0.05"] * 2
    assert table["answer"].tolist() == ["agrees", "not resolved", "disagrees", "disagrees"]
    assert table["p"].tolist() == [0.25, 0.025] * 2 and set(table["seeds"]) == {3}
    assert table["paper"].tolist()[:2] == ["x", "x"] and table["paper"].isna().sum() == 2


def test_a_template_without_one_of_its_names_is_an_error_and_numbers_keep_their_form() -> None:
    table = pd.DataFrame(
        {"value": [0.5, 0.5, None], "low": [0.25, None, None], "high": [1.0, None, None]}
    )
    text = "{% for row in table|rows %}{{ row|interval }};{% endfor %}{{ 1|counted('seed') }}"
    assert to_markdown(text, table=table) == "0.50 [0.25, 1.00];0.50;–;1 seed"
    with pytest.raises(jinja2.UndefinedError, match="lost"):
        to_markdown("{{ lost }}")
