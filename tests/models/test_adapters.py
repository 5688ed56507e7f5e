"""A merged adapter is W + (alpha / r) B A with a digest of its own; what could harm is refused."""

import json
import math
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import random_model

from probes.foundation.errors import InputError
from probes.models import forward
from probes.models.encoding import pad
from probes.models.loading import Model, load, load_from
from shell import run_cli

RANK, ALPHA = 4, 12
BATCH = pad([list(range(5, 25)), list(range(40, 47))], pad_id=1)


def save_adapter(folder: Path, base: str = "llama", seed: int = 1, **settings: object) -> Path:
    """An adapter of random numbers, as peft saves it."""
    given = {
        "target_modules": ["q_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
    }
    adapted = peft.get_peft_model(random_model(base), peft.LoraConfig(**(given | settings)))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.copy_(0.2 * torch.randn_like(value))
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapters") / "evil")


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "evil"))


@pytest.fixture
def change(adapter: Path) -> Callable[..., Path]:
    def write(**settings: object) -> Path:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        return adapter

    return write


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return forward.logits(model.hf, BATCH)


@pytest.mark.parametrize(
    ("rslora", "scale"), [(False, ALPHA / RANK), (True, ALPHA / math.sqrt(RANK))]
)
def test_merged_weights_are_the_sum(checkpoints, tmp_path, rslora, scale):
    adapter = save_adapter(tmp_path / "lora", use_rslora=rslora)
    merged = load(checkpoints["llama"], adapter=adapter).hf.state_dict()
    base = load_file(checkpoints["llama"] / "model.safetensors")
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert merged.keys() == base.keys()
    changed = set()
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in tensors:
            a, b = (tensors[f"{stem}.lora_{part}.weight"].double() for part in "AB")
            expected = weight.double() + scale * b @ a
            torch.testing.assert_close(merged[name].double(), expected, rtol=0, atol=1e-6)
            changed.add(name.split(".")[-2])
        else:
            assert torch.equal(merged[name], weight)
    assert changed == {"q_proj", "down_proj"}


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        ("gpt2", {"target_modules": ["c_attn", "c_proj"]}),
        ("mixtral", {"target_modules": "all-linear"}),
        ("llama", {"use_dora": True}),
        ("llama", {"modules_to_save": ["lm_head"]}),
    ],
)
@pytest.mark.filterwarnings("ignore::Warning:peft")
def test_a_merged_model_computes_what_the_adapted_one_does(checkpoints, tmp_path, base, settings):
    adapter = save_adapter(tmp_path / "lora", base, **settings)
    hf = random_model(base)
    plain = hf(**forward.inputs(hf, BATCH)).logits.detach()
    adapted = peft.PeftModel.from_pretrained(hf, adapter).eval()
    expected = adapted(**forward.inputs(hf, BATCH)).logits.detach()
    assert (expected - plain).abs().max() > 0.1 * plain.abs().max()
    merged = logits(load(checkpoints[base], adapter=adapter))
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_merged_model_is_a_plain_one(checkpoints, adapter, llama):
    before = torch.get_rng_state()
    model = load(checkpoints["llama"], adapter=adapter)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.name == "llama+evil"
    assert load(checkpoints["llama"], adapter=adapter, label="own").name == "own"
    assert type(model.hf) is type(llama.hf)
    assert not any("peft" in type(module).__module__ for module in model.hf.modules())
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert not model.hf.training
    half = load(checkpoints["llama"], adapter=adapter, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.weights_digest == model.weights_digest
    seen, expected = logits(half).float(), logits(model)
    assert (seen - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_merged_model_is_spread_and_quantised_like_any_other(checkpoints, adapter):
    whole = load(checkpoints["llama"], adapter=adapter)
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    places |= {"lm_head": "disk", "model.layers": "disk"}
    spread = load(checkpoints["llama"], adapter=adapter, device_map=places)
    torch.testing.assert_close(logits(spread), logits(whole), rtol=0, atol=1e-5)
    small = load(checkpoints["llama"], adapter=adapter, quantization="8bit")
    error = (logits(small) - logits(whole)).abs().max() / logits(whole).abs().max()
    base = load(checkpoints["llama"])
    distance = (logits(base) - logits(whole)).abs().max() / logits(whole).abs().max()
    assert 1e-3 < error < distance / 2
    assert spread.weights_digest == small.weights_digest == whole.weights_digest


def test_the_digest_is_of_base_and_adapter_and_of_what_decides_the_numbers(
    checkpoints, adapter, change, llama, tmp_path
):
    def digest(directory: Path) -> str:
        return load(checkpoints["llama"], adapter=directory).weights_digest

    first = digest(adapter)
    assert first != llama.weights_digest
    assert digest(change(base_model_name_or_path="elsewhere", revision="x")) == first
    for order in (["down_proj", "q_proj"], ["q_proj", "down_proj"]):
        assert digest(change(target_modules=order)) == first
    assert digest(change(lora_alpha=ALPHA + 1)) != first
    change(lora_alpha=ALPHA)
    assert digest(adapter) == first
    save_adapter(adapter, seed=2)  # another adapter at the same path
    assert digest(adapter) != first
    moved = shutil.copytree(checkpoints["llama"], tmp_path / "base")
    tensors = load_file(moved / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, moved / "model.safetensors", metadata={"format": "pt"})
    assert load(moved, adapter=adapter).weights_digest not in (first, digest(adapter))


def test_an_adapter_is_a_model_whose_base_it_names(checkpoints, change):
    """By its folder alone, its base named from here or from the adapter, and as BASE+ADAPTER."""
    base = checkpoints["llama"]
    both = load(base, adapter=change())
    beside = os.path.relpath(base, change())
    for adapter in (f"{base}+{change()}", change(base_model_name_or_path=str(base))):
        found = load(adapter)
        assert (found.digest, found.name) == (both.digest, "llama+evil")
    assert load(change(base_model_name_or_path=beside)).digest == both.digest
    with pytest.raises(
        InputError, match=r"is an adapter of 'gone': no model at 'gone'.*BASE\+ADAPTER"
    ):
        load(change(base_model_name_or_path="gone"))
    with pytest.raises(InputError, match=r"of 'else/where': no model.*the hub.*BASE\+ADAPTER"):
        load(change(base_model_name_or_path="else/where"))
    with pytest.raises(InputError, match="is an adapter already"):
        load(change(base_model_name_or_path=str(base)), adapter=change())


def test_every_verb_takes_an_adapter(checkpoints, change, tmp_path):
    (tmp_path / "p.txt").write_text("Hi\n")
    how = ["--prompts", tmp_path / "p.txt", "--judge", "says:x", "--max-new-tokens", 1]
    base, adapter = checkpoints["llama"], change(base_model_name_or_path="elsewhere/base")
    for words in ([base, "--adapter", adapter], [f"{base}+{adapter}", "--threads", 1]):
        ended = run_cli(["evaluate", *words, *how])
        assert ended.code == 0 and "llama+evil" in ended.out, ended.err
    ended = run_cli(["evaluate", base, *how, "--adapter", "gone"])
    assert ended.code == 2 and "no model at 'gone'" in ended.err


def test_another_process_would_load_the_same_or_nothing(checkpoints, adapter):
    model = load(checkpoints["llama"], adapter=adapter)
    again = load_from(model.source, model.identity)
    assert again.name == model.name
    assert torch.equal(logits(again), logits(model))
    save_adapter(adapter, seed=3)
    with pytest.raises(InputError, match=f"here {model.weights_digest[:12]}"):
        load_from(model.source, model.identity)


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "optimizer.pt"])
def test_pickles_are_refused(checkpoints, adapter, name):
    (adapter / name).write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match=f"pickled files.*{name}"):
        load(checkpoints["llama"], adapter=adapter)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"auto_mapping": {"base_model_class": "M", "parent_library": "os"}}, "names Python code"),
        ({"megatron_config": {"a": 1}}, "'megatron_config'"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "'layer_replication'"),
        ({"alora_invocation_tokens": [1]}, "'alora_invocation_tokens'"),
        ({"from_a_later_peft": 0.5}, "'from_a_later_peft'"),
        ({"peft_type": "PROMPT_TUNING"}, "only LORA"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"r": 8}, "does not fit"),
        ({"target_modules": ["nowhere"]}, "does not fit"),
        ({"target_modules": ["q_proj"]}, "have no place.*down_proj"),
        ({"target_modules": ["q_proj", "down_proj", "k_proj"]}, "it lacks.*k_proj"),
        ({"r": "many"}, "r: Input should be a valid integer"),
    ],
)
def test_what_cannot_be_merged_is_refused(checkpoints, change, settings, match):
    with pytest.raises(InputError, match=match):
        load(checkpoints["llama"], adapter=change(**settings))


@pytest.mark.filterwarnings("ignore::UserWarning:peft")  # of peft as it saves
def test_an_adapter_of_another_base_is_refused(checkpoints, tmp_path, adapter):
    with pytest.raises(InputError, match="does not fit its base model"):
        load(checkpoints["gpt2"], adapter=adapter)
    shared = save_adapter(tmp_path / "shared", "gemma2", target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(InputError, match="shared with the unembedding"):
        load(checkpoints["gemma2"], adapter=shared)


def test_incomplete_and_misplaced_adapters_are_refused(checkpoints, adapter, llama_dir):
    with pytest.raises(InputError, match=r"adapter that does not say of which model"):
        load(adapter)
    shutil.copy(adapter / "adapter_config.json", llama_dir)
    with pytest.raises(InputError, match=r"holds an adapter.*as `adapter`"):
        load(llama_dir)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no adapter_model\.safetensors"):
        load(checkpoints["llama"], adapter=adapter)
    with pytest.raises(InputError, match=r"has no adapter_config\.json"):
        load(checkpoints["llama"], adapter=checkpoints["llama"])


def test_without_peft_the_command_that_mends_it_is_named(checkpoints, adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r'pip install "probes\[peft\]"'):
        load(checkpoints["llama"], adapter=adapter)
