"""What format a slide is in, told by names: quick, without the libraries that read it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

Format = Literal["spatialdata", "space_ranger", "legacy_st", "whole_slide"]

#: What each format is called to the user.
FORMATS: dict[Format, str] = {
    "spatialdata": "a SpatialData Zarr store",
    "space_ranger": "a Space Ranger outs folder",
    "legacy_st": "a legacy ST folder (H&E, *.tsv counts, *_selection.tsv spots)",
    "whole_slide": "an H&E image file (svs, ndpi, mrxs, tif, jpg, png)",
}
#: What tifffile reads, what scanners write and tiffslide reads, and what needs openslide.
TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
TIFFSLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif")
OPENSLIDE_SUFFIXES = (".mrxs",)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", *TIFF_SUFFIXES, *TIFFSLIDE_SUFFIXES, *OPENSLIDE_SUFFIXES)
#: A picture in a general format is taken for a whole-slide image from so many px on: photographs have fewer.
_LARGE_PX = 25_000_000
_SCALES = "spatial/scalefactors_json.json"
MATRICES = ("filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5")
_ZARR_ROOTS = ("zarr.json", ".zgroup")
_ATTRIBUTES = ("zarr.json", ".zattrs")
_MARK = "spatialdata_attrs"


def format_of(path: str | Path) -> Format | None:
    """Tell the format of a slide, or None if this is none; never raises.

    Parameters
    ----------
    path
        A folder, store or image file.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            return "whole_slide"
        if not path.is_dir():
            return None
        if any((path / root).is_file() for root in _ZARR_ROOTS):
            return "spatialdata" if _is_spatialdata(path) else None
        folder = outs_folder(path)
        spatial = folder / "spatial"
        if any(spatial.glob("tissue_*")) or any((folder / name).exists() for name in (*MATRICES, _SCALES)):
            return "space_ranger"
        return "legacy_st" if selection_files(path) else None
    except (OSError, ValueError):  # no right to look, a name that is too long, a null byte
        return None


def is_large_picture(path: Path) -> bool:
    """Tell whether an image file is a whole-slide image by its header; never raises.

    What scanners write is, as is a large RGB picture, or a tiled RGB TIFF with levels.

    Parameters
    ----------
    path
        An image file.
    """
    suffix = path.suffix.lower()
    if suffix in (*TIFFSLIDE_SUFFIXES, *OPENSLIDE_SUFFIXES):
        return True
    try:
        if suffix in TIFF_SUFFIXES:
            from tifffile import PHOTOMETRIC, TiffFile

            with TiffFile(path) as tif:
                page, levels = tif.pages.first, len(tif.series[0].levels)
                large = page.imagewidth * page.imagelength >= _LARGE_PX or (page.is_tiled and levels > 1)
                return large and page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                with Image.open(path) as picture:
                    return picture.width * picture.height >= _LARGE_PX and picture.mode in ("RGB", "RGBA", "P", "CMYK")
            except Image.DecompressionBombError:
                return True
    except Exception:  # a broken file, of which libraries raise what they like
        return False


def _is_spatialdata(store: Path) -> bool:
    """Tell a SpatialData root from other Zarr groups, such as an OME-Zarr image with its labels."""
    said = any(_MARK in (store / name).read_text(errors="replace") for name in _ATTRIBUTES if (store / name).is_file())
    return said or ((store / "images").is_dir() and any((store / kind).is_dir() for kind in ("shapes", "tables")))


def outs_folder(path: Path) -> Path:
    """Return Space Ranger's ``outs`` folder within a run's folder, or the folder itself."""
    return path / "outs" if (path / "outs").is_dir() else path


def selection_files(path: Path) -> list[Path]:
    """Return the tables of selected spots in a legacy ST folder."""
    return sorted(path.glob("*_selection.tsv*"))
