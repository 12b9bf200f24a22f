"""napari's points and image, but that they say in the status bar what is known of a spot."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Points
from numpy.typing import NDArray

from napari_hyperst.viewer.hover import Describe


class SpotMap(Points):
    """A map of spots on no square lattice, or apart from each other: a point each.

    Parameters
    ----------
    data
        As for ``Points``.
    describe
        What the status bar says of a spot.
    settings
        As for ``Points``.
    """

    def __init__(self, data: Any, *, describe: Describe, **settings: Any) -> None:
        self.describe = describe
        super().__init__(data, **settings)

    @property
    def _type_string(self) -> str:
        return "points"  # to what looks for napari's own layers, it is one

    def get_status(self, position: Any = None, **where: Any) -> dict[str, str]:
        """Return what the status bar shows; arguments and keys are those of every layer."""
        status: dict[str, str] = super().get_status(position, **where)
        row = None if position is None else self.get_value(position, **where)
        return status if row is None else _say(status, self.describe(int(row)))


class BinMap(Image):
    """A map of square bins side by side: a px each, NaN where there is none.

    Parameters
    ----------
    data
        (rows, columns) values.
    index
        (rows, columns) the table's row of each bin; -1 where there is none.
    describe
        What the status bar says of a bin.
    settings
        As for ``Image``.
    """

    def __init__(self, data: Any, *, index: NDArray[np.int32], describe: Describe, **settings: Any) -> None:
        self.index = index
        self.describe = describe
        super().__init__(data, **settings)

    @property
    def _type_string(self) -> str:
        return "image"  # to what looks for napari's own layers, it is one

    def get_status(self, position: Any = None, *, world: bool = False, **where: Any) -> dict[str, str]:
        """Return what the status bar shows; arguments and keys are those of every layer."""
        status: dict[str, str] = super().get_status(position, world=world, **where)
        if position is None:
            return status
        place = np.rint(self.world_to_data(position) if world else position)[-2:].astype(int)
        inside = ((place >= 0) & (place < self.index.shape)).all()
        row = int(self.index[tuple(place)]) if inside else -1
        return _say(status, self.describe(row) if row >= 0 else "")


def _say(status: dict[str, str], words: str) -> dict[str, str]:
    return {**status, "value": words, "coordinates": f"{status['coords']}: {words}"}
