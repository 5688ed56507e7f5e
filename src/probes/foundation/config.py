"""Settings that cannot change under a run: frozen, closed to unknown keys, saved beside what they made."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import pydantic

from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError

SHOWN = 8
"""Differences that an error names."""


class Config(pydantic.BaseModel):
    """Base of every config. Unknown keys are refused; instances hash, compare and digest by value."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON of all settings."""
        return digest_json(self.model_dump(mode="json"))

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Read a saved config; a key or value that does not fit is an `InputError` naming the file."""
        try:
            return cls.model_validate_json(Path(path).read_text())
        except FileNotFoundError:
            raise InputError(f"no config file at {path}") from None
        except pydantic.ValidationError as error:
            raise InputError(f"{path} is not a valid {cls.__name__}: {error}") from error

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Settings in which two configs differ, by dotted name: `{name: (mine, other's)}`."""
        mine = flatten(self.model_dump(mode="json"))
        theirs = flatten(other.model_dump(mode="json"))
        names = sorted(mine.keys() | theirs.keys())
        return {
            name: (mine.get(name), theirs.get(name))
            for name in names
            if mine.get(name) != theirs.get(name)
        }


def refuse_other_settings(
    place: Path, what: str, saved: Config, given: Config, free: Collection[str] = ()
) -> None:
    """Refuse to go on in a folder whose content other settings made: `InputError` with the differences.

    what: is made there ("a run"). free: settings that may differ from call to call.
    """
    different = {
        name: pair
        for name, pair in saved.differences(given).items()
        if name.split(".")[0] not in free
    }
    if different:
        shown = "; ".join(
            f"{name} is {theirs!r} there, {ours!r} now"
            for name, (theirs, ours) in list(different.items())[:SHOWN]
        )
        raise InputError(
            f"{place} holds {what} made with other settings ({shown}). Choose another --out, "
            "repeat those settings, or delete that folder"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
