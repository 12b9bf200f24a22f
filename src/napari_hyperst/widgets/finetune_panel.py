"""Fine-tuning: a form for a new run, and the runs there are, each in a process that outlives the window."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QTimer, Signal
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.job import Job
from napari_hyperst.jobs.runs import RunFollower, is_run, list_runs
from napari_hyperst.nouns.tasks import TrainTask
from napari_hyperst.viewer import preferences
from napari_hyperst.viewer.notices import show_error
from napari_hyperst.widgets.docks import WORKBENCH, open_dock
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.patience import Patience
from napari_hyperst.widgets.process import Child
from napari_hyperst.widgets.tall import Tall, scrolling
from napari_hyperst.widgets.training_help import Helper
from napari_hyperst.widgets.training_map_control import TrainingMapControl
from napari_hyperst.widgets.training_pages import ask_throw_away
from napari_hyperst.widgets.training_results import TrainingResults
from napari_hyperst.widgets.training_run import TrainingRun
from napari_hyperst.widgets.training_setup import TrainingSetup

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session

_NEW = "New run"
#: How often a run is looked at, in ms: one at work, one that may be started by somebody else, and while catching up.
_LIVE_MS, _IDLE_MS, _CATCH_UP_MS = 200, 2000, 10
#: Between two drawings of the loss of steps, in seconds.
_STEPS_S = 1.0
#: After how long a run that was asked to stop is terminated and killed; and one that is thrown away.
_STOP_MS, _CANCEL_MS = (60_000, 70_000), (3_000, 5_000)


class FinetunePanel(QWidget):
    """Fine-tune a model on slides, watch it, and use what it has become.

    Parameters
    ----------
    session
        What the viewer shows.
    child
        The process that makes plans and writes checkpoints to share; its own, unless a test gives another.
    """

    #: The user wants the active slide predicted with this checkpoint, by its folder.
    predict_asked = Signal(str)

    def __init__(self, session: Session, child: Child | None = None) -> None:
        super().__init__()
        self.session = session
        self.run: RunFollower | None = None
        self._asked = ""
        self._drawn = 0.0
        self._elsewhere: list[Path] = []
        self._docked = False
        self._doomed: list[RunFollower] = []
        self.helper = Helper(child)
        self.setup = TrainingSetup(preferences.device())
        self.page = TrainingRun()
        self.map = TrainingMapControl(session, self.page)
        self.results = TrainingResults(self.page, self.helper)
        self.runs = QComboBox()
        self.runs.setToolTip("A new run, or one that there is: also one that goes on since napari was closed")
        self.runs.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.folder = QPushButton("Open…")
        self.folder.setToolTip("Open the folder of a run that was started in a terminal")
        row = QHBoxLayout()
        row.addWidget(self.runs, 1)
        row.addWidget(self.folder)
        inside = Tall()
        column = QVBoxLayout(inside)
        column.setContentsMargins(4, 4, 4, 4)
        column.setSpacing(6)
        column.addLayout(row)
        column.addWidget(self.setup)
        column.addWidget(self.page)
        column.addStretch(1)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(4)
        whole.addWidget(scrolling(inside), 1)
        whole.addWidget(self.setup.footer)
        self.setMinimumWidth(320)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._poll)
        self._patience = Patience(self)
        self._connect()
        self._on_theme()
        self.setup.slides.follow(session)
        self._show_page(self.setup)
        self.list_runs()
        self._open_live()

    def list_runs(self) -> None:
        """List the runs there are now; the one that is shown stays."""
        jobs = [*list_runs(), *(Job(folder) for folder in self._elsewhere)]
        shown = None if self.run is None else str(self.run.job.folder)
        self.runs.blockSignals(True)
        self.runs.clear()
        self.runs.addItem(_NEW, None)
        for job in jobs:
            self.runs.addItem(job.folder.name, str(job.folder))
        self.runs.setCurrentIndex(max(0, self.runs.findData(shown)) if shown else 0)
        self.runs.blockSignals(False)
        self.setup.list_checkpoints()

    def show_new(self) -> None:
        """Show the form of a new run; one that is at work goes on."""
        self._let_go_of_run()
        self._timer.stop()
        self._show_page(self.setup)
        self.runs.setCurrentIndex(0)
        self.setup.ask_again()

    def open_run(self, folder: Path) -> None:
        """Follow a run, at work or not.

        Raises
        ------
        HyperSTError
            If the folder is no run's.
        """
        if not is_run(folder):
            raise HyperSTError("is no training run", where=folder, do="give the folder of a run")
        if self.runs.findData(str(folder)) < 0:
            self._elsewhere.append(folder)
        self._follow(RunFollower(Job(folder)))

    def start(self) -> None:
        """Start the run that the form describes."""
        try:
            run = RunFollower(self.setup.create())
            run.start()
        except (HyperSTError, OSError) as error:
            show_error(str(error))
            return
        self.helper.rest()  # the trainer may need the memory
        self._follow(run)

    def let_go(self) -> None:
        """End what outlives the widget; a run at work goes on."""
        self._timer.stop()
        self._end()

    def event(self, event: QEvent) -> bool:
        """End with the dock: napari takes the widget out of it, and does not delete it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.map.take_away(self.run)
                self.let_go()
                self.deleteLater()
        return bool(super().event(event))

    # -- within

    def _connect(self) -> None:
        self.runs.activated.connect(self._on_run_chosen)
        self.folder.clicked.connect(self._on_open)
        self.setup.plan_asked.connect(self._on_plan_asked)
        self.setup.started.connect(self.start)
        self.helper.said.connect(self.setup.planning)
        self.helper.planned.connect(self.setup.show_plan)
        self.helper.failed.connect(self._on_not_planned)
        self.helper.refused.connect(show_error)
        self.helper.devices_found.connect(self._on_devices)
        page = self.page
        page.pause_asked.connect(lambda: self._ask("pause"))
        page.resume_asked.connect(self._on_resume)
        page.stop_asked.connect(self._on_stop)
        page.cancel_asked.connect(self._on_cancel)
        self.results.predict_asked.connect(self.predict_asked)
        page.map_asked.connect(lambda: self.map.show_anew(self.run))
        page.workbench_asked.connect(lambda: open_dock(self.session.viewer, WORKBENCH))
        session = self.session
        hear(self, (session.slides_changed, self._on_slides), (session.viewer.events.theme, self._on_theme))
        self._end = partial(_end, self.helper, self._doomed)
        self.destroyed.connect(self._end)
        QApplication.instance().aboutToQuit.connect(self._end)

    def _open_live(self) -> None:
        """Follow the run that is at work, if there is one: napari was closed meanwhile."""
        for job in list_runs():
            status = job.status()
            if status is not None and status.running:
                self._follow(RunFollower(job))
                return

    def _follow(self, run: RunFollower) -> None:
        self._let_go_of_run()
        self.run = self.results.run = run
        self.list_runs()
        task = run.job.task
        if isinstance(task, TrainTask) and task.config.gene_list:
            self.page.set_genes(sorted(task.config.gene_list))
        self._show_page(self.page)
        self.page.draw(run)  # in the place of another run's curves
        self._poll()

    def _let_go_of_run(self) -> None:
        self.map.take_away(self.run)
        self._patience.end()
        self.run, self._asked = None, ""
        self.results.run = None

    def _show_page(self, page: QWidget) -> None:
        self.setup.setVisible(page is self.setup)
        self.setup.footer.setVisible(page is self.setup)
        self.page.setVisible(page is self.page)

    def _poll(self) -> None:
        run = self.run
        if run is None:
            return
        before = run.progress.state
        new = run.poll()
        told = run.progress
        kinds = {event.kind for event in new}
        if self._asked == "pause" and told.state != "training" and told.state != "preparing":
            self._asked = ""
        if self._asked == "cancel" and not run.alive:
            self._throw_away(run)
            return
        if self._asked == "stop" and not told.live:
            self._asked = ""
            self._patience.end()
        self.page.show_run(run, asked=self._asked)
        if kinds & {"epoch", "start"} or before != told.state or self.page.curves is None:
            self.page.draw(run)
        elif "step" in kinds and time.monotonic() - self._drawn > _STEPS_S:
            self.page.draw(run, only_loss=True)
            self._drawn = time.monotonic()
        if not new or (told.live and "validation" in kinds):
            self.map.show(run)
        if before != told.state and not told.live:
            self.list_runs()
            if before != "new" and (best := run.best()) is not None:
                self.session.checkpoint_made.emit(best)
        waits = told.live or run.alive or self.page.curves is None
        pace = _CATCH_UP_MS if new and not told.live else _LIVE_MS if waits else _IDLE_MS
        self._timer.start(pace)

    def _ask(self, request: str) -> None:
        if self.run is None:
            return
        try:
            self.run.ask(request)
        except OSError as error:
            show_error(f"{self.run.job.folder}: cannot be written ({error.strerror})")
            return
        self._asked = "" if request == "go on" else request
        self._poll()

    def _on_resume(self) -> None:
        run = self.run
        if run is None:
            return
        if run.progress.state == "paused":
            self._ask("go on")
            return
        try:
            run.start()
        except OSError as error:
            show_error(f"it cannot be started ({error.strerror})")
        self._poll()

    def _on_stop(self) -> None:
        if self._asked == "stop" and self.run is not None:
            self.run.end(kill=True)
            return
        self._ask("stop")
        self._patience.begin(self.run, _STOP_MS)

    def _on_cancel(self) -> None:
        if self.run is None or not ask_throw_away(self, self.run.job.folder.name):
            return
        self._ask("stop")
        self._asked = "cancel"
        self._doomed.append(self.run)
        self._patience.begin(self.run, _CANCEL_MS)
        self._poll()

    def _throw_away(self, run: RunFollower) -> None:
        folder = run.job.folder
        self.show_new()
        self._doomed.clear()
        shutil.rmtree(folder, ignore_errors=True)
        self._elsewhere = [one for one in self._elsewhere if one != folder]
        self.list_runs()

    def _on_plan_asked(self) -> None:
        task = self.setup.task()
        if task is not None and self.run is None:
            self.helper.plan(task)

    def _on_not_planned(self, message: str, expected: bool) -> None:
        if expected:
            self.setup.show_trouble(message)
        else:
            self.setup.no_plan(message)

    def _on_devices(self, reasons: dict[str, str]) -> None:
        self.setup.form.show_devices({kind: ("" if why else "found", why) for kind, why in reasons.items()})

    def _on_slides(self) -> None:
        self.map.on_slides(self.run)
        self.setup.slides.follow(self.session)

    def _on_theme(self, *_: object) -> None:
        from napari.utils.theme import get_theme

        theme = get_theme(self.session.viewer.theme)
        self.page.set_theme(*(getattr(theme, name).as_hex("long") for name in ("background", "text", "primary")))

    def _on_run_chosen(self, _index: int) -> None:
        folder = self.runs.currentData()
        self.show_new() if folder is None else self._open(folder)

    def _on_open(self) -> None:
        self._open(QFileDialog.getExistingDirectory(self, "Folder of a run"))

    def _open(self, folder: str) -> None:
        if not folder:
            return
        try:
            self.open_run(Path(folder))
        except HyperSTError as error:
            show_error(str(error))
            self.list_runs()


def _end(helper: Helper, doomed: list[RunFollower], *_: object) -> None:
    """End what outlives the widget, and what was to be thrown away."""
    for run in doomed:
        run.end(kill=True)
        shutil.rmtree(run.job.folder, ignore_errors=True)
    doomed.clear()
    helper.close()
