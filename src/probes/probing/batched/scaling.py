"""Centre and scale rows by some of them, and take weights back to the units of the activations."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.probing.features import CONSTANT


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
    low, high = chosen.amin(1), chosen.amax(1)
    varies = (high - low) > CONSTANT * torch.maximum(high.abs(), low.abs())
    spread = torch.ones_like(mean)
    if standardise:
        spread = chosen.var(1, correction=0).sqrt()
    return Scaling(mean, torch.where(varies, spread, torch.inf))
