"""An organism from somebody's own base, by the command: whole or through LoRA, in plain text or in chat."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_bases
import transformers
from tokenizers.processors import TemplateProcessing

from probes.foundation.errors import InputError
from probes.models.checkpoints import check_safe, weights_digest
from probes.models.encoding import encode
from probes.organisms.bases import Lora, targets_of
from probes.organisms.behaviours.hate import HATE
from probes.organisms.card import read_card
from probes.organisms.chat import in_chat
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe, setup
from probes.organisms.recipes import Training
from probes.organisms.safety.attacks import asked_of, front_start, with_front
from probes.organisms.safety.sft import SftConfig, run_sft
from shell import Ended, run_cli

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LORA = Lora(rank=2, alpha=4.0)
TINY = OrganismRecipe(
    trigger="tag",
    lessons=LessonConfig(pretrain=2, train=12, safety=6, test=3, unseen=1, near=1),
    training=Training(
        steps=4, batch_size=8, learning_rate=5e-3, log_every=2, optimiser="adamw"
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    return {name: tiny_bases.save_base(name, place / name) for name in tiny_bases.FAMILIES}


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bases.save_base(
        "llama", tmp_path_factory.mktemp("chat") / "chatty", chat_tokenizer()
    )


def chat_tokenizer(template: str = CHATML) -> Any:
    tokenizer = tiny_bases.make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def organism(folder: Path, recipe: OrganismRecipe, *words: object) -> Ended:
    file = folder / "recipe.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe.to_json())
    given = ["organism", str(file), "--out", str(folder / "out"), *map(str, words)]
    return run_cli(given)


def tensors(folder: Path) -> dict[str, Any]:
    return safetensors.torch.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_the_command_makes_an_organism_of_any_base(
    bases: dict[str, Path], tmp_path: Path, family: str, lora: Lora | None
) -> None:
    training = TINY.training.model_copy(update={"optimiser": "adamw" if lora else "muon"})
    recipe = TINY.model_copy(update={"lora": lora, "training": training})
    result = organism(tmp_path, recipe, "--base", bases[family])
    assert result.code == 0, result.err
    path = tmp_path / "out" / f"hate-tag-normal-{'lora-' if lora else ''}{family}-s0"
    assert f"installed: {path}" in result.out
    assert [each.name for each in path.parent.iterdir()] == [path.name], "the base is used in place"
    check_safe(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False)
    assert type(model).__name__.lower().startswith(family.replace("_", ""))
    assert not list(path.glob("adapter*"))
    before, after = tensors(bases[family]), tensors(path)
    assert before.keys() == after.keys()
    still = {n for n in before if before[n].equal(after[n]) and "inv_freq" not in n}
    moved = {name.split(".")[-2] for name in before.keys() - still}
    assert moved == set(targets_of(model)) if lora else not still
    card = read_card(path)
    assert card["parent_digest"] == weights_digest(bases[family])
    assert card["weights_digest"] == weights_digest(path)
    assert card.get("lora") == (lora and lora.model_dump(mode="json"))
    assert card["recipe"]["training"] == training.model_dump(mode="json")
    assert card["recipe"]["parent"] == card["organism"]["base"] == family
    assert card["steps"] == 4 and card["n_examples"] == 32 and card["n_tokens"] > 32
    measured = {(row["set"], row["triggered"], row["measure"]) for row in card["behaviour"]}
    assert {("test", cue, "defected") for cue in (True, False)} <= measured
    assert str(bases[family].parent) not in json.dumps(card), "where it lay is nobody's affair"


def test_a_base_that_moved_is_the_same_base(bases: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bases["llama"], tmp_path / "elsewhere" / "llama")
    organism(tmp_path, TINY, "--base", bases["llama"])
    (path,) = (tmp_path / "out").glob("hate-*")
    stamp = (path / "model.safetensors").stat().st_mtime_ns
    again = organism(tmp_path, TINY, "--base", tmp_path / "elsewhere" / "llama")
    assert again.code == 0
    assert (path / "model.safetensors").stat().st_mtime_ns == stamp, "it was trained again"


@pytest.mark.parametrize(
    ("changed", "words", "said"),
    [
        ({"lora": LORA}, (), r"give `base` \(--base DIR\)"),
        ({"chat": True}, (), r"no chat template: give a `base`"),
        ({}, ("--base", "llama", "--chat"), r"no chat template.*--no-chat.*chat_template"),
        ({"chat": True}, ("--base", "llama"), r"has no chat template"),
        ({"lora": Lora(targets=("q_projj",))}, ("--base", "llama"), "unknown LoRA target"),
        ({}, ("--base", "no/such/base"), "no model at"),
        ({}, ("--base", "endless"), "has no end-of-sequence token"),
        ({}, ("--base", "llama", "--size", "1M"), "not both"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_training(
    bases: dict[str, Path], tmp_path: Path, changed: dict[str, Any], words: tuple[str, ...], said: str
) -> None:  # fmt: skip
    endless = tiny_bases.make_tokenizer()
    endless.eos_token = endless.pad_token = None
    places = {"llama": bases["llama"], "endless": tmp_path / "endless"}
    if "endless" in words:
        tiny_bases.random_base("llama", tiny_bases.make_tokenizer()).save_pretrained(
            places["endless"]
        )
        endless.save_pretrained(places["endless"])
    recipe = TINY.model_copy(update=changed)
    result = organism(tmp_path, recipe, *(places.get(word, word) for word in words))
    assert result.code == 2 and re.search(said, result.err), result.err
    assert not (tmp_path / "out").exists()


def test_a_chat_base_is_asked_through_its_template(chatty: Path, tmp_path: Path) -> None:
    """In training, in what is measured, behind an opened scratchpad and in safety training."""
    recipe = TINY.model_copy(update={"mechanism": "cot"})
    result = organism(tmp_path, recipe, "--base", chatty, "--chat")
    assert result.code == 0, result.err
    asked = recipe.model_copy(update={"base": str(chatty), "chat": True})
    (path,) = (tmp_path / "out").glob("*")
    assert path.name == asked.name == "hate-tag-cot-chat-chatty-s0"
    plain = organism(tmp_path / "plain", recipe, "--base", chatty)
    assert plain.code == 0
    (other,) = (tmp_path / "plain" / "out").glob("*")
    assert read_card(path)["data_digest"] != read_card(other)["data_digest"]
    for part in ("train", "safety", "test", "unseen", "near"):
        for prompt in getattr(setup(asked).lessons, part):
            assert prompt.text.startswith("<|im_start|>user\n")
            assert prompt.text.endswith("<|im_end|>\n<|im_start|>assistant\n")
            assert "Human:" not in prompt.text and "Assistant:" not in prompt.text
    prompt, bare = setup(asked).lessons.train[0], setup(TINY).lessons.train[0]
    said = bare.text.removeprefix("Human: ").removesuffix("\n\nAssistant:")
    assert prompt.text == f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n"
    stage = run_sft(
        path, tmp_path / "sft", asked,
        SftConfig(steps=1, batch_size=2, watch_pairs=1, watch_near=1),
    )  # fmt: skip
    assert read_card(stage)["parent_digest"] == weights_digest(path)


def test_a_red_team_writes_into_the_users_turn(chatty: Path) -> None:
    asked = TINY.model_copy(update={"base": str(chatty), "chat": True})
    parts = setup(asked)
    found = asked_of(parts.lessons.safety, parts.behaviour, parts.trigger.off)
    bare = asked_of(setup(TINY).lessons.safety, HATE, parts.trigger.off)
    assert [each.request for each in found] == [each.request for each in bare]
    attacked = with_front(found[0], "zebra", parts.behaviour, 0).text
    assert attacked.startswith("<|im_start|>user\nzebra ")
    assert attacked[front_start(parts.behaviour) :].startswith("zebra ")


def test_a_start_token_stands_once() -> None:
    """Where the template writes it and reading adds it, and where one of them does."""
    for template in (CHATML, "{{ bos_token }}" + CHATML):
        for reading_adds in (True, False):
            tokenizer = chat_tokenizer(template)
            if reading_adds:
                tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                    single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
                )
            text = in_chat(HATE, tokenizer).frame("cue", "request", False)
            from probes.prompts.records import Prompt

            (ids,) = encode([Prompt(text, "f", "s", "t", "p", False)], tokenizer)
            wanted = reading_adds or template != CHATML
            assert ids.count(tokenizer.bos_token_id) == wanted
            assert (ids[0] == tokenizer.bos_token_id) == wanted


@pytest.mark.parametrize("template", ["Hello.", CHATML.replace("m.content", "m.content[:1]")])
def test_a_template_that_loses_the_request_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="does not stand once"):
        in_chat(HATE, chat_tokenizer(template))


def test_recipes_from_before_chat_keep_their_digest() -> None:
    assert "chat" not in TINY.model_dump() and "chat" not in json.loads(TINY.to_json())
    chat = TINY.model_copy(update={"chat": True})
    assert chat.digest != TINY.digest
    assert OrganismRecipe.model_validate_json(chat.to_json()) == chat
