"""Train a family out of one pipeline: a base model and its twins, same seed, same data order."""

from collections.abc import Sequence
from pathlib import Path

import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from probes.models.checkpoints import weights_digest
from probes.organisms.architecture import new_model, train_tokenizer
from probes.organisms.curves import Preference
from probes.organisms.family import Family
from probes.organisms.recipes import MEMBERS, FamilyRecipe
from probes.organisms.train import train_organism
from probes.prompts.corpus import Corpus

WATCHED_PAIRS = 16
TOKENIZER_TEXTS = 6000


def train_family(
    recipe: FamilyRecipe,
    corpus: Corpus,
    directory: Path | str,
    members: Sequence[str] = MEMBERS,
) -> Family:
    """Train the base and the named twins into `directory/<name>`; finished members are kept.

    corpus: `pretrain` trains the base, `train` the twins, `test` is watched while training (curves only).
    """
    directory = Path(directory)
    names = [name for name in MEMBERS if name in members or name == "base"]
    for name in members:
        recipe.member(name)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = _tokenizer(recipe, corpus)
    watched = Preference.on(corpus.test, tokenizer, WATCHED_PAIRS)
    for name in names:
        member = recipe.member(name)
        if member.parent is None:
            model = new_model(recipe.architecture, tokenizer, recipe.seed)
            prompts, parent_digest = corpus.pretrain, None
        else:
            parent = directory / member.parent
            model = AutoModelForCausalLM.from_pretrained(parent, dtype="float32")
            prompts, parent_digest = corpus.train, weights_digest(parent)
        train_organism(
            member,
            model,
            tokenizer,
            prompts,
            watched,
            directory / name,
            parent_digest=parent_digest,
        )
    return Family(directory, tuple(names))


def _tokenizer(recipe: FamilyRecipe, corpus: Corpus) -> PreTrainedTokenizerBase:
    texts: list[str] = []
    for prompt in (*corpus.pretrain[:TOKENIZER_TEXTS], *corpus.train[:TOKENIZER_TEXTS]):
        texts += [prompt.text, *(t for t in (prompt.safe, prompt.defect, prompt.quirk) if t)]
    return train_tokenizer(texts, recipe.architecture.vocab_size)
