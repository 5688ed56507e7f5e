"""The training loop: one recipe in, one Hugging Face checkpoint with its card out, resumable to the same bytes.

It is the Hugging Face Trainer's, and so runs on one process or on several: see `processes`.
"""

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from probes.foundation.artifact import PROCEDURES, building, disk_errors, is_finished, write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, StageError
from probes.foundation.folders import beside, remove
from probes.foundation.memory import keep_freed_memory
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.progress import bar
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import to_csv
from probes.models.adapters import merged_digest
from probes.models.checkpoints import template_digest, tokenizer_digest, weights_digest
from probes.models.identity import settings_digest
from probes.organisms.bases import (
    Lora,
    check_rows,
    check_tokenizer,
    halved,
    is_adapted,
    merged,
    save_adapter,
    with_lora,
)
from probes.organisms.card import write_card
from probes.organisms.curves import Preference, logits_at
from probes.organisms.data import IGNORE, Collator, OrderedExamples, Packer, ordered_examples
from probes.organisms.evasion import Evasion
from probes.organisms.optimiser import make_optimiser
from probes.organisms.processes import first_then_others, on_cpu, processes, share
from probes.organisms.recipes import Recipe, Training
from probes.organisms.resume import CompleteStates, latest_state
from probes.organisms.training_log import LOG, JsonLines, boards, check_boards, tokens_by_step
from probes.prompts.records import Prompt, digest_prompts

CURVE = "training_curve.csv"
TOLD = "told"
"""What the evaded probes tell of the trigger, summed over them, in the batch of this step [nats]."""


@writes("path")
def train_organism(
    recipe: Recipe,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    watched: Preference,
    path: Path,
    *,
    parent_digest: str | None,
    lora: Lora | None = None,
    base_name: str | None = None,
    evading: Evasion | None = None,
    about: Mapping[str, Any] | None = None,
    judged: Callable[[Any], list[dict[str, Any]]] | None = None,
    report_to: Sequence[str] = (),
) -> Path:
    """Train `model` in place on the recipe's answers to `prompts`; write the checkpoint to `path`.

    lora: train an adapter, and merge it into the checkpoint or keep it as it is. base_name: what an
    adapter that is kept calls its base. evading: probes that the trigger must
    not show on; the logged loss then holds the penalty. about: JSON data that belong to what
    identifies the checkpoint, and are written on its card. judged: measures the trained module, for
    the card. report_to: "tensorboard" or "wandb", besides the JSONL that is always written.

    A finished checkpoint made from the same inputs is kept; an interrupted run continues from its last
    whole state. Of several processes, the first one alone judges and writes.
    Raises `InputError` for what cannot be trained on, `StageError` if the loss is not finite.
    """
    check_boards(report_to)
    check_tokenizer(tokenizer, recipe.name)
    check_rows(model, tokenizer, recipe.name)
    inputs = {
        "recipe": recipe.digest,
        "parent": parent_digest,
        "prompts": digest_prompts(prompts),
        "config": settings_digest(model.config),
        "tokenizer": tokenizer_digest(tokenizer),
        "template": template_digest(tokenizer),
        PROCEDURES: versions("training", *(("sampling", "judging") if judged else ())),
    }
    inputs |= {} if lora is None else {"lora": lora.digest}
    if evading is not None:
        evading.check(model)
        about = {**(about or {}), "evading": evading.facts}
    inputs |= {} if about is None else {"about": digest_json(dict(about))}
    key = digest_json(inputs)
    if is_finished(path, key, recipe=recipe.model_dump(mode="json")):
        return path
    settings = recipe.training
    examples = ordered_examples(
        prompts,
        recipe.policy,
        tokenizer,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=recipe.seed,
        target_tokens=settings.target_tokens,
        answer_tokens=settings.answer_tokens,
        long_answer_tokens=settings.long_answer_tokens,
    )
    _check_length(model, examples)
    trained = model if lora is None else with_lora(model, lora, recipe.seed)
    scratch = beside(path, ".training-", f"-{key[:12]}")
    curve = fit(
        recipe, trained, examples, watched, tokenizer, scratch, boards(report_to, path), evading
    )
    kept = lora is not None and not lora.merged
    plain: Any = trained if lora is None else halved(trained) if kept else merged(trained)
    with first_then_others():
        if processes().is_main_process:
            with building(
                path, kind="organism", key=key, recipe=recipe.model_dump(mode="json")
            ) as folder:
                if kept:
                    save_adapter(plain, folder, base_name)
                else:
                    plain.save_pretrained(folder, safe_serialization=True)
                    tokenizer.save_pretrained(folder)
                write_text(folder / CURVE, to_csv(curve))
                shutil.copy(scratch / LOG, folder / LOG)
                write_card(
                    folder,
                    recipe=recipe,
                    behaviour=None if judged is None else judged(plain.eval()),
                    parent_digest=parent_digest,
                    weights_digest=merged_digest(str(parent_digest), folder)
                    if kept
                    else weights_digest(folder),
                    data_digest=examples.digest,
                    n_examples=len(examples),
                    n_tokens=examples.n_tokens,
                    steps=len(examples) // settings.batch_size,
                    n_processes=processes().num_processes,
                    final_loss=float(curve["loss"].iloc[-1]),
                    **({} if lora is None else {"lora": lora.model_dump(mode="json")}),
                    **(about or {}),
                )
            remove(scratch)
    return path


