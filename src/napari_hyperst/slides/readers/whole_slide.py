"""Whole-slide images without transcriptomics: a lattice of spots is laid over the tissue."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Identity, Scale

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.formats import TIFF_SUFFIXES
from napari_hyperst.slides.image import Pyramid, cache_folder, image_element
from napari_hyperst.slides.lattice import lay_hexagonal
from napari_hyperst.slides.readers.files import element_name
from napari_hyperst.slides.scan import recorded_mpp
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Source
from napari_hyperst.slides.tissue import Tissue, find_tissue

#: More spots than this are not laid: it would be a slip in the pitch or the scale.
MAX_SPOTS = 2_000_000
#: Scales that differ by more than this are reported.
_SCALE_TOLERANCE = 0.05
#: A mask's px may be this much longer one way than the other.
_SQUARE = 0.05


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
    SlideError
        If the file is no H&E, its scale is not known, or it has no tissue.
    """
    pitch, spot = _length(pitch_um, VISIUM_PITCH_UM, "pitch", path), _length(spot_um, VISIUM_SPOT_UM, "spot", path)
    scale = _scale(path, mpp)
    name = element_name(path.name.removesuffix(path.suffix).removesuffix(".ome"))
    image = image_element(path, {name: Identity()})
    pyramid = Pyramid.from_element(image, str(path))
    found = find_tissue(pyramid, scale) if tissue is None else read_mask(tissue, pyramid.shape_px)
    if not found.mask.any():
        raise SlideError(
            "no tissue was found" if tissue is None else f"{tissue} marks no tissue",
            where=path,
            do="give a mask of it (--tissue, or tissue=), or check that this is an H&E and its scale (--mpp)",
        )
    expected = found.mask.mean() * np.prod(pyramid.shape_px) * scale**2 / (pitch**2 * np.sqrt(3) / 2)
    if expected > MAX_SPOTS:
        raise SlideError(
            f"a pitch of {pitch:g} µm lays about {expected:,.0f} spots, over the {MAX_SPOTS:,} that are laid",
            where=path,
            do="choose a wider one (--pitch, or pitch_um=), or check the scale (--mpp)",
        )
    centres, array = lay_hexagonal(found.at, pyramid.shape_px, pitch / scale, spot / scale / 2)
    if len(centres) == 0:
        raise SlideError(
            f"no spot of {spot:g} µm on a {pitch:g} µm pitch lies in tissue",
            where=path,
            do="choose a finer pitch (--pitch, or pitch_um=), or check the scale (--mpp)",
        )
    factor_y, factor_x = found.factors
    sdata = SpatialData(
        images={f"{name}_full_image": image},
        labels={
            f"{name}_tissue": Labels2DModel.parse(
                found.mask.astype(np.uint8),
                dims=("y", "x"),
                transformations={name: Scale([factor_y, factor_x], axes=("y", "x"))},
            )
        },
        shapes={name: _shapes(centres, array, spot / scale / 2, name)},
    )
    return Source(
        sdata, path, image=f"{name}_full_image", spots=name, table=None, pitch_um=pitch, spot_um=spot, mpp=scale,
        laid=True, tissue=f"{name}_tissue",
    )  # fmt: skip


def read_mask(path: Path, shape_px: tuple[int, int]) -> Tissue:
    """Read a mask from a picture that spans the H&E; whatever is not black is tissue.

    Parameters
    ----------
    path
        A png, jpg or tif, of any resolution.
    shape_px
        (height, width) of the H&E's level 0.

    Raises
    ------
    SlideError
        If the file is no picture, or of another shape than the H&E.
    """
    try:
        pixels = tifffile.imread(path) if path.suffix.lower() in TIFF_SUFFIXES else _grey(path)
    except Exception as error:  # Pillow, tifffile and their codecs raise what they like
        raise SlideError(
            f"is no mask that can be read ({error})", where=path, do="give a picture, black where there is no tissue"
        ) from error
    mask = pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0
    if mask.ndim != 2 or 0 in mask.shape:
        raise SlideError(f"a mask of shape {pixels.shape} is no picture", where=path, do="save one plane")
    found = Tissue(mask, shape_px)
    stretch = found.factors[0] / found.factors[1]
    rounding = 1 / min(mask.shape)  # of a side to whole px
    if abs(np.log(stretch)) > _SQUARE + rounding:
        raise SlideError(
            f"a mask of {mask.shape[1]} x {mask.shape[0]} px does not span an H&E of {shape_px[1]} x {shape_px[0]} px",
            where=path,
            do="give one of the whole H&E, at any resolution",
        )
    return found


def keep_mask(mask: NDArray[np.generic], folder: Path | None = None) -> Path:
    """Write a mask as a PNG under its content's hash, so that a job can open the slide with it.

    Parameters
    ----------
    mask
        (h, w), not zero where there is tissue.
    folder
        Where to; the cache of decoded images if not told.
    """
    bits = np.asarray(mask) != 0
    if bits.ndim != 2:
        raise SlideError(f"a mask of shape {bits.shape} is no picture", do="give rows and columns")
    digest = hashlib.sha256(np.array(bits.shape).tobytes() + np.packbits(bits).tobytes()).hexdigest()[:32]
    path = (folder or cache_folder()) / f"tissue-{digest}.png"
    if not path.exists():
        staged = path.with_name(f".{path.name}")
        Image.fromarray(bits.astype(np.uint8) * 255).save(staged, format="PNG")
        staged.replace(path)
    return path


def _grey(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L") if picture.mode != "I;16" else picture)


def _length(given: float | None, default: float, what: str, path: Path) -> float:
    if given is None:
        return default
    if not np.isfinite(given) or given <= 0:
        raise SlideError(
            f"a {what} of {given:g} µm lays no lattice", where=path, do=f"state a positive number (--{what})"
        )
    return float(given)


def _scale(path: Path, stated: float | None) -> float:
    """Settle on µm per px: what the user says, else what the file records."""
    recorded = recorded_mpp(path)
    if stated is None and recorded is None:
        raise SlideError("nothing tells how many µm a px is", where=path, do="state it (--mpp, or mpp=)")
    if stated is not None and (not np.isfinite(stated) or stated <= 0):
        raise SlideError(f"{stated} is no scale in µm/px", where=path, do="state a positive number")
    if stated is not None and recorded is not None and abs(stated / recorded - 1) > _SCALE_TOLERANCE:
        warnings.warn(
            f"{path}: the stated {stated:.4g} µm/px contradicts the {recorded:.4g} µm/px that the file records",
            HyperSTWarning,
            stacklevel=4,
        )
    return float(stated if stated is not None else recorded)  # type: ignore[arg-type]


def _shapes(centres: NDArray[np.float64], array: NDArray[np.intp], radius_px: float, name: str) -> gpd.GeoDataFrame:
    ids = np.array([f"r{row}c{column}" for row, column in array.tolist()])
    shapes = ShapesModel.parse(centres, geometry=0, radius=radius_px, index=ids, transformations={name: Identity()})
    shapes["array_row"], shapes["array_col"] = array[:, 0], array[:, 1]
    return shapes
