"""A child that does what the checkpoint's name says, without torch: it is the other end of ``widgets.process``.

Its argument is a file with the table of a prediction, which it hands out as its result.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from napari_hyperst.jobs.filling import Filling
from napari_hyperst.jobs.job import LOG, Job
from napari_hyperst.nouns.plan import PlannedSlide, TrainingPlan
from napari_hyperst.nouns.tasks import ExportTask, PlanTask, ShareTask

TOLD = {"spots": 47, "genes": 8, "seconds": 0.1}


def plan(job: Job) -> None:
    """Act out a plan: of listed genes, those that begin with NO are missing."""
    config = job.task.config
    if config.name == "impossible":
        job.log.append("error", {"message": "slide: is no slide; give another", "expected": True})
        return
    asked = config.gene_list or (("A1", "B2") if job.task.genes_of else tuple(f"G{i}" for i in range(config.genes)))
    missing = tuple(gene for gene in asked if gene.startswith("NO"))
    held_out = 12 if config.holdout else 0
    slides = [
        PlannedSlide(path=str(path), name=path.name, spots=24, held_out=held_out, patient=f"P{i}", missing=missing)
        for i, path in enumerate((*config.slides, *config.validation))
    ]
    settings = {"batch_size": 8, "epochs": 33, "micro_batch": None, "method.lora_blocks": 1}
    settings = {name: value for name, value in settings.items() if name in job.task.free}
    made = TrainingPlan(
        slides=tuple(slides),
        genes=tuple(gene for gene in asked if gene not in missing),
        settings=settings,
        reasons=dict.fromkeys(settings, "few spots"),
        device="cpu: 2 threads",
        devices={"cpu": ("2 threads", ""), "cuda": ("", "no GPU here"), "mps": ("", "no apple")},
        prepare_s=120.0,
        epoch_s=6.0,
        memory_gib=1.3,
        memory_free_gib=9.0,
        cache_gib=0.5,
        basis="time: measured on nothing",
    )
    (job.folder / "plan.json").write_text(made.model_dump_json())
    job.log.append("done", {"result": "plan.json"})


def play(job: Job, table: Path) -> None:
    """Act out one job."""
    job.log.append("start", {"pid": os.getpid()})
    if isinstance(job.task, PlanTask):
        plan(job)
        return
    if isinstance(job.task, ShareTask) and job.task.out is not None and job.task.out.name == "refused":
        job.log.append("error", {"message": "refused: is there already; name another", "expected": True})
        return
    if isinstance(job.task, ShareTask):
        job.log.append(
            "done", {"folder": str(job.task.out)} if job.task.out else {"page": f"hub/{job.task.repository}"}
        )
        return
    if isinstance(job.task, ExportTask):
        job.task.out.mkdir()
        time.sleep(0.3)  # time to be closed in
        (job.task.out / "table").write_text(str(job.task.table))
        job.log.append("done", {"store": str(job.task.out)})
        return
    scene = Path(job.task.checkpoint).name
    job.log.append("progress", {"what": "spots", "done": 0, "total": 40})
    if scene == "slow":
        for done in range(1, 41):
            time.sleep(0.05)
            if job.asked("stop"):
                job.log.append("stopped")
                return
            job.log.append("progress", {"what": "spots", "done": done, "total": 40})
    elif scene == "fills":
        filling = Filling(job.folder, [f"GENE{i}" for i in range(8)], 48)
        job.log.append("filling", filling.told)
        for turn in range(600):
            done = min(turn + 1, 24)
            filling.put(np.array([done - 1]), np.full((1, 8), done, np.float32))
            job.log.append("progress", {"what": "spots", "done": done, "total": 40})
            job.log.append("filled", {"spots": done})
            time.sleep(0.1)
            if job.asked("stop"):
                job.log.append("stopped")
                return
    elif scene == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    elif scene == "crash":
        (job.folder / LOG).write_text("Traceback\nSegmentation fault in libtorch\n")
        os._exit(3)
    elif scene == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif scene == "broken":
        job.log.append("error", {"message": "slide.tif: is broken; mend it", "expected": True})
        return
    elif scene == "misfit":
        job.log.append("error", {"message": f"{job.task.slide.path}: does not fit; use another", "expected": True})
        return
    elif scene == "warns":
        job.log.append("warning", {"message": "out of memory; going on with 16 spots at a time"})
    shutil.copy(table, job.folder / "prediction.h5ad")
    job.log.append("done", {"result": "prediction.h5ad", "table": "table_hyperst", **TOLD})


if os.environ.get("HYPERST_TEST_STILLBORN"):
    print("ImportError: no torch today", flush=True)
    sys.exit(1)
print(json.dumps({"ready": True, "devices": {"cpu": "", "cuda": "no CUDA device was found", "mps": ""}}), flush=True)
for line in sys.stdin:
    play(Job(Path(line.strip())), Path(sys.argv[1]))
