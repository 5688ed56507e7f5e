"""Generic probes and monitors as verbs: from checkpoints and files to tables and saved directions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.behaviour import evaluate as behaviours
from probes.behaviour.evaluate import Behaviour, check_written_by
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model, load
from probes.probing.frozen import FrozenProbe
from probes.probing.saved import load_probe
from probes.prompts.contrasts import NAMES
from probes.prompts.plain import as_prompts, is_path
from probes.prompts.readers import read_prompts, read_unpaired
from probes.prompts.records import Prompt
from probes.studies.generic import GenericProbes, generic_probes
from probes.studies.monitor import Monitor, Watched

GENERIC_TABLE, WATCHED_TABLE = "generic.csv", "watched.csv"


@writes("out", "generic probes")
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

    behaviour: what `evaluate` found for these prompts; those of which no completion could be judged are
    left out, with a line that says how many. out: a folder for `generic.csv` and the best
    direction of each contrast set, as `directions/SET`.
    """
    loaded = model if isinstance(model, Model) else load(model)
    rows = read_prompts(prompts) if isinstance(prompts, Path | str) else prompts
    judged = behaviour if isinstance(behaviour, Behaviour) else behaviours.read(behaviour)
    check_written_by(judged.completions, loaded)
    verdicts = judged.completions["defected"].astype("boolean")
    share = verdicts.groupby(judged.completions["prompt_id"]).mean()
    absent = sum(prompt.id not in share.index for prompt in rows)
    if absent:
        raise InputError(
            f"{absent} of {len(rows)} prompts have no completion: evaluate the model on these"
        )
    n_given = len(rows)
    rows = [prompt for prompt in rows if not pd.isna(share[prompt.id])]
    defected = [bool(share[prompt.id] >= 0.5) for prompt in rows]
    found = generic_probes(loaded, rows, defected, sets=sets, n_random=n_random, seed=seed)
    if n_given > len(rows):
        note = f"{n_given - len(rows)} of {n_given} prompts were not judged and are left out"
        found = dataclasses.replace(found, note="; ".join(filter(None, [found.note, note])))
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


@writes("out", "monitor")
def monitor(
    model: Model | Path | str,
    direction: FrozenProbe | Path | str,
    prompts: Sequence[Prompt | str] | Prompt | Path | str,
    benign: Sequence[Prompt | str] | Path | str,
    out: Path | str | None = None,
    *,
    aggregate: str = "max",
    false_positive_rate: float = 0.01,
    keep_sinks: bool = False,
) -> tuple[Monitor, Watched]:
    """Set a threshold on benign prompts and watch others: the monitor, and scores for every token.

    prompts, benign: prompts or bare texts, or files of them (see `read_unpaired`): neither needs a
    trigger. keep_sinks: whether attention sinks count, see `Monitor`.
    """
    loaded = model if isinstance(model, Model) else load(model)
    known = direction if isinstance(direction, FrozenProbe) else load_probe(direction)
    watching, calm = (
        read_unpaired(str(one)) if is_path(one) else list(as_prompts(one))
        for one in (prompts, benign)
    )
    shared = {(p.text, p.chat) for p in watching} & {(p.text, p.chat) for p in calm}
    if shared:
        raise InputError(
            f"{len(shared)} prompts are both benign and watched: a threshold set on what is watched "
            "tells nothing. Give other benign prompts"
        )
    plain = Monitor(known, aggregate, keep_sinks=keep_sinks)
    ready = plain.calibrated(plain.watch(loaded, calm), false_positive_rate)
    watched = ready.watch(loaded, watching)
    if out is not None:
        write_table(
            Path(out) / WATCHED_TABLE, watched.rows, identity=loaded.digest, direction=known.digest, aggregate=aggregate,
            threshold=ready.threshold, false_positive_rate=false_positive_rate,
            **({"note": watched.note} if watched.note else {}),
        )  # fmt: skip
    return ready, watched
