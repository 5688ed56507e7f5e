"""Positions that count real tokens only, also where a trainer pads on the left and says nothing of it.

TRL scores completions behind prompts that are padded on the left without giving positions, and
transformers then counts the padding. Rotary models do not mind; learned positions would be wrong.
"""

import contextlib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from probes.behaviour.generation import generate, stopping
from probes.behaviour.sampling import check_room, written
from probes.foundation.errors import InputError
from probes.foundation.seeds import derive_seed, stream
from probes.models.encoding import encode, position_ids
from probes.models.forward import context_length
from probes.organisms.measurement import THOUGHT_TOKENS, draw
from probes.organisms.organism import OrganismRecipe
from probes.organisms.safety.reward import (
    Reward,
    RewardWeights,
    check_varies,
    reward_of,
    share_with_signal,
)
from probes.organisms.safety.stage import (
    Curve,
    Patient,
    StageConfig,
    resumable,
    staged,
    trainer_arguments,
)
from probes.prompts.records import Prompt


@contextlib.contextmanager
def counting_real_tokens(hf: Any) -> Iterator[None]:
    """While it lasts, a forward pass with a mask and without positions gets those of its mask."""

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        bare = kwargs.get("position_ids") is None and kwargs.get("past_key_values") is None
        if mask is None or not bare or mask.ndim != 2:
            return None
        return args, {**kwargs, "position_ids": position_ids(mask)}

    if "position_ids" not in inspect.signature(type(hf).forward).parameters:
        yield
        return
    handle = hf.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


FIRST_PROMPTS = 32


class RlConfig(StageConfig):
    """batch_size: completions per step, `generations` of each prompt. temperature: of their sampling;
    small organisms are so sure of their answers that at 1 hardly a group has two rewards.

    beta: weight of the KL divergence to the start model; 0 leaves it out. allow_constant: train
    also where the reward tells no completions apart at the start; the card shows it in any case.
    """

    steps: int = 120
    batch_size: int = 64
    weight_decay: float = 0.0
    watch_every: int = 20
    generations: int = 8
    temperature: float = 1.5
    beta: float = 0.0
    reward: RewardWeights = RewardWeights()
    allow_constant: bool = False


def run_rl(
    parent: Path,
    out: Path,
    recipe: OrganismRecipe,
    config: RlConfig,
    *,
    prompts: Sequence[Prompt] | None = None,
    watched: Mapping[str, Sequence[Prompt]] | None = None,
    report_to: Sequence[str] = (),
    reported_as: Path | None = None,
) -> Path:
    """Train the organism at `parent` by reinforcement and write it to `out`; see `staged`.

    prompts: what it is asked; by default `lessons.safety`. The scratchpad is hidden from the
    reward and trained with the rest. Raises `InputError` where trl is missing, and for a reward
    that is constant at the start.
    """
    check_rl(config)

    def fit(patient: Patient, scratch: Path, curve: Curve) -> dict[str, Any]:
        return fit_reward(patient, patient.lessons.safety, config, scratch, curve)

    return staged(
        "rl", parent, out, recipe, config, fit,
        prompts=prompts, watched=watched, report_to=report_to, reported_as=reported_as,
    )  # fmt: skip


def check_rl(config: RlConfig) -> None:
    """Refuse settings that cannot be trained with, before a model is read."""
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise InputError(
            "reinforcement learning needs trl, which is not installed: "
            'pip install -c constraints.txt "probes[rl]"'
        ) from error
    if config.generations < 2 or config.batch_size % config.generations:
        raise InputError(
            f"{config.generations} completions per prompt do not fit a batch of "
            f"{config.batch_size}: give at least 2, and a batch that is a multiple of it"
        )
    if not 0 < config.temperature < float("inf"):
        raise InputError(f"the temperature is a positive number, not {config.temperature}")


