"""Monitors that never look inside the model: what the prompt's text, or its likelihood, gives away.

Each is fitted on the fit rows only and returns scores on the evaluation rows. A probe that does no
better has shown nothing about the model.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler

from probes.evaluation.auroc import as_labels, auroc, require_both_classes
from probes.foundation.errors import InputError
from probes.foundation.patterns import Pattern

Scores = Float[np.ndarray, "row"]


def bag_of_tokens(
    fit_tokens: Sequence[Sequence[int]],
    fit_y: ArrayLike,
    tokens: Sequence[Sequence[int]],
    *,
    C: float = 1.0,
    max_iter: int = 2000,
) -> Scores:
    """Logistic regression on token counts: reads any word, knows no order. Log-odds per row.

    fit_tokens, tokens: token ids per prompt. Tokens that no fit row holds do not count.
    """
    labels = _fit_labels(fit_y, len(fit_tokens))
    vocabulary = {token: column for column, token in enumerate(sorted(set().union(*fit_tokens)))}
    scaler = MaxAbsScaler()
    model = LogisticRegression(C=C, max_iter=max_iter)
    model.fit(scaler.fit_transform(_counts(fit_tokens, vocabulary)), labels)
    scores = model.decision_function(scaler.transform(_counts(tokens, vocabulary)))
    return np.asarray(scores, dtype=np.float64)


def prompt_length(
    fit_tokens: Sequence[Sequence[int]], fit_y: ArrayLike, tokens: Sequence[Sequence[int]]
) -> Scores:
    """The number of tokens, with the sign that ranks the fit rows better. In tokens."""
    fit_lengths = [float(len(row)) for row in fit_tokens]
    return perplexity(fit_lengths, fit_y, [float(len(row)) for row in tokens])


def perplexity(fit_surprise: ArrayLike, fit_y: ArrayLike, surprise: ArrayLike) -> Scores:
    """One number per prompt, such as how surprising it is, with the sign that ranks the fit rows better.

    fit_surprise, surprise: row, mean negative log-likelihood [nats per token]. Which side of it is
    suspect is learned on the fit rows alone.
    """
    values = np.asarray(fit_surprise, dtype=np.float64)
    labels = _fit_labels(fit_y, len(values))
    sign = 1.0 if auroc(labels, values) >= 0.5 else -1.0
    return sign * np.asarray(surprise, dtype=np.float64)


def trigger_pattern(pattern: str, texts: Sequence[str]) -> Scores:
    """1.0 where the regular expression of the trigger is found in the prompt, else 0.0."""
    compiled = Pattern(pattern, "the pattern of the trigger")
    return np.array([float(compiled.search(text) is not None) for text in texts])


def _fit_labels(y: ArrayLike, n_rows: int) -> np.ndarray:
    labels = as_labels(y)
    if len(labels) != n_rows:
        raise InputError(f"{n_rows} fit rows and {len(labels)} labels: give one label per row")
    require_both_classes(labels)
    return labels


def _counts(rows: Sequence[Sequence[int]], vocabulary: dict[int, int]) -> csr_matrix:
    columns = [[vocabulary[token] for token in row if token in vocabulary] for row in rows]
    starts = np.cumsum([0, *(len(row) for row in columns)])
    indices = np.array([column for row in columns for column in row], dtype=np.int64)
    counts = csr_matrix(
        (np.ones(len(indices)), indices, starts), shape=(len(rows), len(vocabulary))
    )
    counts.sum_duplicates()
    return counts
