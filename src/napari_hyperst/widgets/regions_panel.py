"""Regions: draw a polygon, and see the genes whose prediction differs most inside against outside."""

from __future__ import annotations

from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_hyperst.errors import HyperSTError, RegionError
from napari_hyperst.viewer.filling import WAIT, is_filling
from napari_hyperst.viewer.notices import show_error
from napari_hyperst.viewer.regions import (
    RegionGenes,
    add_region_layer,
    compare,
    region_layer,
    region_of,
    spots_inside,
    write_csv,
)
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import Status, folder_of
from napari_hyperst.widgets.region_table import RegionTable

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Shapes
    from shapely.geometry.base import BaseGeometry

    from napari_hyperst.viewer.session import Session

_NOTHING = "Predict the genes of a slide first: then a region of it can be compared with the rest."
_DRAW = "Press Draw, then click corner after corner on the slide; a double click closes the polygon."
_READY = "Press Compare, or Draw for another polygon to compare what they cover together."


class RegionsPanel(QWidget):
    """A button that starts a polygon, one that compares, and a table of genes.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.found: RegionGenes | None = None
        self._table: AnnData | None = None
        self._cancel: Flag | None = None
        self._watched: Shapes | None = None
        self.status = Status()
        self.draw = QPushButton("Draw")
        self.compare = QPushButton("Compare")
        self.select = QPushButton("Select spots")
        self.save = QPushButton("CSV…")
        self.table = RegionTable()
        buttons = QHBoxLayout()
        for button in (self.draw, self.compare, self.select, self.save):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.status)
        layout.addLayout(buttons)
        layout.addWidget(self.table, 1)
        self.draw.clicked.connect(self._on_draw)
        self.compare.clicked.connect(self._on_compare)
        self.select.clicked.connect(self._on_select)
        self.save.clicked.connect(self._on_save)
        self.table.chosen.connect(self._on_gene)
        layers = session.viewer.layers.events
        hear(
            self,
            (session.prediction_changed, self._on_prediction),
            (layers.inserted, self._on_layers),
            (layers.removed, self._on_layers),
        )
        self.destroyed.connect(_Ending(self))
        self._on_prediction()

    def layer(self) -> Shapes | None:
        """Return the layer with the regions of the active slide, if it is in the viewer."""
        entry = self.session.active
        return None if entry is None else region_layer(self.session.viewer, entry.key)

    def write(self, path: Path) -> None:
        """Write what was found as CSV."""
        if self.found is None:
            return
        try:
            write_csv(self.found, path)
        except HyperSTError as error:
            show_error(str(error))

    # -- within

    def _on_prediction(self) -> None:
        entry = self.session.active
        table = None if entry is None else entry.table
        if table is not self._table or table is None:
            self._stop()
            self._table = table
            self._show_found(None)
        self._on_layers()

    def _on_layers(self, _event: Any = None) -> None:
        layer = self.layer()
        if layer is not self._watched:
            if self._watched is not None:
                self._watched.events.data.disconnect(self._on_drawn)
            if layer is not None:
                layer.events.data.connect(self._on_drawn)
            self._watched = layer
        self._show_state()

    def _on_drawn(self, event: Any = None) -> None:
        """Forget what was found of other polygons, and put the pen away when one is closed."""
        layer, added = self._watched, getattr(event, "action", "") == "added"
        # While corners are still clicked it is a path.
        if added and layer is not None and layer.mode == "add_polygon" and layer.shape_type[-1] == "polygon":
            QTimer.singleShot(0, self._put_pen_away)  # when napari is done with it
        self._stop()
        self._show_found(None)
        self._show_state()

    def _put_pen_away(self) -> None:
        """Let the mouse be the slide's again: a click selects a spot, and the status bar tells of it."""
        entry, layer = self.session.active, self.layer()
        if entry is None or layer is None:
            return
        layer.mode = "pan_zoom"
        shown = self.session.layer_of(entry, self.session.map)
        if shown is not None:
            self.session.viewer.layers.selection.active = shown

    def _show_state(self) -> None:
        """Say what to do next, and enable what can be done."""
        layer = self._watched
        drawn, busy = (0 if layer is None else len(layer.data)), self._cancel is not None
        unpredicted = "" if self._table is not None else "Predict genes first"
        if self._table is not None and is_filling(self._table):
            unpredicted = WAIT
        undrawn = unpredicted or ("" if drawn else "Draw a region first")
        uncompared = undrawn or ("" if self.found is not None else "Compare first")
        self.compare.setText("Cancel" if busy else "Compare")
        told = "Stop comparing" if busy else "Test each gene: is its prediction higher or lower inside?"
        for button, reason, tip in (
            (self.draw, unpredicted, "Draw a polygon on the slide, in a layer of its own"),
            (self.compare, undrawn, told),
            (self.select, undrawn, "Select the spots inside, in the viewer and in the plots"),
            (self.save, uncompared, "Write the table as a CSV file"),
        ):
            button.setEnabled(not reason)
            button.setToolTip(reason or tip)
        self.table.setEnabled(self.found is not None)
        if busy:
            self.status.setText("Comparing…")
        elif unpredicted:
            self.status.setText(_NOTHING if self._table is None else WAIT)
        elif self.found is not None:
            self.status.setText(describe(self.found))
        else:
            many = f"{drawn} region{'s' if drawn > 1 else ''}. "
            self.status.setText(f"{many}{_READY}" if drawn else _DRAW)

    def _show_found(self, found: RegionGenes | None) -> None:
        if found is not None or self.found is not None:
            self.found = found
            self.table.set_found(found)

    def _on_draw(self) -> None:
        entry = self.session.active
        if entry is not None:
            add_region_layer(self.session.viewer, entry)

    def _region(self) -> BaseGeometry | None:
        """Return what is drawn, or say what is wrong with it."""
        entry, layer = self.session.active, self.layer()
        if entry is None or layer is None:
            return None
        try:
            return region_of(self.session.viewer, entry, layer)
        except RegionError as error:
            show_error(str(error))
            return None

    def _on_compare(self) -> None:
        if self._cancel is not None:
            self._stop()
            self._show_state()
            return
        region = self._region()
        if region is None or self._table is None:
            return
        from napari.qt.threading import create_worker

        self._cancel = Flag()
        worker = create_worker(_compare, self._table, region, self._cancel)
        worker.returned.connect(self._on_compared)
        self._show_state()
        worker.start()

    def _on_compared(self, told: tuple[Flag, RegionGenes | HyperSTError | None]) -> None:
        cancel, found = told
        if cancel is not self._cancel:  # cancelled, or of polygons that were changed meanwhile
            return
        self._cancel = None
        if isinstance(found, HyperSTError):
            show_error(str(found))
        else:
            self._show_found(found)
        self._show_state()

    def _stop(self) -> None:
        if self._cancel is not None:
            self._cancel.set()
            self._cancel = None

    def _on_select(self) -> None:
        region = self._region()
        if region is not None and self._table is not None:
            self.session.select(np.flatnonzero(spots_inside(self._table, region)))

    def _on_save(self) -> None:
        entry = self.session.active
        if entry is None:
            return
        suggested = folder_of(entry) / f"{entry.slide.name}_region.csv"
        name, _ = QFileDialog.getSaveFileName(self, "Genes of the region", str(suggested), "CSV (*.csv)")
        if name:
            path = Path(name)
            self.write(path if path.suffix else path.with_suffix(".csv"))

    def _on_gene(self, gene: str) -> None:
        entry = self.session.active
        shown = None if entry is None else entry.map(self.session.map)
        try:
            self.session.show(None if shown is not None and shown.of_gene else "predicted", gene)
        except HyperSTError as error:
            show_error(str(error))


class _Ending:
    """Stops what a panel has at work when Qt destroys it."""

    def __init__(self, panel: RegionsPanel) -> None:
        self._panel = panel.__dict__  # not the widget, which this would keep alive

    def __call__(self, *_: object) -> None:
        if self._panel["_cancel"] is not None:
            self._panel["_cancel"].set()


def describe(found: RegionGenes) -> str:
    """Say in words what was compared."""
    left_out = f" {found.left_out:,} without a prediction are left out." if found.left_out else ""
    return (
        f"{found.n_inside:,} spots inside, {found.n_outside:,} outside.{left_out} Effect is the rank-biserial "
        "correlation, -1 to 1; p-values take neighbouring spots for independent, so go by the effect first."
    )


def _compare(table: AnnData, region: BaseGeometry, cancel: Flag) -> tuple[Flag, RegionGenes | HyperSTError | None]:
    try:
        return cancel, compare(table, spots_inside(table, region), cancel.is_set)
    except HyperSTError as error:
        return cancel, error
    except Exception as error:  # whatever it is, the panel goes on
        return cancel, RegionError(f"the region cannot be compared ({type(error).__name__}: {error})")
