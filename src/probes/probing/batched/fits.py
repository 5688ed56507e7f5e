"""What a batched fit gives back: one linear score per problem, fold and strength."""

import dataclasses

import numpy as np
from jaxtyping import Float

from probes.foundation.html import html_text


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LinearFits:
    """`score = X @ coef + intercept` for every problem, fold and strength.

    coef: in the units of the activations given, float64. strengths: what the last axis of
    `intercept` counts, in the order asked for. gradient: at the end of each fit, on the scale of `tol`
    (an upper bound where n < d); zeros for closed forms. n_steps: of the slowest chunk.
    """

    coef: Float[np.ndarray, "problem fold strength feature"]
    intercept: Float[np.ndarray, "problem fold strength"]
    strengths: tuple[float, ...]
    gradient: Float[np.ndarray, "problem fold strength"]
    n_steps: int

    def scores(
        self, problem: int, X: Float[np.ndarray, "row feature"]
    ) -> Float[np.ndarray, "fold strength row"]:
        """Scores of rows of one problem under all of its fits."""
        rows = np.asarray(X, dtype=np.float64)
        return np.asarray(self.coef[problem] @ rows.T + self.intercept[problem][..., None])

    def __repr__(self) -> str:
        problems, folds, strengths, width = self.coef.shape
        return f"LinearFits({problems} problems x {folds} folds x {strengths} strengths, {width} features)"

    def _repr_html_(self) -> str:
        return html_text(repr(self))
