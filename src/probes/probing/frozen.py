"""A fitted probe: its weights, which model, site and rows they came from, and what it refuses to score."""

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from probes.foundation.artifact import building, verify, write_bytes, write_text
from probes.foundation.config import Config
from probes.foundation.digest import digest_bytes, digest_json, short
from probes.foundation.errors import InputError, IntegrityError, unknown
from probes.foundation.html import html_table
from probes.models.identity import Identity, check_same

NONE = "none"
Loaded = TypeVar("Loaded", bound="FrozenProbe")


class Card(Config):
    """What a saved probe says about itself, beside its weights."""

    estimator: str
    site: str
    identity: Identity | None
    fitted_on: str
    seed: int
    normalisation: str = NONE


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FrozenProbe(abc.ABC):
    """A score per row, for activations of one model at one site; `Direction` and `Network` are such.

    estimator: its name in `sweep.ESTIMATORS`. site: as in "resid_post.2". identity: of the
    model whose activations were fitted; None if the fit was not told. fitted_on: digest of the rows and
    labels. seed: of the sweep. normalisation: what was done to the activations before the fit, in a
    word of the caller's ("none", "unit length"); it must be done to rows that are scored as well.
    """

    KIND: ClassVar[str]
    AXES: ClassVar[Mapping[str, int]]
    """The saved tensors by name, with the number of axes of each; an intercept has one of length 1."""

    estimator: str
    site: str
    identity: Identity | None
    fitted_on: str
    seed: int
    normalisation: str = NONE

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Features of a row."""

    @abc.abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """The weights by name, float64, in the order in which they are digested."""

    @classmethod
    @abc.abstractmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], card: Card) -> "FrozenProbe":
        """The probe of these weights."""

    @abc.abstractmethod
    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores of rows of the right width, with nothing asked about where they come from."""

    def score(
        self,
        X: Float[np.ndarray, "row feature"],
        *,
        site: str,
        identity: Identity | None,
        normalisation: str = NONE,
        allow_other: bool = False,
    ) -> Float[np.ndarray, "row"]:
        """Scores of rows; refuses activations of another model, site or normalisation, showing both.

        allow_other: True to transfer a probe on purpose. A probe or rows whose model is not known
        (None) count as another model's.
        """
        rows = np.asarray(X)
        if rows.shape[1] != self.width:
            raise InputError(f"{self.KIND} has {self.width} features, rows have {rows.shape[1]}")
        if not allow_other:
            if site != self.site:
                raise InputError(f"fitted at {self.site}, rows are of {site}; or set allow_other")
            if normalisation != self.normalisation:
                raise InputError(
                    f"fitted on activations normalised by {self.normalisation!r}, rows are by "
                    f"{normalisation!r}: do the same to both, or set allow_other=True"
                )
            check_same(
                self.identity, identity, f"this {self.KIND} was fitted on activations of",
                "Collect from the first, or set allow_other=True to transfer on purpose",
            )  # fmt: skip
        return np.asarray(self.raw_scores(rows), dtype=np.float64)

    @property
    def digest(self) -> str:
        """sha256 over weights and card: equal probes have equal digests."""
        weights = digest_bytes(b"".join(one.tobytes() for one in self.tensors().values()))
        card = self.card().model_dump()
        return digest_json([card, weights])

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        model = "an unnamed model" if self.identity is None else short(self.identity.weights_digest)
        return f"{self.estimator} at {self.site} of {model} ({self.width} features)"

    def _repr_html_(self) -> str:
        model = "an unnamed model" if self.identity is None else short(self.identity.digest)
        return html_table(dict(self.card()) | {"identity": model, "features": self.width})

    def card(self) -> Card:
        """Everything but the weights."""
        return Card(**{name: getattr(self, name) for name in Card.model_fields})

    def save(self, path: Path | str) -> Path:
        """Write a folder: weights as safetensors, the card as JSON; whole or not at all."""
        weights = {name: np.array(values) for name, values in self.tensors().items()}
        with building(path, kind=self.KIND, key=self.digest) as folder:
            write_bytes(folder / f"{self.KIND}.safetensors", save(weights))
            write_text(folder / f"{self.KIND}.json", self.card().to_json())
        return Path(path)

    @classmethod
    def load(cls: type[Loaded], path: Path | str) -> Loaded:
        """Read a saved probe of this kind; changed bytes are an `IntegrityError`."""
        manifest = verify(path)
        if manifest.kind != cls.KIND:
            raise InputError(
                f"{path} holds a {manifest.kind}, not a {cls.KIND}: `probing.frozen.load_probe` reads "
                "every kind of probe"
            )
        file = Path(path) / f"{cls.KIND}.safetensors"
        tensors = _read_tensors(file, cls.AXES)
        probe = cls.from_tensors(tensors, Card.from_file(Path(path) / f"{cls.KIND}.json"))
        if probe.digest != manifest.key:
            raise IntegrityError(f"{path} does not hold the {cls.KIND} that its manifest names")
        assert isinstance(probe, cls)
        return probe

    def _freeze(self, name: str, n_axes: int) -> None:
        """Keep weights as a finite array in double precision that nobody can write into."""
        values: Any = np.array(getattr(self, name), dtype=np.float64)
        if values.ndim != n_axes or not np.isfinite(values).all():
            what = ("number", "vector", "matrix")[n_axes]
            raise InputError(
                f"{name} of a {self.KIND} is a finite {what}; saw shape {values.shape}"
            )
        if n_axes:
            values.flags.writeable = False
        object.__setattr__(self, name, values if n_axes else float(values))


