"""What every panel of the workbench is: a part of it with a title, and a line that says its state."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.widgets.links import hear

if TYPE_CHECKING:
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work


class Panel(QWidget):
    """A part of the workbench.

    It says its state in a line through ``say_state``.

    Parameters
    ----------
    session
        What the viewer shows.
    work
        What is predicted and written.
    """

    #: What its section is headed.
    title: str = ""
    #: Whether it takes the height that the others leave.
    grows: bool = False
    #: Its state in a line is another.
    state_changed = Signal(str)

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__()
        self.session = session
        self.work = work
        self.state = ""
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(4)

    @property
    def at_work(self) -> bool:
        """Whether something goes on that it tells of, and that can be cancelled in it."""
        return False

    def let_go(self) -> None:
        """End what outlives the widget, beside the signals that it hears."""

    def say_state(self, line: str) -> None:
        """Say the panel's state in a line, which its section shows also when it is closed."""
        line = " ".join(line.split())
        if line != self.state:
            self.state = line
            self.state_changed.emit(line)


class Told(Protocol):
    """A widget that tells what it is at."""

    status: Status


def held(title: str, make: Callable[[Session], Told]) -> Callable[[Session, Work], Panel]:
    """Return what makes a panel around a widget that is made for a session and looks after itself.

    Parameters
    ----------
    title
        As of the panel, which takes the height that others leave.
    make
        Makes the widget; what its ``status`` tells is the panel's state.
    """

    def make_panel(session: Session, work: Work) -> Panel:
        return _Holder(session, work, title, make(session))

    return make_panel


class Status(QLabel):
    """A line or two that tell what a widget is at, in plain text.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: It tells something else.
    changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)

    def setText(self, text: str) -> None:
        """Tell something else."""
        super().setText(text)
        self.changed.emit(text)


class _Holder(Panel):
    """A panel around a widget that knows nothing of panels."""

    grows = True

    def __init__(self, session: Session, work: Work, title: str, widget: Told) -> None:
        super().__init__(session, work)
        self.title, self.widget = title, widget
        self.column.addWidget(widget)
        widget.status.changed.connect(self._say)
        hear(self, (session.slides_changed, self._say), (session.prediction_changed, self._say))
        self._say()

    def _say(self, *_: object) -> None:
        entry = self.session.active
        ready = entry is not None and entry.table is not None
        self.say_state(self.widget.status.text() if ready else "Predict genes first")


def literal(text: str) -> str:
    """Return a tooltip that shows a text as it is: Qt takes what looks like HTML for HTML."""
    return f"<qt>{html.escape(text)}</qt>" if Qt.mightBeRichText(text) else text


def folder_of(entry: Entry) -> Path:
    """Return where a file is likely to be wanted: beside its slide, or at home where that is the packaged one."""
    folder = entry.ref.path.absolute().parent
    return Path.home() if folder == sample_folder().parent else folder
