"""Visium HD: square bins of 2, 8 or 16 µm, from ``binned_outputs``.

spatialdata-io is not asked: it insists on the feature slice file and decodes the full-resolution image to open a
slide. The elements bear the names that it gives them; bins are circles as wide as a bin, as with its
``bins_as_squares=False``.
"""

from __future__ import annotations

from pathlib import Path

from spatialdata import SpatialData

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import bin_folders, bin_size_um, spatial_folder
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
from napari_hyperst.slides.slide import Source

_FACTORS = ("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres", "microns_per_pixel")


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read the bins of one size; only those in tissue are kept.

    Without one named, the largest bins there are: 16 µm in a whole run, a quarter as many to predict as of 8 µm (some
    170,000 over a full capture area, 2 µm are ten million), with four times the counts each, and nearest in size to
    the spots that models learn from.

    Parameters
    ----------
    path
        A run's folder, its ``outs``, its ``binned_outputs``, or one folder of bins.
    image
        The full-resolution image.
    table
        Which bins: ``"square_008um"``, or their size in µm alone.

    Raises
    ------
    SlideError
        If there are no such bins, or a file is missing or broken.
    """
    size, bins = _choose(path, table)
    matrix = find_matrix(bins)
    counts = read_matrix(matrix)
    spatial = spatial_folder(bins)
    factors = read_scalefactors(spatial, _FACTORS)
    mpp = factors["microns_per_pixel"]
    positions = read_positions(find_positions(spatial), counts.obs_names, matrix.name)
    in_tissue = (positions["in_tissue"] == 1).to_numpy()
    if not in_tissue.all():
        counts, positions = counts[in_tissue].copy(), positions[in_tissue]
    folder = bins.parent.parent if bins.parent.name == "binned_outputs" else bins.parent
    resolved = folder.resolve()
    name = element_name((resolved.parent if resolved.name == "outs" else resolved).name)
    run = Run(name, folder, (spatial, folder / "spatial"), factors)
    key = f"square_{size:03d}um"
    element = f"{name}_{key}"
    counts.obs["in_tissue"] = 1
    circles, annotating = counted_spots(
        counts,
        centres_px(positions),
        name=element,
        radius_px=size / mpp / 2,
        transformations=run.transformations(),
        instance_key="location_id",
        array=places(positions),
    )
    sdata = SpatialData(shapes={element: circles}, tables={key: annotating})
    add_coarse_images(sdata.images, run)
    picture, factor = add_image(sdata.images, run, image)
    if factor != 1:
        warn_of_coarse_image(run, picture, mpp / factor)
    return Source(sdata, path, image=picture, spots=element, table=key, pitch_um=size, spot_um=size, mpp=mpp / factor)


def _choose(path: Path, named: str | None) -> tuple[int, Path]:
    """Return size and folder of the bins to read."""
    folders = bin_folders(path)
    if named is None:
        size = max(folders)
        return size, folders[size]
    wanted = int(named) if named.isdecimal() else bin_size_um(named)
    if wanted not in folders:
        choices = ", ".join(f"square_{size:03d}um" for size in folders)
        raise SlideError(f"has no bins {named!r}", where=path, do=f"name one of {choices} (--table, or table=)")
    return wanted, folders[wanted]
