"""What README and docs/ say is so: their code runs, their commands exist, their tables name every column."""

import csv
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("*/*.md"))]
RUN = re.compile(
    r"(?:<!--\s*(?P<mark>run|not run)\b[^>]*-->\s*)?^```(?P<kind>python|sh)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def scripts(text: str) -> list[tuple[str, str]]:
    """The page's blocks that are run, in order: Python unless marked `not run`, shell if marked `run`."""
    return [
        (found["kind"], found["code"])
        for found in RUN.finditer(text)
        if (found["mark"] != "not run" if found["kind"] == "python" else found["mark"] == "run")
    ]


def as_program(blocks: list[tuple[str, str]]) -> str:
    """One Python program that runs the blocks; shell as one script each, which must end with 0."""
    lines = ["import subprocess"]
    for kind, code in blocks:
        if kind == "python":
            lines.append(f"exec(compile({code!r}, 'a block of the page', 'exec'))")
        else:
            lines.append(f"subprocess.run(['bash', '-euc', {code!r}], check=True)")
    return "\n".join(lines)


def run_page(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks in an empty folder in which only the shipped files are."""
    for name in ("checkpoints", "examples", "recipes"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", as_program(scripts(page.read_text()))],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


RUNNABLE = [
    pytest.param(
        page,
        id=name_of(page),
        marks=[] if page.name == "README.md" else [pytest.mark.slow],
    )
    for page in PAGES
    if scripts(page.read_text())
]


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    done = run_page(page, tmp_path)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_a_page_with_a_fault_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\ntext\n<!-- run -->\n```sh\nfalse\n```\n")
    assert scripts(page.read_text()) == [("python", "x = 1\n"), ("sh", "false\n")]
    assert subprocess.run([sys.executable, "-c", as_program([("sh", "false\n")])]).returncode != 0
    assert scripts("<!-- not run: slow -->\n```python\n1/0\n```\n```sh\nrm x\n```\n") == []


COMMAND = re.compile(r"^(?:\$ )?probes ((?:.*\\\n)*.*)$", re.MULTILINE)


def commands() -> dict[str, list[tuple[str, str]]]:
    """Verb -> (page, option) for every `probes VERB ...` line in a block of shell; "" for no option."""
    found: dict[str, list[tuple[str, str]]] = {}
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in COMMAND.findall(block):
                words = re.sub(r"\s#.*|\\\n|'[^']*'|\"[^\"]*\"", " ", line).split()
                deep = 2 if words[0] in ("store", "bench") else 1
                rows = found.setdefault(" ".join(words[:deep]), [])
                rows.append((name_of(page), ""))
                rows += [(name_of(page), w) for w in words[deep:] if w.startswith("--")]
    return found


@pytest.mark.parametrize("verb", sorted(commands()))
def test_a_command_exists_with_its_options(verb: str) -> None:
    program = [sys.executable, "-c", "from probes.cli.main import main; main()"]
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run(
        [*program, *verb.split(), "--help"], env=environment, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    unknown = {
        (page, option)
        for page, option in commands()[verb]
        if option and not re.search(rf"(?<![\w-]){option}(?![\w-])", said.stdout)
    }
    assert unknown == set()


def written_columns() -> set[str]:
    """Columns of every shipped table, and of those that commands write."""
    from probes.activations.reading import ROW_COLUMNS
    from probes.behaviour import completion, rates
    from probes.organisms import measurement

    shipped = {
        name
        for file in (ROOT / "figures").rglob("*.csv")
        for name in next(csv.reader(file.read_text().splitlines()))
    }
    own = {*completion.COLUMNS, *rates.COLUMNS, *measurement.COLUMNS, *ROW_COLUMNS}
    return shipped | own | {"alarm"}


def test_every_column_is_explained_and_no_other() -> None:
    page = (DOCS / "reference/columns.md").read_text()
    heads = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    explained = [name for head in heads for name in re.findall(r"`([^`]+)`", head)]
    assert len(explained) == len(set(explained)), "a column is explained twice"
    assert set(explained) == written_columns()


OLD_FIGURES = {
    "studies/evasion.md": "figures/evasion",
    "studies/dose-response.md": "figures/doses",
    "studies/localisation.md": "figures/where",
}


@pytest.mark.parametrize("page", OLD_FIGURES)
def test_pages_with_old_figures_warn(page: str) -> None:
    """Until new ones replace them."""
    text = (DOCS / page).read_text()
    assert ":::{warning}" in text.split("\n## ")[0]
    assert OLD_FIGURES.get(page, "") in text


@pytest.fixture(scope="module")
def links():
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield importlib.import_module("local_links")
    finally:
        sys.path.remove(str(DOCS / "_ext"))


def test_links_that_lead_nowhere_are_found(links, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="deep/b.html#there">b</a>')
    page = tmp_path / "deep" / "b.html"
    page.write_text(
        '<h1 id="there">B</h1><a href="../a.html#top">a</a><a href="https://x.org">x</a>'
    )
    assert links.broken(tmp_path) == [] == links.from_elsewhere(tmp_path)
    page.write_text(
        '<a href="../a.html#gone">a</a><img src="c.png"><a href="../../d.html">d</a>'
        '<script src="https://x.org/y.js"></script>'
    )
    assert links.broken(tmp_path) == [
        "a.html: deep/b.html#there",
        "deep/b.html: ../../d.html",
        "deep/b.html: ../a.html#gone",
        "deep/b.html: c.png",
    ]
    assert links.from_elsewhere(tmp_path) == ["deep/b.html: https://x.org/y.js"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Warnings, links that lead nowhere and pages that fetch from elsewhere are errors."""
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", DOCS, ROOT, tmp_path / "site"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    line = (tmp_path / "site/docs/reference/command-line.html").read_text()
    assert 'id="store-verify"' in line and "probes collect" in line
    api = (tmp_path / "site/docs/reference/python.html").read_text()
    assert 'id="probes.api.collect"' in api and "Activations.matrix" in api
