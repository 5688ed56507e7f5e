"""A slip in an argument is answered before the heavy libraries are loaded, in one line, with status 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shell import processor_time

PROBES = str(Path(sys.executable).with_name("probes"))
MODEL, PROMPTS = ["gone/model/x"], ["--prompts", "gone.jsonl"]
OUT = ["--out", "new"]
SLIPS = {
    "demo": ["--family", "gone"],
    "report": ["gone"],
    "study": ["--preset", "tinny"],
    "study own model": ["--model", *MODEL, "--prompts", "there.jsonl"],
    "study own prompts": ["--model", "there", *PROMPTS],
    "study own twin": ["--model", "there", "--prompts", "there.jsonl", "--twin", "base=gone/x/y"],
    "detect": [*MODEL, "--prompts", "there.jsonl"],
    "detect prompts": ["there", *PROMPTS],
    "audit": MODEL,
    "audit benign": ["there", "--benign", "gone.jsonl"],
    "train": ["--preset", "tinny"],
    "organism": ["gone.json"],
    "organism base": ["there.jsonl", "--base", "gone"],
    "persistence": ["--preset", "tinny"],
    "persistence config": ["--config", "gone.json"],
    "every-probe": ["--preset", "tinny"],
    "evade": ["gone.json"],
    "dose-response": ["--recipe", "gone.json"],
    "localise": [*OUT, "--family", "gone"],
    "evaluate": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "evaluate prompts": ["there", *PROMPTS, *OUT],
    "collect": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "collect adapter": ["there", "--prompts", "there.jsonl", *OUT, "--adapter", "gone"],
    "probe": ["gone", "--model", "there", "--behaviour", "there", "--prompts", "there.jsonl", *OUT],
    "contrast": ["there", *PROMPTS, "--behaviour", "there", *OUT],
    "monitor": ["there", "--direction", "gone", *PROMPTS, "--benign", "there.jsonl", *OUT],
    "patch": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "steer": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "attribute": [*MODEL, "--prompts", "there.jsonl", *OUT, "--kind", "resid_post"],
    "paths": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "lens": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "circuit": [*MODEL, "--prompts", "there.jsonl", *OUT],
    "doctor": MODEL,
    "export": ["gone", *OUT],
    "base": ["smollm2", *OUT, "--wheel", "gone"],
    "store verify": ["gone"],
    "store ls": ["gone"],
    "store gc": ["gone"],
    "store merge": ["new", "gone", "there"],
    "store push": ["gone", "memory://x"],
    "store repair": ["gone", "--model", "there"],
}
CODE = """
import json, sys
from probes.cli import main
from probes.foundation.errors import ProbesError
found = {}
for name, arguments in json.loads(sys.argv[1]).items():
    try:
        main.call(arguments)
        found[name] = "no error"
    except ProbesError as error:
        found[name] = str(error)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
    heavy = [m for m in ("torch", "transformers", "pandas", "pyarrow", "sklearn") if m in sys.modules]
    if heavy:
        found[name] = f"{heavy} loaded: {found[name]}"
        break
print(json.dumps(found))
"""


def commands() -> set[str]:
    from probes.cli.main import GROUPS, SUBS

    alone = {verb.replace("_", "-") for verbs in GROUPS.values() for verb in verbs.split()}
    return alone | {f"{name} {sub}" for name, (_, subs) in SUBS.items() for sub in subs.split()}


def test_every_verb_refuses_what_is_not_there_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there.jsonl").write_text("{}")
    lines = {
        name: [*name.split()[: 2 if name.startswith("store") else 1], *arguments]
        for name, arguments in SLIPS.items()
    }
    # Benchmarks and the zoo make what they measure; these two take URLs, which are not asked for before.
    assert {" ".join(line[: 2 if line[0] == "store" else 1]) for line in lines.values()} == {
        name for name in commands() if not name.startswith("bench")
    } - {"store export", "store fetch", "zoo"}
    out = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(lines)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    for name, said in json.loads(out.stdout).items():
        word = "tinny" if "tinny" in SLIPS[name] else "gone"
        assert word in said and "\n" not in said, (name, said)
        assert said.startswith(("no model at", "there is no file or folder", "unknown preset")), (
            said
        )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["doctor", "gone"], 2), (["study", "--preset", "tinny"], 2), (["lens", "--nope"], 2), (["--help"], 0)],
)  # fmt: skip
def test_the_answer_comes_before_torch_could_be_loaded(arguments: list[str], status: int) -> None:
    took, out = processor_time([PROBES, *arguments])
    assert (out.returncode, out.stderr.count("\n")) == (status, status == 2), out.stderr
    assert took < 5  # torch alone takes 16
