"""`probes collect`: stage 4 on one checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    AdapterOption,
    ComputeOption,
    DeviceMapOption,
    DeviceOption,
    KeepSinksOption,
    LocationOption,
    ModelArgument,
    PromptsOption,
    QuantizationOption,
    SeedOption,
    SitesOption,
    named,
    refuse_unused,
)
from probes.foundation.terminal import say


def collect(
    context: typer.Context,
    model: ModelArgument,
    prompts: PromptsOption,
    out: LocationOption,
    site: SitesOption = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="last, a negative index from the prompt's end, all, prompt, answer, first_answer, "
            "last_answer, trigger, a --span, or mean: with any of these. By default last; with "
            "--generate answer."
        ),
    ] = None,
    span: Annotated[
        list[str] | None,
        typer.Option(help="A span as NAME=REGULAR_EXPRESSION, for --positions NAME. Repeatable."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="No row for prompts without the span.")
    ] = False,
    completions: Annotated[
        Path | None,
        typer.Option(help="Read these after the prompts: a folder that `probes evaluate` wrote."),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Let the model write, and collect while it does.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="With --generate.")] = 160,
    temperature: Annotated[float, typer.Option(help="With --generate; 0 is greedy.")] = 1.0,
    samples: Annotated[int, typer.Option(help="With --generate: per prompt.")] = 1,
    seed: SeedOption = 0,
    dtype: Annotated[str, typer.Option(help="Stored precision.")] = "float32",
    token_budget: Annotated[int, typer.Option(help="Tokens per forward pass.")] = 8192,
    engine: Annotated[str, typer.Option(help="process, or ray.")] = "process",
    device: DeviceOption = "cpu",
    compute_dtype: ComputeOption = "float32",
    adapter: AdapterOption = None,
    device_map: DeviceMapOption = None,
    quantization: QuantizationOption = None,
    keep_sinks: KeepSinksOption = False,
    no_self_test: Annotated[
        bool, typer.Option("--no-self-test", help="Trust the hooks on this model unseen.")
    ] = False,
) -> None:
    """Self-test the model's hooks, then store its activations; asked for more, add what is lacking."""
    from probes.behaviour.evaluate import SamplingConfig
    from probes.foundation.errors import unknown
    from probes.models.loading import DTYPES, load
    from probes.studies.verbs import collect as run

    if not generate:
        refuse_unused(context, "--generate", "max_new_tokens", "temperature", "samples")
    if compute_dtype not in DTYPES:
        raise unknown("compute dtype", compute_dtype, DTYPES)
    loaded = load(
        model,
        device=device,
        dtype=DTYPES[compute_dtype],
        adapter=adapter,
        device_map=device_map,
        quantization=quantization,
    )
    sampling = SamplingConfig(
        max_new_tokens=max_new_tokens, temperature=temperature, n=samples, seed=seed
    )
    say(
        run(
            loaded,
            prompts,
            out,
            sites=site,
            positions=positions,
            spans=named(span or [], "--span", "NAME=REGULAR_EXPRESSION"),
            completions=completions,
            generate=sampling if generate else None,
            allow_missing=allow_missing,
            dtype=dtype,
            token_budget=token_budget,
            keep_sinks=keep_sinks,
            engine=engine,
            self_test=not no_self_test,
        )
    )
