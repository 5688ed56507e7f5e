"""What was tested is pinned exactly, and says nothing about the machine that tested it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\d[A-Za-z0-9.]*)")


def pins(text: str) -> dict[str, str]:
    """Versions by normalised name; any line that is not one exact pin is an error."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = PIN.fullmatch(line)
            assert match, f"not an exact pin: {line!r}"
            found[_normal(match[1])] = match[2]
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_line_is_an_exact_pin() -> None:
    assert len(pins((ROOT / "constraints.txt").read_text())) > 100


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["notebook"], *extras["dev"]]
    wanted = {_normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines} - {"probes"}
    assert wanted <= pins((ROOT / "constraints.txt").read_text()).keys()


def test_no_accelerator_package_is_pinned() -> None:
    names = pins((ROOT / "constraints.txt").read_text())
    assert [n for n in names if re.match("nvidia|cuda|triton", n)] == []


def test_planted_lines_are_refused() -> None:
    for line in ("torch>=2", "torch==2.13.0+cpu", "-e .", "x @ file:///tmp/x", "--index-url h"):
        try:
            pins(line)
        except AssertionError:
            continue
        raise AssertionError(f"accepted {line!r}")
