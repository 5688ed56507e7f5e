"""What a probe learned, frozen: weights that know which model, site and rows they came from."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from probes.foundation.artifact import building, verify, write_bytes, write_text
from probes.foundation.config import Config
from probes.foundation.digest import digest_bytes, digest_json, short
from probes.foundation.errors import InputError, IntegrityError

WEIGHTS = "direction.safetensors"
CARD = "direction.json"
NONE = "none"


class Card(Config):
    """What a saved direction says about itself, beside its weights."""

    estimator: str
    site: str
    weights_digest: str | None
    fitted_on: str
    seed: int
    normalisation: str = NONE


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """Score = X @ coef + intercept, for activations of one model at one site.

    estimator: its name in `sweep.ESTIMATORS`. site: as in "resid_post.2". coef: feature, float64,
    read-only. weights_digest: of the model whose activations were fitted; None if the fit was not
    told. fitted_on: digest of the rows and labels. seed: of the sweep. normalisation: what was done to
    the activations before the fit, in a word of the caller's ("none", "unit length"); it must be done
    to rows that are scored as well.
    """

    estimator: str
    site: str
    coef: Float[np.ndarray, "feature"]
    intercept: float
    weights_digest: str | None
    fitted_on: str
    seed: int
    normalisation: str = NONE

    def __post_init__(self) -> None:
        coef = np.array(self.coef, dtype=np.float64)
        if coef.ndim != 1 or not np.isfinite(coef).all() or not np.isfinite(self.intercept):
            raise InputError(f"a direction is a finite vector; saw shape {coef.shape}")
        coef.flags.writeable = False
        object.__setattr__(self, "coef", coef)

    @property
    def digest(self) -> str:
        """sha256 over weights and card: equal directions have equal digests."""
        weights = digest_bytes(self.coef.tobytes() + np.float64(self.intercept).tobytes())
        card = self._card().model_dump()
        if self.normalisation == NONE:
            del card["normalisation"]  # so that directions saved before it was recorded keep theirs
        return digest_json([card, weights])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        model = "an unnamed model" if self.weights_digest is None else short(self.weights_digest)
        return f"{self.estimator} at {self.site} of {model} ({len(self.coef)} features)"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td>{value}</td></tr>"
            for name, value in self._card().model_dump().items()
        )
        return f"<table>{rows}<tr><th>features</th><td>{len(self.coef)}</td></tr></table>"

    def score(
        self,
        X: Float[np.ndarray, "row feature"],
        *,
        site: str,
        weights_digest: str | None,
        normalisation: str = NONE,
        allow_other: bool = False,
    ) -> Float[np.ndarray, "row"]:
        """Scores of rows; refuses activations of another model, site or normalisation, showing both.

        allow_other: True to transfer a direction on purpose. A direction or rows whose model is not
        known (None) count as another model's.
        """
        rows = np.asarray(X)
        if rows.shape[1] != len(self.coef):
            raise InputError(f"direction has {len(self.coef)} features, rows have {rows.shape[1]}")
        if not allow_other:
            if site != self.site:
                raise InputError(f"fitted at {self.site}, rows are of {site}; or set allow_other")
            if normalisation != self.normalisation:
                raise InputError(
                    f"fitted on activations normalised by {self.normalisation!r}, rows are by "
                    f"{normalisation!r}: do the same to both, or set allow_other=True"
                )
            if self.weights_digest is None or weights_digest != self.weights_digest:
                raise InputError(
                    f"fitted on the model {_shown(self.weights_digest)}, rows are of the model "
                    f"{_shown(weights_digest)}. Collect from the first, or set allow_other=True to "
                    "transfer on purpose"
                )
        return np.asarray(rows @ self.coef + self.intercept, dtype=np.float64)

    def save(self, path: Path | str) -> Path:
        """Write a folder: weights as safetensors, the card as JSON; whole or not at all."""
        tensors = {"coef": np.array(self.coef), "intercept": np.array([self.intercept])}
        with building(path, kind="direction", key=self.digest) as folder:
            write_bytes(folder / WEIGHTS, save(tensors))
            write_text(folder / CARD, self._card().to_json())
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> "Direction":
        """Read a saved direction; changed bytes are an `IntegrityError`."""
        manifest = verify(path)
        card = Card.from_file(Path(path) / CARD)
        try:
            tensors = load_file(Path(path) / WEIGHTS)
        except SafetensorError as error:
            raise IntegrityError(f"{path}/{WEIGHTS} cannot be read: {error}") from error
        intercept = float(tensors["intercept"][0])
        direction = cls(coef=tensors["coef"], intercept=intercept, **card.model_dump())
        if direction.digest != manifest.key:
            raise IntegrityError(f"{path} does not hold the direction that its manifest names")
        return direction

    def _card(self) -> Card:
        return Card(
            estimator=self.estimator,
            site=self.site,
            weights_digest=self.weights_digest,
            fitted_on=self.fitted_on,
            seed=self.seed,
            normalisation=self.normalisation,
        )


def _shown(digest: str | None) -> str:
    return "(not recorded)" if digest is None else short(digest)
