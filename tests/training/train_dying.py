"""`ossicle train …` whose second process kills itself at step 3 of the first try: torchrun … train_dying.py train …"""

from __future__ import annotations

import os
import signal
import sys

from ossicle.cli.app import run
from ossicle.training import loop

STEP = loop.StageRun.step


def step(self: loop.StageRun, number: int) -> loop.StepReport:
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and number == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return STEP(self, number)


if __name__ == "__main__":
    loop.StageRun.step = step
    sys.exit(run())
