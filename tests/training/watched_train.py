"""`fgvc` as torchrun starts it in `test_parallel.py`, watched: it keeps each process's weights, and may be stopped.

STOP_AT: number of the update after which the second process gets a SIGTERM.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from safetensors.torch import save_file

from fgvc_cli.cli.app import main
from fgvc_cli.launch import launched
from fgvc_cli.training import trainer

updates = 0
real_update, real_fit = trainer.Trainer._update, trainer.Trainer.fit


def update(self, group):
    global updates
    updates += 1
    done = real_update(self, group)
    if updates == int(os.environ["STOP_AT"]) and launched().rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return done


def fit(self):
    progress = real_fit(self)
    weights = {name: value.contiguous().clone() for name, value in self.job.classifier.state_dict().items()}
    path = Path(self.run.path)
    save_file(weights, path.parent / f"rank{launched().rank}.safetensors")
    return progress


trainer.Trainer._update, trainer.Trainer.fit = update, fit
main()
