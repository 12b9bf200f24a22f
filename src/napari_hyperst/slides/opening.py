"""A slide is opened by the reader of the format that is in the folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.decoded import progress_told
from napari_hyperst.slides.formats import Format
from napari_hyperst.slides.inspection import inspect_slide
from napari_hyperst.slides.readers import (
    hest,
    legacy_st,
    space_ranger,
    spatialdata_zarr,
    stimage,
    visium_hd,
    whole_slide,
)
from napari_hyperst.slides.slide import Slide, Source, build_slide
from napari_hyperst.slides.tissue import keep_mask, read_mask

#: The reader of each format, called with the path, the image and the table that the user named.
READERS: dict[Format, Callable[[Path, str | Path | None, str | None], Source]] = {
    "spatialdata": spatialdata_zarr.read,
    "visium_hd": visium_hd.read,
    "space_ranger": space_ranger.read,
    "hest": hest.read,
    "stimage": stimage.read,
    "legacy_st": legacy_st.read,
}


def open_slide(
    path: str | Path,
    mpp: float | None = None,
    *,
    image: str | Path | None = None,
    table: str | None = None,
    pitch_um: float | None = None,
    spot_um: float | None = None,
    tissue: str | Path | NDArray[np.generic] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Slide:
    """Open a slide: Visium, Visium HD, legacy ST, HEST, STimage-1K4M, a SpatialData Zarr, or a bare H&E.

    Reads metadata and counts, no pixels; but a jpg, png or untiled tif is decoded once into a cached pyramid, and of a
    bare H&E a coarse level is read to find the tissue, over which a hexagonal lattice of spots is laid.

    Parameters
    ----------
    path
        The folder, store or image file, or the file that names one slide among several in a folder.
    mpp
        µm per px of the H&E's level 0. By default it follows from the pitch of the spots' lattice; of a bare H&E, from
        what the file records.
    image
        The full-resolution H&E file. SpatialData Zarr: the name of the image element, where several fit.
    table
        SpatialData Zarr: the name of the table of counts, where several fit. Visium HD: the bins, such as
        ``"square_008um"``.
    pitch_um, spot_um
        Bare H&E, or a store of one: distance between neighbouring spots, and their diameter; those of Visium, 100 and
        55 µm, if not told. Half the pitch predicts at four times as many places, from the same sizes of tiles.
    tissue
        Bare H&E, or a store of one: a mask that spans the image at any resolution, not zero where there is tissue, as
        an array or as a picture; found by saturation if not told.
    progress
        Called while the image is decoded, where it must be: with how many blocks of pixels are written, and of how
        many, 0 of 0 at first. What it raises ends the work, which is gone on with when the slide is opened again.

    Returns
    -------
    Slide
        With a lazy image, spots, lattice, scale and, where measured, counts.

    Raises
    ------
    ScaleError
        If nothing tells how many µm a px of the H&E is.
    SlideError
        If the path holds no slide, or a part of it is missing, broken or contradicts the rest.
    """
    path = Path(path).expanduser()
    laying = any(given is not None for given in (pitch_um, spot_um, tissue))
    found = inspect_slide(path, image=image is not None, table=table is not None, laying=laying)
    named = None if image is None else str(image)
    file = None if tissue is None else _mask_file(tissue)
    ref = SlideRef.model_construct(
        path=path.absolute(), mpp=mpp, image=named, table=table, pitch_um=pitch_um, spot_um=spot_um, tissue=file
    )
    with progress_told(progress):
        source = (
            whole_slide.read(path, mpp, pitch_um, spot_um, file)
            if found == "whole_slide"
            else READERS[found](path, image, table)
        )
    slide = build_slide(source, mpp, ref)
    if found == "whole_slide":
        return slide
    if not laying and not _laid_at_another_scale(slide):
        return slide
    mask = None if file is None else read_mask(file, slide.image.shape_px).mask
    return replace(whole_slide.lay_again(slide, mask, pitch_um, spot_um), ref=ref)


def _laid_at_another_scale(slide: Slide) -> bool:
    """Tell whether the scale of a slide is stated, and its spots were laid at another: they would lie too near or far.

    Without the mask that they were laid over they stay where they are.
    """
    source = slide.source
    return source.laid and source.tissue is not None and not math.isclose(slide.mpp, source.mpp or slide.mpp)


def _mask_file(tissue: str | Path | NDArray[np.generic]) -> Path:
    return Path(tissue).expanduser().absolute() if isinstance(tissue, str | Path) else keep_mask(tissue)
