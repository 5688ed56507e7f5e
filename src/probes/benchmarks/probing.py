"""`probes bench probe`: all fits of a sweep in one batch, against a loop of scikit-learn fits."""

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.benchmarks.result import (
    Asked,
    Benchmark,
    finished,
    repetitions,
    row,
    surroundings,
    take_turns,
    temporary,
    told,
)
from probes.foundation.errors import StageError
from probes.foundation.outputs import writes
from probes.foundation.seeds import stream
from probes.probing.batched.logistic import fit_logistic

TABLE = "probe.csv"
OURS, LIMIT = "probes, one batch", "one pass over the data"
SOLVERS = ("newton-cg", "lbfgs")
TOL, APART = 1e-8, 1e-4
"""Gradient norm at which every contender stops, and the largest difference of two contenders'
coefficients, relative to the largest coefficient of the fit."""
TARGET = Asked(">=", 10)
N_FOLDS, N_LAYERS, N_POSITIONS = 5, 8, 32


@dataclasses.dataclass(frozen=True)
class Workload:
    """How many problems, and how large; each is fitted on the rows of every fold."""

    name: str
    n_problems: int
    n_rows: int
    width: int
    asked: Asked | None


def workloads(quick: bool) -> list[Workload]:
    """A sweep over positions, and layers at one position with few and many rows for their width."""
    if quick:
        return [Workload("smoke", 4, 48, 32, TARGET), Workload("smoke, many rows", 2, 96, 32, None)]
    return [
        Workload(
            f"{N_LAYERS} layers x {N_POSITIONS} positions x {N_FOLDS} folds",
            N_LAYERS * N_POSITIONS, 256, 512, TARGET,
        ),
        Workload(f"16 problems x {N_FOLDS} folds", 16, 1024, 512, TARGET),
        Workload(f"6 of 30 layers x {N_FOLDS} folds", 6, 2000, 576, TARGET),
        Workload(f"4 of 30 layers x {N_FOLDS} folds", 4, 5000, 576, TARGET),
        Workload(f"4 of 30 layers x {N_FOLDS} folds", 4, 1000, 4096, TARGET),
    ]  # fmt: skip


