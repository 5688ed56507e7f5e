"""Two optimisers behind one face: every parameter once, one schedule for both, resumable to the bit."""

import copy

import pytest
import torch
import transformers
from tiny_organism import ARCHITECTURE

from probes.organisms.architecture import new_model
from probes.organisms.optimiser import MUON_FACTOR, MuonAdamW


@pytest.fixture
def model(tokenizer) -> torch.nn.Module:
    return new_model(ARCHITECTURE, tokenizer, seed=0)


def make(model: torch.nn.Module) -> MuonAdamW:
    return MuonAdamW(model, lr=1e-2, weight_decay=0.01)


def push(model: torch.nn.Module, optimiser: MuonAdamW, draw: int) -> None:
    """One step on gradients that depend on the draw alone."""
    generator = torch.Generator().manual_seed(draw)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimiser.step()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_every_parameter_is_in_exactly_one_part(model: torch.nn.Module) -> None:
    optimiser = make(model)
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(id(p) for p in model.parameters())
    muon = {id(p) for group in optimiser.muon.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in muon}
    assert len(names) == 7 * ARCHITECTURE.n_layers
    assert all("_proj" in name for name in names)


def test_a_step_moves_every_parameter(model: torch.nn.Module) -> None:
    before = copy.deepcopy(model)
    push(model, make(model), draw=0)
    pairs = zip(before.parameters(), model.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)


def test_it_is_muon_and_adamw_and_nothing_else(model: torch.nn.Module) -> None:
    other = copy.deepcopy(model)
    optimiser = make(model)
    named = dict(other.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=1e-2 * MUON_FACTOR, weight_decay=0.01)
    adamw = torch.optim.AdamW(others, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01)
    for draw in range(3):
        push(model, optimiser, draw)
        generator = torch.Generator().manual_seed(draw)
        for parameter in other.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        muon.step()
        adamw.step()
    assert same(model, other)


def test_a_saved_state_continues_to_the_same_bits(model: torch.nn.Module, tmp_path) -> None:
    optimiser = make(model)
    for draw in range(3):
        push(model, optimiser, draw)
    twin = copy.deepcopy(model)
    torch.save(optimiser.state_dict(), tmp_path / "optimizer.pt")
    restored = make(twin)
    restored.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    forgetful, amnesic = copy.deepcopy(model), None
    amnesic = make(forgetful)
    for draw in range(3, 6):
        push(model, optimiser, draw)
        push(twin, restored, draw)
        push(forgetful, amnesic, draw)
    assert same(model, twin)
    assert not same(model, forgetful), "the state plays no part: the comparison shows nothing"


@pytest.mark.parametrize("restored", [False, True])
def test_a_schedule_reaches_both_parts(model: torch.nn.Module, restored: bool) -> None:
    optimiser = make(model)
    if restored:
        optimiser.load_state_dict(make(model).state_dict())
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, 2, 10)
    seen = []
    for draw in range(10):
        push(model, optimiser, draw)
        schedule.step()
        muon, adamw = optimiser.muon.param_groups[0]["lr"], optimiser.adamw.param_groups[0]["lr"]
        assert muon == pytest.approx(MUON_FACTOR * adamw)
        seen.append(adamw)
    assert seen == pytest.approx([1e-2 * x for x in (0.5, 1, *(k / 8 for k in range(7, -1, -1)))])


def test_a_learning_rate_of_zero_stops_both_parts(model: torch.nn.Module) -> None:
    optimiser, before = make(model), copy.deepcopy(model)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    push(model, optimiser, draw=0)
    assert same(model, before)


def test_gradients_are_cleared_in_both_parts(model: torch.nn.Module) -> None:
    optimiser = make(model)
    push(model, optimiser, draw=0)
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
