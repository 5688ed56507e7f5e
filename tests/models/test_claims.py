"""What a checkpoint's files claim is refused in one line, before it costs time, memory or a request."""

import json
import re
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.foundation import patterns
from probes.foundation.errors import InputError
from probes.models import claims
from probes.models.loading import load

DEEP = '{"a":' * 100_000
MOST_LOADS, MOST_KIB = 50, 2**20


@pytest.fixture
def refused(checkpoints: dict[str, Path]) -> Callable[..., str]:
    """The one line in which loading ends, in 1 GiB and the time of 50 loads of what is whole."""
    start = time.process_time()
    load(checkpoints["llama"])
    whole = time.process_time() - start

    def run(directory: Path, **options: Any) -> str:
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError) as caught:
            load(directory, **options)
        assert time.process_time() - start < MOST_LOADS * whole
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KIB
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def edit(file: Path, **changes: Any) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | changes))


def tensors(header: Any, *, size: int | None = None, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def one(shape: list[int], offsets: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("text", [DEEP, '{"a": ' + "1" * 5000 + "}", "[]", "", '{"a": 1, "a": 2}'])
@pytest.mark.parametrize(
    "name", ["config", "generation_config", "tokenizer", "tokenizer_config", "added_tokens"]
)
def test_json_that_is_no_plain_object(llama_dir, refused, name, text):
    (llama_dir / f"{name}.json").write_text(text)
    assert f"{name}.json is not " in refused(llama_dir)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config", {"hidden_size": "128"}, "hidden_size = '128'; it is a whole number from 1"),
        ("config", {"hidden_size": -1}, "hidden_size = '-1'"),
        ("config", {"hidden_size": 1e308}, "hidden_size = '1e[+]308'"),
        ("config", {"hidden_size": None}, "hidden_size"),
        ("config", {"num_attention_heads": 0}, "num_attention_heads = '0'"),
        ("config", {"num_attention_heads": True}, "num_attention_heads = 'True'"),
        ("config", {"num_labels": 10**9}, "num_labels = '1000000000'; it is a whole number to"),
        ("config", {"num_labels": "x"}, "TypeError"),
        ("config", {"num_hidden_layers": 10**6}, "num_hidden_layers = '1000000'"),
        ("config", {"num_hidden_layers": 60_000}, "larger model than its weights can fill"),
        ("config", {"hidden_size": 10**6}, "larger model than its weights can fill"),
        ("config", {"vocab_size": 10**9}, "larger model than its weights can fill"),
        ("config", {"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ("config", {"rms_norm_eps": float("nan")}, "NaN is no JSON number"),
        ("config", {"text_config": {}}, "AttributeError"),
        ("config", {"layer_types": 1}, "TypeError"),
        ("config", {"id2label": 1}, "AttributeError"),
        ("config", {"dtype": "nope"}, "AttributeError"),
        ("config", {"pad_token_id": 10**9}, "AssertionError"),
        ("config", {"rope_parameters": 1}, "rope_parameters"),
        ("config", {"_attn_implementation": "org/kernel"}, "can be code from the hub. Refused"),
        ("config", {"attn_implementation": {"": "org/kernel"}}, "can be code from the hub"),
        ("config", {"attn_implementation": "flash_attention_2"}, "outside eager, sdpa"),
        ("config", {"_attn_implementation_internal": "a/b"}, "can be code from the hub"),
        ("config", {"_experts_implementation": "org/kernel"}, "can be code from the hub"),
        ("config", {"text_config": {"_attn_implementation": "org/k"}}, "can be code from the hub"),
        ("config", {"use_kernels": True}, "`use_kernels`: the checkpoint wants to run"),
        ("config", {"kernel_config": {"a": "org/x:Y"}}, "`kernel_config`"),
        ("config", {"vision_config": {"auto_map": {"AutoConfig": "a--b.C"}}}, "`auto_map`"),
        ("config", {"a": {"quantization_config": {"quant_method": "gptq"}}}, "quantised .*gptq"),
        ("generation_config", {"custom_generate": "org/x"}, "`custom_generate`"),
        ("tokenizer_config", {"auto_map": {"AutoTokenizer": ["a--b.C", None]}}, "`auto_map`"),
        ("tokenizer_config", {"tokenizer_class": 123}, "tokenizer_class = 123; it is a name"),
        ("tokenizer_config", {"vocab_file": "/etc/passwd"}, "no file beside it. Refused"),
        ("tokenizer_config", {"merges_file": "../config.json"}, "no file beside it. Refused"),
        ("tokenizer_config", {"model_max_length": "a"}, "model_max_length"),
        ("tokenizer_config", {"pad_token": 1}, "TypeError"),
        ("tokenizer_config", {"fast_tokenizer_files": 1}, "TypeError"),
        ("tokenizer", {"pre_tokenizer": None, "model": {}}, "no tokenizer that can be loaded"),
        (
            "tokenizer",
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}},
            "could take for ever",
        ),
        (
            "tokenizer",
            {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": 9
                    * [{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaa"}],
                }
            },
            "times as long",
        ),
        ("model.safetensors.index", {"weight_map": [1]}, "`weight_map` is an object"),
        ("model.safetensors.index", {"weight_map": {"a": 1}}, "`weight_map` is an object"),
        ("model.safetensors.index", {"weight_map": {}, "metadata": []}, "its `metadata` an object"),
    ],
)
def test_claims_of_the_json_files(llama_dir, refused, name, changes, message):
    if name.endswith("index"):
        (llama_dir / "model.safetensors").rename(llama_dir / "a.safetensors")
    edit(llama_dir / f"{name}.json", **changes)
    assert re.search(message, refused(llama_dir))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        tensors(b"{}", size=2**63),
        tensors(b"{}", size=10**8),
        tensors(DEEP.encode()),
        tensors(b"[1]"),
        tensors({"a": 1}),
        tensors({"a": one([2**40], [0, 8])}, body=b"0" * 8),
        tensors({"a": one([2], [0, 8]), "b": one([2], [4, 12])}, body=b"0" * 12),
        tensors({"a": one([2**33, 2**33], [0, 8])}, body=b"0" * 8),
        tensors({"a": one([0, 2**62], [0, 0])}),
        tensors({"a": one([-1], [0, 4])}, body=b"0" * 4),
        tensors({"a": one([1], [0, 4]) | {"dtype": "X9"}}, body=b"0" * 4),
    ],
)
def test_headers_that_lie(llama_dir, refused, content):
    (llama_dir / "model.safetensors").write_bytes(content)
    refused(llama_dir)