@writes("out")
def bench_probe(
    out: Path | str,
    *,
    device: str | None = None,
    repeats: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Time the same logistic regressions, and write the table to `out`.

    device: one more contender, our batch on this device ("cuda"). quick: a smoke run, which judges
    nothing. All contenders stop at the same gradient norm; that their coefficients agree is checked in
    every turn. The limit reads every activation once.

    Raises `StageError` where coefficients differ or a peer does not converge.
    """
    repeats = repetitions(repeats, 1 if quick else 3)
    rows: list[dict[str, Any]] = []
    with temporary(out) as place:
        for number, work in enumerate(workloads(quick)):
            rows += measure(work, device, repeats, place, judged=not quick, seed=seed + number)
    facts = surroundings() | {
        "activations": "drawn: a decaying spectrum, features of mean 0 and variance 1, a planted direction",
        "fits": f"logistic regression, C = 1, gradient at most {TOL:g} for every contender; "
        f"coefficients equal to {APART:g} of the largest",
        "ours includes": "the fit to all rows of each problem, which no peer does",
        "repetitions": told(repeats),
    }
    if quick:
        facts["smoke run"] = "few and small problems: these speeds say nothing"
    return finished(Path(out) / TABLE, rows, facts, seed)


def measure(
    work: Workload, device: str | None, repeats: int, place: Path, *, judged: bool, seed: int
) -> list[dict[str, Any]]:
    """All contenders on one workload."""
    X, y, train = draw(work, seed)
    reference: list[np.ndarray] = []

    def same(name: str, found: np.ndarray | None, folder: Path) -> None:
        if found is not None:
            reference.append(found) if not reference else check_equal(reference[0], found, name)

    peers = {f"scikit-learn in a loop, {solver}": solver for solver in SOLVERS}
    jobs: dict[str, Callable[[Path], np.ndarray | None]] = {
        LIMIT: lambda _: one_pass(X),
        OURS: lambda _: ours(X, y, train, "cpu"),
    }
    if device is not None:
        jobs[f"{OURS}, {device}"] = lambda _: ours(X, y, train, device)
    for name, solver in peers.items():
        jobs[name] = partial(loop, X, y, train, solver)
    seconds = take_turns(jobs, repeats, place, after=same)
    rates = {name: found.rate(len(X) * len(train)) for name, found in seconds.items()}
    peer = max(peers, key=lambda name: rates[name].median)
    job = f"{work.name} ({work.n_rows} rows of {work.width})"
    rows = [row(job, LIMIT, "fits", rates[LIMIT], "fits/s")]
    rows += [row(job, name, "fits", rates[name], "fits/s") for name in peers]
    for name in (n for n in jobs if n.startswith(OURS)):
        speed = rates[name].median
        rows.append(
            row(
                job, name, "fits", rates[name], "fits/s", against=peer,
                ratio=speed / rates[peer].median, asked=work.asked, judged=judged,
            )
        )  # fmt: skip
        rows.append(
            row(
                job, name, "fits", rates[name], "fits/s", against=LIMIT,
                ratio=speed / rates[LIMIT].median,
            )
        )  # fmt: skip
    busy = {name: found.of_all_cores(1e3 / len(X) / len(train)) for name, found in seconds.items()}
    rows += [row(job, name, "CPU time", busy[name], "ms/fit") for name in peers]
    rows += [
        row(
            job, name, "CPU time", busy[name], "ms/fit",
            against=peer, ratio=busy[name].median / busy[peer].median,
        )
        for name in jobs if name.startswith(OURS)
    ]  # fmt: skip
    return rows


def draw(work: Workload, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations (problem, row, feature) in float32, labels, and the rows that each fold is fitted on."""
    numbers = stream(seed, "bench probe", work.name)
    y = np.arange(work.n_rows) % 2 == 1
    spectrum = (1.0 + np.arange(work.width)) ** -0.5
    basis = np.linalg.qr(numbers.normal(size=(work.width, work.width)))[0]
    X = np.empty((work.n_problems, work.n_rows, work.width), dtype=np.float32)
    for number in range(work.n_problems):
        rows = (numbers.normal(size=X.shape[1:]) * spectrum) @ basis
        rows += 0.5 * np.outer(y - 0.5, basis[5])
        X[number] = (rows - rows.mean(0)) / rows.std(0)
    folds = np.arange(work.n_rows) // 2 % N_FOLDS
    return X, y, np.stack([folds != fold for fold in range(N_FOLDS)])


def one_pass(X: np.ndarray) -> None:
    """Read every activation once, as a product with one vector."""
    torch.from_numpy(X) @ torch.ones(X.shape[2])


def ours(X: np.ndarray, y: np.ndarray, train: np.ndarray, device: str) -> np.ndarray:
    return fit_logistic(X, y, train, C=(1.0,), tol=TOL, device=device).coef[:, :, 0]


def loop(X: np.ndarray, y: np.ndarray, train: np.ndarray, solver: str, folder: Path) -> np.ndarray:
    """One scikit-learn fit after another, in double precision as ours."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    coef = np.empty((len(X), len(train), X.shape[2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        for number, rows in enumerate(X):
            double = rows.astype(np.float64)
            for fold, mask in enumerate(train):
                model = LogisticRegression(C=1.0, solver=solver, tol=TOL, max_iter=10_000)
                coef[number, fold] = model.fit(double[mask], y[mask]).coef_[0]
    return coef


def check_equal(reference: np.ndarray, found: np.ndarray, name: str) -> None:
    """Raise `StageError` unless every fit's coefficients are those of the first contender."""
    apart = np.abs(found - reference).max(-1) / np.abs(reference).max(-1)
    if not apart.max() <= APART:
        raise StageError(
            f"{name} found other coefficients: {apart.max():.2g} of the largest apart, more than "
            f"{APART:g}; their speeds cannot be compared"
        )
