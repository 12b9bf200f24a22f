"""What the workbench has done for it in another process: predictions, and stores written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.job import Job, jobs_folder
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import ExportTask, PredictTask
from napari_hyperst.viewer import preferences
from napari_hyperst.widgets.panel import show_error, show_warning
from napari_hyperst.widgets.process import Child, result_of

if TYPE_CHECKING:
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
    """

    #: Something is at work now (what it does, whether it can be stopped).
    began = Signal(str, bool)
    #: How far it has come: an ``Event``.
    progressed = Signal(object)
    #: It is over: what is to be said of it, which is nothing after a new prediction is shown only.
    rested = Signal(str)
    #: Something can be done that could not, or the other way round.
    changed = Signal()
    #: A store or a file was written: its path as text.
    written = Signal(str)
    #: A checkpoint was made that can be predicted with: its folder as a ``Path``.
    checkpoint_made = Signal(object)

    def __init__(self, session: Session, child: Child) -> None:
        super().__init__()
        self.session = session
        self.child = child
        self._folders: list[Path] = []
        self._slide_of: dict[Path, tuple[str, Slide]] = {}
        child.told.connect(self._on_told)
        child.ended.connect(self._on_ended)
        child.broken.connect(self._on_broken)

    @property
    def busy(self) -> str:
        """Why nothing can be begun now; empty where it can."""
        return "" if self.child.job is None else "wait until what is at work is done"

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
        task = PredictTask(slide=slide, checkpoint=checkpoint, device=device, batch_size=preferences.batch_size())
        self._submit(task, entry, "Starting…" if self.child.devices is None else "Predicting…")

    def export(self, out: Path) -> None:
        """Write the active slide's prediction into a store."""
        entry = self.session.active
        if entry is None or entry.table is None or self.busy:
            return
        result = entry.result
        if result is None or not result.is_file():  # it came with its store, or an earlier workbench has tidied up
            try:
                result = self._new_folder().parent / "prediction.h5ad"
                entry.table.write_h5ad(result)
            except (HyperSTError, OSError) as error:
                show_error(str(error))
                return
        slide = entry.predicted or entry.slide
        task = ExportTask(slide=slide.ref, result=result, out=out, table=entry.table_name)
        self._submit(task, entry, f"Writing {out.name}…")

    def stop(self) -> None:
        """Stop what is at work; within a second it has."""
        self.child.stop()

    def close(self) -> None:
        """End the process and take away the folders of its jobs."""
        self.child.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    # -- within

    def _submit(self, task: PredictTask | ExportTask, entry: Entry, what: str) -> None:
        try:
            job = Job.create(self._new_folder(), task)
        except HyperSTError as error:
            show_error(str(error))
            return
        self._slide_of[job.folder] = (entry.key, entry.slide)
        self.began.emit(what, isinstance(task, PredictTask))  # a store is written in no time, and to its end
        self.child.submit(job)
        self.changed.emit()

    def _new_folder(self) -> Path:
        folder = jobs_folder()
        self._folders.append(folder.parent)
        return folder

    def _on_told(self, _job: Job, event: Event) -> None:
        if event.kind == "progress":
            self.progressed.emit(event)
        elif event.kind == "warning":
            show_warning(str(event.content["message"]))

    def _on_ended(self, job: Job, event: Event) -> None:
        key, slide = self._slide_of.pop(job.folder)
        message = "Stopped." if event.kind == "stopped" else ""
        if event.kind == "error":
            message = str(event.content["message"])
            show_error(message)
        elif event.kind == "done" and isinstance(job.task, ExportTask):
            message = f"Written: {event.content['store']}"
            self.written.emit(str(event.content["store"]))
        elif event.kind == "done":
            content = event.content
            seconds = float(content["seconds"])
            message = f"{content['genes']} genes predicted at {content['spots']:,} spots in {seconds:.0f} s."
            try:
                self.take_in(key, slide, result_of(job, event), str(content["table"]))
            except Exception as error:  # whatever it is, the workbench goes on
                message = f"the prediction cannot be shown ({type(error).__name__}: {error})"
                show_error(message)
        self.rested.emit(message)
        self.changed.emit()

    def take_in(self, key: str, slide: Slide, result: Path, table: str) -> None:
        """Read a prediction and show it, if its slide is still open.

        Parameters
        ----------
        key, slide
            Which slide, and as it was when it was predicted.
        result, table
            The file with the table, and what it is called in a store.
        """
        from anndata import read_h5ad

        if key in self.session.entries:
            self.session.set_prediction(key, read_h5ad(result), table, result, slide)

    def _on_broken(self, message: str) -> None:
        self.rested.emit("The process that predicts could not be started.")
        show_error(message)
        self.changed.emit()
