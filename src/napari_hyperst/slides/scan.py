"""Image files that are read in parts: TIFF through tifffile, scanners' own formats through tiffslide or openslide."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, RESUNIT, TiffFile, TiffPageSeries

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.formats import OPENSLIDE_SUFFIXES, TIFF_SUFFIXES, TIFFSLIDE_SUFFIXES

#: Side of the chunks that pixels are read in, about.
CHUNK_PX = 1024
#: A resolution tag outside of this, in µm/px, is that of a printer or a screen, not of a microscope.
_CREDIBLE_UM = (0.05, 10.0)
_RESOLUTION_UM = {
    RESUNIT.INCH: 25_400.0,
    RESUNIT.CENTIMETER: 10_000.0,
    RESUNIT.MILLIMETER: 1_000.0,
    RESUNIT.MICROMETER: 1.0,
}
_OME_UM = {"nm": 1e-3, "µm": 1.0, "\u03bcm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_IMAGEJ_UM = {
    "micron": 1.0,
    "microns": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "\\u00B5m": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25_400,
}
#: px that are this much longer one way than the other are told.
_SQUARE = 0.02


@dataclass(frozen=True)
class Scan:
    """An image file that is open.

    Attributes
    ----------
    levels
        Lazy arrays of dimensions (c, y, x), finest first.
    in_parts
        Whether the file is in tiles, so that a part of it can be read; else any part decodes the whole.
    """

    levels: tuple[da.Array, ...]
    in_parts: bool = True


def open_scan(path: Path) -> Scan | None:
    """Open an image file without reading pixels, where its format allows that.

    Parameters
    ----------
    path
        An image file.

    Returns
    -------
    Scan
        None for a file of another suffix, and for a TIFF in a colour space that only Pillow converts.

    Raises
    ------
    SlideError
        If the file is broken, no picture of one plane, or of a format whose library is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in OPENSLIDE_SUFFIXES:
        slide = _openslide(path)
        return Scan(tuple(_by_region(slide, level) for level in range(slide.level_count)))
    if suffix in TIFFSLIDE_SUFFIXES:
        return _open_tiffslide(path)
    return _open_tiff(path) if suffix in TIFF_SUFFIXES else None


def recorded_mpp(path: Path) -> float | None:
    """Return the µm per px that an image file states of itself, from its header.

    Resolution tags of plain TIFF are believed between 0.05 and 10 µm/px, as most programs write those of a screen.
    A jpg or png states none that a microscope would have written.

    Raises
    ------
    SlideError
        If the file is broken, or of a format whose library is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in OPENSLIDE_SUFFIXES:
        with _openslide(path) as slide:
            sides = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    elif suffix in TIFFSLIDE_SUFFIXES:
        with _tiffslide(path) as slide:
            sides = [slide.properties.get(f"tiffslide.mpp-{axis}") for axis in "xy"]
            if "tiff.XResolution" in slide.properties:  # the scanner told nothing else
                sides = [_credible(side) for side in sides]
    elif suffix in TIFF_SUFFIXES:
        try:
            with TiffFile(path) as tif:
                sides = _tiff_sides(tif)
        except Exception as error:  # tifffile raises what it likes on broken files
            raise _broken(path, error) from error
    else:
        return None
    return _one_scale(sides, path)


def _one_scale(sides: list[Any], path: Path) -> float | None:
    """Return one scale for both axes; None where there is none."""
    known = [float(side) for side in sides if side is not None and math.isfinite(float(side)) and float(side) > 0]
    if not known:
        return None
    if max(known) / min(known) - 1 > _SQUARE:
        warnings.warn(
            f"{path}: px are {known[0]:.4g} µm wide and {known[1]:.4g} µm high; they are taken for square",
            HyperSTWarning,
            stacklevel=3,
        )
    return math.prod(known) ** (1 / len(known))


def _tiff_sides(tif: TiffFile) -> list[float | None]:
    """Return µm per px in x and y from OME-XML, ImageJ's description or the resolution tags."""
    if tif.is_ome and tif.ome_metadata is not None:
        root = ElementTree.fromstring(tif.ome_metadata)
        pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
        if pixels is not None and "PhysicalSizeX" in pixels.attrib:
            units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
            sizes = [float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in "XY"]
            return [size * _OME_UM.get(unit, math.nan) for size, unit in zip(sizes, units, strict=True)]
    tags = _main_series(tif).keyframe.tags
    inverse = [tags.get(f"{axis}Resolution") for axis in "XY"]
    if any(tag is None or not tag.value or not tag.value[0] for tag in inverse):
        return [None, None]
    sides = [tag.value[1] / tag.value[0] for tag in inverse if tag is not None]
    unit = tags.get("ResolutionUnit")
    if tif.is_imagej and tif.imagej_metadata is not None and "unit" in tif.imagej_metadata:
        factor = _IMAGEJ_UM.get(str(tif.imagej_metadata["unit"]))
    else:
        factor = _RESOLUTION_UM.get(RESUNIT.INCH if unit is None else unit.value)
    return [_credible(side * factor) if factor is not None else None for side in sides]


