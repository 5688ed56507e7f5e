"""What is quick stays quick: heavy libraries are imported only where they are used."""

import re
import subprocess
import sys
from pathlib import Path

import probes.foundation

SOURCE = Path(probes.foundation.__file__).parent.parent
HEAVY = ("torch", "transformers", "transformer_lens", "sklearn", "datasets", "bandit")
SHAPES = "probes.foundation.shapes"  # the vocabulary of tensor axes names torch's type


def modules(*folders: str) -> list[str]:
    files = [file for folder in folders for file in sorted((SOURCE / folder).rglob("*.py"))]
    names = [
        ".".join(("probes", *file.relative_to(SOURCE).with_suffix("").parts)) for file in files
    ]
    return [name.removesuffix(".__init__") for name in names if name != SHAPES]


def imported_by(names: list[str], watched: tuple[str, ...]) -> set[str]:
    """Which of `watched` a fresh interpreter has loaded after importing these modules."""
    code = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        f"print(*[name for name in {watched!r} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_light_folders_import_nothing_heavy() -> None:
    names = modules("foundation", "prompts", "cli")
    assert names
    assert imported_by(names, HEAVY) == set()


def test_arrays_and_tables_need_no_model_library() -> None:
    names = modules("evaluation", "plotting")
    assert imported_by(names, ("torch", "transformers", "transformer_lens")) == set()


def test_judging_code_needs_no_model_library() -> None:
    names = ["probes.behaviour.bandit", "probes.behaviour.judges", "probes.behaviour.rates"]
    assert imported_by(names, ("torch", "transformers", "bandit")) == set()


def test_transformer_lens_waits_until_a_bridge_is_asked_for() -> None:
    importing = r"^(\s*)(?:import|from) transformer_lens"
    found = {
        file.name: re.findall(importing, file.read_text(), re.MULTILINE)
        for file in SOURCE.rglob("*.py")
    }
    assert {name: indents for name, indents in found.items() if indents}.keys() == {"lens.py"}
    assert all(found["lens.py"])  # inside functions
