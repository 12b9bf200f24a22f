"""What format a slide is in, told by names: quick, without the libraries that read it."""

from __future__ import annotations

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
