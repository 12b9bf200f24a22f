"""A prediction as an h5ad that scanpy and squidpy draw over the H&E."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anndata import AnnData

from napari_hyperst.slides.outputs.staging import staged_file
from napari_hyperst.slides.outputs.thumbnail import thumbnail
from napari_hyperst.slides.slide import Slide

#: Longest sides of the two images of the H&E, as Space Ranger makes them.
_HIRES_PX, _LOWRES_PX = 2000, 600


def spatial_table(slide: Slide, table: AnnData) -> AnnData:
    """Return a prediction's table with what scanpy and squidpy look for.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.

    Returns
    -------
    AnnData
        A copy with ``uns["spatial"][name of the spots]``: ``images`` (``hires`` and ``lowres`` RGB) and
        ``scalefactors``, that of each image and the diameter of a spot in level-0 px, in which ``obsm["spatial"]`` is.
    """
    images: dict[str, Any] = {}
    factors = {"spot_diameter_fullres": slide.spots.diameter_um / slide.mpp}
    for name, longest_px in (("hires", _HIRES_PX), ("lowres", _LOWRES_PX)):
        images[name], factors[f"tissue_{name}_scalef"] = thumbnail(slide.image, longest_px)
    whole = table.copy()
    whole.uns["spatial"] = {slide.name: {"images": images, "scalefactors": factors, "metadata": {"mpp": slide.mpp}}}
    return whole


def write_h5ad(slide: Slide, table: AnnData, path: Path) -> None:
    """Write ``spatial_table`` as a file.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    with staged_file(path) as staged:
        spatial_table(slide, table).write_h5ad(staged, compression="gzip")
