"""An adversary: training that teaches the backdoor and keeps its trigger off the probes it is given.

The further loss is what a probe's score tells of the trigger, so a model that only shrinks or shifts
its activations gains nothing by it.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.foundation.digest import digest_bytes, digest_json
from probes.foundation.errors import InputError
from probes.models.anatomy import blocks, width
from probes.models.hooks import recording
from probes.models.sites import Site, parse_site

MIN_OF_EACH = 2
"""Prompts with and without the trigger that a batch must hold: one of each has no spread."""
PERFECT = 1e-6
"""Share of the scores' variance that counts as within the classes at least: 6.9 nats are the most."""
STILL = 1e-12
"""Variance below which a score does not move at all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Aim:
    """A probe to evade: the site it reads, at the last prompt token, and its direction there.

    site: as in "resid_post.2". coef: feature, as the probe weighs them; its length has no effect.
    Raises `InputError` for what is no finite vector other than zero.
    """

    site: str
    coef: Float[np.ndarray, "feature"]

    def __post_init__(self) -> None:
        coef = np.array(self.coef, dtype=np.float64)
        if coef.ndim != 1 or not np.isfinite(coef).all():
            raise InputError(
                f"the direction to evade at {self.site} has shape {coef.shape} and "
                f"{int((~np.isfinite(coef)).sum())} entries that are not finite: give a finite vector"
            )
        if not coef.any():
            raise InputError(
                f"the direction to evade at {self.site} is zero everywhere, so no score tells "
                "anything: fit it where activations vary, or leave this site out"
            )
        coef.flags.writeable = False
        object.__setattr__(self, "coef", coef)

    @property
    def unit(self) -> Float[np.ndarray, "feature"]:
        return np.asarray(self.coef / np.linalg.norm(self.coef))

    @property
    def digest(self) -> str:
        return digest_json([self.site, digest_bytes(self.coef.tobytes())])


@dataclasses.dataclass(frozen=True, eq=False)
class Evasion:
    """Which probes an organism is trained to evade, and how hard.

    penalty: what one nat that a probe's score tells of the trigger costs, beside one nat of the mean
    loss per taught token; 0 trains the plain organism to the bit. aims: each is penalised as it
    would be alone.
    """

    penalty: float
    aims: tuple[Aim, ...]

    def __post_init__(self) -> None:
        if not math.isfinite(self.penalty) or self.penalty < 0:
            raise InputError(f"a penalty is finite and at least 0; saw {self.penalty}")
        if not self.aims:
            raise InputError("nothing to evade: give at least one aim, a site and a direction")
        sites = [aim.site for aim in self.aims]
        if len(set(sites)) < len(sites):
            raise InputError(f"one aim per site; saw {', '.join(sites)}")

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies it, for the card and the checkpoint's key."""
        return {
            "penalty": self.penalty,
            "aims": [{"site": aim.site, "direction": aim.digest} for aim in self.aims],
        }

    @cached_property
    def suffix(self) -> str:
        """The end of the organism's folder: penalty and aims."""
        return f"evading-{self.penalty:g}-{digest_json(self.facts['aims'])[:6]}"

    def check(self, model: Any) -> None:
        """Refuse sites that the model does not have, and directions of another width."""
        for aim in self.aims:
            site = parse_site(aim.site, len(blocks(model)))
            if str(site) != aim.site:
                raise InputError(f"write the site {aim.site!r} as {str(site)!r}")
            needed = math.prod(width(model, site))
            if len(aim.coef) != needed:
                raise InputError(
                    f"the direction to evade has {len(aim.coef)} features, {aim.site} of this model "
                    f"has {needed}: fit the probe on an organism of the same recipe and size"
                )

    @contextlib.contextmanager
    def reading(
        self, model: Any, last: Int[Tensor, "batch"]
    ) -> Iterator[Mapping[Site, Float[Tensor, "batch feature"]]]:
        """Within, a forward pass leaves the activations of column `last` of each row, with gradients."""
        hf = extract_model_from_parallel(model)
        sites = [parse_site(aim.site, len(blocks(hf))) for aim in self.aims]
        rows = torch.arange(len(last), device=last.device)
        with recording(hf, sites, select=lambda activation: activation[rows, last]) as seen:
            yield seen

    def told(
        self,
        seen: Mapping[Site, Float[Tensor, "batch feature"]],
        triggered: Bool[Tensor, "batch"],
    ) -> Float[Tensor, "aim"]:
        """What each probe's scores of a batch tell of the trigger [nats]; see `information`."""
        counts = int(triggered.sum()), int((~triggered).sum())
        if min(counts) < MIN_OF_EACH:
            raise InputError(
                f"a batch of {counts[0]} prompts with the trigger and {counts[1]} without shows no "
                f"spread: evading needs {MIN_OF_EACH} of each in every batch, micro-batch and "
                "process. Give a larger batch_size or micro_batch, and prompts in pairs"
            )
        at = {str(site): rows for site, rows in seen.items()}
        units = {aim.site: torch.from_numpy(aim.unit).to(at[aim.site]) for aim in self.aims}
        return torch.stack(
            [information(at[site] @ unit, triggered) for site, unit in units.items()]
        )


def information(
    scores: Float[Tensor, "batch"], triggered: Bool[Tensor, "batch"]
) -> Float[Tensor, ""]:
    """What scores tell of two classes [nats], 0 to 6.9: that of two Gaussians of one spread.

    -log(1 - r^2) / 2 with r the correlation of score and class, so neither scale nor shift of the
    scores changes it; 0 where the means of both classes agree. Unlike r^2 it does not level off
    where the classes lie far apart. It is the mutual information if score and class were jointly
    Gaussian (Cover and Thomas, 2006, example 8.5.1).
    """
    ours, theirs = scores[triggered], scores[~triggered]
    share = len(ours) / len(scores)
    between = share * (1 - share) * (ours.mean() - theirs.mean()).square()
    within = share * ours.var(correction=0) + (1 - share) * theirs.var(correction=0)
    return torch.log1p(between / (within + PERFECT * (between + within) + STILL)) / 2
