"""Selecting points of a plot with the mouse: a lasso or a rectangle around them, or a click on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Shape = Literal["lasso", "rectangle"]
#: A mouse that moves less than this many px clicks.
_CLICK_PX = 4.0
#: A click takes a point within so many px.
_REACH_PX = 10.0
#: A lasso has no more corners than this: looking half a million points up takes some ms for each.
_MOST_CORNERS = 64


class Brush:
    """Watches the mouse over axes; gone with them.

    Parameters
    ----------
    axes
        Where the points are.
    shape
        What is drawn around them.
    colour
        Of the line that is drawn.
    points
        (n, 2) points in data coordinates; NaN for those that are not plotted.
    chosen
        Called with the indices of the points that were brushed or clicked; none for a click beside all of them.
    """

    def __init__(
        self,
        axes: Axes,
        shape: Shape,
        colour: str,
        points: NDArray[np.floating],
        chosen: Callable[[NDArray[np.intp]], None],
    ) -> None:
        from matplotlib.backend_bases import MouseButton
        from matplotlib.widgets import LassoSelector, RectangleSelector

        self._axes, self._points, self._chosen = axes, points, chosen
        self._pressed: tuple[float, float] | None = None
        line = {"color": colour, "linewidth": 1.5, "alpha": 0.9}
        self._selector: Any
        if shape == "lasso":
            self._selector = LassoSelector(axes, self._on_lasso, props=line, useblit=True, button=[MouseButton.LEFT])
        else:
            box = {"facecolor": colour, "edgecolor": colour, "alpha": 0.25, "fill": True}
            self._selector = RectangleSelector(
                axes, self._on_rectangle, props=box, useblit=True, button=[MouseButton.LEFT]
            )
        canvas: Any = axes.figure.canvas
        self._heard = [
            canvas.mpl_connect("button_press_event", self._on_press),
            canvas.mpl_connect("motion_notify_event", self._on_moved),
            canvas.mpl_connect("button_release_event", self._on_release),
        ]

    def remove(self) -> None:
        """Watch no more."""
        canvas: Any = self._selector.canvas
        self._selector.disconnect_events()
        for connection in self._heard:
            canvas.mpl_disconnect(connection)

    def _on_lasso(self, corners: list[tuple[float, float]]) -> None:
        self._take(np.asarray(corners, dtype=float))

    def _on_rectangle(self, press: Any, release: Any) -> None:
        left, bottom, right, top = press.xdata, press.ydata, release.xdata, release.ydata
        self._take(np.array([(left, bottom), (right, bottom), (right, top), (left, top)], dtype=float))

    def _take(self, corners: NDArray[np.float64]) -> None:
        pixels = self._axes.transData.transform(corners)
        if np.ptp(pixels, axis=0).max() > _CLICK_PX:
            self._chosen(np.flatnonzero(inside(corners, self._points)))

    def _on_press(self, event: Any) -> None:
        self._pressed = (event.x, event.y) if event.inaxes is self._axes and event.button == 1 else None

    def _on_moved(self, event: Any) -> None:
        """Take a drag for no click, wherever it ends: a lasso ends where it began."""
        at = self._pressed
        if at is not None and max(abs(event.x - at[0]), abs(event.y - at[1])) > _CLICK_PX:
            self._pressed = None

    def _on_release(self, event: Any) -> None:
        pressed, self._pressed = self._pressed, None
        if pressed is None:
            return
        away = np.hypot(*(self._axes.transData.transform(self._points) - (event.x, event.y)).T)
        away = np.where(np.isfinite(away), away, np.inf)
        nearest = int(away.argmin()) if len(away) else -1
        hit = nearest >= 0 and away[nearest] <= _REACH_PX
        self._chosen(np.array([nearest] if hit else [], dtype=np.intp))


def inside(corners: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return (n,) which points lie in a polygon.

    Parameters
    ----------
    corners
        (k, 2) corners of the polygon; of more than 64 evenly spread ones are taken.
    points
        (n, 2) points; one with a NaN lies in none.
    """
    from matplotlib.path import Path

    corners = corners[np.isfinite(corners).all(axis=1)]
    found = np.zeros(len(points), dtype=bool)
    if len(corners) < 3:
        return found
    if len(corners) > _MOST_CORNERS:
        corners = corners[np.linspace(0, len(corners) - 1, _MOST_CORNERS).astype(np.intp)]
    with np.errstate(invalid="ignore"):
        near = np.flatnonzero(((points >= corners.min(axis=0)) & (points <= corners.max(axis=0))).all(axis=1))
    found[near] = Path(np.vstack([corners, corners[:1]]), closed=True).contains_points(points[near])
    return found
