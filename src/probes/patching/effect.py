"""How far the trigger moves the answer as a whole, before asking where: the grid's own control."""

from collections.abc import Sequence

from probes.evaluation.bootstrap import Estimate, interval, mean_statistic
from probes.models.loading import Model
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import PatchPair, encode_pairs
from probes.patching.sources import Plan


def trigger_effect(
    model: Model,
    pairs: Sequence[PatchPair],
    *,
    batch_tokens: int = 8192,
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Clean minus corrupted metric [nats], mean over pairs with its bootstrap interval.

    The metric is that of `residual_grid`: log P(exploitable) minus log P(secure continuation). On a
    twin that does not defect it should be near zero.
    """
    encoded = encode_pairs(pairs, model.tokenizer)
    job = Job(model, encoded, (), LogProbDifference(), Settings(batch_tokens=batch_tokens))
    clean, corrupted = job.unpatched(Plan("noise"))
    return interval(
        mean_statistic(clean - corrupted),
        [pair.name for pair in encoded],
        n_boot=n_boot,
        seed=seed,
    )
