"""Pixels of a slide's H&E: a lazy pyramid in, 8-bit RGB regions out; and the cache of decoded image files."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.scan import CHUNK_PX, Scan, open_scan

#: Image files that cannot be read in parts are decoded whole, up to this many px (3 GB of memory).
MAX_DECODED_PX = 1_000_000_000
#: An image in tiles but without levels is read from its file up to this many px a side; else a pyramid is cached.
_WITHOUT_LEVELS_PX = 4096
#: How white is told from a sample of an image of more than 8 bits: px a side, and in how many blocks.
_SAMPLED_PX, _SAMPLED_BLOCKS = 2048, 8
CACHE_VARIABLE = "NAPARI_HYPERST_CACHE"
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
    ones are computed from it when they are asked for. Any other file is decoded once into a Zarr pyramid in the
    user's cache folder (``NAPARI_HYPERST_CACHE`` names another), under its content's hash, and read from there ever
    after. Its right and bottom edge are repeated, by less than a px of the coarsest level, so that each level is
    exactly half the one before.

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
    from spatialdata.transformations import set_transformation

    scan = open_scan(path)
    if (
        scan is not None
        and scan.in_parts
        and (len(scan.levels) > 1 or max(scan.levels[0].shape[1:]) <= _WITHOUT_LEVELS_PX)
    ):
        return _element(_with_coarser(scan.levels), transformations, path)
    store = cache_folder() / f"{_content_hash(path)}.zarr"
    if not (store / "zarr.json").exists():
        _write_pyramid(_decode(path) if scan is None else _whole(scan, path), store, path)
    element: xr.DataTree = read_zarr(store).images["image"]
    element.attrs[FILE_KEY] = str(path)
    set_transformation(element, transformations, set_all=True)
    return element


def spread(side: int, longest: int, blocks: int) -> list[slice]:
    """Return all of a side of an image, or of one that is longer than ``longest`` as many px in even blocks."""
    if side <= longest:
        return [slice(0, side)]
    width = longest // blocks
    return [slice(start, start + width) for start in np.linspace(0, side - width, blocks).astype(int).tolist()]


def _with_coarser(levels: tuple[da.Array, ...]) -> tuple[da.Array, ...]:
    """Add levels of half the size, each the mean of four px, until one is small enough to be shown at a glance."""
    made = list(levels)
    while max(made[-1].shape[1:]) > CHUNK_PX and min(made[-1].shape[1:]) > 1:
        mean = da.coarsen(np.mean, made[-1], {1: 2, 2: 2}, trim_excess=True)
        dtype = made[-1].dtype
        made.append((mean if dtype.kind == "f" else da.rint(mean)).astype(dtype))
    return tuple(made)


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


def cache_folder() -> Path:
    """Return the folder of decoded pyramids, made if it is not there."""
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named) if named else user_cache_path("napari-hyperst")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        fallback = Path(tempfile.gettempdir()) / "napari-hyperst"
        warnings.warn(
            f"{folder}: cannot be written; decoded images go to {fallback} (set {CACHE_VARIABLE})",
            HyperSTWarning,
            stacklevel=2,
        )
        folder = fallback
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise SlideError(
            f"cannot be read ({error.strerror})", where=path, do="check the file and its rights"
        ) from error


def _whole(scan: Scan, path: Path) -> da.Array:
    """Return the finest level of a scan, in memory where it cannot be read in parts."""
    pixels = scan.levels[0]
    if scan.in_parts:
        return pixels
    _check_size(pixels.shape[2], pixels.shape[1], path)
    try:
        return da.from_array(np.asarray(pixels), chunks=(-1, CHUNK_PX, CHUNK_PX))
    except Exception as error:  # tifffile's codecs raise what they like on broken files
        raise SlideError(
            f"is no TIFF that can be read ({error})", where=path, do="save it again as an 8-bit RGB TIFF"
        ) from error


def _decode(path: Path) -> da.Array:
    """Return the pixels of an image file as Pillow reads them, as a (c, y, x) array."""
    try:
        with _pillow_limit_lifted(), Image.open(path) as opened:
            _check_size(*opened.size, path)
            image: Image.Image = opened
            if image.mode in ("P", "CMYK", "LA", "PA", "YCbCr", "LAB", "HSV", "1"):
                image = image.convert("RGBA" if "transparency" in image.info or image.mode in ("LA", "PA") else "RGB")
            elif image.mode in ("I", "F", "I;16B"):
                image = image.convert("I;16") if image.mode != "F" else image
            pixels = np.asarray(image)
    except SlideError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like on broken files
        raise SlideError(
            f"is no image that can be read ({error})", where=path, do="give an 8-bit RGB jpg, png or tif"
        ) from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return da.from_array(np.moveaxis(pixels, -1, 0), chunks=(-1, CHUNK_PX, CHUNK_PX))


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MAX_DECODED_PX:
        raise SlideError(
            f"claims {width} x {height} px, over the {MAX_DECODED_PX:,} px that are decoded whole",
            where=path,
            do="convert it to a tiled TIFF, which is read in parts",
        )


@contextlib.contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Let Pillow open large images: our own bound, stated in the error, takes the place of its own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _write_pyramid(pixels: da.Array, store: Path, source: Path) -> None:
    """Write all levels beside ``store``, then rename: a broken-off run leaves no half pyramid."""
    halvings = max(0, math.ceil(math.log2(max(pixels.shape[1:]) / CHUNK_PX)))
    # Sizes that halve without a rest keep all levels in register; what is added is at most a px of the coarsest.
    pixels = da.pad(pixels, [(0, 0), *((0, -size % 2**halvings) for size in pixels.shape[1:])], mode="edge")
    element = Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords={3: ["r", "g", "b"], 4: ["r", "g", "b", "a"]}.get(pixels.shape[0]),
        scale_factors=[2] * halvings or None,
        chunks=(pixels.shape[0], CHUNK_PX, CHUNK_PX),
        rgb=None,
    )
    staged = Path(tempfile.mkdtemp(prefix=".pyramid-", dir=store.parent))
    try:
        SpatialData(images={"image": element}).write(staged / "image.zarr")
        if not store.exists():
            (staged / "image.zarr").rename(store)
    except Exception as error:  # the codecs raise what they like on broken files
        raise SlideError(f"could not be decoded ({error})", where=source, do="check the file and disk space") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
