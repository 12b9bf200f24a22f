"""Where on the H&E a place in the viewer is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.viewer.contract import layer_of
from napari_hyperst.viewer.layers import placement

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_hyperst.viewer.entry import Entry


def to_pixels(viewer: ViewerModel, entry: Entry, world: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where places are on the H&E of a slide, which other tools may have put elsewhere since it was opened.

    Parameters
    ----------
    viewer, entry
        The viewer, and a slide that is open in it.
    world
        (k, 2) places in the viewer's µm, (y, x).

    Returns
    -------
    NDArray
        (k, 2) level-0 px, (y, x), where pixel i spans i to i + 1.
    """
    image = layer_of(viewer, entry.key, "image")
    if image is not None:  # napari has px i centred on i
        return np.array([image.world_to_data(place) for place in world]).reshape(-1, 2) + 0.5
    spots = layer_of(viewer, entry.key, "spots")
    if spots is not None and hasattr(spots, "symbol"):
        return np.array([spots.world_to_data(place) for place in world]).reshape(-1, 2)
    where = placement(entry.slide)
    back = np.linalg.inv(where["affine"])
    return (world @ back[:2, :2].T + back[:2, 2]) / np.asarray(where["scale"])
