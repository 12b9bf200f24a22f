"""What the fine-tune panel has done in a warm child: plans of runs, checkpoints to share, predictions."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.job import Job, jobs_folder
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.plan import TrainingPlan
from napari_hyperst.nouns.tasks import AnyTask, PlanTask, PredictTask, ShareTask
from napari_hyperst.widgets.process import Child, result_of


class Helper(QObject):
    """One job at a time; of plans that were asked for meanwhile, the last one is made.

    Its child is started when it is first needed.

    Parameters
    ----------
    child
        The process; its own, unless a test gives another.
    """

    #: What is being done for a plan.
    said = Signal(str)
    #: A ``TrainingPlan`` is made.
    planned = Signal(object)
    #: None could be made: why, and whether the user can mend it.
    failed = Signal(str, bool)
    #: Nothing could be shared or predicted: why.
    refused = Signal(str)
    #: A checkpoint was written or sent: where to.
    shared = Signal(str)
    #: A prediction is over: the file with its table, or None, and what the table is called.
    predicted = Signal(object, str)
    #: Which kinds of device there are not, and why.
    devices_found = Signal(dict)

    def __init__(self, child: Child | None = None) -> None:
        super().__init__()
        self._given = child
        self._child: Child | None = None
        self._next: PlanTask | None = None
        self._then: PredictTask | None = None
        self._folders: list[Path] = []
        self._results: list[Path] = []
        self._closed = False
        # A prediction is written into stores as long as its slide is open, also when this has been closed.
        QCoreApplication.instance().aboutToQuit.connect(partial(_remove, self._results))

    @property
    def busy(self) -> bool:
        """Whether something is at work."""
        return self._child is not None and self._child.job is not None

    def plan(self, task: PlanTask) -> None:
        """Make a plan, after what is at work."""
        self.said.emit("starting")
        if self.busy:
            self._next = task
        else:
            self._submit(task)

    def share(self, task: ShareTask) -> None:
        """Write or send a checkpoint."""
        if self.busy:
            self.refused.emit("wait until what is at work is done")
        else:
            self._submit(task)

    def predict(self, task: PredictTask) -> None:
        """Predict, after what is at work is over."""
        if self.busy:
            self._then = task
        else:
            self._submit(task)

    def rest(self) -> None:
        """End the child, so that its memory is free, unless it is at work on more than a plan."""
        self._next = None
        child = self._child
        rests = child is not None and self._then is None and (child.job is None or isinstance(child.job.task, PlanTask))
        if child is not None and rests and self._given is None:
            child.leave()  # it may be in the middle of an import
            self._child = None
            self._tidy()

    def close(self) -> None:
        """End the child for good."""
        self._closed, self._next = True, None
        if self._child is not None:
            self._child.close()
            self._child = None
        self._tidy()

    # -- within

    def _submit(self, task: PlanTask | ShareTask | PredictTask) -> None:
        if self._closed:
            return
        try:
            folder = jobs_folder()
            (self._results if isinstance(task, PredictTask) else self._folders).append(folder.parent)
            self._warm().submit(Job.create(folder, task))
        except HyperSTError as error:
            if isinstance(task, PredictTask):
                self.predicted.emit(None, "")
            self._fail(task, str(error), True)

    def _fail(self, task: AnyTask, message: str, expected: bool) -> None:
        if isinstance(task, PlanTask):
            self.failed.emit(message, expected)
        else:
            self.refused.emit(message)

    def _warm(self) -> Child:
        if self._child is None:
            self._child = self._given or Child()
            self._child.told.connect(self._on_told)
            self._child.ended.connect(self._on_ended)
            self._child.broken.connect(lambda message: self.failed.emit(message, False))
            self._child.ready.connect(self.devices_found)
        return self._child

    def _on_told(self, job: Job, event: Event) -> None:
        if event.kind == "progress" and isinstance(job.task, PlanTask) and self._next is None:
            self.said.emit(str(event.content["what"]))

    def _on_ended(self, job: Job, event: Event) -> None:
        following: PredictTask | PlanTask | None = self._then or self._next
        self._then, self._next = None, self._next if self._then else None
        if not (isinstance(following, PlanTask) and isinstance(job.task, PlanTask)):  # one of the two is out of date
            self._tell(job, event)
        if following is not None:
            self._submit(following)

    def _tell(self, job: Job, event: Event) -> None:
        """Tell what came of a job."""
        done = event.kind == "done"
        if isinstance(job.task, PredictTask):
            self.predicted.emit(result_of(job, event) if done else None, str(event.content.get("table", "")))
        if event.kind == "error":
            self._fail(job.task, str(event.content["message"]), bool(event.content.get("expected")))
        elif done and isinstance(job.task, PlanTask):
            try:
                plan = TrainingPlan.model_validate_json(result_of(job, event).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                self.failed.emit(f"the plan cannot be read ({error})", False)
                return
            self.planned.emit(plan)
        elif done and isinstance(job.task, ShareTask):
            self.shared.emit(str(event.content.get("page") or event.content.get("folder")))

    def _tidy(self) -> None:
        _remove(self._folders)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    folders.clear()
