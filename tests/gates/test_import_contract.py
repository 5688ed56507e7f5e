"""Imports run down the way of the data, and the contract that says so can fail."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import probes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "probes"
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]

PLANTED = {
    "foundation/digest.py": "import probes.evaluation.auroc",  # upward
    "probing/estimators.py": "import probes.patching.exact",  # sideways
    "plotting/style.py": "import probes.prompts.records",  # beside the arrays and tables
    "patching/pairs.py": "import transformer_lens",  # past the one importer
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*LINT, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": search, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contract_is_kept() -> None:
    out = lint(ROOT)
    assert out.returncode == 0, out.stdout + out.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", out.stdout)


def test_the_contract_finds_each_planted_import(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "src" / "probes")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, line in PLANTED.items():
        file = tmp_path / "src" / "probes" / name
        file.write_text(f"{file.read_text()}\n{line}\n")
    out = lint(tmp_path)
    assert out.returncode != 0
    assert "0 kept, 3 broken" in out.stdout, out.stdout + out.stderr
    for name, line in PLANTED.items():
        importer = "probes." + name.removesuffix(".py").replace("/", ".")
        assert f"{importer} -> {line.removeprefix('import ')}" in out.stdout


def test_every_folder_has_its_layer() -> None:
    """A package that no layer names would escape the contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    assert named == {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"api"}


def test_the_tests_read_this_very_package() -> None:
    if not PACKAGE.samefile(Path(probes.__file__).parent):
        pytest.fail(f"another probes is installed: {probes.__file__}")
