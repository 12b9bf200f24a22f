"""Space Ranger ``outs`` folders of Visium slides of any version.

spatialdata-io reads some of these layouts, but its import alone takes several times as long as opening a slide. The
elements made here bear the names that it gives them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from napari_hyperst.slides.formats import outs_folder, spatial_folder
from napari_hyperst.slides.image import FILE_KEY
from napari_hyperst.slides.lattice import lattice_from_array
from napari_hyperst.slides.readers.counts import find_matrix, read_matrix
from napari_hyperst.slides.readers.elements import counted_spots
from napari_hyperst.slides.readers.files import element_name
from napari_hyperst.slides.readers.pictures import Run, add_coarse_images, add_image, warn_of_coarse_image
from napari_hyperst.slides.readers.positions import (
    centres_px,
    find_positions,
    places,
    read_positions,
    read_scalefactors,
    warn_of_mirrored,
)
from napari_hyperst.slides.scan import recorded_mpp
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Source

_FACTORS = ("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres")


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read an ``outs`` folder; only spots in tissue are kept.

    Without a full-resolution image, named or told by its name, the best of the images that Space Ranger keeps is
    used, with a warning. The CytAssist instrument's image is never taken: it is in another frame.

    Raises
    ------
    SlideError
        If a file is missing or broken, or the counts join no spot.
    """
    del table
    folder = outs_folder(path)
    matrix = find_matrix(folder)
    counts = read_matrix(matrix)
    spatial = spatial_folder(folder)
    factors = read_scalefactors(spatial, _FACTORS)
    table_of_positions = find_positions(spatial)
    positions = read_positions(table_of_positions, counts.obs_names, matrix.name)
    in_tissue = (positions["in_tissue"] == 1).to_numpy()
    if not in_tissue.all():
        counts, positions = counts[in_tissue].copy(), positions[in_tissue]
    warn_of_mirrored(centres_px(positions), places(positions), table_of_positions)
    name = element_name((path.parent if path.name == "outs" else path).resolve().name)
    run = Run(name, folder, (spatial,), factors)
    sdata = _build(run, counts, positions)
    element, factor = add_image(sdata.images, run, image)
    if factor != 1:
        warn_of_coarse_image(run, element, _mpp(positions, factor))
    return Source(
        sdata,
        path,
        image=element,
        spots=name,
        table="table",
        pitch_um=VISIUM_PITCH_UM,
        spot_um=VISIUM_SPOT_UM,
        mpp=recorded_mpp(Path(sdata.images[element].attrs[FILE_KEY])),
    )


def _build(run: Run, counts: AnnData, positions: pd.DataFrame) -> SpatialData:
    counts.obs["in_tissue"] = 1
    circles, table = counted_spots(
        counts,
        centres_px(positions),
        name=run.name,
        radius_px=run.factors["spot_diameter_fullres"] / 2,
        transformations=run.transformations(),
        array=places(positions),
    )
    sdata = SpatialData(shapes={run.name: circles}, tables={"table": table})
    add_coarse_images(sdata.images, run)
    return sdata


def _mpp(positions: pd.DataFrame, factor: float) -> float | None:
    """Return the µm per px of a coarse image, by the pitch of the lattice; None where there is none."""
    lattice = lattice_from_array(centres_px(positions), places(positions))
    return None if lattice.kind == "none" else VISIUM_PITCH_UM / lattice.pitch_px / factor
