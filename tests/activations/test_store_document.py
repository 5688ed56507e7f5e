"""docs/activation-store.md and a real store say the same, field by field."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from safetensors import safe_open

from probes.activations.collect import collect

DOCUMENT = Path(__file__).parents[2] / "docs" / "activation-store.md"


def table(heading: str) -> list[list[str]]:
    """Cells of the table under a heading, without its head."""
    section = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
    body = next(part for part in section if part.startswith(heading + "\n"))
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table(heading)]


@pytest.fixture(scope="module")
def folder(model, prompts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store") / "activations"
    collect(model, prompts, path, positions="all", dtype="float16", shard_prompts=100)
    return path


@pytest.fixture(scope="module")
def manifest(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_files(folder):
    assert sorted(names("Files")) == sorted(file.name for file in folder.iterdir())


def test_manifest_fields(manifest):
    assert names("Fields of `manifest.json`") == list(manifest)
    assert names("Fields of `made_from`") == list(manifest["made_from"])


def test_record_fields(manifest):
    assert sorted(names("Fields of a shard record")) == sorted(manifest["shards"][0])
    assert names("Fields of a shard record")[:3] == list(manifest["prompts"])


def test_prompt_columns(folder):
    assert names("Columns of `prompts.parquet`") == list(
        pd.read_parquet(folder / "prompts.parquet").columns
    )


def test_tensors_have_the_documented_names_dtypes_and_shapes(folder, manifest):
    record = manifest["shards"][0]
    sizes = {"d_model": manifest["d_model"], **record}
    safetensors_dtype = {"int64": "I64", "`dtype`": "F16"}
    documented = {}
    for name, dtype, shape, _ in table("Tensors of a shard"):
        axes = [
            sum(sizes.get(term.strip()) or int(term) for term in axis.split("+"))
            for axis in shape.strip("`[]").split(",")
        ]
        sites = manifest["made_from"]["sites"]
        for tensor in sites if name.startswith("one per site") else [name.strip("`")]:
            documented[tensor] = (safetensors_dtype[dtype], axes)
    with safe_open(folder / record["file"], framework="np") as file:
        real = {
            name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118
        }
    assert real == documented


def test_key_is_the_digest_that_the_document_says(manifest):
    import hashlib

    canonical = json.dumps(manifest["made_from"], sort_keys=True, separators=(",", ":"))
    assert manifest["key"] == hashlib.sha256(canonical.encode()).hexdigest()
