"""What format a slide is in, told by names: quick, without the libraries that read it."""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

Format = Literal["spatialdata", "visium_hd", "space_ranger", "hest", "stimage", "legacy_st", "whole_slide"]

#: What each format is called to the user.
FORMATS: dict[Format, str] = {
    "spatialdata": "a SpatialData Zarr store",
    "visium_hd": "a Visium HD outs folder, its binned_outputs, or one of the square_*um folders there",
    "space_ranger": "a Space Ranger outs folder",
    "hest": "a HEST sample (st/*.h5ad, wsis/*.tif, metadata/*.json)",
    "stimage": "an STimage-1K4M slide (coord/*_coord.csv, gene_exp/*_count.csv, image/*.png)",
    "legacy_st": "a legacy ST folder (H&E, *.tsv counts, *_selection.tsv or alignment_table_*.tsv spots)",
    "whole_slide": "an H&E image file (svs, ndpi, mrxs, tif, jpg, png)",
}
#: How the matrices of counts are called: what is in tissue before what is not, one file before a folder of three.
MATRICES = (
    "filtered_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "raw_feature_bc_matrix.h5",
    "raw_feature_bc_matrix",
)
SCALES = "scalefactors_json.json"
#: Names of the table of positions, the newest first.
POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
#: How HEST's own library names the files of a sample of its making.
HEST_COUNTS, HEST_IMAGE, HEST_METADATA = "aligned_adata.h5ad", "aligned_fullres_HE.tif", "metrics.json"
_BINS = re.compile(r"square_(\d{3})um")
_SPOTS_OF_SECTION = re.compile(r"(?:alignment_table_(?P<after>.+)|(?P<before>.+)_selection)\.tsv(?:\.gz)?")
_COORDINATES_OF_SLIDE = re.compile(r"(.+)_coord\.csv(?:\.gz)?")
#: What tifffile reads, what scanners write and tiffslide reads, and what needs openslide.
TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
TIFFSLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif")
OPENSLIDE_SUFFIXES = (".mrxs",)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", *TIFF_SUFFIXES, *TIFFSLIDE_SUFFIXES, *OPENSLIDE_SUFFIXES)
#: A picture in a general format is taken for a whole-slide image from so many px on: photographs have fewer.
_LARGE_PX = 25_000_000
#: How spatialdata-io ends the names of one H&E at several resolutions, the finest first, and of another image.
_RESOLUTIONS = ("_full_image", "_hires_image", "_lowres_image")
_INSTRUMENT = "_cytassist_image"
_ZARR_ROOTS = ("zarr.json", ".zgroup")
_ATTRIBUTES = ("zarr.json", ".zattrs")
_MARK, _MOST_METADATA = b"spatialdata_attrs", 64 * 2**20
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def format_of(path: str | Path) -> Format | None:
    """Tell the format of a slide, or None if this is none; never raises.

    Parameters
    ----------
    path
        A folder, a store, an image file, or the file that names one slide among several in a folder.
    """
    try:
        path = Path(path)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            return "whole_slide"
        if not path.exists():
            return None
        if path.is_dir() and is_zarr_group(path):
            return "spatialdata" if _is_spatialdata(path) else None
        return next((found for found, is_one in _RECOGNISED.items() if is_one(path)), None)
    except (OSError, TypeError, ValueError):  # no right to look, no path, a name that is too long, a null byte
        return None


def is_zarr_group(folder: Path) -> bool:
    """Tell whether a folder is the root of a Zarr group, of SpatialData or not."""
    return any((folder / root).is_file() for root in _ZARR_ROOTS)


def is_of_instrument(image: str) -> bool:
    """Tell the CytAssist instrument's image, which is no H&E, by the name of its element."""
    return image.endswith(_INSTRUMENT)


def finest_images(names: Iterable[str]) -> list[str]:
    """Return, of each sample's image at several resolutions, the name of the finest; of others, theirs."""
    samples: dict[tuple[str, bool], list[tuple[int, str]]] = {}
    for name in names:
        ending = next((ending for ending in _RESOLUTIONS if name.endswith(ending)), "")
        order = _RESOLUTIONS.index(ending) if ending else 0
        samples.setdefault((name.removesuffix(ending), bool(ending)), []).append((order, name))
    return [min(found)[1] for found in samples.values()]


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
    said = any(_says(store / name, _MARK) for name in _ATTRIBUTES if (store / name).is_file())
    return said or ((store / "images").is_dir() and any((store / kind).is_dir() for kind in ("shapes", "tables")))


def _says(path: Path, word: bytes) -> bool:
    """Tell whether a file has a word in it, of which as much is read as metadata may take."""
    with path.open("rb") as file:
        return word in file.read(_MOST_METADATA)


def outs_folder(path: Path) -> Path:
    """Return Space Ranger's ``outs`` folder within a run's folder, or the folder itself."""
    return path / "outs" if (path / "outs").is_dir() else path


