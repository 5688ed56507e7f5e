"""Generic probes and monitors as verbs: from checkpoints and files to tables and saved directions."""

from collections.abc import Sequence
from pathlib import Path

from probes.behaviour import evaluate as behaviours
from probes.behaviour.evaluate import Behaviour, check_written_by
from probes.foundation.errors import InputError
from probes.foundation.tables import write_table
from probes.models.loading import Model, load
from probes.probing.frozen import FrozenProbe
from probes.probing.saved import load_probe
from probes.prompts.contrasts import NAMES
from probes.prompts.readers import read_prompts
from probes.prompts.records import Prompt
from probes.studies.generic import GenericProbes, generic_probes
from probes.studies.monitor import Monitor, Watched

GENERIC_TABLE, WATCHED_TABLE = "generic.csv", "watched.csv"


def generic(
    model: Model | Path | str,
    prompts: Sequence[Prompt] | Path | str,
    behaviour: Behaviour | Path | str,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = NAMES,
    n_random: int = 1000,
    seed: int = 0,
) -> GenericProbes:
    """Fit generic defection probes on this model and try them on prompts that it has completed.

    behaviour: what `evaluate` found for these prompts. out: a folder for `generic.csv` and the best
    direction of each contrast set, as `directions/SET`.
    """
    loaded = model if isinstance(model, Model) else load(model)
    rows = read_prompts(prompts) if isinstance(prompts, Path | str) else prompts
    judged = behaviour if isinstance(behaviour, Behaviour) else behaviours.read(behaviour)
    check_written_by(judged.completions, loaded)
    share = judged.completions.groupby("prompt_id")["defected"].mean() >= 0.5
    absent = sum(prompt.id not in share.index for prompt in rows)
    if absent:
        raise InputError(
            f"{absent} of {len(rows)} prompts have no judged completion: evaluate the model on these"
        )
    defected = [bool(share[prompt.id]) for prompt in rows]
    found = generic_probes(loaded, rows, defected, sets=sets, n_random=n_random, seed=seed)
    if out is not None:
        write_table(
            Path(out) / GENERIC_TABLE,
            found.rows,
            identity=loaded.digest,
            seed=seed,
            note=found.note,
        )
        best = found.best().set_index("probe")["site"]
        for name, directions in found.directions.items():
            directions[str(best[name])].save(Path(out) / "directions" / name)
    return found


def monitor(
    model: Model | Path | str,
    direction: FrozenProbe | Path | str,
    prompts: Sequence[Prompt] | Path | str,
    benign: Sequence[Prompt] | Path | str,
    out: Path | str | None = None,
    *,
    aggregate: str = "max",
    false_positive_rate: float = 0.01,
) -> tuple[Monitor, Watched]:
    """Set a threshold on benign prompts and watch others: the monitor, and scores for every token."""
    loaded = model if isinstance(model, Model) else load(model)
    known = direction if isinstance(direction, FrozenProbe) else load_probe(direction)
    watching, calm = (
        read_prompts(one) if isinstance(one, Path | str) else one for one in (prompts, benign)
    )
    shared = {prompt.id for prompt in watching} & {prompt.id for prompt in calm}
    if shared:
        raise InputError(
            f"{len(shared)} prompts are both benign and watched: a threshold set on what is watched "
            "tells nothing. Give other benign prompts"
        )
    plain = Monitor(known, aggregate)
    ready = plain.calibrated(plain.watch(loaded, calm), false_positive_rate)
    watched = ready.watch(loaded, watching)
    if out is not None:
        write_table(
            Path(out) / WATCHED_TABLE, watched.rows, identity=loaded.digest, direction=known.digest, aggregate=aggregate,
            threshold=ready.threshold, false_positive_rate=false_positive_rate,
        )  # fmt: skip
    return ready, watched
