"""What is shown of a slide while it is being opened: its H&E from afar."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari_hyperst.viewer.layers import UNITS

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_hyperst.nouns.tasks import SlideRef
    from napari_hyperst.slides.pillow import CoarsePicture


class CoarseLayer:
    """The layer of a coarse picture, until the slide's own layers take its place, or nothing does.

    It lies where the H&E will lie. Where the scale is not known yet, it is in px, and shown in an empty viewer only:
    among layers in µm it would be of a wrong size.

    Parameters
    ----------
    viewer
        The viewer, which may be closed at any time.
    ref
        The slide that is being opened.
    """

    def __init__(self, viewer: weakref.ref[ViewerModel], ref: SlideRef) -> None:
        self._viewer = viewer
        self._ref = ref
        self._layer: weakref.ref[Image] | None = None

    def show(self, picture: CoarsePicture) -> None:
        """Show the picture."""
        viewer, mpp = self._viewer(), self._ref.mpp
        if viewer is None or (mpp is None and len(viewer.layers)):
            return
        scale = tuple(
            (1.0 if mpp is None else mpp) * whole / part
            for whole, part in zip(picture.shape_px, picture.pixels.shape[:2], strict=True)
        )
        layer = viewer.add_image(
            picture.pixels,
            name=f"{self._ref.path.stem} (opening)",
            rgb=True,
            scale=scale,
            translate=tuple(side / 2 for side in scale),
            units=("pixel", "pixel") if mpp is None else UNITS,
        )
        self._layer = weakref.ref(layer)

    def remove(self) -> None:
        """Take the picture away, if it is there: it may never have come, or was taken away by hand."""
        viewer, layer = self._viewer(), None if self._layer is None else self._layer()
        self._layer = None
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)
