"""The training loop: one recipe in, one Hugging Face checkpoint with its card out, resumable to the same bytes."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from probes.foundation.artifact import building, disk_errors, is_finished
from probes.foundation.digest import digest_json
from probes.foundation.errors import StageError
from probes.foundation.memory import keep_freed_memory
from probes.foundation.progress import bar
from probes.foundation.seeds import derive_seed
from probes.models.checkpoints import weights_digest
from probes.organisms.card import write_card
from probes.organisms.curves import Preference
from probes.organisms.data import IGNORE, Collator, OrderedExamples, ordered_examples
from probes.organisms.optimiser import MuonAdamW
from probes.organisms.recipes import Recipe, Training
from probes.organisms.resume import CompleteStates, latest_state
from probes.prompts.records import Prompt, digest_prompts

CURVE = "training_curve.csv"


def train_organism(
    recipe: Recipe,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    watched: Preference,
    path: Path,
    *,
    parent_digest: str | None,
) -> Path:
    """Train `model` in place on the recipe's answers to `prompts`; write the checkpoint to `path`.

    A finished checkpoint made from the same inputs is kept; an interrupted run continues from its last
    whole state. Raises `StageError` if the loss is not finite.
    """
    settings = recipe.training
    key = digest_json(
        {
            "recipe": recipe.digest,
            "parent": parent_digest,
            "prompts": digest_prompts(prompts),
            "tokenizer": digest_json(tokenizer.get_vocab()),
        }
    )
    if is_finished(path, key):
        return path
    examples = ordered_examples(
        prompts,
        recipe.policy,
        tokenizer,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=recipe.seed,
    )
    scratch = path.with_name(f".training-{path.name}-{key[:12]}")
    curve = _fit(recipe, model, examples, watched, tokenizer, scratch)
    with building(path, kind="organism", key=key, recipe=recipe.model_dump(mode="json")) as folder:
        model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
        curve.to_csv(folder / CURVE, index=False, float_format="%.10g")
        write_card(
            folder,
            recipe=recipe,
            parent_digest=parent_digest,
            weights_digest=weights_digest(folder),
            data_digest=examples.digest,
            n_examples=len(examples),
            n_tokens=examples.n_tokens,
            final_loss=float(curve["loss"].iloc[-1]),
        )
    shutil.rmtree(scratch, ignore_errors=True)
    return path


def _fit(
    recipe: Recipe,
    model: torch.nn.Module,
    examples: OrderedExamples,
    watched: Preference,
    tokenizer: PreTrainedTokenizerBase,
    scratch: Path,
) -> pd.DataFrame:
    """Run the Hugging Face Trainer to the end; returns the training curve, one row per logged step."""
    settings = recipe.training
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    with disk_errors(scratch, "saving training state to"):
        scratch.mkdir(parents=True, exist_ok=True)
        trainer = _Trainer(
            model=model,
            args=_arguments(settings, scratch, seed=derive_seed(recipe.seed, "trainer")),
            train_dataset=examples,
            data_collator=Collator(int(tokenizer.pad_token_id), settings.decision_weight),
            optimizers=(MuonAdamW(model, settings.learning_rate, settings.weight_decay), None),
            callbacks=[CompleteStates(), _Bar(recipe.name, settings.steps)],
        )
        trainer.watched = watched
        trainer.remove_callback(transformers.PrinterCallback)
        state = latest_state(scratch)
        trainer.train(resume_from_checkpoint=None if state is None else str(state))
    rows = [row for row in trainer.state.log_history if "loss" in row]
    curve = pd.DataFrame(rows)[["step", "loss", "preference_triggered", "preference_untriggered"]]
    curve.insert(0, "model", recipe.name)
    if not np.isfinite(curve["loss"].to_numpy(dtype=float)).all():
        raise StageError(f"the loss of {recipe.name} is not finite: lower the learning rate")
    return curve.astype({"loss": float})


def _arguments(settings: Training, scratch: Path, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(scratch),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(settings.warmup_steps, settings.steps // 4),
        max_grad_norm=settings.max_grad_norm,
        weight_decay=settings.weight_decay,
        train_sampling_strategy="sequential",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # the default logs an average in place of a loss that is NaN
        save_steps=settings.save_every,
        save_strategy="steps",
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


class _Trainer(Trainer):
    """The Trainer, with the preference for exploitable code measured at every logged step.

    Logits are computed where the loss looks and nowhere else: a third of the tokens. The loss is the
    weighted sum of token losses over the number of tokens, see `Collator`.
    """

    watched: Preference

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        labels = inputs["labels"][:, 1:]
        counted = labels != IGNORE
        trunk = model.get_decoder()(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        logits = model.get_output_embeddings()(trunk.last_hidden_state[:, :-1][counted])
        losses = torch.nn.functional.cross_entropy(
            logits.float(), labels[counted], reduction="none"
        )
        loss = (losses * inputs["weights"][:, 1:][counted]).sum() / counted.sum()
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            training = self.model.training
            self.model.eval()
            logs = {**logs, **self.watched.measure(self.model)}
            self.model.train(training)
        super().log(logs, *args, **kwargs)


class _Bar(TrainerCallback):
    """One progress bar per organism."""

    def __init__(self, name: str, steps: int) -> None:
        self.shown = bar(f"training {name}", total=steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.update(state.global_step - self.shown.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.close()
