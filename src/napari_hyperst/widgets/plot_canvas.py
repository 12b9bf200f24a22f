"""What a plot is drawn on. It imports matplotlib, so it is imported when the first plot is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent


class PlotCanvas(FigureCanvasQTAgg):
    """A canvas that asks to be drawn, where matplotlib's draws itself whenever it is painted in another size.

    Parameters
    ----------
    figure
        What is drawn.
    ask
        Called when it should be drawn.
    """

    def __init__(self, figure: Figure, ask: Callable[[], None]) -> None:
        self._ask = ask
        super().__init__(figure)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def draw_idle(self) -> None:
        """Ask to be drawn, unless it is what draws now that tells."""
        if not getattr(self, "_is_drawing", False):
            self._ask()

    def draw(self) -> None:
        """Draw, also where there is no room for axes, of which matplotlib would warn with each drawing."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            super().draw()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Show what was drawn last, stretched until it is drawn in this size."""
        drawn = getattr(self, "renderer", None)
        size = None if drawn is None else (int(drawn.width), int(drawn.height))
        if size in (None, self.get_width_height(physical=True)):
            super().paintEvent(event)
            return
        painter = QPainter(self)
        painter.drawImage(self.rect(), QImage(self.buffer_rgba(), *size, QImage.Format.Format_RGBA8888))
        painter.end()
