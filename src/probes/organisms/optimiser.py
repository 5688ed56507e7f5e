"""Muon for the weight matrices, AdamW for the rest: more progress per step on models this small."""

from collections.abc import Callable
from typing import Any

import torch

MUON_FACTOR = 4.0
"""Muon's learning rate over AdamW's: its updates are orthogonal matrices, not unit-scaled entries."""


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` behind one optimiser, as Trainer and schedulers expect.

    Two-dimensional weights other than embeddings go to Muon, everything else to AdamW.
    """

    def __init__(self, model: torch.nn.Module, lr: float, weight_decay: float) -> None:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in model.named_parameters():
            hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
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
