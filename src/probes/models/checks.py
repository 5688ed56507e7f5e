"""What a self-test found, as values that show themselves as a table."""

import dataclasses

import pandas as pd

from probes.foundation.digest import short
from probes.foundation.errors import StageError
from probes.foundation.html import html_table, html_text


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison. Errors are None where it was not made; `note` then says why.

    max_rel_error: largest difference at a token over the largest entry at that token (where `note`
    says so: norm of the difference over all tokens relative to the norm); `tolerance` bounds it.
    A comparison that cannot be made with this model at all, being spread or quantised, is skipped:
    it is passed without an error, and shown as skipped.
    """

    check: str
    max_abs_error: float | None
    max_rel_error: float | None
    tolerance: float
    passed: bool
    note: str = ""

    @property
    def verdict(self) -> str:
        """pass, FAIL, or skip for a comparison that was not made."""
        if self.passed:
            return "skip" if self.max_rel_error is None else "pass"
        return "FAIL"


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """The checks of one model; shows itself as a table.

    note: what a reader of its activations has to know, such as its attention sinks; or empty.
    """

    model: str
    weights_digest: str
    checks: tuple[Check, ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def rows(self) -> pd.DataFrame:
        """One row per check."""
        return pd.DataFrame([dataclasses.asdict(check) for check in self.checks])

    def require(self) -> "SelfTest":
        """Return the self-test, or raise `StageError` if a check failed."""
        if not self.passed:
            raise StageError(f"activations of this model cannot be trusted\n{self}")
        return self

    def __str__(self) -> str:
        width = max(len(check.check) for check in self.checks)
        lines = [f"self-test of {self.model} (weights {short(self.weights_digest)})"]
        for check in self.checks:
            numbers = f"abs {_show(check.max_abs_error)}  rel {_show(check.max_rel_error)}"
            bound = f"tolerance {check.tolerance:.0e}"
            lines.append(
                f"  {check.verdict}  {check.check:<{width}}  {numbers}  {bound}  {check.note}"
            )
        return "\n".join(line.rstrip() for line in [*lines, *filter(None, [self.note])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = pd.DataFrame(
            [
                {
                    "": check.verdict,
                    "check": check.check,
                    "max abs": _show(check.max_abs_error),
                    "max rel": _show(check.max_rel_error),
                    "tolerance": f"{check.tolerance:.0e}",
                    "note": check.note,
                }
                for check in self.checks
            ]
        )
        text = f"self-test of {self.model}, weights {short(self.weights_digest)}"
        return html_table(table, text) + (html_text(self.note) if self.note else "")


def _show(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"