def spatial_folder(folder: Path) -> Path:
    """Return the folder of positions and scale factors; the folder itself where all files lie side by side."""
    beside = (folder / SCALES).is_file() or any((folder / name).is_file() for name in POSITIONS)
    return folder if beside and not (folder / "spatial").is_dir() else folder / "spatial"


def matrices(folder: Path) -> list[Path]:
    """Return a folder's matrices of counts, best first; downloads bear the sample's name before the file's."""
    entries = sorted(folder.iterdir())
    found: list[Path] = []
    for name in MATRICES:
        whole = folder / name
        named = [path for path in entries if path.name.endswith(f"_{name}") and not path.name.startswith(".")]
        found += [path for path in (whole, *named) if (path.is_file() if name.endswith(".h5") else path.is_dir())]
    return found


def bin_folders(path: Path) -> dict[int, Path]:
    """Return the folders of Visium HD bins by their size in µm, smallest first.

    Parameters
    ----------
    path
        A run's folder, its ``outs``, its ``binned_outputs``, or one folder of bins.
    """
    if (size := bin_size_um(path.absolute().name)) and spatial_folder(path).is_dir():
        return {size: path}
    for folder in (outs_folder(path) / "binned_outputs", path):
        if folder.is_dir():
            sizes = {bin_size_um(child.name): child for child in folder.iterdir() if spatial_folder(child).is_dir()}
            found = {size: child for size, child in sizes.items() if size}
            if found:
                return dict(sorted(found.items()))
    return {}


def bin_size_um(name: str) -> int | None:
    """Read the size of Visium HD bins out of the name of a folder, table or element; None if it tells none."""
    found = _BINS.search(name)
    return int(found.group(1)) if found else None


def hest_samples(path: Path) -> list[Path]:
    """Return the h5ad files of the HEST samples at a path: a download's folder, a sample's folder, or a file."""
    if path.is_file():
        return [path] if path.suffix == ".h5ad" and _is_hest(path) else []
    within = sorted((path / "st").glob("*.h5ad")) if (path / "st").is_dir() else [path / HEST_COUNTS]
    return [file for file in within if file.is_file() and _is_hest(file)]


def hest_picture(counts: Path) -> tuple[Path, str]:
    """Return the folder that HEST keeps the H&E of a sample's counts in, and how it is called there."""
    if counts.name == HEST_COUNTS:
        return counts.parent, Path(HEST_IMAGE).stem
    return counts.parent.parent / "wsis", counts.stem


def _is_hest(counts: Path) -> bool:
    """Tell whether an h5ad has HEST's files around it."""
    with counts.open("rb") as file:
        if file.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
            return False
    if counts.name == HEST_COUNTS:
        return True
    root = counts.parent.parent
    return (root / "metadata" / f"{counts.stem}.json").is_file() or any(
        (root / "wsis").glob(f"{glob.escape(counts.stem)}.*")
    )


def stimage_slides(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return coordinates and counts of the STimage-1K4M slides at a path, by the slides' names.

    Parameters
    ----------
    path
        A technology's folder with ``coord`` and ``gene_exp``, a folder with the files of a slide side by side, or
        a file of coordinates or counts.
    """
    folder = path if path.is_dir() else path.parent
    found = {}
    for name, coordinates in _by_name(folder, folder / "coord", folder.parent / "coord", pattern=_COORDINATES_OF_SLIDE):
        homes = (coordinates.parent, coordinates.parent.parent / "gene_exp")
        files = [home / f"{name}_count.csv{ending}" for home in homes for ending in ("", ".gz")]
        counts = next((file for file in files if file.is_file()), None)
        if counts and (path in (coordinates, counts) if path.is_file() else folder in coordinates.parents):
            found[name] = (coordinates, counts)
    return found


def _by_name(*folders: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (found := pattern.fullmatch(path.name)) and path.is_file():
                yield next(name for name in found.groups() if name), path


def sections(path: Path) -> dict[str, Path]:
    """Return the tables of spots of the legacy ST sections at a path, by the sections' names.

    Parameters
    ----------
    path
        A folder with one or several sections, or the table of spots of one.
    """
    if path.is_file():
        return {name: file for name, file in _by_name(path.parent, pattern=_SPOTS_OF_SECTION) if file == path}
    return dict(_by_name(path, pattern=_SPOTS_OF_SECTION))


def _is_space_ranger(path: Path) -> bool:
    """Tell a run with positions of spots from one of single cells, which has the same matrices."""
    if not path.is_dir():
        return False
    folder = outs_folder(path)
    spatial = spatial_folder(folder)
    known = (SCALES, *POSITIONS, "tissue_hires_image.png", "tissue_lowres_image.png")
    return spatial.is_dir() and any((spatial / name).is_file() for name in known)


#: How each format is told, in the order of asking; a Zarr store is none of these.
_RECOGNISED: dict[Format, Callable[[Path], object]] = {
    "visium_hd": lambda path: path.is_dir() and bin_folders(path),
    "space_ranger": _is_space_ranger,
    "hest": hest_samples,
    "stimage": stimage_slides,
    "legacy_st": sections,
}
