"""What the readers of folders share: looking for files, and names that SpatialData accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_hyperst.errors import SlideError
from napari_hyperst.received import read_received
from napari_hyperst.slides.formats import IMAGE_SUFFIXES

#: A file of metadata has a few KiB.
_MOST_JSON = 16 * 2**20
#: How the names of full-resolution images end, the surest first; before it may stand the name of the sample.
_FULL_RESOLUTION = (
    "tissue_image", "fullres_image", "full_image", "fullres", "full_res", "full_resolution", "fullresolution",
    "microscope_image", "he_image", "hne_image", "h&e", "he", "hne", "wsi", "image",
)  # fmt: skip
#: What tells that an image is not the H&E at full resolution, whatever else its name says.
_OTHER_IMAGES = (
    "cytassist_image", "aligned_tissue_image", "detected_tissue_image", "fiducial", "hires", "lowres", "low_res",
    "high_res", "thumbnail", "mask", "label", "segment", "overlay", "dapi", "fluorescence", "downscaled",
)  # fmt: skip


def element_name(text: str) -> str:
    """Turn a folder's name into one that SpatialData accepts for an element."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or "slide"


def image_file(image: str | Path, folder: Path) -> Path:
    """Return the image file that the user named, looked for as given and within the slide's folder.

    Raises
    ------
    SlideError
        If there is no such file, or its format is not read.
    """
    named = Path(image).expanduser()
    path = next((p for p in (named, folder / named) if p.is_file()), None)
    if path is None:
        raise SlideError("there is no such image file", where=named, do="check the path of the H&E")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise SlideError(
            f"images of type {path.suffix or '(none)'} are not read", where=path, do=f"give {', '.join(IMAGE_SUFFIXES)}"
        )
    return path


def full_resolution_images(folders: Iterable[Path], sample: str) -> list[tuple[int, Path]]:
    """Return the images in some folders whose names say that they are the H&E at full resolution.

    Never the image of the CytAssist instrument: on its downloads ``<sample>_tissue_image`` is the H&E beside the
    instrument's ``<sample>_image``.

    Parameters
    ----------
    folders
        Where to look, not in the folders within.
    sample
        Name of the sample, which may be that of the image too.

    Returns
    -------
    list
        How sure a name is, 0 most, and the file; the surest first.
    """
    found: list[tuple[int, Path]] = []
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith("."):
                rank = _rank(path, sample)
                if rank is not None:
                    found.append((rank, path))
    return sorted(found, key=lambda one: one[0])


def _rank(path: Path, sample: str) -> int | None:
    """Tell how surely a name is that of the full-resolution H&E, 0 most; None if it is not."""
    stem = path.stem.lower().removesuffix(".ome")
    if any(word in stem for word in _OTHER_IMAGES):
        return None
    for rank, ending in enumerate(_FULL_RESOLUTION):
        if stem == ending or stem.endswith((f"_{ending}", f"-{ending}")):
            instrument = ending == "image" and "cytassist" in stem
            return None if instrument else rank
    return len(_FULL_RESOLUTION) if stem == sample.lower() else None


def image_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) in px of an image file from its header alone; None where that does not tell."""
    import tifffile

    from napari_hyperst.slides.pillow import open_picture

    try:
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            with open_picture(path) as opened:
                return opened.size
        with tifffile.TiffFile(path) as tif:
            sizes = [(s.keyframe.imagewidth, s.keyframe.imagelength) for s in tif.series]
        return max(sizes, key=lambda size: size[0] * size[1])
    except Exception:  # tifffile and Pillow raise what they like on broken files; reading the pixels tells
        return None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    SlideError
        If it is missing, cannot be read, or is no object.
    """
    try:
        said = json.loads(read_received(path, _MOST_JSON, path.resolve().parent).decode("utf-8"))
    except FileNotFoundError as error:
        raise SlideError("is missing", where=path, do="add it from where the slide came from") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SlideError(f"cannot be read ({error})", where=path, do="copy it again") from error
    if not isinstance(said, dict):
        raise SlideError("is no JSON object", where=path, do="copy it again")
    return said
