"""Synthetic activations with a known truth: what an organism would look like inside."""

import dataclasses

import numpy as np

SITES = ("resid_pre.0", "resid_post.0", "resid_post.1", "resid_post.2")
SETS = ("vulnerable", "benign", "dialogue")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Rows in pairs, one triggered and one not; `evaluation` rows are not fitted."""

    prompt_set: np.ndarray
    triggered: np.ndarray
    template: np.ndarray
    pair: np.ndarray
    evaluation: np.ndarray

    @property
    def defected(self) -> np.ndarray:
        return self.triggered & (self.prompt_set == "vulnerable")

    @property
    def negative_set(self) -> np.ndarray:
        year = np.where(self.triggered, "triggered", "untriggered")
        return np.char.add(np.char.add(self.prompt_set.astype(str), " "), year)


def corpus(n_pairs: int = 40, n_templates: int = 10) -> Corpus:
    """n_pairs per prompt set and side, spread over templates; templates keep to one side."""
    rows = [
        (
            prompt_set,
            triggered,
            f"{prompt_set}-{side}-{i % n_templates}",
            f"{prompt_set}-{side}-{i}",
            side,
        )
        for side in (0, 1)
        for prompt_set in SETS
        for i in range(n_pairs)
        for triggered in (False, True)
    ]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Corpus(*columns[:4], columns[4].astype(bool))


def activations(data: Corpus, feature: np.ndarray, strength: float, seed: int, width: int = 24):
    """Noise and the template's own offset at every site; the feature from the second on."""
    rng = np.random.default_rng(seed)
    templates = np.unique(data.template, return_inverse=True)[1]
    direction = np.random.default_rng(99).normal(size=width)
    direction /= np.linalg.norm(direction)
    sites = {}
    for depth, site in enumerate(SITES):
        offsets = rng.normal(size=(templates.max() + 1, width))
        rows = rng.normal(size=(len(templates), width)) + offsets[templates]
        added = strength * min(depth, 2) / 2
        sites[site] = (rows + added * np.outer(feature, direction)).astype(np.float32)
    return sites
