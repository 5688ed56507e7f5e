"""A tokenizer that is shared by the tests of this folder, and leave to import their own behaviour."""

import pytest
import tiny_patient
import transformers

from probes.foundation.imports import allow_import
from probes.models.pretrained import read_tokenizer

allow_import(["tiny_patient:LETTERS"])


@pytest.fixture(scope="session")
def small_tokenizer(
    tmp_path_factory: pytest.TempPathFactory,
) -> transformers.PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("random")
    return read_tokenizer(tiny_patient.save_patient(folder, tiny_patient.recipe()))
