"""What there is at the end of a run: its checkpoint is predicted with, read about, written and sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_hyperst.jobs.runs import RunFollower
from napari_hyperst.nouns.tasks import ShareTask
from napari_hyperst.widgets.training_help import Helper
from napari_hyperst.widgets.training_pages import ask_repository, show_card, show_picture
from napari_hyperst.widgets.training_run import TrainingRun


class TrainingResults(QObject):
    """Does what the buttons at the end of a run ask for.

    Parameters
    ----------
    page
        Where the buttons are.
    helper
        What writes and sends.

    Attributes
    ----------
    run
        The run that is shown; None for none.
    """

    #: The user wants the active slide predicted with this checkpoint, by its folder.
    predict_asked = Signal(str)

    def __init__(self, page: TrainingRun, helper: Helper) -> None:
        super().__init__()
        self.run: RunFollower | None = None
        self._page, self._helper = page, helper
        page.load_asked.connect(self._on_load)
        page.card_asked.connect(lambda: self._show(show_card))
        page.curves_asked.connect(lambda: self._show(show_picture))
        page.export_asked.connect(self._on_export)
        page.push_asked.connect(self._on_push)
        helper.shared.connect(self._on_shared)

    @property
    def _best(self) -> Path | None:
        return None if self.run is None else self.run.best()

    def _on_load(self) -> None:
        if (best := self._best) is not None:
            self.predict_asked.emit(str(best))

    def _show(self, show: Callable[[QWidget, Path], None]) -> None:
        if (best := self._best) is not None:
            show(self._page, best)

    def _on_export(self) -> None:
        if self.run is None:
            return
        suggested = Path.home() / self.run.job.folder.name
        name, _ = QFileDialog.getSaveFileName(self._page, "New folder of the checkpoint", str(suggested))
        if name:
            self._helper.share(ShareTask(run=self.run.job.folder, out=Path(name)))

    def _on_push(self) -> None:
        best = self._best
        if self.run is None or best is None:
            return
        asked = ask_repository(self._page, best)
        if asked is not None:
            name, private = asked
            self._helper.share(ShareTask(run=self.run.job.folder, repository=name, private=private))

    def _on_shared(self, where: str) -> None:
        QMessageBox.information(self._page, "Fine-tune", f"The checkpoint is here:\n{where}")
