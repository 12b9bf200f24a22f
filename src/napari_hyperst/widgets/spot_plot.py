"""A plot of spots: what is brushed in it is selected in the viewer, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QApplication, QButtonGroup, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_hyperst.viewer.rows import Rows
from napari_hyperst.widgets.brush import Brush, Shape
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.plot import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session

#: No more points than this are drawn one by one.
MANY = 20_000


class SpotPlot(Plot):
    """A plot whose points are spots of the active slide.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(session.viewer, parent)
        self.session = session
        self.shape: Shape = "lasso"
        self._brush: Brush | None = None
        self._rows: Rows = np.empty(0, dtype=np.intp)
        hear(
            self,
            (session.prediction_changed, self.draw_soon),
            (session.shown_changed, self.draw_soon),
            (session.selection_changed, self.draw_soon),
        )

    @property
    def entry(self) -> Entry | None:
        """The active slide, if it is predicted."""
        entry = self.session.active
        return entry if entry is not None and entry.table is not None else None

    def set_shape(self, shape: Shape) -> None:
        """Draw a lasso, or a rectangle, around points from now on."""
        self.shape = shape
        self.draw_soon()

    def watch(self, axes: Axes, colour: str, points: NDArray[np.floating], rows: Rows) -> None:
        """Let points be brushed.

        Parameters
        ----------
        axes, colour
            Where, and in which colour the brush is seen.
        points, rows
            (n, 2) points, and the row of the spot that each is.
        """
        if self._brush is not None:
            self._brush.remove()
        self._rows = rows
        self._brush = Brush(axes, self.shape, colour, points, self._on_brushed)

    def _on_brushed(self, points: NDArray[np.intp]) -> None:
        rows = self._rows[points]
        if QApplication.keyboardModifiers() & Qt.KeyboardModifier.ShiftModifier:
            rows = np.union1d(rows, self.session.selection)
        self.session.select(rows)


class BrushTools(QWidget):
    """What to brush with, how many spots are selected, and a button that selects none.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    #: The user wants to draw this around points.
    shape_chosen = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.count = QLabel()
        self.count.setTextFormat(Qt.TextFormat.PlainText)
        self.clear = QPushButton("Clear")
        self.clear.setToolTip("Select no spot")
        self.shapes = {
            "lasso": _tool("Lasso", "Drag around points to select their spots; Shift adds, a click takes one"),
            "rectangle": _tool("Rectangle", "Drag a rectangle over points to select their spots; Shift adds"),
        }
        group = QButtonGroup(self)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for shape, button in self.shapes.items():
            group.addButton(button)
            row.addWidget(button)
            button.clicked.connect(lambda _on, shape=shape: self.shape_chosen.emit(shape))
        self.shapes["lasso"].setChecked(True)
        row.addStretch(1)
        row.addWidget(self.count)
        row.addWidget(self.clear)
        self.clear.clicked.connect(lambda: session.select(()))
        hear(self, (session.selection_changed, self.show_state), (session.prediction_changed, self.show_state))
        self.show_state()

    def show_state(self) -> None:
        """Say how many spots are selected."""
        entry = self.session.active
        chosen = len(self.session.selection)
        self.count.setText(f"{chosen:,} selected" if chosen else "")
        self.clear.setEnabled(chosen > 0)
        for button in self.shapes.values():
            button.setEnabled(entry is not None and entry.table is not None)


def thinned(rows: Rows) -> Rows:
    """Return no more rows than are drawn one by one, evenly spread."""
    return rows if len(rows) <= MANY else rows[np.linspace(0, len(rows) - 1, MANY).astype(np.intp)]


def _tool(words: str, tip: str) -> QPushButton:
    button = QPushButton(words)
    button.setToolTip(tip)
    button.setCheckable(True)
    return button