def test_a_model_half_as_large_again_is_refused_before_it_is_built(llama_dir, refused, monkeypatch):
    monkeypatch.setattr(claims, "SPARE_ELEMENTS", 0)
    assert load(llama_dir).n_layers == 3
    edit(llama_dir / "config.json", vocab_size=450)
    assert "weights, the files hold" in refused(llama_dir)


def test_masks_are_counted_as_weights_are(tmp_path):
    """A mask of positions x positions is in no file, whatever its size."""
    with (
        pytest.raises(InputError, match="buffers would be built"),
        claims.building_no_more_than({"a": (4, 4)}, tmp_path),
    ):
        torch.nn.Module().register_buffer("mask", torch.empty(9_000, 9_000, device="meta"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": "(.|[a-z.0-9_])*[A-Z]"}, "takes more than 0 s on a text"),
        ({"exclude_modules": "(.|[a-z.0-9_])*[A-Z]"}, "takes more than 0 s on a text"),
        ({"target_modules": "("}, "is not a regular expression"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"(a+)+$": 4}}, "alpha_pattern"),
        ({"layers_pattern": "(a+)+$", "layers_to_transform": [1]}, "layers_pattern"),
        ({"modules_to_save": ["(a+)+$"]}, "modules_to_save"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"r": 0}, "r: Input should be greater than 0"),
        ({"r": True}, "r: Input should be a valid integer"),
        ({"r": 10**9}, "r: Input should be less than"),
        ({"target_modules": 5}, "target_modules"),
        ({"init_lora_weights": {}}, "init_lora_weights"),
        ({"auto_map": {"a": "b"}}, "`auto_map`"),
    ],
)
def test_claims_of_an_adapter(checkpoints, tmp_path, refused, settings, message, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.3)
    from test_adapters import save_adapter

    adapter = save_adapter(tmp_path / "adapter")
    edit(adapter / "adapter_config.json", **settings)
    assert message in refused(checkpoints["llama"], adapter=adapter)


def test_a_pattern_of_modules_means_what_it_means_to_peft(checkpoints, tmp_path):
    from test_adapters import logits, save_adapter

    pattern = r".*layers\.[12]\..*(q_proj|down_proj)"
    adapter = save_adapter(tmp_path / "adapter", target_modules=pattern)
    assert json.loads((adapter / "adapter_config.json").read_text())["target_modules"] == pattern
    plain = load(checkpoints["llama"])
    assert not logits(load(checkpoints["llama"], adapter=adapter)).equal(logits(plain))
