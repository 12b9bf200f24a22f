"""A process that trains on the tiny encoder: ``python trainer_process.py WEIGHTS CONFIG [KILLS SEED]``.

With KILLS, a child trains and is killed at that many random points, and another resumes each time; the parent imports
once, has never computed anything, and forks.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from napari_hyperst.models.encoders import EncoderSpec, register_encoder
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training import resume, train


def killed(config: TrainConfig, times: int, chance: random.Random) -> None:
    """Train, killed that often, each time within a span in which a whole run could end."""
    events = config.out / "events.jsonl"
    for _ in range(times):
        seen = len(events.read_bytes()) if events.exists() else 0
        child = os.fork()
        if child == 0:
            resume(config.out) if (config.out / "config.json").exists() else train(config)
            os._exit(0)
        while not events.exists() or len(events.read_bytes()) < seen + chance.randrange(1500, 6000):
            time.sleep(0.001)
            assert os.waitpid(child, os.WNOHANG)[0] == 0, "it came to its end before it was killed"
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    register_encoder(EncoderSpec("tiny", "test_vit", Path(sys.argv[1]), licence="BSD-3-Clause"))
    settings = TrainConfig.model_validate_json(Path(sys.argv[2]).read_text())
    if len(sys.argv) == 3:
        train(settings)
    else:
        killed(settings, int(sys.argv[3]), random.Random(int(sys.argv[4])))
        if os.fork() == 0:
            resume(settings.out)
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
