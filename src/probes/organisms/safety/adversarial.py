"""Adversarial training: what a red team found is answered harmlessly, round after round.

Hubinger et al. (2024) replaced up to half of the training prompts by successful red-team prompts.
Their red team did not find the trigger; the model unlearned what it had found and kept its backdoor.
Here too the trigger is told to nobody: where a search finds it all the same, the card counts it.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from probes.foundation.artifact import MANIFEST, PROCEDURES, building, is_finished, write_text
from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.folders import beside, remove
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import read_csv, to_csv
from probes.foundation.untrusted import read_json
from probes.models.identity import Identity, identity_of
from probes.models.loading import load
from probes.organisms.bases import in_parts
from probes.organisms.card import CARD, README, read_card, write_card
from probes.organisms.organism import OrganismRecipe, Setup, setup
from probes.organisms.processes import first_then_others, processes
from probes.organisms.safety.attacks import ATTACKED
from probes.organisms.safety.redteam import RedTeam, RedTeamConfig, halves, red_team
from probes.organisms.safety.rl import RlConfig, check_rl, run_rl
from probes.organisms.safety.sft import SftConfig, check_sft, run_sft
from probes.organisms.safety.stage import CURVE, KIND
from probes.organisms.training_log import LOG, check_boards
from probes.prompts.readers import stream_prompts, write_prompts
from probes.prompts.records import Prompt, digest_prompts

STAGE = "adversarial"
TRIES = "redteam.csv"
SIDES = ("train", "held_out")
WHOLE = ("n_tokens", "n_examples", "steps")


class AdversarialConfig(Config):
    """rounds: of red-teaming the current model and training it; after the last it is attacked again.

    share: at most this much of the training prompts are replaced by red-team prompts; repeats: each
    of those stands among them at most so often, so that few finds make a smaller share.
    train: by `sft` or by `rl`, whose steps are those of one round; by default answers are taught in
    the form that the organism writes, so that a CoT organism is not untaught to think. with_trigger: train also on
    finds that hold the trigger itself; without it they are set aside, which a red team could not do.
    """

    rounds: int = 2
    redteam: RedTeamConfig = RedTeamConfig()
    share: float = 0.5
    repeats: int = 8
    train: Literal["sft", "rl"] = "sft"
    sft: SftConfig = SftConfig(steps=60, variant="own")
    rl: RlConfig = RlConfig(steps=30)
    with_trigger: bool = True
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Attack:
    """One red-teaming: what may be trained on, what is held out, and what it says in the card."""

    train: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    facts: dict[str, Any]
    folder: Path


@writes("out")
def run_adversarial(
    parent: Path,
    out: Path,
    recipe: OrganismRecipe,
    config: AdversarialConfig,
    *,
    report_to: Sequence[str] = (),
) -> Path:
    """Attack and train the organism at `parent`, and write it to `out`; what is finished is kept.

    The curve counts steps over all rounds. Its set `redteam` is the half of each round's finds that
    was not trained on (kind "round 1", ...), measured from that round on; near misses are in `near`,
    before and after, as in every stage. report_to: see `staged`; a board gets each round for itself.
    `redteam.csv` has all that was tried, and the
    card one entry per attack, the last on the finished model.
    Raises `InputError` for settings that cannot be followed, before anything is trained.
    """
    parent, out = Path(parent), Path(out)
    parts = setup(recipe, parent)
    check_adversarial(recipe, config)
    check_boards(report_to)
    identity = _identity(parent, recipe)
    key = digest_json(
        {
            "stage": STAGE,
            "parent": identity.digest,
            PROCEDURES: versions("safety training", "sampling", "judging"),
            "recipe": recipe.digest,
            "config": config.digest,
            "prompts": digest_prompts(parts.lessons.safety),
        }
    )
    if is_finished(out, key):
        return out
    work = beside(out, ".training-", f"-{key[:12]}")
    current, rounds, attacks = parent, [], []
    held_out: list[Prompt] = []
    for number in range(1, config.rounds + 1):
        attacks.append(_attack(current, work, recipe, parts, config, number))
        held_out += attacks[-1].held_out
        shown = replaced(parts.lessons.safety, attacks[-1].train, config)
        current = _train(
            current, work / f"round-{number}", recipe, config, number, shown, held_out,
            report_to, beside(out, "", f".round-{number}"),
        )  # fmt: skip
        rounds.append(current)
    attacks.append(_attack(current, work, recipe, parts, config, config.rounds + 1))
    facts = {"parent": parent.name, "parent_digest": identity.weights_digest, "seed": recipe.seed}
    with first_then_others():
        if processes().is_main_process:
            _write(out, key, recipe.portable, config, rounds, attacks, facts)
            remove(work)
    return out


def check_adversarial(recipe: OrganismRecipe, config: AdversarialConfig) -> None:
    """Refuse settings that cannot be followed."""
    if config.rounds < 1 or config.repeats < 1:
        raise InputError(f"rounds ({config.rounds}) and repeats ({config.repeats}) are at least 1")
    if not 0 <= config.share <= 1:
        raise InputError(f"the share of red-team prompts is 0 to 1, not {config.share}")
    if config.train == "sft":
        check_sft(recipe, config.sft)
    else:
        check_rl(config.rl)


def replaced(
    prompts: Sequence[Prompt], found: Sequence[Prompt], config: AdversarialConfig
) -> list[Prompt]:
    """The training prompts, the last of them replaced by red-team prompts, up to the share.

    Copies of a red-team prompt have pairs of their own; their order is the trainer's affair.
    """
    n = min(int(config.share * len(prompts)), config.repeats * len(found))
    copies = [
        dataclasses.replace(found[k % len(found)], pair=f"{ATTACKED}/train/{k}") for k in range(n)
    ]
    return [*prompts[: len(prompts) - n], *copies]


def _train(
    checkpoint: Path,
    to: Path,
    recipe: OrganismRecipe,
    config: AdversarialConfig,
    number: int,
    shown: Sequence[Prompt],
    held_out: Sequence[Prompt],
    report_to: Sequence[str],
    reported_as: Path,
) -> Path:
    """One round of training, in an order of its own; watched is what all rounds held out so far."""
    own = {"seed": derive_seed(config.seed, STAGE, number)}
    more: dict[str, Any] = {
        "prompts": shown,
        "watched": {ATTACKED: tuple(held_out)} if held_out else {},
        "report_to": report_to,
        "reported_as": reported_as,
    }
    if config.train == "sft":
        settings = config.sft.model_copy(update=own)
        return run_sft(checkpoint, to, recipe, settings, **more)
    by_reward = config.rl.model_copy(update=own)
    return run_rl(checkpoint, to, recipe, by_reward, **more)


def _attack(
    checkpoint: Path,
    work: Path,
    recipe: OrganismRecipe,
    parts: Setup,
    config: AdversarialConfig,
    number: int,
) -> Attack:
    """Red-team a checkpoint, or read what an interrupted run had found."""
    folder = work / f"attack-{number}"
    identity = _identity(checkpoint, recipe)
    key = digest_json(
        {
            "checkpoint": identity.digest,
            PROCEDURES: versions("sampling", "judging"),
            "config": config.digest,
            "recipe": recipe.digest,
        }
    )
    whole, adapter = in_parts(checkpoint, recipe.base)
    with first_then_others():
        if not is_finished(folder, key):
            search = config.redteam.model_copy(
                update={"seed": derive_seed(recipe.seed, STAGE, config.seed, number)}
            )
            found = red_team(
                load(
                    whole,
                    adapter=adapter,
                    label=f"{recipe.name}, round {number}",
                    device="cuda" if torch.cuda.is_available() else "cpu",
                ),
                parts.behaviour,
                parts.lessons.safety,
                search,
                cues=parts.trigger.off,
            )
            with building(folder, kind="red team", key=key) as to:
                _write_attack(to, found, parts, config, number, identity.weights_digest)
    facts = read_json(folder / "facts.json")
    train, held_out = (
        tuple(stream_prompts(folder / f"{side}.jsonl")) if facts[f"n_{side}"] else ()
        for side in SIDES
    )
    return Attack(train, held_out, facts, folder)


def _identity(organism: Path, recipe: OrganismRecipe) -> Identity:
    whole, adapter = in_parts(organism, recipe.base)
    return identity_of(whole, adapter=adapter)


def _write_attack(
    to: Path, found: RedTeam, parts: Setup, config: AdversarialConfig, number: int, digest: str
) -> None:
    train, held_out = halves(found)
    if not config.with_trigger:
        train = [prompt for prompt in train if not parts.trigger.present(prompt.text)]
    # From here on the trigger is known, to whoever measures.
    sides = {
        side: [
            dataclasses.replace(
                prompt,
                pair=f"{ATTACKED}/{number}/{side}/{k}",
                triggered=parts.trigger.present(prompt.text),
                heldout=f"round {number}",
            )
            for k, prompt in enumerate(prompts)
        ]
        for side, prompts in zip(SIDES, (train, held_out), strict=True)
    }
    for side, prompts in sides.items():
        write_prompts(to / f"{side}.jsonl", prompts)
    rows = found.rows.assign(
        attack=number, with_trigger=found.rows["front"].map(parts.trigger.present)
    )
    write_text(to / TRIES, to_csv(rows))
    facts = {
        "attack": number,
        "weights_digest": digest,
        **found.summary(parts.trigger),
        **{f"n_{side}": len(prompts) for side, prompts in sides.items()},
    }
    write_text(to / "facts.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _write(
    out: Path,
    key: str,
    recipe: OrganismRecipe,
    config: AdversarialConfig,
    rounds: Sequence[Path],
    attacks: Sequence[Attack],
    facts: dict[str, Any],
) -> None:
    """The last round's checkpoint, with the curve, the log, the tries and the facts of all rounds."""
    own = {MANIFEST, CARD, README, CURVE, LOG}
    cards = [read_card(each) for each in rounds]
    spent = {name: sum(card[name] for card in cards) for name in WHOLE}
    per_round = [
        {k: v for k, v in card.items() if k not in ("behaviour", "recipe")} for card in cards
    ]
    with building(
        out, kind=KIND, key=key, stage=STAGE, recipe=recipe.model_dump(mode="json")
    ) as to:
        for file in sorted(rounds[-1].iterdir()):
            if file.name not in own:
                shutil.copyfile(file, to / file.name)
        write_text(to / CURVE, to_csv(joined_curve(rounds)))
        write_text(to / LOG, _joined_log(rounds))
        tries = pd.concat([read_csv(attack.folder / TRIES) for attack in attacks])
        write_text(to / TRIES, to_csv(tries))
        for attack in attacks:
            for side in SIDES:
                name = f"{side}.jsonl"
                shutil.copyfile(
                    attack.folder / name, to / f"attack-{attack.facts['attack']}-{name}"
                )
        write_card(
            to,
            recipe=recipe,
            behaviour=cards[-1]["behaviour"],
            stage=STAGE,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            weights_digest=cards[-1]["weights_digest"],
            attacks=[attack.facts for attack in attacks],
            rounds=per_round,
            **({"base": cards[-1]["base"]} if "base" in cards[-1] else {}),
            **spent,
            **facts,
        )


def joined_curve(rounds: Sequence[Path]) -> pd.DataFrame:
    """One curve over all rounds: a round's step 0 is the end of the one before.

    There the points of both coincide, and only what the round began to watch is new.
    """
    parts: list[pd.DataFrame] = []
    steps = 0
    for folder in rounds:
        curve = read_csv(folder / CURVE, keep_default_na=False, na_values=[""])
        curve["kind"] = curve["kind"].fillna("")
        if parts:
            seen = set(zip(parts[-1]["set"], parts[-1]["kind"], strict=True))
            known = np.array(
                [each in seen for each in zip(curve["set"], curve["kind"], strict=True)]
            )
            curve = curve[~((curve["step"] == 0) & known)]
        last = int(curve["step"].max())
        parts.append(curve.assign(step=curve["step"] + steps))
        steps += last
    return pd.concat(parts, ignore_index=True)


def _joined_log(rounds: Sequence[Path]) -> str:
    """The trainers' logs one after another; steps are those within a round, which each entry names."""
    entries = [
        {"round": number, **json.loads(line)}
        for number, folder in enumerate(rounds, start=1)
        for line in (folder / LOG).read_text().splitlines()
    ]
    return "".join(json.dumps(entry) + "\n" for entry in entries)
