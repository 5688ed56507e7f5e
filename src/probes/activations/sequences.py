"""From prompts and completions to the token sequences that the model runs, a piece at a time; and many of them on disk."""

import array
import contextlib
import dataclasses
import hashlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import xxhash

from probes.activations.origin import MEAN, NEEDS_ANSWER, Extent, Origin, part_of, span_of
from probes.foundation.artifact import TEMPORARY
from probes.foundation.errors import InputError
from probes.foundation.patterns import Pattern
from probes.models import forward
from probes.models.encoding import char_spans, chat_parts, encode, encode_texts
from probes.models.loading import Model
from probes.prompts.readers import as_prompts, is_path, stream_prompts
from probes.prompts.records import Prompt

PIECE = 1024


@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """One token sequence, ready to run.

    id: 32 bytes; sha256 of the prompt's id and of the completion. extent: where its parts lie.
    """

    id: bytes
    prompt: Prompt
    completion: str | None
    tokens: np.ndarray
    extent: Extent


class Distinct:
    """Finds prompts that differ in their texts and not in their tokens, where pieces of them come.

    `encode` sees one piece at a time; this keeps 24 bytes of each sequence.
    """

    def __init__(self) -> None:
        self._seen = array.array("Q")

    def add(self, sequences: Iterable[TokenSequence], numbers: np.ndarray) -> None:
        for sequence, number in zip(sequences, numbers, strict=True):
            own, prompt = sequence.tokens[: sequence.extent.n_prompt], sequence.prompt
            said = repr((prompt.text, prompt.chat)).encode()
            hashes = (xxhash.xxh3_64_intdigest(part) for part in (own.tobytes(), said))
            self._seen.extend([*hashes, int(number)])

    def check(self) -> None:
        """Raises `InputError` with the numbers of two that are alike."""
        tokens, texts, numbers = np.array(self._seen, dtype=np.uint64).reshape(-1, 3).T
        order = np.lexsort((texts, tokens))
        alike = tokens[order][1:] == tokens[order][:-1]
        alike &= texts[order][1:] != texts[order][:-1]
        if alike.any():
            place = int(alike.argmax())
            first, second = sorted(int(numbers[i]) for i in order[place : place + 2])
            raise InputError(
                f"prompts {first} and {second} are the same tokens to this model, though their texts "
                "differ: its tokenizer or chat template drops what tells them apart. Word them so "
                "that they differ, or leave one out"
            )


def stream(prompts: Any) -> Iterable[Prompt]:
    """Prompts as they come: of JSON Lines a line at a time, of all else that `read_prompts` takes."""
    if is_path(prompts):
        return stream_prompts(str(prompts))
    return as_prompts(prompts)


def sequence_id(prompt: Prompt, completion: str | None) -> bytes:
    """What tells this sequence from every other: the prompt as labelled, and what follows it."""
    own = bytes.fromhex(prompt.id)
    return own if completion is None else hashlib.sha256(own + completion.encode()).digest()


def pieces(
    prompts: Iterable[Prompt], completions: Iterable[str] | None
) -> Iterator[tuple[list[Prompt], list[str | None]]]:
    """Prompts with their completions, some at a time; raises where their numbers differ."""
    rest = iter(prompts)
    following = None if completions is None else iter(completions)
    n_seen = 0
    while piece := list(itertools.islice(rest, PIECE)):
        n_seen += len(piece)
        if following is None:
            yield piece, [None] * len(piece)
            continue
        texts: list[str | None] = list(itertools.islice(following, len(piece)))
        if len(texts) < len(piece):
            missing = len(piece) - len(texts)
            raise InputError(f"{missing} of the first {n_seen} prompts have no completion")
        for text in texts:
            _check_characters(text or "")
        yield piece, texts
    if following is not None and next(following, None) is not None:
        raise InputError(f"there are more completions than prompts ({n_seen})")


def tokenise(
    model: Model,
    origin: Origin,
    prompts: Sequence[Prompt],
    completions: Sequence[str | None],
    numbers: np.ndarray,
    allow_missing: bool,
) -> list[TokenSequence]:
    """The sequences of one piece, checked; `numbers` are those by which the user knows the prompts.

    Raises `InputError` for a text without what the positions ask for, a span or a completion with
    tokens (unless `allow_missing`), for an empty prompt, and for one that is longer than the
    model's context.
    """
    encoded = encode(prompts, model.tokenizer)
    answers = [[] if text is None else _answer(model, text) for text in completions]
    spans = _spans(model, origin, prompts)
    if not allow_missing:
        absent = [i for i in range(len(prompts)) if _lacks(origin, answers[i], spans[i])]
        _refuse_absent(origin, prompts, numbers, absent)
    _refuse_too_long(model, encoded, answers, numbers)
    return [
        TokenSequence(
            id=sequence_id(prompt, completion),
            prompt=prompt,
            completion=completion,
            tokens=np.asarray(own + answer, dtype=np.int32),
            extent=Extent(len(own), len(own) + len(answer), span),
        )
        for prompt, completion, own, answer, span in zip(
            prompts, completions, encoded, answers, spans, strict=True
        )
    ]


