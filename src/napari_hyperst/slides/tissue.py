"""Where the tissue is on an H&E: Otsu's threshold on saturation, seen from afar."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.decoded import cache_folder
from napari_hyperst.slides.formats import TIFF_SUFFIXES
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.pillow import MAX_DECODED_PX

#: Side of a px of the mask in µm, where the H&E is fine enough.
MASK_UM = 8.0
#: Standard deviation of the Gaussian that saturation is smoothed with.
SMOOTH_UM = 12.0
#: Gaps in the tissue and specks beside it that are smaller than this are closed and dropped: a disk of 250 µm.
HOLE_UM2 = 50_000.0
SPECK_UM2 = 50_000.0
#: Saturation below which nothing is tissue, and above which all is: Otsu splits any image in two, also one of glass or
#: of tissue alone. Glass reaches 0.09 where the light is pink, and pale stroma begins at 0.12.
_GLASS, _TISSUE = 0.1, 0.2
#: Darker than this, of white, is the edge of the glass or a marker.
_BLACK = 0.15
#: Green over red by this much, of white, is ink: haematoxylin and eosin both absorb green at least as much as red.
_INK = 0.1
#: The largest level that is looked at, in px.
_MOST_PX = 50_000_000
#: A mask's px may be this much longer one way than the other.
_SQUARE = 0.05


@dataclass(frozen=True)
class Tissue:
    """Which part of an H&E is tissue.

    Attributes
    ----------
    mask
        (h, w) true where there is tissue; it spans the image.
    shape_px
        (height, width) of the image's level 0.
    """

    mask: NDArray[np.bool_]
    shape_px: tuple[int, int]

    @property
    def factors(self) -> tuple[float, float]:
        """Height and width of a px of the mask, in px of the image's level 0."""
        return self.shape_px[0] / self.mask.shape[0], self.shape_px[1] / self.mask.shape[1]

    def at(self, centres_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of (n, 2) places, (x, y) in level-0 px, lie in tissue; those off the image do not."""
        row, column = np.floor(centres_px[:, ::-1] / self.factors).astype(np.intp).T
        on = (row >= 0) & (column >= 0) & (row < self.mask.shape[0]) & (column < self.mask.shape[1])
        found = np.zeros(len(centres_px), dtype=bool)
        found[on] = self.mask[row[on], column[on]]
        return found


def find_tissue(image: Pyramid, mpp: float, *, hole_um2: float = HOLE_UM2, speck_um2: float = SPECK_UM2) -> Tissue:
    """Find the tissue on an H&E.

    The H&E is averaged to about 8 µm/px, from a level that is no coarser than 16 µm/px where there is one, and its
    HSV saturation, (max - min) / max of red, green and blue, smoothed. Tissue is what exceeds Otsu's threshold (Otsu
    1979, as in scikit-image), kept between 0.1 and 0.2; or 0.1 where what lies below it is no glass, its median being
    above that: so an H&E of tissue alone is all tissue, and one of glass alone has none. What is nearly black (the edge
    of the glass) or clearly more green than red (blue and green ink) is no tissue; red ink is not told from eosin. Then
    small specks are dropped and small holes are filled.

    Parameters
    ----------
    image
        The H&E.
    mpp
        µm per px of its level 0.
    hole_um2
        Holes of a smaller area, in µm², are filled; a gap that the image's edge cuts is no hole.
    speck_um2
        Pieces of a smaller area, in µm², are dropped; those that the image's edge cuts too.

    Returns
    -------
    Tissue
        All false where there is none.

    Raises
    ------
    SlideError
        If the pixels cannot be read.
    """
    level = _level_for(image, mpp)
    height, width = image.levels[level].shape[1:]
    seen = image.read(level, slice(0, height), slice(0, width))
    fine_um = [factor * mpp for factor in image.factors[level]]
    shape = [max(1, round(side * min(1.0, um / MASK_UM))) for side, um in zip((height, width), fine_um, strict=True)]
    small = np.asarray(Image.fromarray(seen).resize((shape[1], shape[0]), Image.Resampling.BOX), dtype=np.float32) / 255
    px_um = [side * mpp / part for side, part in zip(image.shape_px, shape, strict=True)]

    brightest, darkest = small.max(axis=2), small.min(axis=2)
    saturation = (brightest - darkest) / np.maximum(brightest, np.float32(1 / 255))
    other = (brightest < _BLACK) | (small[..., 1] - small[..., 0] > _INK)
    saturation[other] = 0.0
    saturation = ndimage.gaussian_filter(saturation, [SMOOTH_UM / um for um in px_um], mode="nearest")
    mask = (saturation > _threshold(saturation)) & ~other
    area_um2 = px_um[0] * px_um[1]
    mask = _without_small(mask, speck_um2 / area_um2)
    mask = ~_without_small(~mask, hole_um2 / area_um2, at_edges=False)
    return Tissue(mask, image.shape_px)


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
        If the file is no picture, is black, or has another shape than the H&E.
    """
    try:
        pixels = _plane(path) if path.suffix.lower() in TIFF_SUFFIXES else _grey(path)
    except Exception as error:  # Pillow, tifffile and their codecs raise what they like
        raise SlideError(
            f"is no mask that can be read ({error})", where=path, do="give a picture, black where there is no tissue"
        ) from error
    mask = pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0
    if mask.ndim != 2 or 0 in mask.shape:
        raise SlideError(f"a mask of shape {pixels.shape} is no picture", where=path, do="save one plane")
    if not mask.any():
        raise SlideError("a mask that is all black marks no tissue", where=path, do="make the tissue white")
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
        staged = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")  # others may keep it as well
        try:
            Image.fromarray(bits.astype(np.uint8) * 255).save(staged, format="PNG")
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)
    return path


def _grey(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        _check_size(picture.width * picture.height)
        grey = np.asarray(picture.convert("L") if picture.mode != "I;16" else picture)
        return grey // 128 if picture.format == "JPEG" else grey  # whose black is not quite black beside white


def _plane(path: Path) -> NDArray[np.generic]:
    with tifffile.TiffFile(path) as tif:
        _check_size(tif.series[0].size)
        pixels = tif.asarray()
    return pixels[..., :-1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else pixels  # without alpha


def _check_size(px: int) -> None:
    if px > MAX_DECODED_PX:
        raise ValueError(f"it claims {px:,} px, over the {MAX_DECODED_PX:,} that are decoded whole")


def _threshold(saturation: NDArray[np.floating]) -> float:
    """Return the saturation that parts glass and tissue."""
    if not np.ptp(saturation):
        return _GLASS
    otsu = float(threshold_otsu(saturation))
    no_glass = float(np.median(saturation[saturation <= otsu])) > _GLASS
    return _GLASS if no_glass else float(np.clip(otsu, _GLASS, _TISSUE))


def _level_for(image: Pyramid, mpp: float) -> int:
    """Return the coarsest level no coarser than twice the mask, or the first after it that memory holds easily."""
    level = image.level_for(2 * MASK_UM / mpp)
    coarser = range(level, len(image.levels))
    return next((i for i in coarser if np.prod(image.levels[i].shape[1:]) <= _MOST_PX), len(image.levels) - 1)


def _without_small(mask: NDArray[np.bool_], least_px: float, *, at_edges: bool = True) -> NDArray[np.bool_]:
    """Drop the connected pieces of fewer px; those that touch an edge of the image only if asked to."""
    pieces, _ = ndimage.label(mask)
    small = np.bincount(pieces.ravel()) < least_px
    if not at_edges:
        small[np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])] = False
    small[0] = False
    return mask & ~small[pieces]
