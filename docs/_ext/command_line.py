"""The directive `command-line`: every verb of the app with its help, as the app itself prints it."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

WIDTH = 84
VERB = re.compile(r"(?:  |│ )([a-z][a-z-]*)\s{2,}\S")


def help_of(*verbs: str) -> str:
    """What `probes VERB --help` prints, without colour and `WIDTH` characters wide."""
    from probes.cli.main import main

    before = sys.argv, dict(os.environ)
    sys.argv = ["probes", *verbs, "--help"]
    os.environ |= {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    said = io.TextIOWrapper(io.BytesIO(), "utf-8")
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main()
        said.flush()
    finally:
        sys.argv = before[0]
        os.environ.clear()
        os.environ.update(before[1])
    return said.buffer.getvalue().decode().strip("\n")


def verbs_in(text: str) -> list[str]:
    """Verbs that a help text lists, each in the first column of its line; none where it takes none."""
    usage, *lines = text.splitlines()
    return [verb[1] for line in lines if (verb := VERB.match(line))] if "COMMAND" in usage else []


def every_verb(*above: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each command with its help, depth first: `("store", "verify")` follows `("store",)`."""
    text = help_of(*above)
    if above:
        yield above, text
    for verb in verbs_in(text):
        yield from every_verb(*above, verb)


class CommandLine(SphinxDirective):
    """A section per verb."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        package = Path(sys.modules["probes"].__path__[0])
        for module in [package / "api.py", *(package / "cli").glob("*.py")]:
            self.env.note_dependency(str(module))
        found: list[nodes.Node] = [nodes.literal_block(help_of(), help_of(), language="text")]
        for verbs, text in every_verb():
            name = " ".join(("probes", *verbs))
            section = nodes.section(ids=["-".join(verbs)], names=[name])
            section += nodes.title(name, name)
            section += nodes.literal_block(text, text, language="text")
            found.append(section)
        return found


def setup(app: Any) -> dict[str, bool]:
    import probes  # noqa: F401  (the first import says early what is wrong with the installation)

    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
