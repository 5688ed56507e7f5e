"""`probes lens`: the answer as each layer has it, and what each part writes into it."""

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption
from probes.cli.patch_options import PairsOption
from probes.foundation.terminal import say


def lens(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Read every layer through the model's own unembedding, and split the answer by head and MLP."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.prompts.readers import read_prompts
    from probes.studies.lenses import lenses

    found = lenses(load(model), read_prompts(prompts), out, n_pairs=n_pairs, seed=seed)
    show_table(found.lens.curve().drop(columns=["measure", "run"]))
    say(f"\n{found.lens!r}\n")
    show_table(found.direct.strongest(10))
    say(f"\n{found.direct!r}")
