"""The findings that ship under `figures/` follow from the tables that ship beside them, to the digit."""

import re
from pathlib import Path

import pandas as pd
import pytest

from probes.foundation.tables import read_csv, read_table, to_csv
from probes.studies.evasion.config import Thresholds
from probes.studies.evasion.findings import as_text as evasion_text
from probes.studies.evasion.findings import read_curve
from probes.studies.localisation.findings import as_text as localisation_text
from probes.studies.localisation.findings import findings as localisation_findings
from probes.studies.localisation.tables import Tables as LocalisationTables
from probes.studies.persistence.findings import as_text as persistence_text
from probes.studies.persistence.findings import findings as persistence_findings
from probes.studies.persistence.tables import Tables as PersistenceTables
from probes.studies.steering.config import DoseRules
from probes.studies.steering.findings import as_text as steering_text
from probes.studies.steering.findings import reading

FIGURES = Path(__file__).parents[2] / "figures"


def persistence() -> dict[str, pd.DataFrame | str]:
    table = persistence_findings(PersistenceTables.read(FIGURES / "persistence"))
    return {"findings.csv": table, "findings.md": persistence_text(table)}


def evasion() -> dict[str, pd.DataFrame | str]:
    pooled = [
        read_table(FIGURES / "evasion" / f"{name}_over_seeds.csv")
        for name in ("detection", "behaviour")
    ]
    found = read_curve(*pooled, Thresholds())
    return {
        "evaded.csv": found.evaded,
        "verdicts.csv": found.verdicts,
        "reading.md": evasion_text(found),
    }


@pytest.mark.parametrize("study", [persistence, evasion], ids=lambda f: f.__name__)
def test_tables_and_texts_come_out_byte_for_byte(study) -> None:
    for name, made in study().items():
        shipped = (FIGURES / study.__name__ / name).read_text(encoding="utf-8")
        assert (made if isinstance(made, str) else to_csv(made)) == shipped, name


def same_but_for_rounding(made: str, shipped: str) -> None:
    """The stored tables have ten digits, so a number at the edge of rounding may fall to either side."""
    number = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")
    assert number.sub("#", made) == number.sub("#", shipped)
    pairs = zip(number.findall(made), number.findall(shipped), strict=True)
    apart = [(a, b) for a, b in pairs if a != b]
    assert len(apart) <= 3, apart
    for a, b in apart:
        assert abs(float(a) - float(b)) == pytest.approx(10.0 ** -len(b.partition(".")[2]))


@pytest.mark.parametrize("name", ["hate", "code"])
def test_doses_are_read_as_they_shipped(name: str) -> None:
    verdicts = reading(read_table(FIGURES / "doses" / f"{name}_pooled.csv"), DoseRules())
    shipped = (FIGURES / "doses" / f"{name}_reading.txt").read_text(encoding="utf-8")
    same_but_for_rounding(steering_text(verdicts) + "\n", shipped)


def test_where_the_backdoor_is_comes_out_as_it_shipped() -> None:
    """Since then one seed has no interval, and that of a correlation keeps within -1 to 1."""
    made = localisation_findings(LocalisationTables.read(FIGURES / "where"))
    shipped = read_csv(FIGURES / "where" / "findings.csv")
    pooled = made["question"].str.startswith("does the probe") | made["question"].eq(
        "and random directions"
    )
    columns = ["family", "organism", "question", "answer", "share", "p", "placebo", "seeds"]
    columns += ["verdict"]
    pd.testing.assert_frame_equal(made[columns], shipped[columns], check_dtype=False, rtol=1e-6)
    pd.testing.assert_frame_equal(made[~pooled], shipped[~pooled], check_dtype=False, rtol=1e-6)
    lines = (FIGURES / "where" / "findings.md").read_text(encoding="utf-8").splitlines()
    for new, old in zip(localisation_text(made).splitlines(), lines, strict=True):
        if "does the probe" in old or "and random directions" in old:
            new, old = (re.sub(r" \[[^]]*\](?=[:,]| \()", "", line) for line in (new, old))
        assert new == old
