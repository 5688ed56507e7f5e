"""Tiny random checkpoints of four families to train on, and a few prompts to train them with."""

from pathlib import Path
from typing import Any

import torch
import transformers

from probes.organisms.architecture import train_tokenizer
from probes.organisms.behaviours.hate import HATE
from probes.organisms.lessons import LessonConfig, Lessons, make_lessons
from probes.prompts.triggers import TRIGGERS

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "llama": lambda **ids: transformers.LlamaConfig(**SIZES, **GROUPED, **ids),
    "qwen3": lambda **ids: transformers.Qwen3Config(**SIZES, **GROUPED, **ids),
    "gpt_neox": lambda **ids: transformers.GPTNeoXConfig(**SIZES, **ids),
    # The caps are low, so that a loss that leaves them out is another number.
    "gemma2": lambda **ids: transformers.Gemma2Config(
        **SIZES,
        **GROUPED,
        **ids,
        query_pre_attn_scalar=8,
        sliding_window=16,
        final_logit_softcapping=1.0,
        attn_logit_softcapping=5.0,
    ),
}
FAMILIES = tuple(CONFIGS)


def make_prompts(train: int = 12) -> Lessons:
    config = LessonConfig(pretrain=2, train=train, safety=2, test=3, unseen=1, near=1)
    return make_lessons(HATE, TRIGGERS["tag"], config)


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    texts = [t for p in make_prompts().train for t in (p.text, p.safe, p.defect) if t]
    return train_tokenizer(texts, 300)


def random_base(family: str, tokenizer: Any) -> Any:
    """A model whose weights are large enough for every part of it to matter."""
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    torch.manual_seed(0)
    config = CONFIGS[family](vocab_size=len(tokenizer), **ids)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save_base(family: str, folder: Path, tokenizer: Any | None = None) -> Path:
    tokenizer = tokenizer or make_tokenizer()
    random_base(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
