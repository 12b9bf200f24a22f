"""Space Ranger ``outs`` folders of Visium slides of any version, through spatialdata-io where it reads the layout."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation

from napari_hyperst.slides.formats import outs_folder, spatial_folder
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
)
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Source

_FACTORS = ("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres")
#: The table of positions that spatialdata-io takes where there are several.
_ITS_POSITIONS = ("tissue_positions_list.csv", "tissue_positions.csv")


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read an ``outs`` folder; only spots in tissue are kept.

    Without a full-resolution image, named or told by its name, the best of the images that Space Ranger keeps is
    used, with a warning. The CytAssist instrument's image is never taken: it is in another frame.

    Raises
    ------
    SlideError
        If a file is missing or broken, or the counts join no spot.
    """
    del table  # there is one table of counts
    folder = outs_folder(path)
    matrix = find_matrix(folder)
    counts = read_matrix(matrix)
    spatial = spatial_folder(folder)
    factors = read_scalefactors(spatial, _FACTORS)
    positions_file = find_positions(spatial)
    positions = read_positions(positions_file, counts.obs_names, matrix.name)
    name = element_name((path.parent if path.name == "outs" else path).resolve().name)
    run = Run(name, folder, (spatial,), factors)
    sdata = _through_spatialdata_io(run, matrix, positions_file, counts, positions)
    if sdata is None:
        sdata = _build(run, counts, positions)
    element, factor = add_image(sdata.images, run, image)
    if factor != 1:
        warn_of_coarse_image(run, element, _mpp(positions[positions["in_tissue"] == 1], factor))
    return Source(
        sdata, path, image=element, spots=name, table="table", pitch_um=VISIUM_PITCH_UM, spot_um=VISIUM_SPOT_UM
    )


def _through_spatialdata_io(
    run: Run, matrix: Path, positions_file: Path, counts: AnnData, positions: pd.DataFrame
) -> SpatialData | None:
    """Read the layouts that spatialdata-io knows through it; None for the others."""
    its_own = next((name for name in _ITS_POSITIONS if (run.folder / "spatial" / name).exists()), None)
    alike = [path for path in run.folder.iterdir() if path.name.endswith(matrix.name)]  # it would take any of them
    if matrix.suffix != ".h5" or positions_file != run.folder / "spatial" / (its_own or "") or len(alike) != 1:
        return None
    import spatialdata_io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are not unique, which it then makes unique
            sdata = spatialdata_io.visium(run.folder, dataset_id=run.name, counts_file=matrix.name)
    except Exception:  # a chain of readers, each with errors of its own; what is truly wrong we say ourselves
        return None
    read = sdata.tables["table"]
    if not read.obs_names.equals(counts.obs_names) or read.n_vars != counts.n_vars:
        return None
    return _keep_in_tissue(sdata, run.name, (positions["in_tissue"] == 1).to_numpy())


def _keep_in_tissue(sdata: SpatialData, name: str, in_tissue: np.ndarray) -> SpatialData:
    if in_tissue.all():
        return sdata
    table, shapes = sdata.tables["table"], sdata.shapes[name]
    kept = table[in_tissue].copy()
    instances = kept.obs[kept.uns["spatialdata_attrs"]["instance_key"]]
    sdata.tables["table"] = kept
    transformations = get_transformation(shapes, get_all=True)
    inside = shapes.loc[instances]
    inside.attrs["transform"] = transformations
    sdata.shapes[name] = inside
    return sdata


def _build(run: Run, counts: AnnData, positions: pd.DataFrame) -> SpatialData:
    """Make what spatialdata-io would of a layout that it does not read."""
    in_tissue = (positions["in_tissue"] == 1).to_numpy()
    counts, positions = counts[in_tissue].copy(), positions[in_tissue]
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
