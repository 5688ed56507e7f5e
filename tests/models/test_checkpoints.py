"""Unsafe and incomplete checkpoints are refused; digests follow content and nothing else."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from probes.foundation.digest import digest_tensors
from probes.foundation.errors import InputError
from probes.models.address import resolve
from probes.models.checkpoints import check_safe, template_digest, tokenizer_digest, weights_digest
from probes.models.loading import load


class Bomb:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "training_args.bin", "model.pt", "weights.PTH", "x.ckpt", "y.pkl"]
)
def test_pickles_are_refused_by_name_and_never_opened(llama_dir, name, capsys):
    (llama_dir / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=f"{name}.*save_pretrained") as refused:
        load(llama_dir)
    assert "Refused" in str(refused.value)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_without_safetensors_is_refused(llama_dir):
    (llama_dir / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no safetensors"):
        load(llama_dir)
    (llama_dir / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        load(llama_dir)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(llama_dir, file):
    settings = json.loads((llama_dir / file).read_text())
    settings["auto_map"] = {"AutoModelForCausalLM": "own--code.Model"}
    (llama_dir / file).write_text(json.dumps(settings))
    with pytest.raises(InputError, match="auto_map"):
        load(llama_dir)


def test_a_name_that_is_neither_says_what_was_tried(tmp_path, monkeypatch):
    for name in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c", "gpt2", "~/x", tmp_path / "no"):
        with pytest.raises(InputError, match="no such directory, and it is not a hub id in full"):
            resolve(name)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        resolve(str(tmp_path / "file"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no such directory here, and the hub did not give it"):
        resolve("organisation/no-such-model")


@pytest.mark.parametrize("name", ["checkpoints/year-cod", Path("org/model"), "year-code", "a/b c"])
def test_a_mistyped_folder_is_never_looked_up_on_the_hub(tmp_path, monkeypatch, capsys, name):
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/year-code").mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError) as caught:
        resolve(name)
    if str(name).startswith("checkpoints"):
        assert "Did you mean 'checkpoints/year-code'?" in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("offline", ["", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_hub_is_announced_before_it_is_asked_and_not_asked_offline(
    monkeypatch, capsys, offline, tmp_path
):
    import huggingface_hub

    said = []

    def snapshot(name, *, local_files_only, **_):
        said.append((capsys.readouterr().err, local_files_only))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline == "HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1" if offline == "TRANSFORMERS_OFFLINE" else "0")
    assert resolve("organisation/model") == tmp_path
    ((line, local),) = said
    assert local == bool(offline)
    assert (line.count("\n"), "asking https://huggingface.co" in line) == (
        (0, False) if offline else (1, True)
    )


def test_the_hub_is_asked_for_no_pickle(checkpoints, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    def snapshot(name, *, allow_patterns, ignore_patterns, local_files_only):
        asked[name] = set(
            filter_repo_objects(
                offered, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return str(checkpoints["llama"])

    offered = [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "chat_template.jinja",
        "pytorch_model.bin",
        "tokenizer.pkl",
        "tf_model.h5",
        "modeling_own.py",
    ]
    asked: dict[str, set[str]] = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load("organisation/model").name == "organisation/model"
    assert asked == {"organisation/model": set(offered[:6])}


def test_weights_digest_is_that_of_the_tensors_and_not_of_the_files(llama, llama_dir):
    digest = weights_digest(llama_dir)
    tensors = load_file(llama_dir / "model.safetensors")
    assert digest == digest_tensors(tensors) == llama.weights_digest
    (llama_dir / "model.safetensors").unlink()
    llama.hf.save_pretrained(llama_dir, max_shard_size="20KB")
    assert len(list(llama_dir.glob("model-*.safetensors"))) > 2
    check_safe(llama_dir)
    assert weights_digest(llama_dir) == digest
    assert load(llama_dir).weights_digest == digest


def test_weights_digest_sees_a_resaved_model_one_number_and_one_dtype(llama_dir):
    digest = weights_digest(llama_dir)
    tensors = load_file(llama_dir / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] += 1e-3
    save_file(tensors, llama_dir / "model.safetensors", metadata={"format": "pt"})
    changed = weights_digest(llama_dir)
    halved = {key: value.half() for key, value in tensors.items()}
    save_file(halved, llama_dir / "model.safetensors", metadata={"format": "pt"})
    assert len({digest, changed, weights_digest(llama_dir)}) == 3


def test_damaged_and_missing_shards_are_named(llama, llama_dir):
    weights = llama_dir / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load(llama_dir)
    weights.unlink()
    llama.hf.save_pretrained(llama_dir, max_shard_size="20KB")
    shard = sorted(llama_dir.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"lacks shards .*{shard.name}"):
        load(llama_dir)
    index = llama_dir / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(InputError, match="cannot be shards"):
        weights_digest(llama_dir)


def test_missing_weights_are_not_filled_with_random_numbers(llama_dir):
    tensors = load_file(llama_dir / "model.safetensors")
    removed = next(name for name in tensors if "layers.1.mlp.up_proj" in name)
    tensors.pop(removed)
    save_file(tensors, llama_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"filled with random numbers: {removed}"):
        load(llama_dir)


def test_tokenizer_digest_follows_the_rules_and_not_the_use(fresh, tokenizer):
    digest = tokenizer_digest(tokenizer)
    fresh(["a", "longer"], padding=True, truncation=True, max_length=3)
    assert tokenizer_digest(fresh) == digest
    fresh.add_tokens(["<new>"])
    assert tokenizer_digest(fresh) != digest


def test_template_digest(fresh):
    assert template_digest(fresh) is None
    fresh.chat_template = "{{ messages }}"
    first = template_digest(fresh)
    fresh.chat_template = "{{ messages }} "
    assert first not in (None, template_digest(fresh))


def test_loading_says_what_is_wrong(llama_dir):
    with pytest.raises(InputError, match="unknown device 'cuda:99'"):
        load(llama_dir, device="cuda:99")
    with pytest.raises(InputError, match="Choose one of: float32"):
        load(llama_dir, dtype=torch.float64)
    for file in llama_dir.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="no tokenizer that can be loaded"):
        load(llama_dir)


def test_a_loaded_model_shows_itself(llama, llama_dir, tmp_path):
    assert "layers=3, d_model=32" in repr(llama)
    assert "<td>47,072</td>" in llama._repr_html_()
    assert llama.name == "llama"
    assert load(llama_dir, label="own").name == "own"
    moved = shutil.copytree(llama_dir, tmp_path / "elsewhere")
    assert load(moved).weights_digest == llama.weights_digest
    half = load(moved, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.weights_digest == llama.weights_digest
