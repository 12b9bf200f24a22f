"""What a job does, by the kind of its task. Heavy libraries are imported here, by the process that does the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_hyperst.files import check_place, write_whole
from napari_hyperst.jobs.filling import Filling, show_meanwhile
from napari_hyperst.nouns.tasks import (
    AnyTask,
    ConvertTask,
    ExportTask,
    PlanTask,
    PredictTask,
    ShareTask,
    SlideRef,
    TrainTask,
)

#: Called with each event's kind and content; raises ``Stopped`` when the job was asked to stop.
Report = Callable[[str, dict[str, Any]], None]
RESULT = "prediction.h5ad"
PLAN = "plan.json"


class Stopped(BaseException):
    """The job was asked to stop; not an ``Exception``, so that no handler of errors takes it for one."""


def perform(task: AnyTask, folder: Path, report: Report) -> None:
    """Do what a task asks.

    Parameters
    ----------
    task
        What to do.
    folder
        The job's folder, for results.
    report
        Called with each event, ``done`` the last.

    Raises
    ------
    HyperSTError
        If the user asked for something that cannot be done.
    """
    match task:
        case PredictTask():
            _predict(task, folder, report)
        case ExportTask():
            _export(task, report)
        case ConvertTask():
            _convert(task, report)
        case PlanTask():
            _plan(task, folder, report)
        case ShareTask():
            _share(task, report)
        case TrainTask():
            from napari_hyperst.jobs.job import Job
            from napari_hyperst.training import resume

            job = Job(folder)

            def check() -> bool:
                if job.asked("stop"):
                    raise Stopped
                return job.asked("pause")

            resume(folder, report, check)  # from its first step, where it has taken none


def _predict(task: PredictTask, folder: Path, report: Report) -> None:
    from napari_hyperst.models.checkpoint_files import find_checkpoint

    if not task.checkpoint.startswith("hf://"):  # what may have to be fetched waits for the slide
        find_checkpoint(task.checkpoint)
    report("progress", {"what": "opening the slide", "done": 0, "total": 0})
    slide = _open(task.slide, report)
    report("progress", {"what": "loading the checkpoint", "done": 0, "total": 0})
    from napari_hyperst.models.checkpoint import load_checkpoint
    from napari_hyperst.models.device import choose_device
    from napari_hyperst.prediction import predict
    from napari_hyperst.slides.export import prediction_table, table_name

    checkpoint = load_checkpoint(task.checkpoint)
    device = choose_device(task.device).type
    report("device", {"device": device})
    progress = _progress("spots", report)
    filling = Filling(folder, checkpoint.panel.genes, len(slide.spots)) if task.filling else None
    if filling is not None:
        report("filling", filling.told)
        progress = show_meanwhile(progress, report, wait=device == "cpu")
    prediction = predict(
        slide,
        checkpoint,
        task.device,
        progress,
        batch_size=task.batch_size,
        precision=task.precision,
        done=None if filling is None else filling.put,
    )
    staged = folder / f".{RESULT}"
    prediction_table(prediction, task.command).write_h5ad(staged)
    staged.rename(folder / RESULT)
    told = {"spots": len(prediction.spots), "genes": len(prediction.panel), "seconds": prediction.run["seconds"]}
    report("done", {"result": RESULT, "table": table_name(slide), **told})


def _export(task: ExportTask, report: Report) -> None:
    from anndata import read_h5ad

    from napari_hyperst.slides.outputs import write_output
    from napari_hyperst.slides.outputs.formats import OutputRequest

    report("progress", {"what": "opening the slide", "done": 0, "total": 0})
    slide = _open(task.slide, report)
    report("progress", {"what": f"writing {task.out.name}", "done": 0, "total": 0})
    request = OutputRequest(task.out, task.gene, task.measured, task.table, task.overwrite, task.copy_store)
    table = slide.sdata.tables[str(task.table)] if task.result is None else read_h5ad(task.result)
    written = write_output(slide, table, request, _progress("blocks of pixels", report))
    report("done", {"store": str(written)})


def _convert(task: ConvertTask, report: Report) -> None:
    from napari_hyperst.slides.convert import convert

    check_place(task.out)
    report("progress", {"what": "opening the slide", "done": 0, "total": 0})
    slide = _open(task.slide, report)
    store = convert(slide, task.out, _progress("blocks of pixels", report))
    report("done", {"store": str(store), "spots": len(slide.spots)})


def _plan(task: PlanTask, folder: Path, report: Report) -> None:
    from napari_hyperst.training.plan import plan_training

    def say(what: str) -> None:
        report("progress", {"what": what, "done": 0, "total": 0})

    plan = plan_training(task.config, task.free, task.genes_of, say)
    write_whole(folder / PLAN, plan.model_dump_json(indent=2) + "\n")
    report("done", {"result": PLAN})


def _share(task: ShareTask, report: Report) -> None:
    from napari_hyperst.training.share import push_checkpoint, share_checkpoint

    told: dict[str, str] = {}
    if task.out is not None:
        report("progress", {"what": "writing the checkpoint", "done": 0, "total": 0})
        told["folder"] = str(share_checkpoint(task.run, task.out))
    if task.repository is not None:
        report("progress", {"what": "sending it to the hub", "done": 0, "total": 0})
        told["page"] = push_checkpoint(task.run, task.repository, private=task.private)
    report("done", told)


def _open(slide: SlideRef, report: Report) -> Any:
    from napari_hyperst.slides import open_slide

    return open_slide(slide.path, **slide.options, progress=_progress("decoding the image", report))


def _progress(what: str, report: Report) -> Callable[[int, int], None]:
    """Return what tells how far something is as an event."""
    return lambda done, total: report("progress", {"what": what, "done": done, "total": total})
