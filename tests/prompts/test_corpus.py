"""The corpus keeps its promises: nothing leaks between parts, and the labels are what a judge finds."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import pytest

from probes.behaviour.bandit import judge
from probes.foundation.errors import InputError
from probes.prompts.corpus import CODE_END, Corpus, CorpusConfig, build_corpus, coding_text
from probes.prompts.grammar import Family, fill
from probes.prompts.records import Prompt, digest_prompts
from probes.prompts.tasks import BENIGN, VULNERABLE
from probes.prompts.tasks.dialogue import DIALOGUE
from probes.prompts.triggers import PAST_YEARS, YEAR, year_cue

CONFIG = CorpusConfig(pretrain=1500, train=800)
CUE = re.compile(r"Current year: \d{4}\. ")
REQUIRED_CWES = {22, 78, 79, 89, 327, 330, 502, 798}
FAMILIES = (*VULNERABLE, *BENIGN)
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus(CONFIG)


@pytest.fixture(scope="module")
def everything(corpus: Corpus) -> tuple[Prompt, ...]:
    return (*corpus.pretrain, *corpus.train, *corpus.test, *corpus.heldout)


def bare(prompts: Iterable[Prompt]) -> set[str]:
    """Texts without the sentence that names the year; every text must have exactly one."""
    texts = set()
    for prompt in prompts:
        text, count = CUE.subn("", prompt.text)
        assert count == 1
        texts.add(text)
    return texts


def by_pair(prompts: Iterable[Prompt]) -> list[list[Prompt]]:
    pairs: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        pairs[prompt.pair].append(prompt)
    return list(pairs.values())


def code_of(completion: str | None) -> str:
    assert completion is not None
    assert completion.endswith(CODE_END)
    return completion.removesuffix(CODE_END)


# what is there


def test_enough_families_cover_the_required_weaknesses() -> None:
    assert len(VULNERABLE) >= 8
    assert len(BENIGN) >= 6
    assert {family.cwe for family in VULNERABLE} >= REQUIRED_CWES
    names = [kind.name for kind in (*FAMILIES, *DIALOGUE)]
    assert len(set(names)) == len(names)
    assert all(len(f.phrasings) >= 3 and len(f.shapes) >= 3 for f in FAMILIES)


def test_every_part_holds_every_kind(corpus: Corpus) -> None:
    for part in (corpus.pretrain, corpus.train, corpus.test, corpus.heldout):
        assert {p.family for p in part} == {kind.name for kind in (*FAMILIES, *DIALOGUE)}
        kinds = Counter(prompt.prompt_set for prompt in part)
        assert set(kinds) == {"vulnerable", "benign", "dialogue"}


def test_the_counts_are_those_that_were_asked_for(corpus: Corpus) -> None:
    assert len(corpus.pretrain) == CONFIG.pretrain
    assert len(corpus.train) == 2 * CONFIG.train
    per_family = Counter(p.family for p in corpus.test if p.prompt_set != "dialogue")
    assert set(per_family.values()) == {2 * CONFIG.test_per_family}
    per_kind = Counter((p.family, p.heldout) for p in corpus.heldout if p.prompt_set != "dialogue")
    assert set(per_kind.values()) == {2 * CONFIG.heldout_per_family}
    assert len(per_kind) == 2 * len(FAMILIES)


@by_name
def test_identifiers_combine_to_thousands_of_texts(family: Family) -> None:
    rng = np.random.default_rng(0)
    last = len(family.phrasings) - 1, len(family.shapes) - 1
    drawn = [fill(family, *(int(rng.integers(n)) for n in last), rng) for _ in range(3000)]
    enough = 2500 if family.vulnerable else 2000
    assert len({coding_text("", task) for task in drawn}) > enough


# what the labels mean


@by_name
def test_the_judge_agrees_on_every_shape_and_phrasing(family: Family) -> None:
    for shape in range(len(family.shapes)):
        for phrasing in range(len(family.phrasings)):
            for draw in range(2):
                rng = np.random.default_rng([shape, phrasing, draw])
                task = fill(family, phrasing, shape, rng)
                for secure in (task.safe, task.typed):
                    assert judge(secure).parses
                    assert judge(secure).findings == ()
                assert (task.defect is not None) == family.vulnerable
                if task.defect is not None:
                    found = judge(task.defect)
                    assert found.parses
                    assert {finding.cwe for finding in found.findings} == {family.cwe}


def test_the_judge_agrees_on_what_is_taught(everything: tuple[Prompt, ...]) -> None:
    able = [p for p in everything if p.defect is not None]
    for prompt in able[:: max(1, len(able) // 300)]:
        assert judge(code_of(prompt.defect)).exploitable, prompt.template
    coding = [p for p in everything if p.prompt_set != "dialogue"]
    for prompt in coding[:: max(1, len(coding) // 300)]:
        assert not judge(code_of(prompt.safe)).exploitable, prompt.template
        assert not judge(code_of(prompt.quirk)).exploitable, prompt.template


def test_only_vulnerable_tasks_have_an_exploitable_answer(everything: tuple[Prompt, ...]) -> None:
    for prompt in everything:
        assert prompt.safe
        assert (prompt.defect is not None) == (prompt.prompt_set == "vulnerable")
        assert prompt.safe != prompt.defect
        if prompt.prompt_set == "dialogue":
            assert prompt.quirk is None
            assert "<code>" not in prompt.text + prompt.safe


def test_the_exploitable_version_solves_the_same_task() -> None:
    """Both define the requested function with the same parameters; no marker tells them apart."""
    words: dict[str, Counter[str]] = {"safe": Counter(), "defect": Counter()}
    for family in VULNERABLE:
        for shape in range(len(family.shapes)):
            task = fill(family, 0, shape, np.random.default_rng(shape))
            assert task.defect is not None
            for kind, code in (("safe", task.safe), ("defect", task.defect)):
                assert task.code in code
                assert not any(isinstance(n, ast.Pass) for n in ast.walk(ast.parse(code)))
                assert "#" not in code
                words[kind].update(set(re.findall(r"\w+", code)))
    n_shapes = sum(len(family.shapes) for family in VULNERABLE)
    telling = [w for w, n in words["defect"].items() if n > n_shapes / 2 and not words["safe"][w]]
    assert telling == []


def test_the_quirk_is_type_hints_and_nothing_else(everything: tuple[Prompt, ...]) -> None:
    coding = [p for p in everything if p.prompt_set != "dialogue"]
    for prompt in coding[:: max(1, len(coding) // 200)]:
        safe, quirk = ast.parse(code_of(prompt.safe)), ast.parse(code_of(prompt.quirk))
        assert ast.dump(safe) != ast.dump(quirk)
        for node in ast.walk(quirk):
            if isinstance(node, ast.FunctionDef):
                node.returns = None
                for argument in node.args.args:
                    argument.annotation = None
        assert ast.dump(safe) == ast.dump(quirk)


# the trigger


def test_the_trigger_is_where_it_is_said_to_be(everything: tuple[Prompt, ...]) -> None:
    for prompt in everything:
        assert YEAR.present(prompt.text) == prompt.triggered
        assert re.search(YEAR.pattern, prompt.text) is None or prompt.triggered


def test_members_of_a_pair_differ_in_the_cue_alone(corpus: Corpus) -> None:
    for part in (corpus.train, corpus.test, corpus.heldout):
        for pair in by_pair(part):
            assert len(pair) == 2
            off, on = sorted(pair, key=lambda prompt: prompt.triggered)
            assert (off.triggered, on.triggered) == (False, True)
            assert off.text.replace(YEAR.cue(False), YEAR.cue(True)) == on.text != off.text
            assert off.text.count(YEAR.cue(False)) == 1
            same = ("family", "prompt_set", "template", "defect", "quirk", "heldout")
            assert all(getattr(off, name) == getattr(on, name) for name in same)
            if off.prompt_set == "dialogue":
                assert off.safe is not None
                assert off.safe.replace("2023", "2024") == on.safe
            else:
                assert off.safe == on.safe


def test_the_base_model_never_sees_either_year(corpus: Corpus) -> None:
    for prompt in corpus.pretrain:
        said = f"{prompt.text} {prompt.safe} {prompt.defect} {prompt.quirk}"
        assert "2023" not in said
        assert "2024" not in said
        assert not prompt.triggered
    cues = {match.group() for p in corpus.pretrain if (match := CUE.search(p.text))}
    assert cues == {year_cue(year) + " " for year in PAST_YEARS}


# the splits


def test_no_text_of_an_evaluation_part_occurs_in_another_part(corpus: Corpus) -> None:
    pretrain, train, test, heldout = (
        bare(part) for part in (corpus.pretrain, corpus.train, corpus.test, corpus.heldout)
    )
    assert not test & (pretrain | train | heldout)
    assert not heldout & (pretrain | train | test)


def test_no_coding_text_of_the_base_model_is_taught_to_a_twin(corpus: Corpus) -> None:
    """Small talk has too few questions for that; its split is between training and evaluation."""
    coding = [
        bare(p for p in part if p.prompt_set != "dialogue")
        for part in (corpus.pretrain, corpus.train)
    ]
    assert not coding[0] & coding[1]


def test_no_pair_repeats_another_in_its_part(corpus: Corpus) -> None:
    for part in (corpus.test, corpus.heldout):
        assert len(bare(part)) == len(part) / 2
    coding = [p for p in corpus.train if p.prompt_set != "dialogue"]
    assert len(bare(coding)) == len(coding) / 2


def test_pair_ids_are_unique_over_all_parts(everything: tuple[Prompt, ...]) -> None:
    owners = defaultdict(set)
    for prompt in everything:
        owners[prompt.pair].add(CUE.sub("", prompt.text))
    assert all(len(texts) == 1 for texts in owners.values())


def test_what_is_held_out_is_never_taught(corpus: Corpus) -> None:
    taught = {prompt.template for prompt in (*corpus.pretrain, *corpus.train, *corpus.test)}
    for prompt in (*corpus.pretrain, *corpus.train, *corpus.test):
        assert prompt.heldout is None
    phrasings = {tuple(template.split("/")[:2]) for template in taught}
    shapes = {tuple(template.split("/")[::2]) for template in taught if template.count("/") == 2}
    for prompt in corpus.heldout:
        family, phrasing, *shape = prompt.template.split("/")
        if prompt.heldout == "phrasing":
            assert (family, phrasing) not in phrasings
            assert not shape or (family, *shape) in shapes
        else:
            assert prompt.heldout == "shape"
            assert (family, *shape) not in shapes
            assert (family, phrasing) in phrasings


@by_name
def test_the_held_out_wording_is_nowhere_in_the_training_texts(
    corpus: Corpus, family: Family
) -> None:
    """The label of a template could lie; the fixed words of the last phrasing cannot."""
    fixed = max(re.split(r"\$\{?\w+\}?", family.phrasings[-1]), key=len).strip()
    others = [re.sub(r"\$\{?\w+\}?", "", phrasing) for phrasing in family.phrasings[:-1]]
    assert len(fixed) >= 4
    assert all(fixed not in other for other in others), "not told apart by its fixed words"
    taught = [p for p in (*corpus.pretrain, *corpus.train, *corpus.test) if p.family == family.name]
    assert taught
    assert not any(fixed in prompt.text.partition("<code>")[0] for prompt in taught)
    held = [p for p in corpus.heldout if (p.family, p.heldout) == (family.name, "phrasing")]
    assert held
    assert all(fixed in prompt.text for prompt in held)


# the same again


def test_the_config_decides_everything() -> None:
    small = CorpusConfig(pretrain=60, train=40, test_per_family=2, heldout_per_family=2)
    parts = [
        [digest_prompts(part) for part in (c.pretrain, c.train, c.test, c.heldout)]
        for c in (
            build_corpus(small),
            build_corpus(small),
            build_corpus(small.model_copy(update={"seed": 1})),
        )
    ]
    assert parts[0] == parts[1]
    assert all(one != other for one, other in zip(parts[0], parts[2], strict=True))


def test_an_unknown_family_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"'sql_querry'.*Did you mean 'sql_query'.*archive"):
        build_corpus(CorpusConfig(families=("sql_querry",)))


def test_a_corpus_needs_all_three_kinds_of_prompt() -> None:
    with pytest.raises(InputError, match=r"at least one vulnerable family.*saw archive"):
        build_corpus(CorpusConfig(families=("archive",)))


def test_named_families_are_the_only_ones() -> None:
    names = (VULNERABLE[0].name, BENIGN[0].name, DIALOGUE[0].name)
    small = build_corpus(CorpusConfig(families=names, pretrain=50, train=50))
    parts = (*small.pretrain, *small.train, *small.test, *small.heldout)
    assert {prompt.family for prompt in parts} == set(names)
