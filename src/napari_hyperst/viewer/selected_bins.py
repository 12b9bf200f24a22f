"""The bins that are selected, as a layer over them: bins are an image, which napari cannot select in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.viewer.bins import grid_of
from napari_hyperst.viewer.contract import OURS, layer_of, layers_of, ours
from napari_hyperst.viewer.layers import bin_rows, placement
from napari_hyperst.viewer.rows import Rows

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Labels

    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session

KIND = "selection"
#: While a stroke is drawn, following it takes no more than about this share of the time.
_SHARE = 0.25
#: A brush to begin with, in bins.
_BRUSH = 5


class SelectedBins:
    """Outlines the bins that are selected, in a Labels layer: what is painted or erased in it is selected or not.

    The layer comes with the first selection, and is hidden while nothing is selected. Beside each other maps are in
    cells of napari's grid, where it would take one: there it is hidden too.

    Parameters
    ----------
    session
        Whose active slide it is.
    colour
        Of the outlines.
    take
        Called with the rows that are selected when somebody paints.
    """

    def __init__(self, session: Session, colour: str, take: Callable[[Rows], None]) -> None:
        self._session = session
        self._colour = colour
        self._take = take
        self._quiet = False
        self._until = 0.0
        self._read: tuple[AnnData, NDArray[np.int32]] | None = None

    def show(self, rows: Rows) -> None:
        """Outline the bins of these rows of the active prediction, and no others; nothing where spots are points."""
        entry = self._session.active
        index = None if entry is None else self._index(entry)
        if entry is None or index is None:
            return
        layer = self._layer(entry)
        seen = len(rows) > 0 and not self._session.viewer.canvas.grid.enabled
        if layer is None and not seen:
            return
        assert entry.table is not None
        chosen = np.zeros(entry.table.n_obs + 1, dtype=np.uint8)  # the last is where there is no bin
        chosen[rows] = 1
        mask = chosen[index]
        self._quiet = True
        try:
            if layer is None:
                self._add(entry, mask)
                return
            if not np.array_equal(layer.data, mask):
                layer.data = mask
            if layer.visible != seen:
                layer.visible = seen
        finally:
            self._quiet = False

    # -- within

    def _index(self, entry: Entry) -> NDArray[np.int32] | None:
        """Return (rows, columns) the row of each bin in the active prediction's table; None without bins."""
        if entry.table is None or (grid := grid_of(entry.predicted or entry.slide)) is None:
            return None
        if self._read is None or self._read[0] is not entry.table:
            self._read = (entry.table, bin_rows(grid, entry.table))
        return self._read[1]

    def _layer(self, entry: Entry) -> Labels | None:
        found: Labels | None = layer_of(self._session.viewer, entry.key, KIND)
        return found

    def _add(self, entry: Entry, mask: NDArray[np.uint8]) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        viewer, slide = self._session.viewer, entry.predicted or entry.slide
        grid, active = grid_of(slide), viewer.layers.selection.active
        assert grid is not None
        layer = Labels(
            mask,
            name=f"{entry.key} selected",
            colormap=DirectLabelColormap(color_dict={0: "transparent", 1: self._colour, None: self._colour}),
            opacity=1.0,
            metadata={OURS: {"slide": entry.key, "element": slide.name, "kind": KIND}},
            **grid.placement(placement(slide)),
        )
        for spots in layers_of(viewer, entry.key, "spots"):  # which may have been put elsewhere
            layer.scale, layer.translate, layer.affine = spots.scale, spots.translate, spots.affine
        layer.contour, layer.brush_size = 1, _BRUSH
        viewer.add_layer(layer)
        viewer.layers.selection.active = active  # whose value the status bar tells
        # A fill tells that it is a stroke before it changes a px, so what follows is looked at too.
        for told in (layer.events.paint, layer.events.set_data, layer.events.labels_update):
            told.connect(self._on_painted)

    def _on_painted(self, event: Any) -> None:
        """Select what is painted now."""
        entry, layer = self._session.active, event.source
        ended = event.type == "paint"
        if self._quiet or entry is None or ours(layer).get("slide") != entry.key:
            return
        index = self._index(entry)
        if index is None or layer.data.shape != index.shape or not (ended or time.monotonic() > self._until):
            return
        began = time.thread_time()
        found = index[(np.asarray(layer.data) != 0) & (index >= 0)]
        self._take(np.sort(found).astype(np.intp))
        self._until = time.monotonic() + (time.thread_time() - began) / _SHARE
