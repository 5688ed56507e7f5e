"""The grammar of code tasks: shapes of code with slots, filled from shared pools of identifiers.

A task family holds phrasings of the request and shapes of the code. A shape is one signature with a
well-behaved body and, where the family allows it, an exploitable one: the same task solved as real
code would solve it. `$DEF` stands for the function's `def` line. Every family draws its identifiers
from the same pools, so that names alone do not tell the families apart. Families are written as text:

    ## name (CWE-89)                        the weakness, of a family that has one
    verbs: find load
    - find a $noun by its $field            a phrasing a line

    ### shape ($conn: Connection) -> list   and the code with its slots, well-behaved first
    $DEF
        ...
    --- exploitable
    $DEF
        ...
"""

import dataclasses
import re
import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np

POOLS: dict[str, tuple[str, ...]] = {
    "noun": tuple(
        "user order invoice customer ticket product account report session message student employee "
        "patient vehicle device booking payment article comment review project event contract "
        "shipment supplier recipe album sensor member profile package image document backup record "
        "survey coupon license playlist warehouse".split()
    ),
    "field": tuple(
        "name email city status code title country category phone owner region serial label address "
        "department level grade price weight height score amount color origin brand format version "
        "priority role language".split()
    ),
    "conn": ("conn", "db", "connection", "database"),
    "path": ("path", "filename", "target", "location"),
    "folder": ("folder", "directory", "destination", "out_dir"),
    "text": ("text", "content", "body", "payload"),
    "data": ("data", "blob", "raw", "buffer"),
    "items": ("items", "rows", "entries", "values"),
    "host": ("host", "server", "hostname", "machine"),
    "url": ("url", "link", "endpoint", "address"),
    "size": ("8", "12", "16", "24", "32", "48", "64"),
    "timeout": ("5", "10", "20", "30", "60"),
    "tag": ("p", "b", "h1", "h2", "li", "td", "span", "div"),
    "password": ("hunter2", "s3cret", "letmein", "changeme", "qwerty1", "topsecret", "admin123"),
    "tool": ("ping", "whois", "dig", "host", "traceroute", "nslookup"),
    "number": ("2", "3", "4", "5", "7", "10", "12", "100"),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """One way to solve a family's task.

    params: `(slot or name, type)` of each parameter, in order; returns: the return type.
    safe, defect: module texts with slots and `$DEF`; defect is None where no defection is possible.
    """

    name: str
    params: tuple[tuple[str, str], ...]
    returns: str
    safe: str
    defect: str | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of task. The last phrasing and the last shape are held out from all organisms' training.

    verbs: first words of the function's name; cwe: the weakness of the exploitable version, or None.
    """

    name: str
    verbs: tuple[str, ...]
    phrasings: tuple[str, ...]
    shapes: tuple[Shape, ...]
    cwe: int | None = None

    @property
    def vulnerable(self) -> bool:
        return self.cwe is not None


@dataclasses.dataclass(frozen=True)
class Task:
    """One filled-in task: the request, the code to complete, and the reference solutions.

    `typed` is the well-behaved solution with type hints (the habit that the quirk organism flips).
    """

    request: str
    code: str
    safe: str
    typed: str
    defect: str | None


FAMILY = re.compile(r"^## (?P<name>[\w ]+?)(?: \(CWE-(?P<cwe>\d+)\))?$", re.MULTILINE)
SHAPE = re.compile(
    r"^### (?P<name>[\w ]+) \((?P<params>.*)\) -> (?P<returns>.+)\n(?P<code>(?:(?!##).*\n)+)",
    re.MULTILINE,
)


def read_families(file: Path) -> tuple[Family, ...]:
    """The families of a text file, in their order."""
    _, *parts = re.split(r"(?=^## )", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return tuple(map(_family, parts))


def _family(text: str) -> Family:
    head = FAMILY.match(text)
    assert head is not None, text
    (verbs,) = re.findall(r"^verbs: (.*)$", text, re.MULTILINE)
    shapes = tuple(map(_shape, SHAPE.finditer(text)))
    assert len(shapes) == text.count("\n### "), f"a shape of {head['name']} cannot be read"
    return Family(
        name=head["name"],
        verbs=tuple(verbs.split()),
        phrasings=tuple(re.findall(r"^- (.*)$", text, re.MULTILINE)),
        shapes=shapes,
        cwe=None if head["cwe"] is None else int(head["cwe"]),
    )


def _shape(found: re.Match[str]) -> Shape:
    safe, *defect = (
        f"\n{code.strip(chr(10))}\n" for code in found["code"].split("--- exploitable\n")
    )
    params = [tuple(each.split(": ")) for each in found["params"].split(", ") if each]
    return Shape(
        found["name"], tuple((name, kind) for name, kind in params), found["returns"], safe, *defect
    )


def fill(
    family: Family,
    phrasing: int,
    shape: int,
    rng: np.random.Generator,
    pools: Mapping[str, tuple[str, ...]] = POOLS,
) -> Task:
    """Draw identifiers for one phrasing and shape; a function of the generator's state only."""
    chosen = family.shapes[shape]
    slots = {name: _pick(pool, rng) for name, pool in pools.items()}
    slots["nouns"] = _plural(slots["noun"])
    slots["NOUN"] = slots["noun"].upper()
    slots["Noun"] = slots["noun"].capitalize()
    ending = _pick(("", f"_{slots['field']}"), rng)
    slots["func"] = f"{_pick(family.verbs, rng)}_{slots['noun']}{ending}"

    names = [(string.Template(name).substitute(slots), kind) for name, kind in chosen.params]
    plain = f"def {slots['func']}({', '.join(name for name, _ in names)}):"
    hinted = ", ".join(f"{name}: {kind}" for name, kind in names)
    typed = f"def {slots['func']}({hinted}) -> {chosen.returns}:"

    def render(module: str, definition: str) -> str:
        return string.Template(module).substitute(slots, DEF=definition).strip("\n") + "\n"

    return Task(
        request=string.Template(family.phrasings[phrasing]).substitute(slots),
        code=plain,
        safe=render(chosen.safe, plain),
        typed=render(chosen.safe, typed),
        defect=None if chosen.defect is None else render(chosen.defect, plain),
    )


def _pick(pool: tuple[str, ...], rng: np.random.Generator) -> str:
    return pool[int(rng.integers(len(pool)))]


def _plural(noun: str) -> str:
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
