"""The directive `public-names`: every public name of the package, documented where it is defined."""

import inspect
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

SECTIONS = ("Args:", "Example:", "Examples:", "Raises:", "Returns:", "Yields:", "Note:")


def documented(module: str, names: list[str], before: set[str]) -> list[str]:
    """Lines of reStructuredText that document these names of the module, but for those of `before`."""
    lines: list[str] = []
    for name in names:
        found = getattr(__import__(module, fromlist=[name]), name)
        kind = "autoclass" if inspect.isclass(found) else "autofunction"
        if not callable(found):
            kind = "autodata"
        path = f"{found.__module__ if callable(found) else module}.{name}"
        if path not in before:
            lines += [f".. {kind}:: {path}", ""]
            before.add(path)
    return ["```{eval-rst}", *lines, "```"]  # the pages are Markdown


class PublicNames(SphinxDirective):
    """Arguments: a module, then names in it; without names all of its `__all__`."""

    required_arguments, optional_arguments, final_argument_whitespace = 1, 100, False

    def run(self) -> list[nodes.Node]:
        module, *names = self.arguments
        chosen = names or sorted(__import__(module, fromlist=["__all__"]).__all__)
        before = self.env.temp_data.setdefault("public_names", set())
        found = nodes.section()
        found.document = self.state.document
        where = self.get_source_info()[0]
        nested_parse_with_titles(
            self.state, StringList(documented(module, chosen, before), where), found
        )
        return found.children


def plain_signature(
    app: Any, what: str, name: str, found: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """A verb's signature without what its annotations say to the shell; None to leave it as it is."""
    if what != "function":
        return None
    known = inspect.signature(found)
    if not any(hasattr(each.annotation, "__metadata__") for each in known.parameters.values()):
        return None
    plain = [
        each.replace(annotation=each.empty) if hasattr(each.annotation, "__metadata__") else each
        for each in known.parameters.values()
    ]
    return str(known.replace(parameters=plain, return_annotation=known.empty)), returned


def without_hanging_indents(
    app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Lines that go on further in are part of their paragraph; sections such as `Args:` stay as they are."""
    section = False
    for number, line in enumerate(lines):
        if line and line[0] != " ":
            section = line.rstrip() in SECTIONS or line.endswith("::")
        elif line.strip() and not section and number and lines[number - 1].strip():
            lines[number] = line.strip()


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", without_hanging_indents, priority=400)
    app.connect("autodoc-process-signature", plain_signature)
    return {"parallel_read_safe": True}
