"""A plot in a panel: drawn when it is seen, in the colours of napari's theme, or a sentence in its place."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QLabel, QStackedLayout, QWidget

from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.theme import Colours, colours_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from napari.components import ViewerModel

#: Size of the words in a plot, in points.
FONT_PT = 8.5
_LEAST_HEIGHT = 160
_DPI = 96
#: How long the event loop has for other things, as for napari's canvas, before and after a step of a plot.
_MOMENT_MS = 10
_LOADED: list[bool] = []


class Plot(QWidget):
    """A matplotlib figure with one pair of axes, or words where there is nothing to draw.

    matplotlib is imported in a thread when the first plot is seen, as that takes longer than a window may be still.
    What is asked for is drawn once when the event loop is free, and only while it is seen: in two steps, of which no
    plot takes one before the loop has had a moment since another plot's, or four plots together would hold it up.

    Parameters
    ----------
    viewer
        Whose theme it follows.
    parent
        Qt parent.
    """

    _free_at: ClassVar[float] = 0.0

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._stale = True
        self._painted = False
        self.figure: Figure | None = None
        self.canvas: Any = None
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setTextFormat(Qt.TextFormat.PlainText)
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.setMargin(12)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self.hint)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._step)
        self.setMinimumHeight(_LEAST_HEIGHT)
        hear(self, (viewer.events.theme, self.draw_soon))

    def missing(self) -> str:
        """Return why there is nothing to draw, and what to do; empty where there is something."""
        raise NotImplementedError

    def paint(self, axes: Axes, colours: Colours) -> None:
        """Draw into empty axes."""
        raise NotImplementedError

    @property
    def axes(self) -> Axes | None:
        """The axes, if anything is drawn."""
        return self.figure.axes[0] if self.figure is not None and self.figure.axes else None

    def draw_soon(self, *_: object) -> None:
        """Draw when the event loop is free, or when it is seen."""
        self._stale = True
        self._go_on()

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what was asked for meanwhile."""
        super().showEvent(event)
        self._go_on()

    # -- within

    def _go_on(self) -> None:
        """Take the next step, if there is one, once the event loop has had its moment."""
        if (self._stale or self._painted) and self.isVisible() and not self._timer.isActive():
            self._timer.start(_MOMENT_MS)

    def _on_canvas(self) -> None:
        """Draw what is laid out once more, in another size or with another view."""
        if not self._stale:
            self._painted = True
            self._go_on()

    def _step(self, *_: object) -> None:
        """Take the next step, or wait until the event loop has had its moment since another plot's."""
        wait = Plot._free_at - time.monotonic()
        if wait > 0:
            self._timer.start(math.ceil(1000 * wait))
            return
        if self._stale:
            self._draw()
        elif self._painted and self.isVisible():
            self._painted = False
            self.canvas.draw()
        if self._painted:
            self._go_on()
        Plot._free_at = time.monotonic() + _MOMENT_MS / 1000

    def _draw(self) -> None:
        """Lay out the figure, for the next step to draw, or say why there is none."""
        self._painted = False
        if not self.isVisible():
            return
        missing = self.missing()
        self.hint.setText(missing)
        if missing:
            self._stack.setCurrentWidget(self.hint)
            self._stale = False
            if self.figure is not None:
                self.figure.clear()
            return
        if not _LOADED:
            self.hint.setText("Preparing the plot…")
            _load(self)
            return
        if self.canvas is None:
            self._make_canvas()
        assert self.figure is not None
        colours = colours_of(self._viewer)
        self.figure.clear()
        self.figure.set_facecolor(colours.background)
        axes = self.figure.add_subplot()
        _style(axes, colours)
        self.paint(axes, colours)
        self._stale = False
        self._stack.setCurrentWidget(self.canvas)
        self._painted = True

    def _make_canvas(self) -> None:
        from matplotlib.figure import Figure

        from napari_hyperst.widgets.plot_canvas import PlotCanvas

        self.figure = Figure(dpi=_DPI, layout="constrained")
        self.canvas = PlotCanvas(self.figure, self._on_canvas)
        self._stack.addWidget(self.canvas)


def _style(axes: Axes, colours: Colours) -> None:
    axes.set_facecolor(colours.background)
    axes.tick_params(colors=colours.text, labelsize=FONT_PT)
    for spine in axes.spines.values():
        spine.set_color(colours.grid)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for words in (axes.xaxis.label, axes.yaxis.label, axes.title):
        words.set_color(colours.text)
        words.set_fontsize(FONT_PT)


def _load(plot: Plot) -> None:
    """Import matplotlib in a thread, and draw then."""
    from napari.qt.threading import create_worker

    worker = create_worker(_import)
    worker.returned.connect(plot._step)
    worker.start()


def _import() -> None:
    """Import what a first plot needs, and have its fonts read."""
    import matplotlib.widgets  # noqa: F401
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().set_title("°")
    FigureCanvasAgg(figure).draw()
    import napari_hyperst.widgets.plot_canvas  # noqa: F401

    _LOADED.append(True)
