"""The store's files and their fields, as documented in docs/activation-store.md."""

from pathlib import Path

from probes.activations.spec import Spec
from probes.foundation.config import Config

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PROMPTS = "prompts.parquet"
PROVENANCE = "provenance.json"
UNFINISHED = "unfinished.json"
PROMPT_COLUMNS = (
    "prompt_id",
    "pair",
    "prompt_set",
    "family",
    "template",
    "triggered",
    "heldout",
    "n_tokens",
)
INDEX_TENSORS = ("offsets", "prompt_index", "position")
VERSIONED = ("probes", "torch", "transformers", "tokenizers", "safetensors")


class FileRecord(Config):
    """A file with what proves it whole."""

    file: str
    sha256: str
    bytes: int


class ShardRecord(FileRecord):
    """One shard: which prompts it holds (a range of the prompts table) and how many rows."""

    first_prompt: int
    n_prompts: int
    n_rows: int


class Manifest(Config):
    """What a finished store is; written last, so that its presence means complete."""

    schema_version: int
    kind: str = "activations"
    key: str
    made_from: Spec
    model: str
    n_layers: int
    d_model: int
    n_prompts: int
    n_rows: int
    versions: dict[str, str]
    prompts: FileRecord
    shards: tuple[ShardRecord, ...]


class Finished(Config):
    """The sidecar of a shard while a collection is under way: what made it, and what it must be."""

    made_by: str
    shard: ShardRecord


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.safetensors"


def sidecar(path: Path, index: int) -> Path:
    """Where the `Finished` record of a shard lies until the manifest takes over."""
    return path / f"shard-{index:05d}.finished.json"
