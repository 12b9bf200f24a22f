"""Run by a Python that has napari-spatialdata and our source: its widgets on our layers."""

from __future__ import annotations

import json
import sys

import napari
import numpy as np
from napari_spatialdata import Interactive
from qtpy.QtWidgets import QApplication
from spatialdata.transformations import Scale, Sequence, get_transformation, set_transformation
from with_napari_spatialdata import view_of

from napari_hyperst.slides import open_slide
from napari_hyperst.viewer.contract import ours
from napari_hyperst.viewer.session import session_of


def main(store: str, table_name: str, gene: str) -> None:
    """Print what its widgets list for our layers, and how these move, are renamed and are removed."""
    slide = open_slide(store)
    system = slide.coordinate_system
    for element in (slide.sdata.images[slide.source.image], slide.sdata.shapes[slide.name]):
        twice = Sequence([get_transformation(element, system), Scale([2.0, 2.0], ("x", "y"))])
        set_transformation(element, twice, "twice")
    viewer = napari.Viewer(show=False)
    entry = session_of(viewer).add(slide)
    session_of(viewer).show("predicted", gene)
    window = Interactive(slide.sdata, headless=True)
    view = view_of(window)
    layers = {ours(layer)["kind"]: layer for layer in viewer.layers}
    viewer.layers.selection.active = layers["spots"]
    QApplication.processEvents()
    tables = [view.table_name_widget.itemText(i) for i in range(view.table_name_widget.count())]
    view.table_name_widget.setCurrentText(table_name)
    genes = [view.var_widget.item(i).text() for i in range(view.var_widget.count())]
    view.var_widget._onAction([gene])
    coloured = len(np.unique(np.asarray(layers["spots"].face_color), axis=0))
    before = {kind: place(layer) for kind, layer in layers.items()}
    window.switch_coordinate_system(system)
    window.switch_coordinate_system("twice")
    QApplication.processEvents()
    moved = {kind: (place(layer) / before[kind]).round(6).tolist() for kind, layer in layers.items()}
    for layer in layers.values():
        layer.name = f"{layer.name} renamed"
    window.switch_coordinate_system(system)
    back = {kind: (place(layer) / before[kind]).round(6).tolist() for kind, layer in layers.items()}
    for layer in list(viewer.layers):
        viewer.layers.remove(layer)
        QApplication.processEvents()
    told = {"tables": tables, "genes": genes, "coloured": coloured, "moved": moved, "back": back}
    print(json.dumps({**told, "left": len(viewer.layers), "maps": entry.table_name}))
    viewer.close()


def place(layer: napari.layers.Layer) -> np.ndarray:
    """Return where the layer's far corner is in the world, and how large a spot is, if it has any."""
    corner = np.asarray(layer.extent.world)[1]
    if isinstance(layer, napari.layers.Points):
        corner = np.asarray(layer.data_to_world(layer.data.max(axis=0)))
        return np.append(corner, np.asarray(layer.size).ravel()[0])
    return corner


if __name__ == "__main__":
    main(*sys.argv[1:])
