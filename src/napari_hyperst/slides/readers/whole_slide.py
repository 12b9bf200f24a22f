"""Whole-slide images without transcriptomics: a lattice of spots is laid over the tissue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Identity, Scale, Sequence, get_transformation

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.image import Pyramid, image_element
from napari_hyperst.slides.lattice import lay_hexagonal
from napari_hyperst.slides.readers.files import element_name
from napari_hyperst.slides.scale import STATED, settle_scale
from napari_hyperst.slides.scan import recorded_mpp
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Slide, Source, build_slide
from napari_hyperst.slides.tissue import Tissue, find_tissue, read_mask

#: More spots than this are not laid: it would be a slip in the pitch or the scale.
MAX_SPOTS = 2_000_000


def read(
    path: Path,
    mpp: float | None = None,
    pitch_um: float | None = None,
    spot_um: float | None = None,
    tissue: Path | None = None,
) -> Source:
    """Open an image file, and lay spots over its tissue.

    Parameters
    ----------
    path
        The H&E.
    mpp
        µm per px of its level 0, where the user states it; it overrides what the file records.
    pitch_um, spot_um
        Distance between neighbouring spots, and their diameter; those of Visium, 100 and 55 µm, if not told.
    tissue
        A mask of the tissue; found by saturation if not told.

    Returns
    -------
    Source
        With the mask as a labels element, and no table.

    Raises
    ------
    ScaleError
        If nothing tells its scale.
    SlideError
        If the file is no H&E, or it has no tissue that a spot fits in.
    """
    pitch = _length(pitch_um, VISIUM_PITCH_UM, "pitch", path)
    spot = _length(spot_um, VISIUM_SPOT_UM, "spot", path)
    scale = settle_scale([(mpp, STATED), (recorded_mpp(path), "what the file records")], path)
    name = element_name(path.name.removesuffix(path.suffix).removesuffix(".ome"))
    image = image_element(path, {name: Identity()})
    pyramid = Pyramid.from_element(image, str(path))
    found = find_tissue(pyramid, scale) if tissue is None else read_mask(tissue, pyramid.shape_px)
    named = Source(
        SpatialData(), path, f"{name}_full_image", name, None, pitch, spot, scale, laid=True, tissue=f"{name}_tissue"
    )
    return _lay(named, image, found)


def lay_again(
    slide: Slide,
    tissue: NDArray[np.generic] | None = None,
    pitch_um: float | None = None,
    spot_um: float | None = None,
) -> Slide:
    """Lay spots anew over a slide whose spots were laid, from what is in memory: no pixels are read.

    Parameters
    ----------
    slide
        A slide without transcriptomics, from ``open_slide``.
    tissue
        (h, w) mask that spans the H&E at any resolution, not zero where there is tissue; as before if not told.
    pitch_um, spot_um
        Distance between neighbouring spots, and their diameter; as before if not told.

    Returns
    -------
    Slide
        With the new spots, of the same names where they are in the same places. Its ``ref`` has the new pitch and
        diameter; a new mask is in no file yet, so it has none: ``keep_mask`` makes one.

    Raises
    ------
    SlideError
        If the slide's spots were measured, or no spot fits in the tissue.
    """
    source = slide.source
    if not source.laid or source.tissue is None:
        raise SlideError(
            "has spots of its own, so none are laid over it", where=slide.path, do="leave pitch, spot and tissue out"
        )
    mask = np.asarray(slide.sdata.labels[source.tissue].data if tissue is None else tissue) != 0
    pitch = _length(pitch_um, source.pitch_um or VISIUM_PITCH_UM, "pitch", slide.path)
    spot = _length(spot_um, slide.spots.diameter_um, "spot", slide.path)
    named = Source(
        SpatialData(),
        source.path,
        source.image,
        source.spots,
        None,
        pitch,
        spot,
        slide.mpp,
        laid=True,
        tissue=source.tissue,
    )
    changed = {"pitch_um": pitch_um, "spot_um": spot_um}
    told = {key: value for key, value in changed.items() if value is not None}
    ref = slide.ref.model_copy(update=told if tissue is None else {**told, "tissue": None})
    again = _lay(named, slide.sdata.images[source.image], Tissue(mask, slide.image.shape_px))
    return build_slide(again, slide.mpp, ref)


def _lay(named: Source, image: xr.DataTree | xr.DataArray, tissue: Tissue) -> Source:
    """Lay spots over the tissue of an image: the source with its elements, by the names, lengths and scale in it."""
    path, mpp, pitch, spot = named.path, named.mpp, named.pitch_um, named.spot_um
    assert mpp is not None
    assert pitch is not None
    assert spot is not None
    if not tissue.mask.any():
        raise SlideError(
            "no tissue was found",
            where=path,
            do="give a mask of it (--tissue, or tissue=), or check that this is an H&E and its scale (--mpp)",
        )
    expected = tissue.mask.mean() * np.prod(tissue.shape_px) * mpp**2 / (pitch**2 * np.sqrt(3) / 2)
    if expected > MAX_SPOTS:
        raise SlideError(
            f"a pitch of {pitch:g} µm lays about {expected:,.0f} spots, over the {MAX_SPOTS:,} that are laid",
            where=path,
            do="choose a wider one (--pitch, or pitch_um=), or check the scale (--mpp)",
        )
    centres, array = lay_hexagonal(tissue.at, tissue.shape_px, pitch / mpp, spot / mpp / 2)
    if len(centres) == 0:
        raise SlideError(
            f"no spot of {spot:g} µm on a {pitch:g} µm pitch lies in tissue",
            where=path,
            do="choose a finer pitch (--pitch, or pitch_um=), or check the scale (--mpp)",
        )
    placed: dict[str, Any] = get_transformation(image, get_all=True)
    enlarged = Scale(list(tissue.factors), axes=("y", "x"))
    named.sdata.images[named.image] = image
    named.sdata.labels[str(named.tissue)] = Labels2DModel.parse(
        tissue.mask.astype(np.uint8),
        dims=("y", "x"),
        transformations={
            system: enlarged if isinstance(where, Identity) else Sequence([enlarged, where])
            for system, where in placed.items()
        },
    )
    named.sdata.shapes[named.spots] = _shapes(centres, array, spot / mpp / 2, placed)
    return named


def _length(given: float | None, default: float, what: str, path: Path) -> float:
    if given is None:
        return default
    if not np.isfinite(given) or given <= 0:
        raise SlideError(
            f"a {what} of {given:g} µm lays no lattice", where=path, do=f"state a positive number (--{what})"
        )
    return float(given)


def _shapes(
    centres: NDArray[np.float64], array: NDArray[np.intp], radius_px: float, placed: dict[str, Any]
) -> gpd.GeoDataFrame:
    ids = np.array([f"r{row}c{column}" for row, column in array.tolist()])
    shapes = ShapesModel.parse(centres, geometry=0, radius=radius_px, index=ids, transformations=placed)
    shapes["array_row"], shapes["array_col"] = array[:, 0], array[:, 1]
    return shapes
