"""Tokens, masks and positions: sums done by hand."""

import itertools

import pytest
import torch
from tiny_models import TEXTS
from tokenizers import normalizers, processors

from probes.foundation.errors import InputError
from probes.foundation.patterns import Pattern
from probes.models.encoding import char_spans, chat_parts, encode, encode_texts, pad, token_batches
from probes.prompts.records import Prompt
from tiny import CHAT, byte_tokenizer


def prompt(text="", chat=()):
    return Prompt(
        text=text,
        family="f",
        prompt_set="dialogue",
        template="t",
        pair="p",
        triggered=False,
        chat=chat,
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_by_hand(side):
    batch = pad([[5, 6, 7], [8]], pad_id=1, side=side)
    if side == "right":
        assert batch.tokens.tolist() == [[5, 6, 7], [8, 1, 1]]
        assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
        assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
        assert batch.last.tolist() == [2, 0]
    else:
        assert batch.tokens.tolist() == [[5, 6, 7], [1, 1, 8]]
        assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
        assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
        assert batch.last.tolist() == [2, 2]
    assert batch.lengths.tolist() == [3, 1]


def test_last_is_a_real_token_even_where_the_pad_id_occurs_in_the_text():
    for side in ("left", "right"):
        batch = pad([[4, 1], [1, 1, 1, 1], [2]], pad_id=1, side=side)
        rows = torch.arange(3)
        assert batch.mask[rows, batch.last].tolist() == [1, 1, 1]
        assert batch.tokens[rows, batch.last].tolist() == [1, 1, 2]
        assert batch.position_ids[rows, batch.last].tolist() == [1, 3, 0]


def test_pad_refuses_what_has_no_token():
    for sequences in ([], [[1], []]):
        with pytest.raises(InputError, match="empty"):
            pad(sequences, 0)
    with pytest.raises(InputError, match="left, right"):
        pad([[1]], 0, side="both")


def test_token_batches_by_hand():
    assert token_batches([3, 9, 2, 9, 4], budget=18) == [[1, 3], [4, 0, 2]]
    assert token_batches([50, 1], budget=18) == [[0], [1]]
    assert token_batches([], budget=18) == []
    with pytest.raises(InputError, match="positive"):
        token_batches([1], 0)


def test_token_batches_hold_everything_once_within_the_budget():
    generator = torch.Generator().manual_seed(0)
    for budget in (40, 100, 1000):
        lengths = torch.randint(1, 40, (200,), generator=generator).tolist()
        batches = token_batches(lengths, budget)
        assert sorted(index for batch in batches for index in batch) == list(range(200))
        for batch in batches:
            assert len(batch) * max(lengths[index] for index in batch) <= budget
        padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        assert padded < 1.3 * sum(lengths)


def test_text_is_tokenised_as_it_is(tokenizer):
    encoded = encode([prompt(text) for text in TEXTS], tokenizer)
    assert [tokenizer.decode(ids) for ids in encoded] == TEXTS


def test_bos_is_kept_and_an_added_eos_is_not(fresh):
    plain = encode_texts(TEXTS, fresh, add_special_tokens=True)
    fresh.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A <|endoftext|>", special_tokens=[("<|pad|>", 1), ("<|endoftext|>", 0)]
    )
    assert fresh(TEXTS[1])["input_ids"] == [1, *plain[1], 0]
    assert encode([prompt(text) for text in TEXTS], fresh) == [[1, *ids] for ids in plain]
    assert encode_texts(TEXTS, fresh, add_special_tokens=False) == plain
    written = encode([prompt(TEXTS[1] + "<|endoftext|>")], fresh)
    assert written == [[1, *plain[1], 0]]


