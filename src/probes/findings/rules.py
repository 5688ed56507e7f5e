"""One way to apply a rule that was stated beforehand: numbers in, an answer out, one row for each.

Every study states its rules as data and measures its findings; what follows from the two is decided
here. An answer never rests on fewer seeds than the criterion asks for, and what nothing was measured
of is "not run": no number stands in for it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import jinja2
import pandas as pd

from probes.evaluation.bootstrap import Estimate

AGREES, DISAGREES, NOT_RESOLVED, NOT_RUN = "agrees", "disagrees", "not resolved", "not run"
MIN_SEEDS = 3
Tables = TypeVar("Tables")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A number that a rule is asked about; `value`, `low`, `high` are NaN where there is none.

    source: where it comes from: an organism, a site, a mechanism. n: how many seeds it is over.
    control: what to read beside it. facts: further columns of its row, by which a criterion may
    decide as well. answer: given where a control decides and the criterion is not asked, with the
    `reason`.
    """

    source: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    control: str = ""
    answer: str = ""
    reason: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, source: str, estimate: Estimate, control: str = "", **facts: Any) -> "Finding":
        """From a mean over seeds."""
        ends = (estimate.value, estimate.low, estimate.high)
        return cls(source, *ends, n=estimate.n, control=control, facts=facts)

    def because(self, answer: str, reason: str) -> "Finding":
        """The same numbers, of which something else decides."""
        return dataclasses.replace(self, answer=answer, reason=reason)


@dataclasses.dataclass(frozen=True)
class Criterion:
    """What numbers get which answer.

    says: in words, with the names of the thresholds in braces. answers: the first whose condition
    holds of a finding and the thresholds. otherwise: the answer where none does. least: seeds below
    which it is not resolved.
    """

    says: str
    thresholds: Mapping[str, float]
    answers: Mapping[str, Callable[[Finding, Mapping[str, float]], bool]]
    otherwise: str = NOT_RESOLVED
    least: int = MIN_SEEDS

    @property
    def statement(self) -> str:
        """The criterion in words, with its numbers."""
        return self.says.format(**self.thresholds)

    def at(self, thresholds: Mapping[str, float]) -> "Criterion":
        """The same criterion with other thresholds."""
        return dataclasses.replace(self, thresholds=thresholds)

    def decide(self, finding: Finding) -> Finding:
        """The finding with its answer."""
        if finding.answer == NOT_RUN or not finding.n:
            return finding.because(finding.answer or NOT_RUN, finding.reason)
        if finding.n < self.least:
            few = f"{counted(finding.n, 'seed')}, and {self.least} are needed"
            return finding.because(NOT_RESOLVED, "; ".join(filter(None, (few, finding.reason))))
        if finding.answer:
            return finding
        holds = (name for name, when in self.answers.items() if when(finding, self.thresholds))
        return finding.because(next(holds, self.otherwise), finding.reason)


def at_least(margin: float) -> Criterion:
    """For a difference that is said to be there: at least this large, and its interval over 0."""
    return Criterion(
        "agrees: at least {margin:.2f}, lower bound over 0; disagrees: upper bound under {margin:.2f}",
        {"margin": margin},
        {
            AGREES: lambda f, t: f.value >= t["margin"] and f.low > 0,
            DISAGREES: lambda f, t: f.high < t["margin"],
        },
    )


@dataclasses.dataclass(frozen=True)
class Rule(Generic[Tables]):
    """A question to the tables, and the criterion that answers it.

    id: the question, or the claim, in words; it names its rows. find: what the tables hold of it.
    facts: columns that are the same in each of its rows, for instance what was published.
    """

    id: str
    criterion: Criterion
    find: Callable[[Tables], Iterable[Finding]]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def decide(rules: Iterable[Rule[Tables]], tables: Tables, **names: str) -> pd.DataFrame:
    """One row per rule and finding, in their order.

    Columns: `finding` (the rule's id), those of its facts, `source`, `n`, `value`, `low`, `high`,
    `control`, `answer`, `reason`, `rule` (the criterion in words) and those of the finding's facts;
    names: what some of them are called in the table, for instance `n="seeds"`.
    """
    rows: list[dict[str, Any]] = []
    for rule in rules:
        for found in map(rule.criterion.decide, rule.find(tables)):
            own = {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}
            facts = own.pop("facts")
            said = {"finding": rule.id, "rule": rule.criterion.statement}
            rows.append({**said, **rule.facts, **own, **facts})
    return pd.DataFrame(rows).rename(columns=names)


def to_markdown(template: str, **names: Any) -> str:
    """The template (Jinja) with these names; a name that it lacks is an error.

    Filters: `interval` ("0.50 [0.40, 0.60]" of a row with `value`, `low`, `high`; without an interval
    the value alone, without a value a dash), `counted` ("1 seed", "3 seeds"), `rows` (of a table) and
    `finite`. Also `{:.0%}`-like formats: `"{:.2f}".format(x)`.
    """
    return _compiled(template).render(**names)


@functools.cache
def _compiled(template: str) -> jinja2.Template:
    found = jinja2.Environment(
        autoescape=False,  # the text is Markdown, for a terminal or a file
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"interval": interval, "counted": counted, "finite": finite}
    found.filters["rows"] = lambda table: table.to_dict("records")
    return found.from_string(template)


def interval(row: Any, form: str = "{:.2f}") -> str:
    """A row's number with its interval, where it has them."""
    value, low, high = (row[name] for name in ("value", "low", "high"))
    if not finite(value):
        return "–"
    if not finite(low):
        return form.format(value)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def counted(count: int, what: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count:.0f} {what}{'s' * (count != 1)}"


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
