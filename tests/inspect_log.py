"""A log of Inspect, written by hand in its format."""

import json
import zipfile
from pathlib import Path
from typing import Any

from probes.prompts.inspect_logs import SUMMARIES


def write_log(path: Path, samples: list[dict[str, Any]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        for one in samples:
            log.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
        log.writestr(SUMMARIES, json.dumps([{"id": s["id"], "epoch": s["epoch"]} for s in samples]))
        log.writestr("header.json", json.dumps({"version": 2, "results": {"scores": []}}))
        log.writestr("_journal/start.json", "{}")
    return path
