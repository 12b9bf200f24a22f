"""Curves of a run while it trains: every term of the loss, curvature, temperature and PCC, in the colours of napari."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from qtpy.QtCore import QSize, QTimer
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QGridLayout, QSizePolicy, QWidget

from napari_hyperst.jobs.progress import RunProgress

# Okabe and Ito's colours, which most colour-blind people tell apart; the first three are read on dark and on light.
_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#999999", "#B8A800")
_VALIDATION = "validation/"
#: Title of each plot, and which numbers are in it: whole names, or beginnings that end in a slash.
_PLOTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("total", "prediction")),
    ("Validation PCC", ("validation/pcc",)),
    ("Contrastive", ("contrastive/",)),
    ("Entailment", ("entailment/", "intra/", "cross", "intra")),
    ("Curvature", ("curvature",)),
    ("Temperature", ("temperature",)),
)
_SHORT = {"spot": "s", "niche": "n", "image": "img", "gene": "gene"}
#: Height of a row of plots in px, and points of an inch.
_ROW_PX, _FONT = 150, 7.0
_LEAST_RATIO = 30.0
#: Height of a line of a legend in px, and of a plot's the share that its axes take.
_LINE_PX, _AXES_SHARE = 10.5, 0.74
#: Between the drawing of two plots, in ms.
_BETWEEN_MS = 15


class TrainingCurves(QWidget):
    """Six small plots; solid is training, dashed is validation, faint the loss of single steps.

    A plot takes some 40 ms to draw, so they are drawn one by one, and what the user does comes in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: RunProgress | None = None
        self.plots = [Plot(title, wanted) for title, wanted in _PLOTS]
        self._stale: list[Plot] = []
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(2)
        for number, plot in enumerate(self.plots):
            grid.addWidget(plot, number // 2, number % 2)
        self.setToolTip("Solid: training, at the end of each epoch. Dashed: validation. Faint: the loss of each step.")
        self._timer = QTimer(self)
        self._timer.setInterval(_BETWEEN_MS)
        self._timer.timeout.connect(self._draw_next)

    def set_theme(self, background: str, text: str, line: str) -> None:
        """Draw in other colours, each as ``#rrggbb``."""
        for plot in self.plots:
            plot.colours = {"background": background, "text": text, "line": line}
            plot.figure.set_facecolor(background)
        if self._told is not None:
            self.show_run(self._told)

    def show_run(self, told: RunProgress, *, only_loss: bool = False) -> None:
        """Draw what a run has told.

        Parameters
        ----------
        told
            What it has told.
        only_loss
            Whether no epoch has ended since the last time, so that only the loss has become another.
        """
        self._told = told
        self._stale += [plot for plot in self.plots[: 1 if only_loss else None] if plot not in self._stale]
        if self._stale:
            self._timer.start()

    def _draw_next(self) -> None:
        if self._stale and self._told is not None:
            self._stale.pop(0).show_run(self._told)
        if not self._stale:
            self._timer.stop()


class Plot(FigureCanvasQTAgg):
    """One plot.

    Parameters
    ----------
    title
        What is above it.
    wanted
        Which numbers are in it: whole names, or beginnings that end in a slash.
    """

    def __init__(self, title: str, wanted: tuple[str, ...]) -> None:
        self.title, self._wanted = title, wanted
        self.colours: Mapping[str, str] = {"background": "#262930", "text": "#f0f1f2", "line": "#5a626c"}
        super().__init__(Figure(dpi=100))
        self.axes: Axes = self.figure.subplots()
        self.axes.set_axis_off()  # until there is something to show
        self.figure.subplots_adjust(left=0.28, right=0.96, top=0.88, bottom=0.14)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(_ROW_PX)

    def sizeHint(self) -> QSize:
        """Return a size two of which fit into a dock."""
        return QSize(165, _ROW_PX)

    def minimumSizeHint(self) -> QSize:
        """Return a size two of which fit into a narrow dock."""
        return QSize(140, _ROW_PX)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave the wheel to the panel around it."""
        event.ignore()

    def show_run(self, told: RunProgress) -> None:
        """Draw what a run has told."""
        self.figure.set_facecolor(self.colours["background"])
        self._draw(_curves(told, self._wanted), told)
        self.draw()

    # -- within

    def _draw(self, curves: Mapping[str, Mapping[int, float]], told: RunProgress) -> None:
        axes, title = self.axes, self.title
        axes.clear()
        axes.set_facecolor(self.colours["background"])
        axes.set_title(title, fontsize=_FONT + 1, loc="left", color=self.colours["text"], pad=3)
        axes.tick_params(labelsize=_FONT - 1, colors=self.colours["text"], length=2, pad=1.5)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(self.colours["line"])
        axes.grid(color=self.colours["line"], lw=0.4, alpha=0.5)
        axes.set_axisbelow(True)
        shown: list[float] = []
        if title == "Loss" and told.losses:
            at, losses = np.array(told.losses).T
            axes.plot(at, losses, color=_COLOURS[0], lw=0.7, alpha=0.45)
            shown += losses.tolist()
        for (name, values), colour in zip(curves.items(), cycle(_COLOURS), strict=False):
            shown += self._line(axes, values, colour, "-", _label(name))
            held_out = told.curves.get(_held_out(name), {})
            if held_out and not name.startswith(_VALIDATION):
                shown += self._line(axes, held_out, colour, (0, (3, 1.5)), None)
        if not shown:
            axes.text(
                0.5, 0.5, _nothing(title, told), transform=axes.transAxes, ha="center", va="center", fontsize=_FONT,
                color=self.colours["text"], alpha=0.6,
            )  # fmt: skip
            axes.set_xticks([])
            axes.set_yticks([])
            return
        axes.set_xlim(0, max(told.epoch, 1, *(at for at, _ in told.losses[-1:])) * 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
        finite = np.array(shown)[np.isfinite(shown)]
        if title == "Loss" and len(finite) and finite.min() > 0 and finite.max() / finite.min() > _LEAST_RATIO:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        if len(curves) > 1:
            low, high = axes.get_ylim()
            rows = -(-len(curves) // (1 + (len(curves) > 4)))
            if axes.get_yscale() == "linear":  # room for the legend above the curves
                taken = min(rows * _LINE_PX / (_ROW_PX * _AXES_SHARE), 0.6)
                axes.set_ylim(low, low + (high - low) / (1 - taken))
            axes.legend(
                fontsize=_FONT - 1, frameon=False, labelcolor=self.colours["text"], loc="upper right",
                handlelength=1.0, borderaxespad=0.1, labelspacing=0.15, handletextpad=0.4, columnspacing=0.8,
                ncols=1 + (len(curves) > 4),
            )  # fmt: skip

    def _line(
        self, axes: Axes, values: Mapping[int, float], colour: str, style: Any, label: str | None
    ) -> Sequence[float]:
        epochs, numbers = list(values), list(values.values())
        marker = "o" if len(epochs) <= 12 else ""
        axes.plot(epochs, numbers, color=colour, lw=1.2, ls=style, marker=marker, ms=2.2, label=label)
        return numbers


def _curves(told: RunProgress, wanted: tuple[str, ...]) -> dict[str, dict[int, float]]:
    """Return the curves of a plot, in the order in which they were told."""
    begins = tuple(name for name in wanted if name.endswith("/"))
    return {
        name: values for name, values in told.curves.items() if name in wanted or (begins and name.startswith(begins))
    }


def _held_out(name: str) -> str:
    return f"{_VALIDATION}mse" if name == "prediction" else f"{_VALIDATION}{name}"


def _nothing(title: str, told: RunProgress) -> str:
    if title == "Validation PCC" and told.epoch:
        return "nothing is held out"
    return "after the first epoch" if not told.epoch else "not of this method"


def _label(name: str) -> str:
    """Return a name as a legend has room for it: ``s img → n gene`` of spot image and niche gene."""
    last = name.rpartition("/")[2]
    parent, arrow, child = last.partition("__")
    words = [" ".join(_SHORT.get(word, word) for word in part.split("_")) for part in (parent, child) if part]
    return " → ".join(words) if arrow else last.replace("_", " ")
