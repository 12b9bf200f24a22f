"""Run by a Python that has napari-spatialdata, and not us: open a store of ours and click on a gene."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import spatialdata
from napari_spatialdata import Interactive, __version__
from qtpy.QtWidgets import QApplication


def until(there: Callable[[], bool]) -> None:
    """Let Qt work until something is there: elements are loaded in a thread."""
    end = time.monotonic() + 120
    while not there() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    assert there()


def view_of(window: Interactive) -> object:
    """Return the widget that lists tables and genes, which it has docked."""
    from napari_spatialdata._view import QtAdataViewWidget

    return next(w for w in QApplication.allWidgets() if isinstance(w, QtAdataViewWidget))


def main(store: str, table_name: str, gene: str) -> None:
    """Print what its viewer shows of a store's spots, tables and one gene."""
    sdata = spatialdata.read_zarr(store)
    table = sdata.tables[table_name]
    region = table.uns["spatialdata_attrs"]["region"]
    region = region if isinstance(region, str) else region[0]
    window = Interactive(sdata, headless=True)
    viewer = window._viewer
    window.add_element(element=region, element_coordinate_system=sdata.coordinate_systems[0])
    until(lambda: region in viewer.layers)
    viewer.layers.selection.active = viewer.layers[region]
    view = view_of(window)
    tables = [view.table_name_widget.itemText(i) for i in range(view.table_name_widget.count())]
    view.table_name_widget.setCurrentText(table_name)
    genes = [view.var_widget.item(i).text() for i in range(view.var_widget.count())]
    view.var_widget._onAction([gene])
    layer = viewer.layers[region]
    shown = np.unique(np.asarray(layer.face_color), axis=0)
    told = {"version": __version__, "spots": len(layer.data), "tables": tables, "genes": genes, "colours": len(shown)}
    print(json.dumps(told))
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