def _read_tensors(file: Path, axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Exactly these tensors, in double precision, as `save` wrote them."""
    try:
        with safe_open(file, framework="numpy") as found:
            seen = {name: found.get_slice(name) for name in found.keys()}  # noqa: SIM118
            shapes = {name: (one.get_dtype(), one.get_shape()) for name, one in seen.items()}
            right = shapes.keys() == axes.keys() and all(
                dtype == "F64"
                and len(shape) == axes[name]
                and (name != "intercept" or shape == [1])
                for name, (dtype, shape) in shapes.items()
            )
            if right:
                return {name: found.get_tensor(name) for name in axes}
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{file} cannot be read: {error}") from error
    listed = [f"{name} ({dtype}, shape {shape})" for name, (dtype, shape) in shapes.items()]
    raise IntegrityError(
        f"{file} does not hold the weights of a probe: saw {', '.join(listed[:8]) or 'no tensor'}; "
        f"allowed are {', '.join(axes)} in float64. Save the probe again where it was fitted"
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Direction(FrozenProbe):
    """Score = X @ coef + intercept; what it refuses and how it is saved: see `FrozenProbe`.

    coef: feature, float64, read-only, in the units of the activations.
    """

    KIND: ClassVar[str] = "direction"
    AXES: ClassVar[Mapping[str, int]] = {"coef": 1, "intercept": 1}

    coef: Float[np.ndarray, "feature"]
    intercept: float

    def __post_init__(self) -> None:
        self._freeze("coef", 1)
        self._freeze("intercept", 0)

    @property
    def width(self) -> int:
        return len(self.coef)

    def tensors(self) -> dict[str, np.ndarray]:
        return {"coef": self.coef, "intercept": np.array([self.intercept])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], card: Card) -> "Direction":
        intercept = float(tensors["intercept"][0])
        return cls(coef=tensors["coef"], intercept=intercept, **dict(card))

    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows @ self.coef + self.intercept)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Network(FrozenProbe):
    """Score = relu(X @ hidden + hidden_intercept) @ output + intercept: log-odds.

    hidden: (feature, unit) in the units of the activations. hidden_intercept, output: unit. All
    float64 and read-only. What it refuses and how it is saved: see `FrozenProbe`.
    """

    KIND: ClassVar[str] = "network"
    AXES: ClassVar[Mapping[str, int]] = {
        "hidden": 2, "hidden_intercept": 1, "output": 1, "intercept": 1,
    }  # fmt: skip

    hidden: Float[np.ndarray, "feature unit"]
    hidden_intercept: Float[np.ndarray, "unit"]
    output: Float[np.ndarray, "unit"]
    intercept: float

    def __post_init__(self) -> None:
        self._freeze("hidden", 2)
        self._freeze("hidden_intercept", 1)
        self._freeze("output", 1)
        self._freeze("intercept", 0)
        units = {self.hidden.shape[1], len(self.hidden_intercept), len(self.output)}
        if len(units) > 1:
            raise InputError(
                f"the weights of a network have {sorted(units)} units: give one number"
            )

    @property
    def width(self) -> int:
        return len(self.hidden)

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "hidden": self.hidden,
            "hidden_intercept": self.hidden_intercept,
            "output": self.output,
            "intercept": np.array([self.intercept]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], card: Card) -> "Network":
        return cls(
            hidden=tensors["hidden"],
            hidden_intercept=tensors["hidden_intercept"],
            output=tensors["output"],
            intercept=float(tensors["intercept"][0]),
            **dict(card),
        )

    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        return network_scores(rows, self.hidden, self.hidden_intercept, self.output, self.intercept)


def network_scores(
    rows: np.ndarray,
    hidden: np.ndarray,
    hidden_intercept: np.ndarray,
    output: np.ndarray,
    intercept: float,
) -> np.ndarray:
    """Log-odds of rows under one hidden layer of rectified units."""
    units = np.maximum(rows @ hidden + hidden_intercept, 0.0)
    return np.asarray(units @ output + intercept)


KINDS: dict[str, type[FrozenProbe]] = {kind.KIND: kind for kind in (Direction, Network)}


def load_probe(path: Path | str) -> FrozenProbe:
    """Read what `FrozenProbe.save` wrote; changed bytes are an `IntegrityError`."""
    kind = verify(path).kind
    if kind not in KINDS:
        raise unknown("kind of probe", kind, KINDS)
    return KINDS[kind].load(path)
