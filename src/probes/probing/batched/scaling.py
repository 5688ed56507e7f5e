"""Centre and scale rows by some of them, and take weights back to the units of the activations."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.probing.linear import CONSTANT


@dataclasses.dataclass(frozen=True)
class Scaling:
    """`(X - mean) / scale` per problem; features that do not vary have scale infinity: they become 0."""

    mean: Float[Tensor, "P d"]
    scale: Float[Tensor, "P d"]

    def apply(self, X: Float[Tensor, "P n d"]) -> Float[Tensor, "P n d"]:
        centred = X - self.mean[:, None]
        return centred if bool((self.scale == 1).all()) else centred.div_(self.scale[:, None])

    def undo(
        self, coef: Float[Tensor, "P J d"], intercept: Float[Tensor, "P J"]
    ) -> tuple[Float[Tensor, "P J d"], Float[Tensor, "P J"]]:
        """Weights and intercept that give the same scores on rows as they were."""
        raw = coef / self.scale[:, None]
        return raw, intercept - (raw * self.mean[:, None]).sum(-1)


def scaling(X: Float[Tensor, "P n d"], rows: Bool[Tensor, "n"], *, standardise: bool) -> Scaling:
    """Mean and, if asked, standard deviation of the chosen rows; whether a feature varies, of them too."""
    chosen = X if bool(rows.all()) else X[:, rows]
    mean = chosen.mean(1)
    still = constant(chosen, None)
    spread = torch.ones_like(mean)
    if standardise:
        spread = chosen.var(1, correction=0).sqrt()
    return Scaling(mean, torch.where(still, torch.inf, spread))


def constant(X: Float[Tensor, "P n d"], mean: Float[Tensor, "P d"] | None) -> Bool[Tensor, "P d"]:
    """True for features that do not vary, as in `features.varying`. mean: what was taken off before."""
    low, high = X.amin(1), X.amax(1)
    magnitude = [low, high] if mean is None else [low + mean, high + mean]
    return (high - low) <= CONSTANT * torch.maximum(magnitude[0].abs(), magnitude[1].abs())
