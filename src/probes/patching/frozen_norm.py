"""A norm taken as the linear map that it is once its scale is known: what each term of a sum passes on.

RMSNorm and LayerNorm divide by a number that depends on the whole input. With that number held, the norm of
a sum is the sum of what it makes of the terms, plus its own bias. Nothing is assumed of the module's class:
gain, bias and centring are read off what it does to probing inputs, and checked on the real ones.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import InputError
from probes.patching.canary import TOLERANCE

Norm = Callable[[Float[Tensor, "row d_model"]], Float[Tensor, "row d_model"]]
LARGE = 1e3  # so that the small number that norms add to the variance does not count


@dataclasses.dataclass(frozen=True)
class FrozenNorm:
    """gain, bias: `[d_model]`. centred: whether the mean is taken off first. norm: the module's own."""

    norm: Norm
    gain: Float[Tensor, "d_model"]
    bias: Float[Tensor, "d_model"]
    centred: bool

    def passed_on(
        self, whole: Float[Tensor, "row d_model"], terms: Float[Tensor, "row term d_model"]
    ) -> Float[Tensor, "row term d_model"]:
        """What each term of a sum gives to the norm of `whole`; with `bias` they add up to it.

        Float64. Raises `InputError` where the norm is not of this form.
        """
        right = self.norm(whole).double() - self.bias
        straight = self._centred(whole.double()) * self.gain
        scale = (right * straight).sum(-1) / straight.square().sum(-1).clamp_min(1e-300)
        error = (straight * scale[:, None] - right).abs().max()
        if not float(error) <= 10 * TOLERANCE[whole.dtype] * float(
            right.abs().max().clamp_min(1e-6)
        ):
            raise InputError(
                "this norm is neither RMSNorm nor LayerNorm: with its scale held it is not linear in "
                "its input, so that no part of the model has a share in what it gives. Patch the parts "
                "with `patch_cells` instead."
            )
        return self._centred(terms.double()) * self.gain * scale[:, None, None]

    def _centred(self, values: Tensor) -> Tensor:
        return values - values.mean(-1, keepdim=True) if self.centred else values


def freeze(norm: Norm, like: Float[Tensor, "row d_model"]) -> FrozenNorm:
    """Read gain, bias and centring off a norm; like: some rows of what it normally gets."""
    signs = torch.ones_like(like[:1])
    signs[:, 1::2] = -1
    plus, minus = norm(LARGE * signs).double(), norm(-LARGE * signs).double()
    shifted = norm(like + like.abs().max()).double()
    plain = norm(like).double()
    centred = bool((shifted - plain).abs().max() <= 1e-2 * plain.abs().max())
    return FrozenNorm(
        norm, ((plus - minus) / 2 * signs.double())[0], ((plus + minus) / 2)[0], centred
    )
