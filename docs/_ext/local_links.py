"""After the build: every link to a file or heading of this site must lead somewhere; no network."""

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.errors import SphinxError


class Page(HTMLParser):
    """Links and ids of one page of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            if value and (name == "id" or (tag == "a" and name == "name")):
                self.ids.add(value)


def broken(site: Path) -> list[str]:
    """Links within the site that lead nowhere, as "page: link"."""
    pages = {
        file.relative_to(site).as_posix(): Page(file.read_text()) for file in site.rglob("*.html")
    }
    found = []
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link in ("#", ""):
                continue
            target = name
            if parts.path:
                target = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), unquote(parts.path))
                )
            missing = target.startswith("..") or not (site / target).is_file()
            known = pages[target].ids if target in pages else {unquote(parts.fragment)}
            if missing or (parts.fragment and unquote(parts.fragment) not in known):
                found.append(f"{name}: {link}")
    return sorted(set(found))


def from_elsewhere(site: Path) -> list[str]:
    """Scripts, styles and images that a page would fetch over the network, as "page: address"."""
    fetched = re.compile(
        r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]+)"
    )
    return sorted(
        f"{file.relative_to(site)}: {address}"
        for file in site.rglob("*.html")
        for address in fetched.findall(file.read_text())
    )


def check(app: Any, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    if faults := broken(site):
        raise SphinxError("links that lead nowhere:\n  " + "\n  ".join(faults))
    if faults := from_elsewhere(site):
        raise SphinxError("pages that fetch from elsewhere:\n  " + "\n  ".join(faults))


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}
