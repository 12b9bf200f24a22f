"""How far work has come, in the panel that it was asked for in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_hyperst.jobs.progress import duration
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import ExportTask
from napari_hyperst.widgets.bar import Bar
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import literal

if TYPE_CHECKING:
    from napari_hyperst.widgets.work import Work

_CANCEL = "Stop within a second; what was there before stays"


class WorkBar(QWidget):
    """A bar, a button that cancels, and a line with what, how many and time left; not seen where nothing is at work.

    Parameters
    ----------
    work
        What is predicted and written.
    exports
        Whether it tells of what is written, and not of predictions.
    """

    #: The line is another; empty where there is nothing to say.
    said = Signal(str)

    def __init__(self, work: Work, *, exports: bool) -> None:
        super().__init__()
        self._work, self._exports = work, exports
        self._began: tuple[float, int] | None = None
        self._line = ""
        self.bar = Bar()
        self.bar.setToolTip("How far the work has come")
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip(_CANCEL)
        self.status = QElidingLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        working = QHBoxLayout()
        working.addWidget(self.bar, 1)
        working.addWidget(self.cancel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(working)
        column.addWidget(self.status)
        self.cancel.clicked.connect(self._on_cancel)
        work.began.connect(self._on_began)
        work.progressed.connect(self._on_progress)
        work.rested.connect(self._on_rested)
        hear(self, (work.session.slides_changed, self._tell))
        self._rest("")

    @property
    def at_work(self) -> bool:
        """Whether what it tells of goes on."""
        return self._mine and bool(self._work.busy)

    def say(self, message: str) -> None:
        """Show a line, cut short where it does not fit, whole in its tooltip."""
        self.status.setText(" ".join(message.split()))
        self.status.setToolTip(literal(message))
        self.status.setVisible(bool(message))
        self.setVisible(bool(message))
        self.said.emit(message)

    # -- within

    @property
    def _mine(self) -> bool:
        return isinstance(self._work.task, ExportTask) is self._exports

    def _on_began(self, what: str) -> None:
        if not self._mine:
            return
        self._began, self._line = None, ""
        self._leave_room(lines=1)
        self.bar.show_progress(0, 0)
        self.bar.show()
        self.cancel.setEnabled(True)
        self.cancel.show()
        self.say(what)

    def _on_progress(self, event: Event) -> None:
        if not self._mine:
            return
        what, done, total = str(event.content["what"]), int(event.content["done"]), int(event.content["total"])
        self.bar.show_progress(done, total)
        if total == 0:
            self._line = f"{what[:1].upper()}{what[1:]}…"
        else:
            self._began = self._began or (event.time, done)
            since, first = event.time - self._began[0], done - self._began[1]
            left = f", about {duration(since / first * (total - done))} left" if first > 0 and done < total else ""
            self._line = f"{done} of {total} {what}{left}"
        self._tell()

    def _tell(self) -> None:
        """Say how far it is, and name the slide that is at work where another is looked at."""
        if self._line:
            active = self._work.session.active
            here = active is not None and active.key == self._work.key
            self.say(self._line if here else f"{self._work.key}: {self._line}")

    def _on_rested(self, message: str) -> None:
        if self._mine:
            self._rest(message)

    def _rest(self, message: str) -> None:
        self._line = ""
        self._leave_room(lines=2)  # for what went wrong
        self.bar.hide()
        self.cancel.hide()
        self.say(message)

    def _leave_room(self, lines: int) -> None:
        self.status.setMinimumHeight(lines * self.status.fontMetrics().height() + 4)

    def _on_cancel(self) -> None:
        self._line = ""
        self.cancel.setEnabled(False)
        self.say("Stopping…")
        self._work.stop()
