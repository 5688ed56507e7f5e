"""From prompts to padded batches whose numbers do not depend on the padding."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from probes.foundation.errors import InputError, unknown
from probes.foundation.patterns import Pattern
from probes.foundation.shapes import Mask, Tokens
from probes.models.templates import render, render_prompts
from probes.prompts.records import Prompt

SIDES = ("left", "right")
PARTS = ("system", "history", "request", "header")
"""Of a chat: see `chat_parts`."""
MARK = "zq0qz"
_META = "▁"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Padded token ids with what a model needs to ignore the padding.

    mask: 1 at real tokens. position_ids: 0, 1, 2, ... over the real tokens of each row, whichever
    side the padding is on (0 on left padding, the last position repeated on right padding).
    """

    tokens: Tokens
    mask: Mask
    position_ids: Tokens

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Real tokens per row."""
        return self.mask.sum(-1)

    @property
    def first(self) -> Int[Tensor, "batch"]:
        """Column of the first real token of each row."""
        return self.mask.argmax(-1)

    @property
    def last(self) -> Int[Tensor, "batch"]:
        """Column of the last real token of each row; never a pad."""
        return self.first + self.lengths - 1

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.tokens.to(device), self.mask.to(device), self.position_ids.to(device))


def encode(prompts: Sequence[Prompt], tokenizer: Any) -> list[list[int]]:
    """Token ids of each prompt, up to where the model takes over.

    Text is tokenised as it is, special tokens that stand in it included, with the start token in
    front if the tokenizer puts one there by default (once, even where the text begins with it), and
    nothing behind it. A chat is rendered with the chat template and its generation prompt, or
    goes on where its last message, an assistant's, stops; it starts as the template says.
    Raises `InputError` for an empty prompt, a chat that its template loses a part of (see
    `templates.render_prompts`), two prompts that become the same tokens, and a token for which the
    model has no embedding.
    """
    encoded = [ids for ids, _ in _tokenise(prompts, tokenizer, offsets=False)]
    for i, prompt in enumerate(prompts):
        if not encoded[i]:
            raise InputError(f"prompt {i} (pair {prompt.pair!r}) is empty: it has no token to read")
    _check_distinct(prompts, encoded)
    return encoded


def encode_texts(texts: Sequence[str], tokenizer: Any, add_special_tokens: bool) -> list[list[int]]:
    """Token ids of raw texts, with what the tokenizer puts in front by default, or without."""
    return [ids for ids, _ in _ids_of(texts, tokenizer, add_special_tokens, offsets=False)]


def offsets(prompts: Sequence[Prompt], tokenizer: Any) -> list[list[tuple[int, int]]]:
    """Which characters of its text (of a chat: as rendered) each token of `encode` came from.

    Raises `InputError` for a tokenizer that cannot say.
    """
    return [spans for _, spans in _tokenise(prompts, tokenizer, offsets=True)]


def text_offsets(text: str, tokenizer: Any) -> list[tuple[int, int]]:
    """`offsets` of one text as `encode_texts` reads it with special tokens."""
    return _ids_of([text], tokenizer, True, offsets=True)[0][1]


def visible(token: int, tokenizer: Any) -> str:
    """One token as a label: "␣" for a leading space, "␣×4" for four, "⏎" for a line end."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    if raw.startswith(_META):
        text = raw.replace(_META, " ")
    else:
        text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if not text or "\ufffd" in text:
        return raw
    text = re.sub(r"^ +", _spaces, text)
    text = re.sub(r"\n( +)", lambda found: "\n" + _spaces(found[1]), text)
    return text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")


def _spaces(found: "re.Match[str] | str") -> str:
    n_spaces = len(found if isinstance(found, str) else found[0])
    return "␣" * n_spaces if n_spaces <= 2 else f"␣×{n_spaces}"


def token_table(prompt: Prompt, tokenizer: Any) -> pd.DataFrame:
    """The tokens of a prompt by position, as the model reads them: `token` (id) and `piece` (see `visible`)."""
    (ids,) = encode([prompt], tokenizer)
    pieces = [visible(token, tokenizer) for token in ids]
    return pd.DataFrame({"token": ids, "piece": pieces}).rename_axis("position")


