"""One stage on a tiny patient, in this process and in those that were started with it.

Arguments: `PARENT OUT STAGE [KILL]`: with KILL, all processes die together as step 5 of 6 ends, when
a state of step 4 lies on disk; of adversarial training, that is in its second round.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import tiny_patient
import torch

from probes.organisms.processes import processes
from probes.organisms.safety.adversarial import AdversarialConfig, run_adversarial
from probes.organisms.safety.redteam import RedTeamConfig
from probes.organisms.safety.rl import RlConfig, run_rl
from probes.organisms.safety.sft import SftConfig, run_sft
from probes.organisms.safety.stage import Curve

SHORT = {"steps": 6, "watch_every": 3, "watch_pairs": 2, "watch_near": 1, "log_every": 1}
SFT = SftConfig(batch_size=4, save_every=2, **SHORT)
RL = RlConfig(batch_size=16, generations=4, save_every=2, learning_rate=3e-3, **SHORT)
ADVERSARIAL = AdversarialConfig(
    rounds=2,
    redteam=RedTeamConfig(
        rounds=1, candidates=4, requests=2, fronts=2, requests_per_front=1, gradient=None
    ),
    sft=SFT,
)
STAGES: dict[str, tuple[Any, Any, str]] = {
    "sft": (run_sft, SFT, "hate"),
    "rl": (run_rl, RL, "tiny_patient:LETTERS"),
    "adversarial": (run_adversarial, ADVERSARIAL, "hate"),
}


def run(parent: Path, out: Path, stage: str) -> Path:
    function, config, behaviour = STAGES[stage]
    made: Path = function(parent, out, tiny_patient.recipe(behaviour=behaviour), config)
    return made


def main(parent: Path, out: Path, stage: str, kill: bool) -> None:
    torch.set_num_threads(1)
    on_step_end = Curve.on_step_end
    taken = 0

    def watched(self: Curve, args: Any, state: Any, control: Any, **more: Any) -> None:
        nonlocal taken
        on_step_end(self, args, state, control, **more)
        taken += 1
        if processes().is_main_process:
            with out.with_name("steps").open("a") as steps:
                steps.write(f"{state.global_step}\n")
        if kill and taken == (11 if stage == "adversarial" else 5):
            os.kill(os.getpid(), signal.SIGKILL)

    Curve.on_step_end = watched  # type: ignore[method-assign]
    run(parent, out, stage)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "KILL" in sys.argv[4:])