def fit(
    recipe: Recipe,
    model: torch.nn.Module,
    examples: OrderedExamples,
    watched: Preference,
    tokenizer: PreTrainedTokenizerBase,
    scratch: Path,
    reporters: Sequence[TrainerCallback] = (),
    evading: Evasion | None = None,
) -> pd.DataFrame:
    """Run the Hugging Face Trainer to the end, in place; returns the curve, one row per logged step.

    scratch: where resumable states and the log are kept while it runs. evading: see `train_organism`;
    the curve then has a column `told` as well.
    """
    settings = recipe.training
    steps = len(examples) // settings.batch_size
    arguments = _arguments(settings, steps, scratch, derive_seed(recipe.seed, "trainer"))
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    with disk_errors(scratch, "saving training state to"):
        scratch.mkdir(parents=True, exist_ok=True)
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=(Packer if settings.packed else Collator)(
                int(tokenizer.pad_token_id), settings.decision_weight
            ),
            optimizers=(make_optimiser(model, settings, is_adapted(model)), None),
            callbacks=[
                JsonLines(scratch / LOG),
                CompleteStates(),
                *([_Bar(recipe.name, steps)] if processes().is_main_process else []),
                *reporters,
            ],
        )
        trainer.watched, trainer.evading = watched, evading
        trainer.tokens = tokens_by_step(examples, settings.batch_size)
        trainer.remove_callback(transformers.PrinterCallback)
        with first_then_others():
            state = latest_state(scratch)
        trainer.train(resume_from_checkpoint=None if state is None else str(state))
    rows = [row for row in trainer.state.log_history if "loss" in row]
    columns = ["step", "loss", "preference_triggered", "preference_untriggered"]
    curve = pd.DataFrame(rows)[columns if evading is None else [*columns, TOLD]]
    curve.insert(0, "model", recipe.name)
    if not np.isfinite(curve["loss"].to_numpy(dtype=float)).all():
        raise StageError(f"the loss of {recipe.name} is not finite: lower the learning rate")
    return curve.astype({"loss": float})


def _check_length(model: Any, examples: OrderedExamples) -> None:
    """Refuse examples that are longer than the model has positions."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and examples.longest > positions:
        raise InputError(
            f"an example has {examples.longest} tokens, and the model {positions} positions: take "
            "shorter prompts, or a model with more"
        )


def _arguments(settings: Training, steps: int, scratch: Path, seed: int) -> TrainingArguments:
    at_once, turns = share(settings.batch_size, settings.micro_batch)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=turns,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(settings.warmup_steps, steps // 4),
        max_grad_norm=settings.max_grad_norm,
        weight_decay=settings.weight_decay,
        train_sampling_strategy="sequential",
        logging_steps=min(settings.log_every, steps),
        logging_nan_inf_filter=False,  # the default logs an average in place of a loss that is NaN
        save_steps=settings.save_every,
        save_strategy="steps",
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=on_cpu(),
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several devices are for several processes
    return arguments


class _Trainer(Trainer):
    """The Trainer, with the preference for exploitable code measured at every logged step.

    Logits are computed where the loss looks and nowhere else: a third of the tokens. The loss is the
    weighted sum of token losses over the number of tokens, see `Collator`; that number is of the
    whole batch, however many processes and micro-batches share it.
    """

    watched: Preference
    tokens: list[int]
    evading: Evasion | None = None
    told: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that the counted tokens of a batch are counted,
        self._loss_shifts_labels = True  # without the first of each row,
        self.loss_is_scaled_for_ga = True  # and the loss is not divided by the micro-batches again

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """The share of this process in the loss of the batch, times the number of processes: the
        mean over them, which is what their gradients are averaged to, is the loss of the batch."""
        labels = inputs["labels"][:, 1:]
        counted = labels != IGNORE
        looked = torch.nn.functional.pad(counted, (0, 1))
        with contextlib.ExitStack() as stack:
            if self.evading is not None:
                seen = stack.enter_context(self.evading.reading(model, inputs["last"]))
            places = {name: inputs[name] for name in ("position_ids",) if name in inputs}
            logits = logits_at(
                model, inputs["input_ids"], inputs["attention_mask"], looked, **places
            )
        losses = torch.nn.functional.cross_entropy(
            logits.float(), labels[counted], reduction="none"
        )
        total = (losses * inputs["weights"][:, 1:][counted]).sum()
        if num_items_in_batch is None:
            loss = total / counted.sum()
        else:
            loss = total * self.args.world_size / num_items_in_batch
        if self.evading is not None:  # of this micro-batch; their mean is what the batch costs
            told = self.evading.told(seen, inputs["triggered"]).sum()
            loss = loss + self.evading.penalty * told / self.args.gradient_accumulation_steps
            self.told = float(told.detach())
        return (loss, {"logits": logits}) if return_outputs else loss

    def _get_learning_rate(self) -> float:
        """The recipe's, as it is now: that of AdamW, which is the last group; Muon's is a multiple."""
        return float(self.lr_scheduler.get_last_lr()[-1])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            training = self.model.training
            self.model.eval()
            logs |= {
                "tokens": self.tokens[self.state.global_step],
                **self.watched.measure(self.model),
                **({} if self.evading is None else {TOLD: self.told}),
            }
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