def _credible(side: Any) -> float | None:
    return float(side) if side is not None and _CREDIBLE_UM[0] <= float(side) <= _CREDIBLE_UM[1] else None


def _open_tiff(path: Path) -> Scan | None:
    """Open a grey or RGB TIFF; None for one of another colour space, which Pillow converts."""
    import zarr

    try:
        tif = TiffFile(path)
        series = _main_series(tif)
        page = series.keyframe
        jpeg = page.compression in (COMPRESSION.JPEG, COMPRESSION.OJPEG)  # decoded to RGB from any colour space
        if not jpeg and page.photometric not in (PHOTOMETRIC.RGB, PHOTOMETRIC.MINISBLACK):
            return None
        _check_whole(page)
        if not page.is_tiled:
            whole = da.from_delayed(delayed(series.asarray)(), shape=series.shape, dtype=series.dtype)
            return Scan((_planes(whole, series.axes, path),), in_parts=False)
        levels = []
        for i, level in enumerate(series.levels):
            _check_whole(level.keyframe)
            pixels = zarr.open_array(series.aszarr(level=i), mode="r")
            levels.append(_planes(_chunked(pixels, level.axes), level.axes, path))
    except SlideError:
        raise
    except Exception as error:  # tifffile and its codecs raise what they like on broken files
        raise _broken(path, error) from error
    return Scan(_of_one_shape(levels))


def _check_whole(page: Any) -> None:
    """Refuse a picture that claims more than the file has tiles or strips for: what is not there reads as black."""
    claimed, there = math.prod(page.chunked), len(page.dataoffsets)
    if there < claimed:
        raise ValueError(f"{page.imagewidth} x {page.imagelength} px take {claimed:,} parts, of which it has {there:,}")


def _main_series(tif: TiffFile) -> TiffPageSeries:
    """Return the largest picture in a TIFF: others are labels, thumbnails and views of the glass."""
    return max(tif.series, key=lambda s: s.shape[-2] * s.shape[-1] if len(s.shape) > 1 else 0)


def _open_tiffslide(path: Path) -> Scan:
    slide = _tiffslide(path)
    try:
        count = slide.level_count
        if "tiffslide.series-composition" in slide.properties:  # several pieces of tissue, each scanned apart
            return Scan(tuple(_by_region(slide, level) for level in range(count)))
        axes = str(slide.properties["tiffslide.series-axes"])
        levels = [_planes(_chunked(slide.zarr_group[str(i)], axes), axes, path) for i in range(count)]
    except SlideError:
        raise
    except Exception as error:  # zarr, tifffile and tiffslide raise what they like on broken files
        raise _broken(path, error) from error
    return Scan(_of_one_shape(levels))


def _tiffslide(path: Path) -> Any:
    from tiffslide import TiffSlide

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of vendors' notes that it does not read
            slide = TiffSlide(path)
            slide.properties  # noqa: B018  read now, while what goes wrong can be told
    except Exception as error:  # tifffile, XML parsers and tiffslide raise what they like on broken files
        raise _broken(path, error) from error
    return slide


