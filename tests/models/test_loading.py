"""What was loaded can be loaded again, elsewhere and only if it is the same; dtypes keep the numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from probes.foundation import progress
from probes.foundation.errors import InputError
from probes.models import checkpoints as checkpoints_module
from probes.models import forward
from probes.models.checkpoints import weights_digest
from probes.models.encoding import pad
from probes.models.identity import Identity
from probes.models.loading import Model, load, load_from
from probes.models.placement import on_device
from probes.models.source import Source

BATCH = pad([list(range(5, 25)), list(range(40, 47)), [7]], pad_id=1)
# Largest error relative to the largest logit, measured over 11 architectures: 0.0028 and 0.023.
HALF = {torch.float16: 1e-2, torch.bfloat16: 6e-2}
ELSEWHERE = """
import sys
from probes.models import forward
from probes.models.encoding import pad
from probes.models.identity import Identity
from probes.models.loading import load_from
from probes.models.source import Source

model = load_from(
    Source.model_validate_json(sys.argv[1]), Identity.model_validate_json(sys.argv[2])
)
batch = pad([list(range(5, 25))], pad_id=1)
print(model.name, model.weights_digest, float(forward.logits(model.hf, batch).double().sum()))
"""


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return forward.logits(model.hf, BATCH)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_every_architecture_its_numbers(model, checkpoints, dtype):
    half = load(checkpoints[model.name], dtype=dtype)
    assert half.dtype == dtype
    assert half.compute == half.source.dtype == str(dtype).removeprefix("torch.")
    assert half.weights_digest == model.weights_digest
    mask = BATCH.mask.bool()
    seen, expected = logits(half)[mask], logits(model)[mask]
    assert seen.dtype == dtype
    error = (seen.float() - expected).abs().max() / expected.abs().max()
    assert 0 < error < HALF[dtype]


def test_a_source_says_how_to_load_it_again(checkpoints, monkeypatch):
    monkeypatch.chdir(checkpoints["llama"].parent)
    model = load("llama", dtype=torch.bfloat16, label="mine", device_map={"": torch.device("cpu")})
    assert model.source == Source(
        directory=str(checkpoints["llama"].resolve()),
        label="mine",
        dtype="bfloat16",
        device_map=(("", "cpu"),),
    )
    sent = Source.model_validate_json(model.source.to_json())
    assert sent == model.source
    assert hash(sent) == hash(model.source)
    assert sent.placement == {"": "cpu"}
    monkeypatch.chdir("/")
    again = load_from(sent, model.identity)
    assert (again.name, again.dtype, again.source) == ("mine", torch.bfloat16, sent)
    assert torch.equal(logits(again), logits(model))


def test_a_device_map_keeps_its_order_and_its_numbers(tmp_path):
    given = {"b": 0, "a": "cpu", "c": "disk"}
    source = Source(directory="d", label="l", device_map=tuple(given.items()))
    sent = Source.model_validate_json(source.to_json())
    assert list(sent.placement.items()) == list(given.items())
    assert sent.digest == source.digest


def test_another_process_loads_the_very_same(llama):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            ELSEWHERE,
            json.dumps(llama.source.model_dump()),
            llama.identity.to_json(),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env=os.environ,
    )
    with torch.no_grad():
        total = forward.logits(llama.hf, pad([list(range(5, 25))], pad_id=1)).double().sum()
    name, digest, seen = done.stdout.split()
    assert (name, digest) == ("llama", llama.weights_digest)
    assert float(seen) == pytest.approx(float(total), rel=1e-9)


def test_other_weights_at_the_same_path_are_refused_with_both_digests(llama_dir: Path):
    model = load(llama_dir)
    tensors = load_file(llama_dir / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1e-3
    save_file(tensors, llama_dir / "model.safetensors", metadata={"format": "pt"})
    now = weights_digest(llama_dir)
    with pytest.raises(InputError, match=f"weights_digest: there {now[:12]}, here"):
        load_from(model.source, model.identity)
    other = model.identity.model_copy(update={"weights_digest": now})
    assert load_from(model.source, other).weights_digest == now


def test_a_source_from_elsewhere_is_checked_like_any_argument(checkpoints, tmp_path):
    good = Source(directory=str(checkpoints["llama"]), label="x")
    for changes, match in [
        ({"dtype": "float64"}, "unknown dtype 'float64'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"quantization": "1bit"}, "unknown quantization"),
        ({"device_map": "fast"}, "unknown device_map"),
        ({"directory": str(tmp_path / "gone")}, "no such directory"),
        ({"adapter": str(tmp_path / "gone")}, "no such directory"),
    ]:
        with pytest.raises(InputError, match=match):
            load_from(good.model_copy(update=changes), Identity(weights_digest="0" * 64))


def test_a_model_made_by_hand_has_no_source(llama):
    model = Model(
        llama.hf, llama.tokenizer, "own", Path("nowhere"), Identity(weights_digest="0" * 64)
    )
    assert model.source is None
    assert model.quantization is None
    assert (model.device, model.compute) == (torch.device("cpu"), "float32")


def test_a_long_wait_for_a_digest_is_shown(llama_dir, monkeypatch, capsys):
    weights_digest(llama_dir)
    assert capsys.readouterr().err == ""
    made = []

    def kept(*args, **kwargs):
        made.append(progress.bar(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(checkpoints_module, "bar", kept)
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    weights_digest(llama_dir)
    assert made[0].desc.startswith(f"digest of {llama_dir.name}")
    tensors = load_file(llama_dir / "model.safetensors").values()
    assert made[0].n == sum(tensor.nbytes for tensor in tensors) <= made[0].total


@pytest.mark.parametrize(
    ("seconds", "moved", "nats", "chosen"),
    [(2.0, 0.01, 1e-3, "bfloat16"), (1.1, 0.01, 1e-3, "float32"), (2.0, 0.5, 1e-3, "float32"),
     (2.0, 0.01, 1.0, "float32")],
)  # fmt: skip
def test_bfloat16_is_taken_where_it_is_fast_and_near(
    llama_dir, monkeypatch, capsys, seconds, moved, nats, chosen
):
    from probes.models import precision

    took = {torch.float32: seconds, torch.bfloat16: 1.0}
    monkeypatch.setattr(precision, "_seconds", lambda model, _: took[model.dtype])
    # one token in fifty falls to the other side of being a sink
    monkeypatch.setattr(
        precision, "rounding", lambda *_: (torch.tensor([moved] * 49 + [9.0]), nats)
    )
    found = load(llama_dir, dtype="auto")
    assert str(found.dtype) == f"torch.{chosen}" == f"torch.{found.source.dtype}"
    assert (
        f"is computed in {chosen}: bfloat16 is {seconds} times as fast" in capsys.readouterr().err
    )


def test_the_error_of_bfloat16_is_that_of_its_rounding(llama_dir):
    from probes.models import precision

    rounded, exact = load(llama_dir, dtype="bfloat16"), load(llama_dir)
    batch = pad([[5, 6, 7, 8]] * 2, 0)
    moved, nats = precision.rounding(rounded, exact)
    assert 1e-4 < moved.max() < 0.1 and 0 < nats < 0.1
    moved, nats = precision.rounding(exact, exact)
    assert moved.max() == nats == 0.0
    assert precision._seconds(exact, batch) > 0
    with on_device(compute_dtype="bfloat16"):
        assert load(llama_dir).dtype == torch.bfloat16
    assert load(llama_dir).dtype == torch.float32
