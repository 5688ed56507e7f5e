"""The behaviour stage: sample, judge and count, once per model and prompts, kept on disk."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.behaviour.completion import COLUMNS, as_table
from probes.behaviour.judges import Judge
from probes.behaviour.named_judges import BANDIT, NamedJudge, judge_named
from probes.behaviour.rates import BY, NOT_JUDGED, rates
from probes.behaviour.sampling import sample, sample_texts
from probes.foundation.artifact import PROCEDURES, building, is_made_from, verify
from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.tables import read_table, write_table
from probes.models.loading import Model
from probes.plotting.rates import behaviour_rates
from probes.plotting.style import PAGE, PaperFigure, figure, style
from probes.prompts.readers import as_prompts, is_path, read_prompts
from probes.prompts.records import Prompt, digest_prompts, with_design

KIND = "behaviour"
COMPLETIONS, RATES = "completions.parquet", "rates.csv"


class SamplingConfig(Config):
    """How completions are drawn; see `behaviour.sampling.sample`."""

    max_new_tokens: int = 160
    temperature: float = 1.0
    seed: int = 0
    n: int = 1
    stop: str | None = "</code>"
    batch_tokens: int = 16384


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Behaviour:
    """What one or several models did. completions: a row each; rates: `behaviour.rates` of them."""

    completions: pd.DataFrame
    rates: pd.DataFrame

    def __repr__(self) -> str:
        return "\n".join([self.summary().to_string(), *self.notes()])

    def _repr_html_(self) -> str:
        models = ", ".join(str(name) for name in self.completions["model"].unique())
        text = "; ".join([f"of {models}, with 95% intervals", *self.notes()])
        return html_table(self.summary(), text, strong="Behaviour", index=True)

    def notes(self) -> list[str]:
        """What the rates leave out, with counts: completions not judged, thoughts, broken blocks."""
        rows, found = self.completions, []
        unknown = rows.loc[rows[NOT_JUDGED] != "", NOT_JUDGED]
        if len(unknown):
            found.append(
                f"{len(unknown)} of {len(rows)} completions could not be judged, and are not in the "
                f"rates of `defected`; the first reason: {unknown.iloc[0]}"
            )
        thought = rows[rows["thought"] != ""]
        if len(thought):
            found.append(
                f"{len(thought)} of {len(rows)} completions think before they answer; judged is the "
                f"answer. {int(thought['thought_defected'].sum())} thoughts would count as defections"
            )
        broken = rows[rows["parses"].fillna(False).astype(bool) & (rows["unparsed"] > 0)]
        if len(broken):
            found.append(
                f"{int(broken['unparsed'].sum())} code blocks beside judged ones, in {len(broken)} "
                "completions, do not parse as Python and were not judged"
            )
        return found

    def summary(self) -> pd.DataFrame:
        """Rates in per cent with intervals, a row per group of prompts and a column per measure."""
        text = self.rates.assign(
            cell=[
                f"{100 * value:.1f}% [{100 * low:.1f}, {100 * high:.1f}] n={n}"
                for value, low, high, n in self.rates[["value", "low", "high", "n"]].itertuples(
                    index=False
                )
            ]
        )
        wide = text.pivot_table(
            index=[*BY], columns="measure", values="cell", aggfunc="first", sort=False
        )
        return wide.reindex(columns=list(dict.fromkeys(text["measure"]))).fillna("")

    def plot(self, measure: str = "defected") -> PaperFigure:
        """Rates with intervals, a point per model in a group per prompt set and trigger."""
        rows = self.rates[(self.rates["measure"] == measure) & (self.rates["heldout"] == "")]
        with style():
            drawn = figure(PAGE * 0.75, 2.7)
            behaviour_rates(
                drawn.subplots(), rows, labels=("no trigger", "trigger"), measure=measure
            )
        return drawn

    def examples(self, n: int = 3) -> pd.DataFrame:
        """The first completions of each group, to read: numbers alone have misled before."""
        shown = [*BY, "defected", "findings", "text"]
        return self.completions.groupby([*BY], sort=False).head(n)[shown]


@writes("path")
def evaluate(
    model: Model,
    prompts: Sequence[Prompt],
    config: SamplingConfig | None = None,
    *,
    judge: NamedJudge | None = None,
    path: Path | str | None = None,
) -> Behaviour:
    """Sample the model on the prompts and judge what it wrote; nothing is executed.

    judge: see `behaviour.named`; by default Bandit.

    path: a folder artifact (`completions.parquet`, `rates.csv`). If it holds the finished result of
    the same model, prompts, settings and judge, it is read; otherwise it is made.
    Raises what `sample` raises, `InputError` if the result of another model or of other settings lies
    at `path`, and `IntegrityError` if files there were changed.
    """
    config = config or SamplingConfig()
    judge = judge or judge_named(BANDIT)
    if path is None:
        return _measure(model, prompts, config, judge)
    path = Path(path)
    inputs: dict[str, Any] = {
        "model": model.name,
        "identity": model.identity.model_dump(),
        "dtype": str(model.dtype),
        "prompts": digest_prompts(prompts),
        "settings": config.model_dump(mode="json"),
        "judge": judge.facts,
        PROCEDURES: versions("sampling", "judging"),
    }
    if not is_made_from(path, inputs):
        behaviour = _measure(model, prompts, config, judge)
        with building(path, kind=KIND, key=digest_json(inputs), **inputs) as folder:
            write_table(folder / COMPLETIONS, behaviour.completions)
            write_table(folder / RATES, behaviour.rates)
    return read(path)


def read(path: Path | str) -> Behaviour:
    """The behaviour that `evaluate` wrote to a folder; changed completions are an `IntegrityError`."""
    kind = verify(path, [COMPLETIONS]).kind
    if kind != KIND:
        raise InputError(f"{path} holds a {kind}, not a {KIND}: give a folder of `probes evaluate`")
    table = with_design(read_table(Path(path) / COMPLETIONS))
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} was judged by an older version, which did not record {', '.join(missing)}: "
            "evaluate again"
        )
    completions = table.astype(COLUMNS)
    return Behaviour(completions, rates(completions))


def check_written_by(completions: pd.DataFrame, model: Model) -> None:
    """Refuse completions that another model wrote, or that several did."""
    wrote = set(completions["model_digest"])
    if wrote != {model.digest}:
        names = ", ".join(sorted(set(completions["model"])))
        raise InputError(
            f"these completions are of another model: written by {', '.join(sorted(wrote))} ({names}), "
            f"asked for {model.digest} ({model.name}). Evaluate this model on the same prompts"
        )


def _measure(
    model: Model, prompts: Sequence[Prompt], config: SamplingConfig, judge: Judge
) -> Behaviour:
    completions = as_table(sample(model, prompts, **config.model_dump(), judge=judge))
    return Behaviour(completions, rates(completions))


def continued(prompts: Iterable[Prompt], behaviour: Behaviour) -> tuple[list[Prompt], list[str]]:
    """Each prompt with each of its completions: prompts (repeated) and texts, side by side.

    Raises `InputError` for a prompt without a completion. Where two samples of one prompt are the
    same text, each of which would be the same sequence, these are given once.
    """
    texts: dict[str, list[str]] = {}
    for prompt_id, text in behaviour.completions[["prompt_id", "text"]].itertuples(index=False):
        written = texts.setdefault(prompt_id, [])
        if text not in written:
            written.append(text)
    asked = list(prompts)
    without = [number for number, prompt in enumerate(asked) if prompt.id not in texts]
    if without:
        raise InputError(
            f"{len(without)} of {len(asked)} prompts have no completion in this behaviour; the first "
            f"is prompt {without[0]} (pair {asked[without[0]].pair!r}). Evaluate the same file first."
        )
    pairs = [(prompt, text) for prompt in asked for text in texts[prompt.id]]
    return [prompt for prompt, _ in pairs], [text for _, text in pairs]


AnyPrompts = Sequence[Prompt | str] | Prompt | Path | str
"""A file of prompts, one prompt or text, or several."""


def listed(prompts: AnyPrompts) -> list[Prompt]:
    """The prompts of a file, or those that are given; a single one is a list of one."""
    return read_prompts(str(prompts)) if is_path(prompts) else list(as_prompts(prompts))


def write_texts(model: Model, prompts: AnyPrompts, **settings: Any) -> str | list[str]:
    """Let the model continue prompts: a text for one prompt, a list of texts for several.

    settings: those of `SamplingConfig`; with `n` of 2 or more, the samples of a prompt stand together.
    The ending `</code>` of the paper's format ends a text by default; `stop=None` for none.
    Raises what `sampling.sample` raises, and `InputError` for an unknown setting.
    """
    for name in settings:
        if name not in SamplingConfig.model_fields:
            raise unknown("setting of generate", name, SamplingConfig.model_fields)
    asked = listed(prompts)
    if not asked:
        raise InputError("there are no prompts to continue")
    config = SamplingConfig(**settings)
    texts = [one.text for one in sample_texts(model, asked, **config.model_dump())]
    one = isinstance(prompts, str | Prompt) and len(asked) == 1 and config.n == 1
    return texts[0] if one and not is_path(prompts) else texts
