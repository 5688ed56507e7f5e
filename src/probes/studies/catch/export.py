"""A trained family made small enough to ship: half precision, with cards that say what it was measured to do."""

import dataclasses
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch

from probes.behaviour.evaluate import SamplingConfig, evaluate
from probes.behaviour.named_judges import NamedJudge
from probes.foundation.artifact import building
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, StageError
from probes.foundation.folders import check_tree
from probes.foundation.outputs import CONFIG, writes
from probes.models.checkpoints import weights_digest
from probes.models.identity import identity_of
from probes.models.loading import load
from probes.organisms.behaviours.named import judge_of
from probes.organisms.card import read_card, write_card
from probes.organisms.family import Family, open_family
from probes.organisms.organism import setup
from probes.organisms.recipes import Recipe
from probes.prompts.records import Prompt
from probes.runs.folder import RunFolder
from probes.studies.catch.config import StudyConfig

SHOWN = ("prompt_set", "triggered", "measure", "value", "low", "high", "n")


@writes("out")
def export(run: Path | str, out: Path | str) -> Family:
    """Write the organisms of a finished run to `out/<name>` in float16 and measure them anew.

    The behaviour in each card is that of the shipped weights, not of the originals; `exported_from` is
    the digest of the original. Raises `InputError` if `run` holds no trained family.
    """
    folder = RunFolder(Path(run))
    if folder.root.is_dir():
        check_tree(folder.root)
    if not (folder.root / CONFIG).exists():
        raise InputError(f"{folder.root} holds no run of `probes study` or `probes train`")
    config = StudyConfig.from_file(folder.root / CONFIG)
    family = open_family(folder.organisms)
    prompts = setup(config.recipe).lessons.test
    judge = judge_of(config.recipe.behaviour)
    for name in family.members:
        card = read_card(family.path(name))
        key = digest_json({"from": identity_of(family.path(name)).digest, "dtype": "float16"})
        with building(Path(out) / name, kind="organism", key=key) as place:
            original = family[name]
            halved = original.hf.to(torch.float16)
            beyond = [
                key for key, value in halved.state_dict().items() if not value.isfinite().all()
            ]
            if beyond:
                raise StageError(
                    f"{len(beyond)} tensors of {name} do not fit into float16 (first: {beyond[0]}), in "
                    "which organisms are exported: share the checkpoint of the run as it is"
                )
            halved.save_pretrained(place)
            original.tokenizer.save_pretrained(place)
            rates = _rates(place, name, prompts, config.sampling, judge)
            facts = {
                k: v for k, v in card.items() if k not in ("recipe", "behaviour", "weights_digest")
            }
            write_card(
                place,
                recipe=Recipe(**card["recipe"]),
                behaviour=rates,
                weights_digest=weights_digest(place),
                exported_from=card["weights_digest"],
                dtype="float16",
                **facts,
            )
    return dataclasses.replace(family, directory=Path(out))


def _rates(
    place: Path, name: str, prompts: Sequence[Prompt], sampling: SamplingConfig, judge: NamedJudge
) -> list[dict[Hashable, Any]]:
    rates = evaluate(load(place, label=name), prompts, sampling, judge=judge).rates
    rows = rates[(rates["heldout"] == "") & rates["measure"].isin(["defected", "parses"])]
    return rows[list(SHOWN)].round(4).to_dict(orient="records")
