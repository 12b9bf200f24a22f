"""The SpatialData elements that spatialdata-io makes of a slide, made at once and of any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from spatialdata.models import ShapesModel, TableModel

#: The column of a table that names the spots element.
REGION_KEY = "region"


def counted_spots(
    counts: AnnData,
    centres_px: NDArray[np.float64],
    *,
    name: str,
    radius_px: float,
    transformations: dict[str, Any],
    instance_key: str = "spot_id",
    array: NDArray[np.intp] | None = None,
) -> tuple[GeoDataFrame, AnnData]:
    """Make circles, and the table that annotates them, of spots that all have counts.

    Parameters
    ----------
    counts
        (n, genes) table, its rows named by the spots' ids; changed in place.
    centres_px
        (n, 2) centres, (x, y) in px of the full-resolution image.
    name
        Name of the spots element, for the table to point at.
    radius_px
        Radius of the circles in the same px.
    transformations
        Coordinate system to transformation, for the circles.
    instance_key
        The column of the table that numbers the spots.
    array
        (n, 2) row and column of each spot in the array, where known.

    Returns
    -------
    tuple
        The circles, indexed from 0, and the table.
    """
    counts.obs[instance_key] = np.arange(counts.n_obs)
    counts.obs[REGION_KEY] = pd.Categorical([name] * counts.n_obs)
    counts.obsm["spatial"] = np.asarray(centres_px)
    if array is not None:
        counts.obs["array_row"], counts.obs["array_col"] = array[:, 0], array[:, 1]
    circles = ShapesModel.parse(
        counts.obsm["spatial"],
        geometry=0,
        radius=radius_px,
        index=counts.obs[instance_key].to_numpy(),
        transformations=transformations,
    )
    return circles, TableModel.parse(counts, region=name, region_key=REGION_KEY, instance_key=instance_key)
