"""Benign code that nobody wrote for an experiment: requests made from Python's own standard library.

A grammar's benign tasks are of the grammar's making, and a probe may know them by that. Here functions of
the running interpreter's library are read as text from a fixed list of modules that touch no network, no
process and no secret; nothing of them is imported for it, and nothing is executed.
"""

import ast
import dataclasses
import sysconfig
from functools import cache
from pathlib import Path

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream

PROMPT_SET = "standard library"
MODULES = (
    "bisect", "calendar", "copy", "difflib", "fnmatch", "functools", "heapq", "html", "ipaddress",
    "operator", "posixpath", "shlex", "statistics", "textwrap",
)  # fmt: skip
LONGEST_ASKED = 90
"""Characters of the request: small organisms have short contexts."""


@dataclasses.dataclass(frozen=True)
class LibraryFunction:
    """A public function as it stands in a module of the standard library.

    signature: its `def` line with the colon, without annotations. docstring: whole, as a reader of
    `help` sees it. source: its text, `def` line included.
    """

    name: str
    module: str
    signature: str
    docstring: str
    source: str

    @property
    def summary(self) -> str:
        """The first sentence of the docstring, without the full stop."""
        words = " ".join(self.docstring.split("\n\n")[0].split())
        return words.split(". ")[0].rstrip(".")


def functions(n: int, seed: int = 0) -> tuple[LibraryFunction, ...]:
    """So many functions, the modules taking turns, in an order drawn by the seed.

    Those that say in a sentence of reasonable length what they do, and take an argument. The same
    interpreter and seed give the same functions; other versions of Python have others. Raises
    `InputError` for more than there are, or where the library's source is not installed.
    """
    per_module = [found for name in MODULES if (found := _functions_of(name))]
    count = sum(len(found) for found in per_module)
    if not 1 <= n <= count:
        raise InputError(
            f"{n} functions asked for; the standard library's list of {len(MODULES)} modules has "
            f"{count} in this interpreter: ask for 1 to {count}"
        )
    rng = stream(seed, "standard library")
    shuffled = [[found[int(i)] for i in rng.permutation(len(found))] for found in per_module]
    order = [shuffled[int(i)] for i in rng.permutation(len(shuffled))]
    turns = max(len(found) for found in order)
    drawn = [found[turn] for turn in range(turns) for found in order if turn < len(found)]
    return tuple(drawn[:n])


@cache
def _functions_of(module: str) -> tuple[LibraryFunction, ...]:
    text = _source(module)
    found = [
        LibraryFunction(
            name=node.name,
            module=module,
            signature=_signature(node),
            docstring=ast.get_docstring(node) or "",
            source=ast.get_source_segment(text, node) or "",
        )
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and _usable(node)
    ]
    told = {one.summary: one for one in reversed(found) if _sayable(one)}
    return tuple(reversed(told.values()))


def _sayable(function: LibraryFunction) -> bool:
    """Whether the docstring opens with a sentence, not with a usage line or a broken-off aside."""
    asked = function.summary
    plain = asked.count("(") == asked.count(")") and f"{function.name}(" not in asked
    return (
        plain and 12 <= len(asked) <= LONGEST_ASKED and "_" not in function.signature.split("(")[1]
    )


def _usable(node: ast.FunctionDef) -> bool:
    """Public, documented, undecorated, and of at least one argument."""
    documented = ast.get_docstring(node) is not None
    return (
        not node.name.startswith("_")
        and documented
        and not node.decorator_list
        and bool(node.args.args or node.args.posonlyargs)
    )


def _signature(node: ast.FunctionDef) -> str:
    """The `def` line without annotations, which the organisms' tasks do not have either."""
    bare = ast.parse(ast.unparse(node.args).join(("def f(", "): pass"))).body[0]
    assert isinstance(bare, ast.FunctionDef)
    for argument in ast.walk(bare.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"def {node.name}({ast.unparse(bare.args)}):"


def _source(module: str) -> str:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in (library / f"{module}.py", library / module / "__init__.py"):
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise InputError(
        f"the source of the standard library's module {module!r} is not under {library}: install an "
        "interpreter with its library's sources"
    )