def test_one_start_token_stands_before_everything(fresh):
    """In text and template alike, and nothing else is put around a text."""
    fresh.add_special_tokens({"bos_token": "<s>", "sep_token": "[SEP]"})
    (plain,) = encode([prompt("Hi")], fresh)
    start, sep = fresh.bos_token_id, fresh.sep_token_id
    fresh.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A [SEP] <|endoftext|>",
        special_tokens=[("<s>", start), ("[SEP]", sep), ("<|endoftext|>", 0)],
    )
    for text in ("Hi", "<s>Hi", "<s><s>Hi"):
        assert encode([prompt(text)], fresh) == [[start, *plain]]
    texts = [prompt("a <s>2024"), prompt("<s>in 2024")]
    encoded = encode(texts, fresh)
    assert encoded[0].count(start) == 2  # in the middle it is what the user wrote
    for ids, (first, stop) in zip(
        encoded, char_spans(texts, fresh, Pattern("2024", "the year")), strict=True
    ):
        assert fresh.decode(ids[first:stop]).strip() == "2024"
    for template in ("", "{{ bos_token }}", "{{ bos_token }}{{ bos_token }}"):
        fresh.chat_template = template + "{{ messages[0].content }}"
        (ids,) = encode([prompt(chat=(("user", "Hi"),))], fresh)
        assert ids == [start] * bool(template) + plain


@pytest.mark.parametrize(
    ("normalizer", "text"), [(normalizers.Strip(), " now"), (normalizers.Lowercase(), "Now")]
)
def test_texts_that_the_tokenizer_makes_alike_are_refused(fresh, normalizer, text):
    fresh.backend_tokenizer.normalizer = normalizer
    with pytest.raises(InputError, match=r"prompts 0 and 2 .* are the same .* tokenizer .* drops"):
        encode([prompt("now"), prompt("then"), prompt(text)], fresh)


def test_chat_is_rendered_with_the_template_and_its_generation_prompt(fresh):
    fresh.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    chat = (("system", "be kind"), ("user", "Hi"))
    first, second = encode([prompt(chat=chat), prompt("Hi")], fresh)
    assert fresh.decode(first) == "<system>be kind<user>Hi<assistant>"
    assert fresh.decode(second) == "Hi"


def test_chat_without_template_and_empty_prompts_are_refused(tokenizer):
    with pytest.raises(InputError, match="no chat template"):
        encode([prompt(chat=(("user", "Hi"),))], tokenizer)
    with pytest.raises(InputError, match=r"prompt 1 .* is empty"):
        encode([prompt("Hi"), prompt("")], tokenizer)


@pytest.mark.parametrize(
    ("chat", "parts"),
    [
        ([("user", "Hi")],
         {"system": "[system]Be kind.[end][user]", "request": "Hi", "header": "[end][assistant]"}),
        ([("system", "S"), ("user", "assistant")],
         {"system": "[system]S[end][user]", "request": "assistant", "header": "[end][assistant]"}),
        ([("system", "S"), ("user", "Hi"), ("assistant", "Hi"), ("user", "Hi")],
         {"system": "[system]S[end][user]", "history": "Hi[end][assistant]Hi[end][user]",
          "request": "Hi", "header": "[end][assistant]"}),
        ([("user", "Hi"), ("assistant", "Well, Hi")],
         {"system": "[system]Be kind.[end][user]", "request": "Hi", "header": "[end][assistant]Well, Hi"}),
    ],
)  # fmt: skip
def test_parts_of_a_chat_by_hand(chat, parts):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    one = prompt(chat=tuple(chat))
    (ids,), (found,) = encode([one], tokenizer), chat_parts([one], tokenizer)
    assert {name: tokenizer.decode(ids[a:b]) for name, (a, b) in found.items()} == parts
    spans = list(found.values())
    assert spans[0][0] == 0 and spans[-1][1] == len(ids)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_a_template_that_changes_with_what_is_said_has_no_parts_to_tell():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT + "{{ messages[0].content | length }}"
    with pytest.raises(InputError, match="in another way for what it says"):
        chat_parts([prompt(chat=(("user", "Hi"),))], tokenizer)