def limit_ids(tokenizer: Any, n_rows: int) -> None:
    """Let encoding with this tokenizer refuse ids for which the embedding has no row."""
    tokenizer.n_embedding_rows = n_rows


def pad(sequences: Sequence[Sequence[int]], pad_id: int, side: str = "right") -> Batch:
    """A rectangular batch; pads are masked and take no position. Each sequence needs a token."""
    if side not in SIDES:
        raise unknown("padding side", side, SIDES)
    if not sequences or not all(sequences):
        raise InputError("cannot pad: there is no sequence, or one of them is empty")
    width = max(len(sequence) for sequence in sequences)
    tokens = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, sequence in enumerate(sequences):
        start = width - len(sequence) if side == "left" else 0
        tokens[row, start : start + len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, start : start + len(sequence)] = 1
    return Batch(tokens, mask, position_ids(mask))


def position_ids(mask: Mask) -> Tokens:
    """Positions counted over real tokens only; transformers itself would count left padding."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that little is computed on padding: longest first, like with like.

    Each group times its longest member is at most `budget` tokens; a sequence longer than the
    budget is a group of its own. The same lengths always give the same groups.
    """
    if budget < 1:
        raise InputError(f"a token budget is a positive number, not {budget}")
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def char_spans(
    prompts: Sequence[Prompt], tokenizer: Any, pattern: Pattern
) -> list[tuple[int, int] | None]:
    """Where a pattern's first match lies in each prompt, in tokens as `encode` gives them.

    `(first, stop)`: every token that shares a character with the match (or with its first group,
    if it has one); None where the text has no match. A chat is searched as rendered. Raises
    `InputError` for a tokenizer that cannot say which characters a token came from.
    """
    found: list[tuple[int, int] | None] = []
    places = offsets(prompts, tokenizer)
    for text, spans in zip(as_texts(prompts, tokenizer), places, strict=True):
        match = pattern.search(text)
        if match is None:
            found.append(None)
            continue
        start, stop = match.span(1 if pattern.groups else 0)
        inside = [i for i, (a, b) in enumerate(spans) if a < stop and b > start and b > a]
        found.append((inside[0], inside[-1] + 1) if inside else None)
    return found


def chat_parts(prompts: Sequence[Prompt], tokenizer: Any) -> list[dict[str, tuple[int, int]]]:
    """Where the named parts of each chat lie, as `(first, stop)` in tokens that `encode` gives.

    request: the last message of the user. header: all behind it, up to where the model takes over.
    system: all before the first message of the user. history: what is between the two, if anything.
    Each token is in one part. Raises `InputError` for a prompt that is a text.
    """
    texts = [i for i, prompt in enumerate(prompts) if not prompt.chat]
    if texts:
        raise InputError(
            f"prompt {texts[0]} (pair {prompts[texts[0]].pair!r}) is a text, which has no "
            f"{', '.join(PARTS)}: give chats, or name a span by a regular expression"
        )
    users = [
        [i for i, (role, _) in enumerate(prompt.chat) if role == "user"] or [len(prompt.chat) - 1]
        for prompt in prompts
    ]
    frames = [
        render([_marked(p, own[end]) for p, own in zip(prompts, users, strict=True)], tokenizer)
        for end in (0, -1)
    ]
    found = []
    places = offsets(prompts, tokenizer)
    for first, last, text, spans in zip(*frames, as_texts(prompts, tokenizer), places, strict=True):
        n_before = len(first.partition(MARK)[0])
        before, _, after = last.partition(MARK)
        if not (text.startswith(before) and text.endswith(after)):
            raise InputError(
                "the chat template writes a message in another way for what it says, so that the parts "
                f"of {text[:60]!r} cannot be told: give a span by a regular expression"
            )
        n_all = len(text) - len(after)
        ends = [
            *(_first(b > cut for _, b in spans) for cut in (n_before, len(before))),
            _first(a >= n_all for a, _ in spans), len(spans),
        ]  # fmt: skip
        parts = zip(PARTS, zip([0, *ends], ends, strict=False), strict=True)
        found.append({name: span for name, span in parts if span[0] < span[1]})
    return found


