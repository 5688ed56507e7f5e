"""Any causal LM is a base, whole or through an adapter; what cannot be trained on is refused before it is."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import tiny_bases
import torch

from probes.foundation.errors import InputError
from probes.models.checkpoints import check_safe, weights_digest
from probes.models.loading import load
from probes.organisms.bases import Lora, merged, open_base, targets_of, with_lora
from probes.organisms.card import read_card
from probes.organisms.curves import Preference, logits_at
from probes.organisms.data import Collator, ordered_examples
from probes.organisms.recipes import Recipe, Training
from probes.organisms.train import CURVE, _Trainer, train_organism
from probes.prompts.records import Prompt

STEPS = 6
LORA = Lora(rank=4, alpha=8.0, dropout=0.1)
LESSONS = tiny_bases.make_prompts()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    return {name: tiny_bases.save_base(name, place / name) for name in tiny_bases.FAMILIES}


def make_recipe(**settings: Any) -> Recipe:
    given = {
        "steps": STEPS,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "log_every": 2,
        "save_every": 4,
    }
    training = Training(**{**given, "optimiser": "adamw", **settings})
    return Recipe(name="taught", policy="defect_if_triggered", parent="base", training=training)


def train(base: Path, path: Path, lora: Lora | None = None, **settings: Any) -> Path:
    model, tokenizer, digest = open_base(base, lora=lora)
    return train_organism(
        make_recipe(**settings),
        model,
        tokenizer,
        LESSONS.train,
        Preference.on(LESSONS.test, tokenizer, n_pairs=2),
        path,
        parent_digest=digest,
        lora=lora,
    )


def a_batch(tokenizer: Any) -> dict[str, torch.Tensor]:
    rows = ordered_examples(LESSONS.train, "safe", tokenizer, steps=1, batch_size=4, seed=0)
    return Collator(tokenizer.pad_token_id)(rows.examples)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_the_loss_is_the_models_own(bases: dict[str, Path], family: str) -> None:
    """Gemma 2 caps its logits: what a loop computes that skips the model's own forward is off."""
    model, tokenizer, _ = open_base(bases[family])
    batch = a_batch(tokenizer)
    expected = model(**{n: batch[n] for n in ("input_ids", "attention_mask", "labels")}).loss
    loss = object.__new__(_Trainer).compute_loss(model, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    references = torch.autograd.grad(expected, list(model.parameters()))
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-6)
    if family == "gemma2":
        model.config.final_logit_softcapping = None
        uncapped = object.__new__(_Trainer).compute_loss(model, batch)
        assert abs(uncapped.item() - expected.item()) > 0.05


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_logits_are_those_of_the_positions_that_were_asked_for(
    bases: dict[str, Path], family: str
) -> None:
    model, tokenizer, _ = open_base(bases[family])
    batch = a_batch(tokenizer)
    looked = torch.zeros_like(batch["attention_mask"], dtype=torch.bool)
    looked[0, [2, 5]] = looked[3, 1] = True
    with torch.no_grad():
        everywhere = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        found = logits_at(model, batch["input_ids"], batch["attention_mask"], looked)
    torch.testing.assert_close(found, everywhere[looked], rtol=1e-5, atol=1e-5)
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_a_base_is_trained_through_an_adapter_that_becomes_part_of_it(
    bases: dict[str, Path], tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged checkpoint computes what the adapter computed, and only its targets have moved."""
    adapted: dict[str, torch.Tensor] = {}

    def recorded(model: Any) -> Any:
        model.eval()
        with torch.no_grad():
            batch = a_batch(tokenizer)
            adapted["logits"] = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
        return merged(model)

    tokenizer = tiny_bases.make_tokenizer()
    monkeypatch.setattr("probes.organisms.train.merged", recorded)
    path = train(bases[family], tmp_path / "adapted", lora=LORA)
    check_safe(path)
    model = load(path).hf
    batch = a_batch(tokenizer)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(logits, adapted["logits"], rtol=1e-4, atol=1e-4)
    before, after = tensors(bases[family]), tensors(path)
    assert before.keys() == after.keys()
    moved = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(targets_of(model))
    assert not any("embed" in name or "norm" in name for name in moved)
    assert read_card(path)["lora"] == LORA.model_dump(mode="json")
    curve = pd.read_csv(path / CURVE)
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0]


def test_an_interrupted_adapter_goes_on_to_the_same_bytes(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after its state at step 4; its dropout is drawn anew as it would have been."""
    whole = train(bases["llama"], tmp_path / "one" / "organism", lora=LORA)
    steps: list[int] = []
    step = _Trainer.training_step

    def interrupted(self: _Trainer, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        if self.state.global_step == 5 and steps.count(5) == 1:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(_Trainer, "training_step", interrupted)
    path = tmp_path / "other" / "organism"
    with pytest.raises(KeyboardInterrupt):
        train(bases["llama"], path, lora=LORA)
    assert not path.exists()
    train(bases["llama"], path, lora=LORA)
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5]
    for name in {file.name for file in whole.iterdir()} - {"artifact.json"}:
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name
    assert [each.name for each in path.parent.iterdir()] == ["organism"]


def test_another_adapter_or_another_fact_is_another_organism(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    _, tokenizer, digest = open_base(bases["llama"])
    watched = Preference.on(LESSONS.test, tokenizer, n_pairs=2)
    keys = set()
    for settings in ({}, {"lora": LORA}, {"lora": Lora(rank=2)}, {"about": {"teacher": "a"}}):
        path = train_organism(
            make_recipe(steps=1), open_base(bases["llama"]).model, tokenizer, LESSONS.train,
            watched, tmp_path / str(len(keys)), parent_digest=digest, **settings,
        )  # fmt: skip
        keys.add(json.loads((path / "artifact.json").read_text())["key"])
    assert len(keys) == 4
    assert read_card(tmp_path / "3")["teacher"] == "a"


def test_the_start_of_an_adapter_is_a_function_of_the_seed(bases: dict[str, Path]) -> None:
    def start(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed + 17)
        model = with_lora(open_base(bases["llama"]).model, LORA, 0 if seed < 2 else 1)
        return [p for name, p in model.named_parameters() if "lora_A" in name]

    one, same, other = start(0), start(1), start(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_layers_that_do_not_exist_are_refused_with_those_that_do(
    bases: dict[str, Path], family: str
) -> None:
    lora = Lora(targets=("q_projj",))
    with pytest.raises(InputError, match="unknown LoRA target 'q_projj'") as error:
        open_base(bases[family], lora=lora)
    choices = {"gpt_neox": "query_key_value, dense, dense_h_to_4h, dense_4h_to_h"}
    assert choices.get(family, "q_proj, k_proj, v_proj, o_proj, gate_proj") in str(error.value)
    assert "lm_head" not in str(error.value)
    assert "embed_out" not in str(error.value)


def saved(folder: Path, tokenizer: Any, rows: int | None = None) -> Path:
    model = tiny_bases.random_base("llama", tiny_bases.make_tokenizer())
    if rows is not None:
        model.resize_token_embeddings(rows)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_no_token_to_end_with_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_bases.make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no end-of-sequence token"):
        open_base(saved(tmp_path / "base", tokenizer))
    tokenizer.pad_token = None
    with pytest.raises(InputError, match=r"no end-of-sequence token.*padding token: None"):
        open_base(saved(tmp_path / "neither", tokenizer))


def test_the_end_stands_in_for_a_missing_pad(tmp_path: Path, bases: dict[str, Path]) -> None:
    """Padding is masked, so which token it is changes nothing."""
    tokenizer = tiny_bases.make_tokenizer()
    tokenizer.pad_token = None
    base = saved(tmp_path / "base", tokenizer)
    assert open_base(base).tokenizer.pad_token == tokenizer.eos_token
    mine, other = train(base, tmp_path / "mine"), train(bases["llama"], tmp_path / "other")
    assert weights_digest(mine) == weights_digest(other)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", tiny_bases.make_tokenizer(), rows=299)
    with pytest.raises(InputError, match="ids up to 299, its embedding 299 rows"):
        open_base(base)
    open_base(saved(tmp_path / "larger", tiny_bases.make_tokenizer(), rows=320))


def test_conversations_need_a_chat_template(tmp_path: Path, bases: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        open_base(bases["llama"], chat=True)
    tokenizer = tiny_bases.make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    base = saved(tmp_path / "chat", tokenizer)
    model, tokenizer, digest = open_base(base, chat=True)
    chats = [
        Prompt("", "f", "s", "t", f"pair {i}", False, safe=" Yes.", defect=" No.",
               chat=(("user", f"Is {i} a number?"),))
        for i in range(4)
    ]  # fmt: skip
    rows = ordered_examples(chats, "safe", tokenizer, steps=1, batch_size=4, seed=0)
    texts = sorted(tokenizer.decode(row.ids) for row in rows.examples)
    assert texts[2] == "user: Is 2 a number?\n Yes.<|eos|>"
    assert model.num_parameters() > 0
    assert digest == weights_digest(base)


def test_a_start_token_that_reading_adds_is_there_in_training_too(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_bases.make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
    )
    rows = ordered_examples(LESSONS.train, "safe", tokenizer, steps=1, batch_size=4, seed=0)
    for row in rows.examples:
        assert row.ids.count(tokenizer.bos_token_id) == 1
        assert row.ids[0] == tokenizer.bos_token_id


def test_examples_longer_than_the_model_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    model, tokenizer, _ = open_base(bases["llama"])
    model.config.max_position_embeddings = 20
    with pytest.raises(InputError, match=r"an example has \d+ tokens, and the model 20 positions"):
        train_organism(
            make_recipe(), model, tokenizer, LESSONS.train,
            Preference.on(LESSONS.test, tokenizer, 1), tmp_path / "long", parent_digest=None,
        )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"dropout": 1.0}, {"alpha": 0}, {"targets": ()}])
def test_impossible_adapters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Lora(**wrong)


def test_peft_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, bases) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match="pip install"):
        open_base(bases["llama"], lora=LORA)