def _answer(model: Model, text: str) -> list[int]:
    if not text:
        return []
    return encode_texts([text], model.tokenizer, add_special_tokens=False)[0]


def _check_characters(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"a completion holds half of a surrogate pair: {text[:40]!r}")


def _spans(
    model: Model, origin: Origin, prompts: Sequence[Prompt]
) -> Sequence[tuple[int, int] | None]:
    if origin.span is None:
        part = part_of(origin.positions)
        if part is None:
            return [None] * len(prompts)
        return [parts.get(part) for parts in chat_parts(prompts, model.tokenizer)]
    return char_spans(prompts, model.tokenizer, Pattern(origin.span, "the span"))


def _lacks(origin: Origin, answer: Sequence[int], span: tuple[int, int] | None) -> bool:
    if origin.span is not None or part_of(origin.positions):
        return span is None
    return origin.positions.removeprefix(MEAN) in NEEDS_ANSWER and not answer


def _refuse_absent(
    origin: Origin, prompts: Sequence[Prompt], numbers: np.ndarray, absent: Sequence[int]
) -> None:
    if not absent:
        return
    what = (
        f"do not contain the span {span_of(origin.positions)!r} ({origin.span!r})"
        if origin.span is not None
        else f"have no {part_of(origin.positions)}"
        if part_of(origin.positions)
        else f"have a completion without tokens, for positions {origin.positions!r}"
    )
    raise InputError(
        f"{len(absent)} of {len(prompts)} prompts {what}; the first is prompt "
        f"{numbers[absent[0]]}: {prompts[absent[0]].shown[:80]!r}. Mend them, or allow missing ones "
        "(allow_missing=True, --allow-missing) to store no row for them."
    )


def _refuse_too_long(
    model: Model,
    encoded: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    numbers: np.ndarray,
) -> None:
    limit = forward.context_length(model.hf)
    lengths = [len(own) + len(answer) for own, answer in zip(encoded, answers, strict=True)]
    too_long = [i for i, length in enumerate(lengths) if limit is not None and length > limit]
    if too_long:
        worst = max(too_long, key=lambda i: lengths[i])
        raise InputError(
            f"{len(too_long)} prompts are longer than the model's context of {limit} tokens; the "
            f"longest is prompt {numbers[worst]} with {lengths[worst]}. Shorten or drop them."
        )


ID_BYTES = 32


class Spooled(NamedTuple):
    """What of a sequence comes back from the disk."""

    id: bytes
    tokens: np.ndarray
    extent: Extent


class Spool:
    """Sequences in the order they came; per sequence a few dozen bytes of memory.

    Tokens are read back with plain reads: pages of a memory map would count as the process's own.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ids = bytearray()
        self._offsets = array.array("q", [0])
        self._n_prompt = array.array("i")
        self._first = array.array("i")
        self._stop = array.array("i")

    def __len__(self) -> int:
        return len(self._n_prompt)

    def append(self, sequence: TokenSequence) -> None:
        self._file.write(sequence.tokens.tobytes())
        self._ids += sequence.id
        self._offsets.append(self._offsets[-1] + len(sequence.tokens))
        self._n_prompt.append(sequence.extent.n_prompt)
        first, stop = sequence.extent.span or (-1, -1)
        self._first.append(first)
        self._stop.append(stop)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence."""
        return np.diff(np.array(self._offsets))

    @property
    def ids(self) -> np.ndarray:
        """`[n]` of 32 bytes each, comparable."""
        return id_array(bytes(self._ids))

    def __getitem__(self, index: int) -> "Spooled":
        """A sequence, its tokens read back."""
        first, stop = self._offsets[index], self._offsets[index + 1]
        self._file.seek(first * 4)
        tokens = np.frombuffer(self._file.read((stop - first) * 4), dtype=np.int32)
        own = bytes(self._ids[index * ID_BYTES : (index + 1) * ID_BYTES])
        return Spooled(own, tokens, self.extent(index))

    def extent(self, index: int) -> Extent:
        n_tokens = self._offsets[index + 1] - self._offsets[index]
        first, stop = self._first[index], self._stop[index]
        return Extent(self._n_prompt[index], n_tokens, None if first < 0 else (first, stop))


@contextlib.contextmanager
def spooling(folder: Path | None) -> Iterator[Spool]:
    """An empty spool in a temporary file in this folder, gone afterwards."""
    with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY) as file:
        yield Spool(file)


def id_array(data: bytes) -> np.ndarray:
    """Ids as an array that numpy can sort and search.

    numpy strips zero bytes from the end of such strings; of equal length, they stay distinct.
    """
    return np.frombuffer(data, dtype=f"S{ID_BYTES}")