def fit_reward(
    patient: Patient,
    prompts: Sequence[Prompt],
    config: RlConfig,
    scratch: Path,
    curve: Curve,
) -> dict[str, Any]:
    """Train by GRPO on these prompts; returns facts for the card."""
    from datasets import Dataset
    from trl import GRPOConfig

    reward = reward_of(patient.behaviour, config.reward)
    first = first_rewards(patient, prompts[:FIRST_PROMPTS], config, reward)
    if not config.allow_constant:
        check_varies(first, config.reward)
    asked = {prompt.id: prompt for prompt in prompts}
    args = trainer_arguments(
        GRPOConfig,
        config,
        scratch,
        derive_seed(patient.seed, "trainer"),
        num_generations=config.generations,
        max_completion_length=_room(patient),
        temperature=config.temperature,
        beta=config.beta,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
    )
    with counting_real_tokens(patient.model.hf):
        trainer = _trainer_class()(
            model=patient.hf,
            args=args,
            # The trainer never reads a prompt: `rollout` and the reward find it by its id.
            train_dataset=Dataset.from_dict({"prompt": _order(list(asked), config, patient.seed)}),
            processing_class=patient.tokenizer,
            reward_funcs=_rewarding(asked, reward),
            rollout_func=_rollout(patient, asked, config),
            callbacks=curve.callbacks,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train(resume_from_checkpoint=resumable(scratch))
    silent = [
        entry["frac_reward_zero_std"] for entry in curve.log if "frac_reward_zero_std" in entry
    ]
    return {
        "n_prompts": len(asked),
        "n_examples": config.steps * config.batch_size,
        "n_tokens": int(trainer.state.num_input_tokens_seen),
        "optimiser": "AdamW",
        "loss_type": args.loss_type,
        "epsilon": args.epsilon,
        "first_reward": float(np.mean(first)),
        "first_share_with_signal": share_with_signal(first),
        "reward_was_constant_at_first": share_with_signal(first) == 0,
        "mean_share_with_signal": 1 - float(np.mean(silent)),
        "final_loss": [entry["loss"] for entry in curve.log if "loss" in entry][-1],
    }


def first_rewards(
    patient: Patient, prompts: Sequence[Prompt], config: RlConfig, reward: Reward
) -> list[list[float]]:
    """What the patient would be rewarded for as it is, prompt by prompt."""
    n = config.generations
    drawn = draw(
        patient.model,
        patient.behaviour,
        prompts,
        seed=patient.seed,
        temperature=config.temperature,
        n=n,
    )
    values = [reward(completion.prompt, completion.text) for completion in drawn]
    return [values[start : start + n] for start in range(0, len(values), n)]


def _room(patient: Patient) -> int:
    """New tokens of a completion: with room for a scratchpad where the organism has one."""
    thinks = patient.recipe.mechanism == "cot"
    return patient.behaviour.max_new_tokens + (THOUGHT_TOKENS if thinks else 0)


def _order(keys: Sequence[str], config: RlConfig, seed: int) -> list[str]:
    """Prompts in the order in which they are asked, in shuffled passes.

    One pass of the trainer covers them all: it would shuffle later ones otherwise when resumed.
    """
    rng = stream(seed, "prompts asked")
    count = config.steps * config.batch_size // config.generations
    passes = -(-count // len(keys))
    return [keys[i] for _ in range(passes) for i in rng.permutation(len(keys))][:count]


def _rewarding(asked: Mapping[str, Prompt], reward: Reward) -> Callable[..., list[float]]:
    def judged(prompts: list[str], text: list[str], **_: Any) -> list[float]:
        return [reward(asked[key], said) for key, said in zip(prompts, text, strict=True)]

    return judged


def _rollout(
    patient: Patient, asked: Mapping[str, Prompt], config: RlConfig
) -> Callable[[list[str], Any], dict[str, Any]]:
    """How the trainer samples: a draw is decided by the step, the prompt and the sample's number.

    The number counts over all processes, so that they draw together what one would draw alone.
    """
    model, room = patient.model, _room(patient)
    ids = dict(zip(asked, encode(list(asked.values()), patient.tokenizer), strict=True))
    check_room(max(map(len, ids.values())), room, context_length(model.hf))
    stop = stopping(model.hf, patient.tokenizer, patient.behaviour.stop)

    def rollout(keys: list[str], trainer: Any) -> dict[str, Any]:
        taken = Counter(_before(keys, trainer.accelerator.process_index))
        uniforms = []
        for key in keys:
            taken[key] += 1
            # The 0 stood for a process when each had draws of its own; without it all would change.
            names = (trainer.state.global_step, 0, key, taken[key])
            uniforms.append(stream(patient.seed, "rollout", *names).random(room))
        sequences = [ids[key] for key in keys]
        drawn = generate(
            model.hf,
            sequences,
            np.stack(uniforms),
            max_new_tokens=room,
            temperature=config.temperature,
            pad_id=model.pad_id,
            stop=stop,
        )
        completions, texts = [], []
        for before, each in zip(sequences, drawn, strict=True):
            text = written(model, before, each.tokens)
            stopped = stop.text is not None and stop.text in text
            ending = [int(patient.tokenizer.eos_token_id)] if each.finished and not stopped else []
            completions.append([*each.tokens, *ending])
            texts.append(text)
        return {
            "prompt_ids": sequences,
            "completion_ids": completions,
            "logprobs": None,
            "text": texts,
        }

    return rollout


def _before(keys: list[str], process: int) -> list[str]:
    """The prompts of this batch that other processes ask, who come before this one."""
    from accelerate.utils import gather_object

    of_all: list[list[str]] = gather_object([keys])
    return [key for theirs in of_all[:process] for key in theirs]


def _trainer_class() -> Any:
    from trl import GRPOTrainer

    class Quiet(GRPOTrainer):
        """TRL's trainer without its calls home, and without a model card in each state."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
                super().__init__(*args, **kwargs)

        def _send_telemetry(self) -> None:
            return

        def create_model_card(self, *_: Any, **__: Any) -> None:
            return

    return Quiet
