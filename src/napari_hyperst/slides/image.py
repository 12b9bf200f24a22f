"""Pixels of a slide's H&E: a lazy pyramid in, 8-bit RGB regions out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from spatialdata.models import Image2DModel

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.decoded import decoded_levels
from napari_hyperst.slides.halving import halved, level_shapes
from napari_hyperst.slides.scan import CHUNK_PX, open_scan

#: An image in tiles but without levels is read from its file up to this many px a side; else a pyramid is cached.
_WITHOUT_LEVELS_PX = 4096
#: How white is told from a sample of an image of more than 8 bits: px a side, and in how many blocks.
_SAMPLED_PX, _SAMPLED_BLOCKS = 2048, 8
#: Attribute of an image element that names the file it was read from; it is not written to stores.
FILE_KEY = "hyperst_file"


@dataclass(frozen=True)
class Pyramid:
    """The levels of an image, finest first.

    Attributes
    ----------
    levels
        Lazy arrays of dimensions (c, y, x).
    where
        The file or store that the image came from, for messages.
    """

    levels: tuple[da.Array, ...]
    where: str

    @classmethod
    def from_element(cls, element: xr.DataArray | xr.DataTree, where: str) -> Pyramid:
        """Take the levels out of a SpatialData image element, single or multiscale.

        Raises
        ------
        SlideError
            If the channels or the data type are not those of a bright-field image.
        """
        if isinstance(element, xr.DataTree):
            arrays = [next(iter(node.data_vars.values())) for node in element.children.values()]
        else:
            arrays = [element]
        channels, dtype = arrays[0].sizes["c"], arrays[0].dtype
        if channels not in (1, 3, 4):
            raise SlideError(f"an image of {channels} channels is no H&E", where=where, do="name an RGB image")
        if dtype.kind not in "uf" or (dtype.kind == "u" and dtype.itemsize > 2):
            raise SlideError(f"pixels of type {dtype} are not read", where=where, do="save the image as 8-bit RGB")
        return cls(tuple(da.asarray(array.transpose("c", "y", "x").data) for array in arrays), where)

    @property
    def shape_px(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0].shape[1:]

    @cached_property
    def factors(self) -> tuple[tuple[float, float], ...]:
        """By how much each level is smaller than level 0, in y and in x."""
        height, width = self.shape_px
        return tuple((height / level.shape[1], width / level.shape[2]) for level in self.levels)

    def level_for(self, factor: float) -> int:
        """Return the coarsest level that is no coarser than ``factor`` times level 0."""
        fine_enough = [i for i, (fy, fx) in enumerate(self.factors) if max(fy, fx) <= factor * 1.001]
        return max(fine_enough, key=lambda i: self.factors[i][0], default=0)

    def read(self, level: int, y: slice, x: slice) -> NDArray[np.uint8]:
        """Read a region of a level as 8-bit RGB.

        Parameters
        ----------
        level
            Which level.
        y, x
            Extent in px of that level, within it.

        Returns
        -------
        NDArray
            (height, width, 3) uint8. Grey is repeated, transparency is laid on white, 16 bits are scaled to 8.

        Raises
        ------
        SlideError
            If the pixels cannot be read or decoded.
        """
        try:
            pixels = np.asarray(self.levels[level][:, y, x])
        except Exception as error:  # any codec or store may fail, each with errors of its own
            raise SlideError(
                f"pixels could not be read ({error})", where=self.where, do="copy the image again from its source"
            ) from error
        return self._to_rgb8(np.moveaxis(pixels, 0, -1))

    @cached_property
    def full_scale(self) -> float:
        """The pixel value that stands for white."""
        dtype = self.levels[0].dtype
        if dtype == np.uint8:
            return 255.0
        # By the finest level, which every copy has: coarser ones are means.
        rows, columns = (spread(side, _SAMPLED_PX, _SAMPLED_BLOCKS) for side in self.shape_px)
        top = max(float(np.asarray(self.levels[0][:, y, x]).max()) for y in rows for x in columns)
        if dtype.kind == "f":
            return 1.0 if top <= 1.0 else 255.0
        # Scanners store 8, 10, 12, 14 or 16 bits in 16.
        return next((2.0**bits - 1 for bits in (8, 10, 12, 14) if top < 2**bits), 65535.0)

    def _to_rgb8(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8:
            scaled = np.nan_to_num(pixels.astype(np.float32)) * (255.0 / self.full_scale)
            pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        if pixels.shape[2] == 3:
            return pixels
        if pixels.shape[2] == 1:
            return np.repeat(pixels, 3, axis=2)
        alpha = pixels[..., 3:].astype(np.float32) / 255.0
        return np.rint(pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)


def image_element(path: Path, transformations: dict[str, Any]) -> xr.DataTree:
    """Return an image file as a lazy multiscale SpatialData image.

    A file in tiles is read from where it is, with all its levels; where the coarsest of them is still large, coarser
    ones are computed from it when they are asked for. Any other file is decoded once into a pyramid in the user's cache
    folder (``NAPARI_HYPERST_CACHE`` names another), under a hash of its content, and read from there ever after.

    Parameters
    ----------
    path
        A jpg, png, tif, svs, ndpi, scn, bif or mrxs file.
    transformations
        Coordinate system to transformation, for the element.

    Raises
    ------
    SlideError
        If the file is no image, is broken, or is too large to be decoded whole.
    """
    scan = open_scan(path)
    if (
        scan is not None
        and scan.in_parts
        and (len(scan.levels) > 1 or max(scan.levels[0].shape[1:]) <= _WITHOUT_LEVELS_PX)
    ):
        return _element(_with_coarser(scan.levels), transformations, path)
    return _element(decoded_levels(path, scan), transformations, path)


def spread(side: int, longest: int, blocks: int) -> list[slice]:
    """Return all of a side of an image, or of one that is longer than ``longest`` as many px in even blocks."""
    if side <= longest:
        return [slice(0, side)]
    width = longest // blocks
    return [slice(start, start + width) for start in np.linspace(0, side - width, blocks).astype(int).tolist()]


def _with_coarser(levels: tuple[da.Array, ...]) -> tuple[da.Array, ...]:
    """Add levels of half the size until one is small enough to be shown at a glance; they are computed when read."""
    made = list(levels)
    height, width = levels[-1].shape[1:]
    for shape_px in level_shapes((height, width), CHUNK_PX)[1:]:
        made.append(_coarser(made[-1], shape_px))
    return tuple(made)


def _coarser(fine: da.Array, shape_px: tuple[int, int]) -> da.Array:
    """Return the level after one: the same arithmetic as on pixels in memory, done when it is read."""

    def read(y: slice, x: slice) -> Any:
        return fine[:, y, x]

    height, width = shape_px
    coarse: Any = halved(read, fine.shape[1:], shape_px, slice(0, height), slice(0, width))
    return coarse.rechunk((-1, CHUNK_PX, CHUNK_PX))


def _element(levels: tuple[da.Array, ...], transformations: dict[str, Any], path: Path) -> xr.DataTree:
    """Lay levels out as a SpatialData image, whose coarser levels carry coordinates in px of the finest."""
    from spatialdata.transformations import set_transformation

    whole = levels[0].shape[1:]
    colours = {3: ["r", "g", "b"], 4: ["r", "g", "b", "a"]}.get(levels[0].shape[0], list(range(levels[0].shape[0])))
    scales = {}
    for i, level in enumerate(levels):
        y, x = ((np.arange(part) + 0.5) * (size / part) for size, part in zip(whole, level.shape[1:], strict=True))
        array = xr.DataArray(level, dims=("c", "y", "x"), coords={"c": colours, "y": y, "x": x})
        scales[f"scale{i}"] = xr.Dataset({"image": array})
    element = xr.DataTree.from_dict(scales)
    element.attrs[FILE_KEY] = str(path)
    set_transformation(element, transformations, set_all=True)
    Image2DModel().validate(element)
    return element
