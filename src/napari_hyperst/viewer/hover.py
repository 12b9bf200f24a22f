"""What the status bar says of the spot under the mouse, whichever of our maps is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

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
