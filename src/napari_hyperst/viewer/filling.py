"""A prediction that is still being made, as a table of what there is of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hyperst.jobs.filling import read_filling
from napari_hyperst.viewer.contract import OURS

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide

#: What is said where something has to wait for such a one.
WAIT = "Wait until all spots are predicted."
#: Key of ``uns["hyperst"]`` that tells such a table from a prediction that is done.
FILLING = "filling"


def filling_table(slide: Slide, genes: Sequence[str], path: Path | None = None) -> AnnData:
    """Return a table over a file that another process fills; spots that are not predicted yet are NaN.

    Parameters
    ----------
    slide
        The slide that is being predicted.
    genes
        Which genes.
    path
        The file; None before there is one.

    Raises
    ------
    OSError, ValueError
        If the file is gone, or is another slide's.
    """
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    shape = len(slide.spots), len(genes)
    table = AnnData(
        np.broadcast_to(np.float32(np.nan), shape) if path is None else read_filling(path),
        obs=pd.DataFrame({"spot_id": slide.spots.index}, index=pd.Index(slide.spots.ids)),
        var=pd.DataFrame(index=pd.Index(list(genes))),
        uns={OURS: {FILLING: True}, "spatialdata_attrs": {"region": slide.name, "instance_key": "spot_id"}},
    )
    table.obsm["spatial"] = slide.spots.centres_px
    return table


def is_filling(table: AnnData) -> bool:
    """Tell whether a table is of a prediction that is still being made."""
    return FILLING in table.uns.get(OURS, {})
