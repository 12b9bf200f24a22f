"""The spots that are selected: one selection a viewer, linked both ways with napari's Points layers."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hyperst.viewer.contract import ours
from napari_hyperst.viewer.places import to_pixels
from napari_hyperst.viewer.rows import Rows
from napari_hyperst.viewer.selected_bins import SelectedBins

if TYPE_CHECKING:
    from napari.layers import Points

    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.genes import Genes
    from napari_hyperst.viewer.session import Session

#: More points than these are ringed, but not selected in their layers: napari takes some 5 µs for each.
MAX_SELECTED = 10_000
#: Points that are selected have a ring of this colour, this wide relative to the point: napari's own is hardly seen.
_RING, _COLOUR = 0.25, "#ffa41b"
#: A mouse that moves more than this many px of the canvas between press and release drags, and does not click.
_CLICK_PX = 4
#: A click selects the spot that it is nearest to, within so many of a spot's diameters of its centre.
_REACH = 0.6
_NONE: Rows = np.empty(0, dtype=np.intp)


class Selection:
    """Which rows of the active prediction's table are selected.

    Points that are selected in a layer of the active slide become the selection, and the selection is highlighted in
    its layers that are visible; of bins, in a layer of its own. While napari pans and zooms, a click on a spot selects
    it alone, with Shift also.
    It is emptied when another slide or another prediction is worked on.

    Parameters
    ----------
    session
        Whose it is; tells ``selection_changed``.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._genes: Genes | None = None
        self._links: weakref.WeakKeyDictionary[Points, _Link] = weakref.WeakKeyDictionary()
        self._quiet = False
        self._bins = SelectedBins(session, _COLOUR, self._set)
        self.rows: Rows = _NONE
        viewer = session.viewer
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.mouse_drag_callbacks.append(self._on_press)
        session.prediction_changed.connect(self._on_prediction)
        session.shown_changed.connect(self.highlight)

    def set(self, rows: Iterable[int]) -> None:
        """Select other rows, and tell if they are others.

        Parameters
        ----------
        rows
            Rows of the active prediction's table, in any order.

        Raises
        ------
        ValueError
            If there is no such row.
        """
        entry = self._session.active
        table = None if entry is None else entry.table
        found = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), dtype=np.intp)
        most = 0 if table is None else table.n_obs
        low, high = (int(found.min()), int(found.max())) if len(found) else (0, -1)
        if low < 0 or high >= most:
            raise ValueError(f"there are {most} rows, and {high if high >= most else low} is none")
        chosen = np.zeros(most, dtype=bool)  # of half a million, sorting takes longer than all else
        chosen[found] = True
        self._set(np.flatnonzero(chosen))

    def highlight(self) -> None:
        """Highlight the selection in the visible layers of the active slide."""
        for layer in self._links:
            self.highlight_in(layer)
        self._bins.show(self.rows)

    def highlight_in(self, layer: Points, select: bool = True) -> None:
        """Ring the selection in a layer, and select it there, if that is visible and of the active slide."""
        rows = self._rows_of(layer)
        if rows is None or not layer.visible:
            return
        chosen = np.isin(rows, self.rows)
        if ours(layer)["kind"] != "spots":  # which are rings already
            widths = np.where(chosen, _RING, 0.0)
            if not np.array_equal(layer.border_width, widths):
                layer.border_width = widths
        points = np.flatnonzero(chosen).tolist() if len(self.rows) <= MAX_SELECTED else []
        if not select or layer.selected_data == set(points):
            return
        with self._silence():
            # Not by setting ``selected_data``, which also takes the looks of the next point to be added from these.
            layer.selected_data.replace_selection(points)
            layer.refresh(thumbnail=False, data_displayed=False, extent=False)

    def take(self, layer: Points) -> None:
        """Select what is selected in a layer."""
        rows = None if self._quiet else self._rows_of(layer)
        if rows is None:
            return
        points = np.fromiter(layer.selected_data, dtype=np.intp)
        chosen = rows[points[points < len(rows)]]
        self._set(np.sort(chosen[chosen >= 0]), layer)

    def row_at(self, position: Iterable[float]) -> int | None:
        """Return the row of the spot that is seen at a place.

        Parameters
        ----------
        position
            In world coordinates, (…, y, x).
        """
        entry = self._session.active
        if entry is None or entry.table is None:
            return None
        place = to_pixels(self._session.viewer, entry, np.array([tuple(position)], dtype=float)[:, -2:])
        slide = entry.predicted or entry.slide
        away = np.hypot(*(np.asarray(entry.table.obsm["spatial"]) - place[0, ::-1]).T)
        nearest = int(np.nanargmin(away))
        return nearest if away[nearest] * slide.mpp <= _REACH * slide.spots.diameter_um else None

    # -- within

    def _set(self, rows: Rows, told_by: Points | None = None) -> None:
        """Select other rows, in order, and tell everybody but the layer that told."""
        if np.array_equal(rows, self.rows):
            return
        self.rows = rows
        for layer in self._links:
            self.highlight_in(layer, select=layer is not told_by)
        self._bins.show(rows)
        self._session.selection_changed.emit()

    def _rows_of(self, layer: Points) -> Rows | None:
        """Return the row of each point of a layer, -1 for none; None where it is not of the active prediction."""
        entry = self._session.active
        if entry is None or entry.table is None or not _belongs(layer, entry):
            return None
        rows = entry.rows if ours(layer)["kind"] == "spots" else np.arange(entry.table.n_obs)
        return None if rows is None or len(rows) != len(layer.data) else rows  # points were deleted by hand

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """While this lasts, what changes in layers is not the user's."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _on_prediction(self) -> None:
        entry = self._session.active
        genes = None if entry is None else entry.genes  # one that is being made keeps them as it gets its values
        if genes is self._genes:
            return
        self._genes = genes
        self._set(_NONE)
        self.highlight()

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if _is_points(layer) and "slide" in ours(layer) and layer not in self._links:
            self._links[layer] = _Link(weakref.ref(layer), self)
            if ours(layer)["kind"] != "spots":
                layer.border_color = _COLOUR

    def _on_removed(self, event: Any) -> None:
        link = self._links.pop(event.value, None)
        if link is not None:
            link.cut()

    def _on_press(self, _viewer: Any, event: Any) -> Generator[None, None, None]:
        """Select the spot that is clicked, where the mouse has nothing else to do."""
        entry, active = self._session.active, self._session.viewer.layers.selection.active
        busy = active is not None and (ours(active).get("slide") is None or active.mode != "pan_zoom")
        if event.button != 1 or busy or entry is None or entry.table is None or "Alt" in event.modifiers:
            return
        start, dragged = np.array(event.pos), False
        yield
        while event.type == "mouse_move":
            dragged = dragged or float(np.hypot(*(np.array(event.pos) - start))) > _CLICK_PX
            yield
        if dragged:
            return
        row = self.row_at(event.position)
        clicked = _NONE if row is None else np.array([row], dtype=np.intp)
        self.set(np.setxor1d(self.rows, clicked) if "Shift" in event.modifiers else clicked)


@dataclass(frozen=True, eq=False)
class _Link:
    """Tells a selection of a layer, which it does not keep alive."""

    layer: weakref.ref[Points]
    selection: Selection

    def __post_init__(self) -> None:
        layer = self.layer()
        if layer is not None:
            layer.selected_data.events.items_changed.connect(self._on_selected)
            layer.events.visible.connect(self._on_visible)

    def cut(self) -> None:
        """Tell no more."""
        layer = self.layer()
        if layer is not None:
            layer.selected_data.events.items_changed.disconnect(self._on_selected)
            layer.events.visible.disconnect(self._on_visible)

    def _on_selected(self, *_: object) -> None:
        layer = self.layer()
        if layer is not None:
            self.selection.take(layer)

    def _on_visible(self, *_: object) -> None:
        layer = self.layer()
        if layer is not None and layer.visible:
            self.selection.highlight_in(layer)


def _belongs(layer: Any, entry: Entry | None) -> bool:
    """Whether the points of a layer are spots of a slide."""
    return entry is not None and _is_points(layer) and ours(layer).get("slide") == entry.key


def _is_points(layer: Any) -> bool:
    from napari.layers import Points

    return isinstance(layer, Points)
