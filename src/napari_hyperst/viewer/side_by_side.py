"""Maps beside each other in napari's grid, each over the H&E, under one camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hyperst.viewer.contract import OURS, layer_of, ours

if TYPE_CHECKING:
    from napari.components import LayerList, ViewerModel
    from napari.layers import Image, Layer

    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session


class SideBySide:
    """The grid of a viewer, where its cells hold an H&E and a map each.

    napari fills the cells with so many layers as the stride tells, in the order of the list; so for the while the maps
    go first, each after an H&E: the slide's own and copies of its layer, which share the pixels.

    Parameters
    ----------
    session
        The session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._maps: list[Layer] = []
        self._order: list[Layer] = []
        self._hidden: list[Layer] = []
        self._copies: list[Layer] = []
        self._shape = (1, 1)

    @property
    def maps(self) -> list[Layer]:
        """The maps that are beside each other now."""
        return self._maps

    def begin(self, entry: Entry, maps: list[Layer]) -> None:
        """Put the maps of a slide beside each other."""
        if maps == self._maps:
            return
        self.end()
        viewer = self._session.viewer
        image = layer_of(viewer, entry.key, "image")
        self._maps, self._order = list(maps), list(viewer.layers)
        cells: list[Layer] = list(maps)
        if image is not None:
            self._copies = [_copy(image, entry) for _ in maps[1:]]
            for copy in self._copies:
                viewer.add_layer(copy)
            backdrops = [image, *self._copies]
            cells = [layer for pair in zip(backdrops, maps, strict=True) for layer in pair]
        self._hidden = [layer for layer in viewer.layers if layer.visible and layer not in cells]
        for layer in self._hidden:
            layer.visible = False
        _put_first(viewer.layers, cells)
        grid = viewer.canvas.grid
        grid.stride, grid.shape = len(cells) // len(maps), (-1, -1)
        grid.enabled = True
        self._shape = grid.actual_shape(viewer.layers)
        _zoom_into(viewer, self._shape)
        for layer in maps:
            label = layer.name_overlay
            label.position, label.box, label.font_size, label.visible = "bottom_left", True, 8, True
        grid.events.enabled.connect(self._on_enabled)
        viewer.layers.events.removed.connect(self._on_removed)

    def end(self) -> None:
        """Lay the layers over each other again, in the order that they were in."""
        if not self._maps:
            return
        viewer = self._session.viewer
        viewer.canvas.grid.events.enabled.disconnect(self._on_enabled)
        viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in self._maps:
            layer.name_overlay.visible = False
        order, hidden, copies = self._order, self._hidden, self._copies
        self._maps, self._order, self._hidden, self._copies = [], [], [], []
        viewer.canvas.grid.enabled, viewer.canvas.grid.stride = False, 1
        _zoom_into(viewer, self._shape, out=True)
        for layer in copies:
            if layer in viewer.layers:
                viewer.layers.remove(layer)
        _put_first(viewer.layers, [layer for layer in order if layer in viewer.layers])
        for layer in hidden:
            layer.visible = True

    def _on_enabled(self, _event: Any) -> None:
        """Follow napari's own button for the grid."""
        if not self._session.viewer.canvas.grid.enabled:
            self._session.show_side_by_side(False)

    def _on_removed(self, event: Any) -> None:
        """Leave the grid when one of its layers is taken away by hand."""
        if event.value in [*self._maps, *self._copies] or ours(event.value).get("kind") == "image":
            self._session.side_by_side = False
            maps = self._maps
            self.end()
            for layer in maps:  # they lie on each other again
                if layer.visible and ours(layer)["kind"] != self._session.map:
                    layer.visible = False
            self._session.shown_changed.emit()


def _zoom_into(viewer: ViewerModel, shape: tuple[int, int], *, out: bool = False) -> None:
    """Keep in view what is looked at as the canvas becomes so many rows and columns of cells, or one again."""
    size = np.asarray(viewer.canvas.size)
    times = float(np.min(size / shape) / np.min(size))
    viewer.scene.camera.zoom *= 1 / times if out else times


def _put_first(layers: LayerList, wanted: list[Layer]) -> None:
    """Put layers at the bottom of the list in this order; napari's ``move_multiple`` fails on some orders of many."""
    with layers.events.reordered.blocker():
        for place, layer in enumerate(wanted):
            layers.move(layers.index(layer), place)
    layers.events.reordered(value=layers)


def _copy(image: Layer, entry: Entry) -> Image:
    """Return another layer of the same pixels."""
    from napari.layers import Image

    copy = Image(
        image.data,
        name=f"{image.name} (beneath)",
        multiscale=image.multiscale,
        rgb=image.rgb,
        scale=image.scale,
        translate=image.translate,
        affine=image.affine,
        units=image.units,
        metadata={OURS: {"slide": entry.key, "element": ours(image)["element"], "kind": "backdrop"}},
    )
    copy.opacity = image.opacity
    return copy
