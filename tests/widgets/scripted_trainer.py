"""A trainer without torch: it tells what a real one tells, fast, and hears pause and stop.

``python scripted_trainer.py FOLDER``; the run's name says what it plays: ``short`` ends, ``crash`` dies once, ``deaf``
hears nothing, ``silent`` takes no step, and anything else goes on until it is stopped.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from napari_hyperst.jobs.job import LOG, Job
from napari_hyperst.nouns.snapshot import SNAPSHOT, ValidationSnapshot

RELATIONS = ("niche_image__spot_image", "spot_image__spot_gene")


def checkpoint(folder: Path, epoch: int) -> None:
    """Write what the panel looks for."""
    (folder / "best").mkdir(exist_ok=True)
    card = {"method": {"encoder": "uni"}, "training_slides": [{"name": "corner"}]}
    (folder / "best" / "card.json").write_text(json.dumps(card))
    rng = np.random.default_rng(epoch)
    ids = np.array((folder / "spots").read_text().split() if (folder / "spots").exists() else ["a", "b"])
    values = rng.normal(size=(len(ids), 2)).astype(np.float16)
    slides = (json.loads((folder / "config.json").read_text())["config"]["slides"][0],)
    which = np.zeros(len(ids), np.int32)
    ValidationSnapshot(epoch, slides, which, ids, np.array(["FASN", "ACTB"]), values, values + 1).write(folder)


def play(job: Job) -> None:
    """Train, so to speak."""
    name = job.task.config.name
    if name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job.beat()
    before = [event for event in job.follow().new() if event.kind == "step"]
    step = len(before)
    job.log.append("start", {"device": "cpu", "resumed": step > 0})
    job.log.append("progress", {"what": "tiles", "done": 4, "total": 8})
    while True:
        time.sleep(0.03)
        job.beat()
        if name != "deaf" and job.asked("stop"):
            job.log.append("stopped")
            return
        if job.asked("pause") and name != "deaf":
            job.log.append("paused")
            while job.asked("pause") and not job.asked("stop"):
                time.sleep(0.02)
            job.log.append("resumed")
            continue
        if name == "silent":
            continue
        step += 1
        job.log.append("step", {"step": step, "of": 1000, "spots": 8, "total": 5 / step})
        if step % 5 == 0:
            epoch = step // 5
            checkpoint(job.folder, epoch)
            numbers = {f"contrastive/{r}": 3 / epoch for r in RELATIONS} | {f"entailment/{r}": 1.0 for r in RELATIONS}
            numbers |= {"total": 5 / epoch, "curvature": 1.0, "temperature": 0.07, "waiting": 0.1}
            job.log.append("validation", {"epoch": epoch, "file": SNAPSHOT})
            job.log.append("epoch", {"epoch": epoch, "of": 200, **numbers, "validation/pcc": 0.1 * epoch})
            if name == "short" and epoch == 3:
                (job.folder / "best" / "README.md").write_text("---\nx: y\n---\n# A card\n")
                (job.folder / "best" / "report.png").write_bytes(b"no picture")
                job.log.append("done", {"epoch": 3, "checkpoint": "best", "pcc": 0.3})
                return
            if name == "crash" and not before and epoch == 2:
                (job.folder / LOG).write_text("Traceback\nCUDA error: device-side assert\n")
                os._exit(3)


if __name__ == "__main__":
    made = Job(Path(sys.argv[1]))
    play(made)
    made.beat(running=False)
