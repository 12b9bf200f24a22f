"""What the workbench has done for it in another process: predictions, and stores written."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils import progress
from qtpy.QtCore import QObject, QTimer, Signal

from napari_hyperst.errors import CheckpointError, HyperSTError
from napari_hyperst.jobs.job import Job, jobs_folder
from napari_hyperst.models.checkpoint_files import read_genes
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import AnyTask, ExportTask, PredictTask
from napari_hyperst.slides.outputs.formats import output_format
from napari_hyperst.viewer import preferences
from napari_hyperst.viewer.filling import filling_table
from napari_hyperst.viewer.notices import show_error, show_info, show_warning
from napari_hyperst.viewer.results import Result, read_in_thread, show_result
from napari_hyperst.widgets.process import Child, result_of
from napari_hyperst.widgets.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session


class Work(QObject):
    """The jobs of a viewer, one at a time, and what becomes of their results.

    Parameters
    ----------
    session
        Whose slides are predicted.
    child
        The process that does it.

    Attributes
    ----------
    task, key
        What is at work, or was last, and what the session calls its slide.
    """

    #: Something is at work now (what it does).
    began = Signal(str)
    #: How far it has come: an ``Event``.
    progressed = Signal(object)
    #: It is over: what is to be said of it, which is nothing after a new prediction is shown only.
    rested = Signal(str)
    #: Something can be done that could not, or the other way round.
    changed = Signal()

    def __init__(self, session: Session, child: Child) -> None:
        super().__init__()
        self.session = session
        self.child = child
        self._folders: list[Path] = []
        self._slide_of: dict[Path, tuple[str, Slide]] = {}
        self._filling: str | None = None
        self.task: PredictTask | ExportTask | None = None
        self.key = ""
        self._activity: progress | None = None
        self._reading: Job | None = None
        child.told.connect(self._on_told)
        child.ended.connect(self._on_ended)
        child.broken.connect(self._on_broken)
        session.slides_changed.connect(self._on_slides)

    @property
    def busy(self) -> str:
        """Why nothing can be begun now; empty where it can."""
        if self.child.job is None and self._reading is None:
            return ""
        written = self.task.out.name if isinstance(self.task, ExportTask) else ""
        return f"wait until {written} is written" if written else "wait until genes are predicted"

    def predict(self, checkpoint: str, device: str) -> None:
        """Predict the active slide's genes.

        Parameters
        ----------
        checkpoint, device
            As for ``PredictTask``.
        """
        entry = self.session.active
        if entry is None or self.busy:
            return
        try:
            slide = self.session.settle(entry)
        except HyperSTError as error:
            show_error(str(error))
            return
        task = PredictTask(
            slide=slide,
            checkpoint=checkpoint,
            device=device,
            batch_size=preferences.batch_size(),
            filling=entry.table is None,  # else what was predicted before stays until the new is there
        )
        self._submit(task, entry, "Starting…" if self.child.devices is None else "Predicting…")

    def export(self, out: Path, *, overwrite: bool = False) -> None:
        """Write the active slide's prediction, in the format that the path's ending names.

        Parameters
        ----------
        out
            The store or file. Where a format shows one gene, it is the one that is shown.
        overwrite
            Whether a file that is there may be replaced; a store never is.
        """
        entry = self.session.active
        if entry is None or entry.table is None or self.busy:
            return
        try:
            of_gene = output_format(out).gene in ("needed", "best")
        except HyperSTError as error:
            show_error(str(error))
            return
        if of_gene and self.session.markers is not None:
            show_error(f"{out.name} would show one gene, not the set {self.session.markers.name}; choose a gene first")
            return
        stored = entry.stored.get(entry.table_name) is entry.table
        result = None if stored else entry.result
        if not stored and (result is None or not result.is_file()):  # an earlier workbench has tidied up
            try:
                result = self._new_folder().parent / "prediction.h5ad"
                entry.table.write_h5ad(result)
            except (HyperSTError, OSError) as error:
                show_error(str(error))
                return
        slide = entry.predicted or entry.slide
        task = ExportTask(
            slide=slide.ref,
            result=result,
            out=out,
            gene=self.session.gene if of_gene else None,
            table=entry.table_name,
            overwrite=overwrite,
        )
        self._submit(task, entry, f"Writing {out.name}…")

    def stop(self) -> None:
        """Stop what is at work; within a second it has."""
        if self._reading is None:
            self.child.stop()
        else:
            self._reading = None
            self._rest("Stopped.")

    def close(self) -> None:
        """End the process and take away the folders of its jobs."""
        self._reading = None
        self.session.slides_changed.disconnect(self._on_slides)
        self.child.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_away(self) -> None:
        """Take away what was shown while it was at work: its bar in napari's activity dock, a half prediction."""
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self._end_filling()

    # -- within

    def _submit(self, task: PredictTask | ExportTask, entry: Entry, what: str) -> None:
        try:
            job = Job.create(self._new_folder(), task)
        except HyperSTError as error:
            show_error(str(error))
            return
        self._slide_of[job.folder] = (entry.key, entry.slide)
        self.task, self.key = task, entry.key
        self.began.emit(what)
        writes = isinstance(task, ExportTask)  # it is not lost where the window is closed at once
        self.child.submit(job, begin=writes)
        self.changed.emit()
        in_turns(self._before(job, what), (lambda: None) if writes else partial(self.child.begin, job))

    def _before(self, job: Job, what: str) -> Generator[None]:
        """Do what holds the window before a job begins: beside it, it would take twice as long."""
        yield  # the panel is drawn first
        genes = _known_genes(job.task)
        for _ in self._filling_in(job, genes) if genes else ():
            yield
            if self.child.job is not job:
                return
        self._begin_activity(job, what)
        yield

    def _begin_activity(self, job: Job, what: str) -> None:
        """Tell napari's activity dock what is at work, if it still is."""
        if self.child.job is not job:
            return
        activity = progress(total=0, desc=f"HyperST: {what}")  # lets the event loop go round, in which it may end
        if job in (self.child.job, self._reading):
            self._activity = activity
        else:
            activity.close()

    def _new_folder(self) -> Path:
        folder = jobs_folder()
        self._folders.append(folder.parent)
        return folder

    def _on_slides(self) -> None:
        """Stop predicting a slide that was closed."""
        job = self.child.job
        if job is not None and isinstance(job.task, PredictTask) and self.key not in self.session.entries:
            self.child.stop()

    def _on_told(self, job: Job, event: Event) -> None:
        if event.kind == "progress":
            self.progressed.emit(event)
            QTimer.singleShot(0, partial(self._advance, job, event))  # it lets the event loop go round, and the job end
        elif event.kind == "filling":
            for _ in self._filling_in(job, event.content["genes"], job.folder / str(event.content["file"])):
                pass
        elif event.kind == "filled" and self._filling is not None:
            self.session.fill(self._filling, int(event.content["spots"]))
        elif event.kind == "warning":
            show_warning(_brief(str(event.content["message"]), self._slide_of[job.folder][1].path))

    def _advance(self, job: Job, event: Event) -> None:
        """Tell napari's activity dock how far the work is, unless it is over."""
        if self._activity is None or job not in (self.child.job, self._reading):
            return
        done, total = int(event.content["done"]), int(event.content["total"])
        if self._activity.total != total:
            self._activity.total = total
        self._activity.update(done - self._activity.n)

    def _filling_in(self, job: Job, genes: Sequence[str], path: Path | None = None) -> Generator[None]:
        """Show a prediction from now on as it is made, where the slide has none that is done, a step at a time."""
        if self.child.job is not job:  # it is over, or the window is closed
            return
        key, slide = self._slide_of[job.folder]
        entry = self.session.entries.get(key)
        if entry is None or not (entry.table is None or entry.filling):
            return
        with contextlib.suppress(OSError, ValueError):  # it will be shown when it is done
            table = filling_table(slide, genes, path)
            self._filling = key
            yield from self.session.setting_prediction(key, table, "", slide=slide)

    def _end_filling(self) -> None:
        key, self._filling = self._filling, None
        entry = None if key is None else self.session.entries.get(key)
        if key is not None and entry is not None and entry.filling:
            self.session.forget_prediction(key)

    def _on_ended(self, job: Job, event: Event) -> None:
        key, slide = self._slide_of.pop(job.folder)
        if event.kind == "done" and isinstance(job.task, PredictTask):
            self._reading = job
            read_in_thread(result_of(job, event), slide, partial(self._on_read, job, key, event))
            return
        message = "Stopped." if event.kind == "stopped" else ""
        if event.kind == "error":
            message = _brief(str(event.content["message"]), slide.path)
            show_error(message)
        elif event.kind == "done" and isinstance(job.task, ExportTask):
            message = f"Written: {event.content['store']}"
        self._rest(message)

    def _on_read(self, job: Job, key: str, event: Event, read: Result | str) -> None:
        """Show what was predicted, unless it was stopped meanwhile."""
        if self._reading is not job:
            return
        self._reading = None
        told = event.content
        seconds = float(told["seconds"])
        message = f"{told['genes']} genes predicted at {told['spots']:,} spots in {seconds:.0f} s."
        why = show_result(self.session, key, str(told["table"]), read)
        if why:
            message = why
            show_error(message)
        elif key in self.session.entries and self.session.entries[key] is not self.session.active:
            message = f"{key}: {message}"
            show_info(f"{message} Choose it under Slide to see them.")
        self._rest(message)

    def _rest(self, message: str) -> None:
        """Say that it is over, and what there is to be said of it."""
        self.clear_away()
        self.rested.emit(message)
        self.changed.emit()

    def _on_broken(self, message: str) -> None:
        self.task = None
        self.rested.emit("The process that predicts could not be started.")
        show_error(message)
        self.changed.emit()


def _known_genes(task: AnyTask) -> tuple[str, ...]:
    """Return which genes a prediction will show as they are made; none where that is not known yet."""
    if not isinstance(task, PredictTask) or not task.filling or task.checkpoint.startswith("hf://"):
        return ()  # one on the hub may have to be fetched
    try:
        return read_genes(task.checkpoint)
    except (CheckpointError, OSError):  # of which the job will tell
        return ()


def _brief(message: str, path: Path) -> str:
    """Return a message without the folder of its slide, of which a narrow window would show nothing else."""
    folder = path.absolute().parent
    return message if folder == folder.parent else message.replace(f"{folder}{os.sep}", "")
