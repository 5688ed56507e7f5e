"""A run's folder: one config for its whole life, one numbered folder per stage."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from probes.foundation.artifact import write_text
from probes.foundation.config import Config
from probes.foundation.outputs import take_up
from probes.foundation.untrusted import read_json


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where each stage of a run lies."""

    root: Path

    @property
    def corpus(self) -> Path:
        return self.root / "1-corpus"

    @property
    def organisms(self) -> Path:
        return self.root / "2-organisms"

    @property
    def behaviour(self) -> Path:
        return self.root / "3-behaviour"

    @property
    def activations(self) -> Path:
        return self.root / "4-activations"

    @property
    def probes(self) -> Path:
        return self.root / "5-probes"

    @property
    def patching(self) -> Path:
        return self.root / "6-patching"

    @property
    def figures(self) -> Path:
        return self.root / "7-figures"

    @property
    def page(self) -> Path:
        """What the report is written from."""
        return self.root / "8-page"

    @property
    def timings(self) -> Path:
        return self.root / "timings.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def open_run(root: Path | str, config: Config) -> RunFolder:
    """Take up a run, or begin one; refuses a folder that holds a run of another config."""
    folder = RunFolder(Path(root))
    take_up(folder.root, "a run", config)
    return folder


def longest(path: Path, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage over all processes of a run, the longest each: one that only read does not count."""
    before: dict[str, float] = read_json(path) if path.exists() else {}
    merged = {stage: max(spent, before.get(stage, 0.0)) for stage, spent in seconds.items()}
    write_text(path, json.dumps(merged, indent=2) + "\n")
    return merged
