"""What is asked of the table of a prediction before it is drawn or written: it may have come with a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from napari_hyperst.errors import SlideError

_NUMBERS = ("norm_", "violation_", "exterior_angle_", "half_aperture_")


def check_prediction(table: AnnData, where: str | Path) -> None:
    """Check that a table, which may be anybody's, holds numbers where maps are drawn from.

    Parameters
    ----------
    table
        A table of a store that says that it is a prediction.
    where
        The store and the table, for the error.

    Raises
    ------
    SlideError
        If it does not.
    """
    columns = {name: table.obs[name] for name in table.obs if str(name).startswith(_NUMBERS)}
    columns |= {name: table.var[name] for name in ("pcc", "mse") if name in table.var}
    odd = [f"column {name}" for name, column in columns.items() if not _numeric(column)]
    odd += ["layer measured"] if "measured" in table.layers and not _numeric(table.layers["measured"]) else []
    odd += [] if isinstance(table.X, np.ndarray) and _numeric(table.X) and 0 not in table.shape else ["X"]
    spatial = np.asarray(table.obsm.get("spatial", ()))
    if spatial.shape != (table.n_obs, 2) or not _numeric(spatial) or not np.isfinite(spatial).all():
        odd.append("obsm spatial")
    if not table.var_names.is_unique:
        odd.append("names of genes")
    if odd:
        raise SlideError(f"{odd[0]} does not hold what it should", where=where, do="predict again")


def _numeric(values: Any) -> bool:
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    return kind in ("f", "i", "u")
