"""The H&E of a slide from afar, before the libraries are imported that open a slide: those take seconds."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.formats import (
    IMAGE_SUFFIXES,
    Format,
    bin_folders,
    finest_images,
    format_of,
    hest_picture,
    hest_samples,
    is_of_instrument,
    outs_folder,
    sections,
    spatial_folder,
)
from napari_hyperst.slides.pillow import CoarsePicture, jpg_or_png_from_afar, pixels_from_afar

_JPG = (".jpg", ".jpeg")
#: The coarsest level of a pyramid is read where it is no longer than so many px.
_MOST_PX = 4096


def coarse_picture(ref: SlideRef) -> CoarsePicture | None:
    """Look at the H&E of a slide from afar, where that takes but a moment.

    Of a jpg, a small png, the coarsest level of a pyramid, or what Space Ranger keeps beside the spots.

    Parameters
    ----------
    ref
        The slide.

    Returns
    -------
    CoarsePicture
        None where it would have to be decoded whole, is not told from others by a look at names, or cannot be read:
        opening the slide tells why.
    """
    try:
        found = format_of(ref.path)
        if found == "spatialdata":
            return _of_store(ref.path, ref.image)
        path = _picture_of(ref, found)
        if path is None:
            return None
        return jpg_or_png_from_afar(path) if path.suffix.lower() in (*_JPG, ".png") else _of_scan(path)
    except Exception:  # each library raises what it likes on broken files
        return None


def _picture_of(ref: SlideRef, found: Format | None) -> Path | None:
    """Return the picture that may be the H&E of a slide, or be taken from where it is."""
    path = ref.path
    if ref.image is not None:
        return next((p for p in (Path(ref.image).expanduser(), path / ref.image) if p.is_file()), None)
    if found == "whole_slide":
        return path
    if found in ("space_ranger", "visium_hd"):
        # of other px than the H&E, whose scale, if it is told, is not theirs
        folders = [*bin_folders(path).values(), outs_folder(path)] if ref.mpp is None else []
        files = [spatial_folder(home) / f"tissue_{kind}_image.png" for kind in ("hires", "lowres") for home in folders]
        return next((file for file in files if file.is_file()), None)
    home, stem = path if path.is_dir() else path.parent, ""
    if found == "hest":
        (counts,) = hest_samples(path)
        home, stem = hest_picture(counts)
    named = [p for p in home.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    named = [p for p in named if p.is_file() and stem in ("", p.stem)]
    pictures = [p for p in named if p.suffix.lower() in _JPG] or named
    if found == "legacy_st" and len(pictures) > 1:
        pictures = [p for p in pictures if p.stem in sections(path)]
    return pictures[0] if len(pictures) == 1 else None


def _of_scan(path: Path) -> CoarsePicture | None:
    from napari_hyperst.slides.scan import open_scan

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is told when the slide is opened
        scan = open_scan(path)
    if scan is None or not scan.in_parts or max(scan.levels[-1].shape[1:]) > _MOST_PX:
        return None
    _, height, width = scan.levels[0].shape
    return pixels_from_afar(np.asarray(scan.levels[-1]), (height, width))


def _of_store(store: Path, named: str | None) -> CoarsePicture | None:
    """Read the coarsest level of the one image of a store that may be the H&E."""
    import zarr

    from napari_hyperst.slides.readers.stored import check_store, read_multiscale

    there = [p.name for p in (store / "images").iterdir() if p.is_dir() and not is_of_instrument(p.name)]
    (name,) = finest_images(there) if named is None else [named]
    axes, levels = read_multiscale(store / "images" / name)
    (_, finest), (coarsest, shape) = levels[0], levels[-1]
    if axes != "cyx" or max(shape[1:]) > _MOST_PX:
        return None
    check_store(coarsest)
    return pixels_from_afar(np.asarray(zarr.open_array(coarsest, mode="r")), (finest[1], finest[2]))
