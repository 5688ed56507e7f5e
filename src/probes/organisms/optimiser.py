"""Muon for the weight matrices, AdamW for the rest: more progress per step on models this small."""

from collections.abc import Callable
from typing import Any

import torch

from probes.organisms.recipes import Training

MUON_FACTOR = 4.0
"""Muon's learning rate over AdamW's: its updates are orthogonal matrices, not unit-scaled entries."""


def make_optimiser(model: Any, training: Training, adapted: bool) -> torch.optim.Optimizer:
    """The optimiser of these settings over what is trained of the model; see `Training.optimiser`."""
    match training.optimiser or ("adamw" if adapted else "muon"):
        case "muon":
            return MuonAdamW(model, training.learning_rate, training.weight_decay)
        case _:
            decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
            others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
            groups = [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ]
            return torch.optim.AdamW(groups, lr=training.learning_rate)


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` behind one optimiser, as Trainer and schedulers expect.

    Two-dimensional weights other than embeddings go to Muon, everything else to AdamW.
    """

    def __init__(self, model: Any, lr: float, weight_decay: float) -> None:
        ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            hidden = parameter.ndim == 2 and "embed" not in name and id(parameter) not in ends
            (matrices if hidden else others).append(parameter)
        self.muon = torch.optim.Muon(matrices, lr=lr * MUON_FACTOR, weight_decay=weight_decay)
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)
        super().__init__(self.muon.param_groups + self.adamw.param_groups, {"lr": lr})
        self._link()

    def _link(self) -> None:
        """One list of groups, shared with the parts, so that a scheduler reaches both."""
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        self.muon.step()
        self.adamw.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._link()
