"""The numbers that decide, settled on planted worlds before any organism was looked at, and frozen."""

import dataclasses
import json
from pathlib import Path

from probes.foundation.digest import digest_json
from probes.foundation.errors import IntegrityError

FILE = Path(__file__).with_name("thresholds.json")


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What the checks compare with; `docs/how-a-claim-is-judged.md` lists them with their values.

    families: fewest families a cell. defects_on, defects_off: shares of samples. samples: a prompt.
    twin_defects: upper bound. twin_cue: AUROC. floor: untriggered deviation, as a share of that of all
    scores. response, signal, margin: d'. p: of the permutation. rank, behaviour: AUROC. share, unseen_share:
    of the response. alarm_rate, alarms, recall: shares of prompts.
    """

    families: int
    samples: int
    defects_on: float
    defects_off: float
    twin_defects: float
    twin_cue: float
    floor: float
    response: float
    signal: float
    p: float
    margin: float
    rank: float
    share: float
    unseen_share: float
    behaviour: float
    alarm_rate: float
    alarms: float
    recall: float


def frozen_thresholds(file: Path = FILE) -> Thresholds:
    """The thresholds that ship; refused where their digest is not the one that they were frozen with."""
    stored = json.loads(file.read_text())
    if digest_json(stored["values"]) != stored["digest"]:
        raise IntegrityError(
            f"{file} was changed after it was frozen: restore it, or settle the thresholds again with "
            "`python -m probes.detection.operating` and store the new digest"
        )
    return Thresholds(**stored["values"])
