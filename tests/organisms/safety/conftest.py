"""A tokenizer that is shared by the tests of this folder."""

import pytest
import tiny_patient
import transformers

from probes.models.pretrained import read_tokenizer


@pytest.fixture(scope="session")
def small_tokenizer(
    tmp_path_factory: pytest.TempPathFactory,
) -> transformers.PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("random")
    return read_tokenizer(tiny_patient.save_patient(folder, tiny_patient.recipe()))
