"""Names say what is inside, and the README's file tree is the one on disk."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "probes"
README = ROOT / "README.md"
NAMELESS = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
MARK = "<!-- tree -->"


def named_paths(readme: str) -> list[str]:
    """Paths in the fenced tree between the two marks: `name  purpose` lines, nested by indentation."""
    parts = readme.split(MARK)
    assert len(parts) == 3, f"the README needs its file tree between two {MARK} marks"
    fence = re.search(r"```\w*\n(.*?)```", parts[1], re.DOTALL)
    assert fence, "the file tree needs a fence of three backticks"
    paths: list[str] = []
    open_folders: list[tuple[int, str]] = []
    for line in fence.group(1).splitlines():
        bare = re.sub("[│├└─]", " ", line)
        if not bare.strip():
            continue
        depth, name = len(bare) - len(bare.lstrip()), bare.split()[0]
        while open_folders and open_folders[-1][0] >= depth:
            open_folders.pop()
        path = (open_folders[-1][1] if open_folders else "") + name
        paths.append(path)
        if name.endswith("/"):
            open_folders.append((depth, path))
    return paths


def tree_faults(readme: str, root: Path) -> list[str]:
    """Paths that the tree names and nobody has, and folders of the package that it leaves out."""
    named = named_paths(readme)
    faults = [f"named, but absent: {path}" for path in named if not (root / path).exists()]
    folders = {f"src/probes/{p.parent.name}/" for p in (root / "src/probes").glob("*/__init__.py")}
    return faults + [f"not named: {folder}" for folder in sorted(folders - set(named))]


def test_no_module_is_called_after_nothing() -> None:
    assert [str(f) for f in PACKAGE.rglob("*.py") if f.name in NAMELESS] == []


def test_every_module_says_why_in_its_first_line() -> None:
    files = [f for f in PACKAGE.rglob("*.py") if f.read_text().strip()]
    assert [str(f) for f in files if not f.read_text().startswith(('"""', 'r"""'))] == []


def test_the_readme_shows_the_tree_on_disk() -> None:
    for readme in ROOT.glob("README.md"):
        assert tree_faults(readme.read_text(), ROOT) == []


TREE = f"""# Title
{MARK}
```
src/probes/
  foundation/   digests
    digest.py   one file
  models/       loading
tests/          claims
```
{MARK}
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    for folder in ("foundation", "models"):
        (tmp_path / "src/probes" / folder).mkdir(parents=True)
        (tmp_path / "src/probes" / folder / "__init__.py").touch()
    (tmp_path / "src/probes/foundation/digest.py").write_text("x = 1\n")
    (tmp_path / "tests").mkdir()
    return tmp_path


def test_a_right_tree_has_no_faults(planted: Path) -> None:
    assert tree_faults(TREE, planted) == []
    drawn = TREE.replace("  foundation", "├── foundation").replace("    digest", "│   └── digest")
    assert tree_faults(drawn.replace("  models", "└── models"), planted) == []


def test_each_planted_fault_of_a_tree_is_found(planted: Path) -> None:
    (planted / "src/probes/probing").mkdir()
    (planted / "src/probes/probing/__init__.py").touch()
    assert tree_faults(TREE, planted) == ["not named: src/probes/probing/"]
    (planted / "src/probes/foundation/digest.py").unlink()
    absent = "named, but absent: src/probes/foundation/digest.py"
    assert tree_faults(TREE, planted) == [absent, "not named: src/probes/probing/"]
    with pytest.raises(AssertionError, match="between two"):
        tree_faults("# Title\n", planted)