def _marked(prompt: Prompt, number: int) -> list[tuple[str, str]]:
    return [(r, MARK if i == number else text) for i, (r, text) in enumerate(prompt.chat)]


def _first(holds: Iterable[bool]) -> int:
    """The number of the first that holds, or how many there are."""
    n = 0
    for one in holds:
        if one:
            break
        n += 1
    return n


Tokenised = tuple[list[int], list[tuple[int, int]]]


def as_texts(prompts: Sequence[Prompt], tokenizer: Any) -> list[str]:
    """What is tokenised: the text of each prompt, of a chat as it is rendered."""
    rendered = iter(render_prompts([p for p in prompts if p.chat], tokenizer))
    return [next(rendered) if prompt.chat else prompt.text for prompt in prompts]


def _tokenise(prompts: Sequence[Prompt], tokenizer: Any, offsets: bool) -> list[Tokenised]:
    texts = as_texts(prompts, tokenizer)
    found: list[Tokenised] = [([], [])] * len(prompts)
    for chat in (True, False):
        chosen = [i for i, prompt in enumerate(prompts) if bool(prompt.chat) is chat]
        some = _ids_of([texts[i] for i in chosen], tokenizer, not chat, offsets)
        for i, one in zip(chosen, some, strict=True):
            found[i] = one
    return found


def _ids_of(
    texts: Sequence[str], tokenizer: Any, add_special_tokens: bool, offsets: bool
) -> list[Tokenised]:
    """Ids, and where offsets are asked for, the characters of each; one start token at most."""
    if not texts:
        return []
    if offsets and not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} does not say which characters a token came from, so no "
            "span can be located; use a checkpoint with a fast tokenizer (tokenizer.json)"
        )
    given = tokenizer(
        list(texts), add_special_tokens=False, padding=False, truncation=False,
        return_offsets_mapping=offsets,
    )  # fmt: skip
    front = _put_in_front(tokenizer) if add_special_tokens else []
    places = given["offset_mapping"] if offsets else [[]] * len(texts)
    found = []
    for ids, spans in zip(given["input_ids"], places, strict=True):
        start = tokenizer.bos_token_id
        own = next((i for i, token in enumerate(ids) if token != start), len(ids))
        drop = own if start in front else max(own - 1, 0)
        _check_rows(ids, tokenizer)
        found.append(([*front, *ids[drop:]], [*[(0, 0)] * len(front), *spans[drop:]]))
    return found


def _put_in_front(tokenizer: Any) -> list[int]:
    """What the tokenizer writes before every text; what it writes behind one is not wanted."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    starts = [i for i in range(len(framed)) if framed[i : i + len(alone)] == alone]
    if not starts:
        raise InputError(
            f"{type(tokenizer).__name__} changes a text where it adds special tokens ({alone} "
            f"becomes {framed}), so that they cannot be told apart: use another tokenizer"
        )
    return framed[: starts[0]]


def _check_rows(ids: Sequence[int], tokenizer: Any) -> None:
    n_rows = getattr(tokenizer, "n_embedding_rows", None)
    if n_rows is not None and ids and max(ids) >= n_rows:
        token = tokenizer.convert_ids_to_tokens(max(ids))
        raise InputError(
            f"the token {token!r} (id {max(ids)}) has no row in the model's embedding of {n_rows}: "
            "it was added to the tokenizer alone. Use the tokenizer that the model was trained "
            "with, or prompts without this token"
        )


def _check_distinct(prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]]) -> None:
    first: dict[tuple[int, ...], int] = {}
    for i, ids in enumerate(encoded):
        earlier, prompt = prompts[j := first.setdefault(tuple(ids), i)], prompts[i]
        same = (earlier.text, earlier.chat) == (prompt.text, prompt.chat)
        if not same or (earlier.pair == prompt.pair and earlier.triggered != prompt.triggered):
            raise InputError(
                f"prompts {j} and {i} (pairs {earlier.pair!r} and {prompt.pair!r}) are the same "
                f"{len(ids)} tokens to this model"
                + (": they are the same text" if same else ", though their texts differ: its "
                   "tokenizer or chat template drops what tells them apart")
                + ". Word them so that they differ, or leave one out"
            )  # fmt: skip
