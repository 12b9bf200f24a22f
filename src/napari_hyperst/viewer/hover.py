"""What the status bar says of the spot under the mouse, whichever of our maps is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from numpy.typing import NDArray

from napari_hyperst.viewer.maps import EMBEDDING_TITLES, LOG2, values_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Says what is known of a row of the table that a map shows.
Describe = Callable[[int], str]
#: Columns of a table, and what is said of a spot where they are so.
_FLAGS = (
    ("in_training", True, "the model was trained on it"),
    ("complete_niche", False, "its niche is incomplete"),
)


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


def describe_spot(table: AnnData, row: int, genes: tuple[str, ...], title: str) -> str:
    """Say of a spot what it is called, what was predicted and measured there, how deep it lies, and what to mind.

    Parameters
    ----------
    table
        A prediction's table.
    row
        Which spot.
    genes, title
        The genes that are shown, and what they are called.
    """
    spot = table[row : row + 1]
    said = [f"spot {table.obs_names[row]}"]
    if genes and set(genes) <= set(table.var_names):
        values = {"predicted": float(values_of(spot, "predicted", genes)[0])}
        if "measured" in table.layers:
            values["measured"] = float(values_of(spot, "measured", genes)[0])
        told = ", ".join(
            f"{kind} {value:.2f}" if np.isfinite(value) else f"not {kind}" for kind, value in values.items()
        )
        said.append(f"{title} {told} {LOG2}")
    norms = [
        f"{words} {float(spot.obs[f'norm_{name}'].iloc[0]):.2f}"
        for name, words in EMBEDDING_TITLES.items()
        if f"norm_{name}" in spot.obs and np.isfinite(spot.obs[f"norm_{name}"].iloc[0])
    ]
    if norms:
        said.append(f"norm {', '.join(norms)}")
    for name, when, words in _FLAGS:
        if name in spot.obs and bool(spot.obs[name].iloc[0]) is when:
            said.append(words)
    return " · ".join(said)


def _say(status: dict[str, str], words: str) -> dict[str, str]:
    return {**status, "value": words, "coordinates": f"{status['coords']}: {words}"}
