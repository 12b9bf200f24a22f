"""A mouse over matplotlib's canvases."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton


def drag(plot: Any, places: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    """Press at the first place, in data coordinates of a plot, move along the rest, and release at the last."""
    pixels = plot.axes.transData.transform(np.asarray(places, dtype=float)) / plot.canvas.device_pixel_ratio
    points = [QPointF(float(x), plot.canvas.height() - float(y)) for x, y in pixels]
    kind = QEvent.Type
    steps = [(kind.MouseButtonPress, points[0], LEFT, LEFT)]
    steps += [(kind.MouseMove, point, NONE, LEFT) for point in points[1:]]
    steps.append((kind.MouseButtonRelease, points[-1], LEFT, NONE))
    for event, point, button, buttons in steps:
        there = plot.canvas.mapToGlobal(point)
        QApplication.sendEvent(plot.canvas, QMouseEvent(event, point, there, button, buttons, modifier))


def click(plot: Any, place: Any) -> None:
    """Press and release at a place, in data coordinates of a plot."""
    drag(plot, [place])


def around(points: np.ndarray, margin: Any) -> np.ndarray:
    """Return the corners of a rectangle around points, as a closed way."""
    (left, bottom), (right, top) = points.min(axis=0) - margin, points.max(axis=0) + margin
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])
