"""Which spot of a slide a row of its prediction's table is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide

Rows = NDArray[np.intp]


def spots_of_rows(table: AnnData, slide: Slide) -> Rows:
    """Return which spot of a slide each row of a table annotates.

    Parameters
    ----------
    table
        A prediction's table, of n rows.
    slide
        The slide as it was when it was predicted.

    Returns
    -------
    NDArray
        (n,) positions in ``slide.spots``; -1 for a row whose spot the slide has not.
    """
    import pandas as pd

    key = table.uns["spatialdata_attrs"]["instance_key"]
    return np.asarray(pd.Index(slide.spots.index).get_indexer(table.obs[key].to_numpy()), dtype=np.intp)


def rows_of_spots(table: AnnData, slide: Slide) -> Rows:
    """Return the row of each spot of a slide in a table.

    Parameters
    ----------
    table, slide
        As for ``spots_of_rows``.

    Returns
    -------
    NDArray
        (m,) rows, one a spot; -1 for a spot that was not predicted.
    """
    spots = spots_of_rows(table, slide)
    rows = np.full(len(slide.spots), -1, dtype=np.intp)
    there = spots >= 0
    rows[spots[there]] = np.flatnonzero(there)
    return rows
