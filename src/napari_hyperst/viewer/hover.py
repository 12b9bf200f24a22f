"""What the status bar says of the spot under the mouse, whichever of our maps is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from napari_hyperst.viewer.maps import EMBEDDING_TITLES, Map, values_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Says what is known of a row of the table that a map shows.
Describe = Callable[[int], str]
#: Columns of a table, and what is said of a spot where they are so.
_FLAGS = (
    ("in_training", True, "the model was trained on it"),
    ("complete_niche", False, "its niche is incomplete"),
)


def describe_spot(table: AnnData, row: int, genes: tuple[str, ...], title: str, shown: Map | None = None) -> str:
    """Say of a spot what it is called, what to mind, what was predicted and measured there, and how deep it lies.

    What is said first is seen also where the status bar is short.

    Parameters
    ----------
    table
        A prediction's table.
    row
        Which spot.
    genes, title
        The genes that are shown, and what they are called.
    shown
        The map that the mouse is over; a violation is told where it is one's.
    """
    spot = table[row : row + 1]
    said = [f"spot {table.obs_names[row]}"]
    for name, when, words in _FLAGS:
        if name in spot.obs and bool(spot.obs[name].iloc[0]) is when:
            said.append(words)
    if shown is not None and shown.key.startswith("violation_"):
        outside = float(values_of(spot, shown.key, ())[0])
        said.append(f"{shown.title.lower()} {f'{outside:.1f}°' if np.isfinite(outside) else 'unknown'}")
    if genes and set(genes) <= set(table.var_names):
        values = {"predicted": float(values_of(spot, "predicted", genes)[0])}
        if "measured" in table.layers:
            values["measured"] = float(values_of(spot, "measured", genes)[0])
        told = ", ".join(
            f"{kind} {value:.2f}" if np.isfinite(value) else f"not {kind}" for kind, value in values.items()
        )
        said.append(f"{title} {told}")
    norms = [
        f"{words} {float(spot.obs[f'norm_{name}'].iloc[0]):.2f}"
        for name, words in EMBEDDING_TITLES.items()
        if f"norm_{name}" in spot.obs and np.isfinite(spot.obs[f"norm_{name}"].iloc[0])
    ]
    if norms:
        said.append(f"norm {', '.join(norms)}")
    return " · ".join(said)
