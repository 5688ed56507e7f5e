"""HTML pages from templates: one file each, which fetches nothing and runs no script but its own."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from probes.foundation.artifact import write_text
from probes.foundation.errors import IntegrityError
from probes.foundation.untrusted import read_json
from probes.runs.folder import RunFolder

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = "explorer.js"


def write_page(path: Path, template: str, facts: Mapping[str, Any]) -> Path:
    """Fill a template in; everything is escaped, for organisms are untrusted and may write HTML.

    Raises `StageError` if the disk is full or read-only.
    """
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page.globals |= {"script": Markup(script), "script_digest": digest, "embedded": embedded}
    write_text(path, page.get_template(template).render(**facts))
    return path


def embedded(data: Mapping[str, Any]) -> Markup:
    """JSON for a script element: no "<" in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def keep(path: Path, data: Mapping[str, Any]) -> None:
    """Write what a page is made from."""
    text = json.dumps(data, ensure_ascii=False, default=lambda number: number.item())
    write_text(path, f"{text}\n")


def write_kept(path: Path, seconds: Mapping[str, float]) -> Path:
    """Write a run's page from what is kept beside it; seconds: by stage."""
    run = RunFolder(path.parent)
    page = read_json(run.page / "page.json")
    facts = {**page, "seconds": seconds}
    if page["template"] == "report.html.jinja":
        facts["explored"] = read_json(run.page / "prompts.json")
        facts["figures"] = {
            name: {**one, "data": _image((run.root / one["file"]).read_bytes())}
            for name, one in page["figures"].items()
        }
    return write_page(path, page["template"], facts)


def _image(picture: bytes) -> str:
    """A PNG as the address of an image that lies in the page itself; nothing else is put there."""
    if not picture.startswith(b"\x89PNG\r\n"):
        raise IntegrityError("a figure of this run is no PNG: run the study again to draw it")
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