def _openslide(path: Path) -> Any:
    try:
        from openslide import OpenSlide
    except (ImportError, OSError) as error:  # the package, or the C library under it
        raise SlideError(
            f"{path.suffix} files need openslide, which is not installed",
            where=path,
            do="pip install 'napari-hyperst[openslide]'",
        ) from error
    try:
        return OpenSlide(str(path))
    except Exception as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> SlideError:
    said = getattr(error, "strerror", None) or error
    return SlideError(
        f"is no image that can be read ({said})", where=path, do="copy it again from its source, or save it as RGB TIFF"
    )


def _chunked(pixels: Any, axes: str) -> da.Array:
    """Read an array of tiles in chunks of about ``CHUNK_PX``, each of whole tiles."""
    chunks = tuple(
        max(1, CHUNK_PX // chunk) * chunk if axis in "YX" else size
        for axis, chunk, size in zip(axes, pixels.chunks, pixels.shape, strict=True)
    )
    return da.from_array(pixels, chunks=chunks)


def _planes(pixels: da.Array, axes: str, path: Path) -> da.Array:
    """Bring an array of a TIFF's axes to (c, y, x); of several planes in depth the middle one is taken."""
    axes = axes.replace("S", "C").replace("I", "C").replace("Q", "C")
    if "Y" not in axes or "X" not in axes:
        raise SlideError(f"TIFF axes {axes} are not those of a picture", where=path, do="save one plane as RGB")
    if "Z" in axes and pixels.shape[axes.index("Z")] > 1:
        depth = pixels.shape[axes.index("Z")]
        warnings.warn(f"{path}: the middle one of {depth} focal planes is used", HyperSTWarning, stacklevel=4)
    taken: list[int | slice] = [
        slice(None) if axis in "YX" or (size > 1 and axis != "Z") else size // 2
        for axis, size in zip(axes, pixels.shape, strict=True)
    ]
    pixels = pixels[tuple(taken)]
    axes = "".join(axis for axis, kept in zip(axes, taken, strict=True) if isinstance(kept, slice))
    if axes.replace("C", "", 1) not in ("YX", "XY"):
        raise SlideError(f"TIFF axes {axes} are not those of a picture", where=path, do="save one plane as RGB")
    if "C" not in axes:
        axes, pixels = f"C{axes}", pixels[None]
    return da.moveaxis(pixels, [axes.index(axis) for axis in "CYX"], [0, 1, 2]).rechunk({0: -1})


def _of_one_shape(levels: list[da.Array]) -> tuple[da.Array, ...]:
    """Keep the levels that are the same picture, ever smaller; some scanners put others among them."""
    kept = levels[:1]
    for level in levels[1:]:
        shrink = [whole / part for whole, part in zip(levels[0].shape[1:], level.shape[1:], strict=True)]
        error = max(shrink[0] / level.shape[1], shrink[1] / level.shape[2])  # of rounding a side to whole px
        same = level.shape[0] == kept[0].shape[0] and abs(shrink[0] - shrink[1]) <= error + 0.01 * max(shrink)
        if same and level.shape[1] < kept[-1].shape[1]:
            kept.append(level)
    return tuple(kept)


def _by_region(slide: Any, level: int) -> da.Array:
    """Read a level through ``read_region``, what was not scanned as white."""
    width, height = slide.level_dimensions[level]
    factor = slide.level_downsamples[level]

    def read(block_info: dict[Any, Any]) -> NDArray[np.uint8]:
        _, (top, bottom), (left, right) = block_info[None]["array-location"]
        corner = (round(left * factor), round(top * factor))
        region = slide.read_region(corner, level, (right - left, bottom - top)).convert("RGBA")
        white = Image.new("RGBA", region.size, "white")
        return np.moveaxis(np.asarray(Image.alpha_composite(white, region).convert("RGB")), -1, 0)

    chunks = da.core.normalize_chunks((3, CHUNK_PX, CHUNK_PX), shape=(3, height, width))
    return da.map_blocks(read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
