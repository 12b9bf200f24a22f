"""One reader a format; ``open_slide`` chooses by what is in the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_hyperst.errors import SlideError
from napari_hyperst.files import recover
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.formats import FORMATS, Format, format_of
from napari_hyperst.slides.readers import hest, legacy_st, space_ranger, spatialdata_zarr, stimage, visium_hd
from napari_hyperst.slides.slide import Slide, Source, build_slide

#: The reader of each format, called with the path, the image and the table that the user named.
READERS: dict[Format, Callable[[Path, str | Path | None, str | None], Source]] = {
    "spatialdata": spatialdata_zarr.read,
    "visium_hd": visium_hd.read,
    "space_ranger": space_ranger.read,
    "hest": hest.read,
    "stimage": stimage.read,
    "legacy_st": legacy_st.read,
}

#: Formats that may hold several tables of counts.
_WITH_TABLES: tuple[Format, ...] = ("spatialdata", "visium_hd")


def open_slide(
    path: str | Path, mpp: float | None = None, *, image: str | Path | None = None, table: str | None = None
) -> Slide:
    """Open a slide: Visium, Visium HD, legacy ST, HEST, STimage-1K4M or a SpatialData Zarr.

    Reads metadata and counts, no pixels; but a jpg, png or untiled tif is decoded once into a cached pyramid.

    Parameters
    ----------
    path
        The folder or store, or the file that names one slide among several in a folder.
    mpp
        µm per px of the H&E's level 0. By default it follows from the pitch of the spots' lattice.
    image
        The full-resolution H&E file. SpatialData Zarr: the name of the image element, where several fit.
    table
        SpatialData Zarr: the name of the table of counts, where several fit. Visium HD: the bins, such as
        ``"square_008um"``.

    Returns
    -------
    Slide
        With a lazy image, spots, lattice, scale and, where measured, counts.

    Raises
    ------
    SlideError
        If the path holds no slide, or a part of it is missing, broken or contradicts the rest.
    """
    path = Path(path).expanduser()
    recover(path)
    try:
        there = path.exists()
    except OSError as error:
        raise SlideError(f"cannot be looked at ({error.strerror})", where=path, do="check the path") from error
    if not there:
        raise SlideError("there is nothing here", where=path, do="check the path")
    _look_into(path)
    found = format_of(path)
    if found is None and path.suffix == ".h5ad" and image is not None:
        found = "hest"  # what is missing around it is named
    if found is None:
        raise SlideError("is no slide that can be read", where=path, do=f"give one of: {', '.join(FORMATS.values())}")
    if table is not None and found not in _WITH_TABLES:
        raise SlideError("has one table of counts, and none to choose", where=path, do="leave --table (table=) out")
    named = None if image is None else str(image)
    source = READERS[found](path, image, table)
    return build_slide(source, mpp, SlideRef.model_construct(path=path.absolute(), mpp=mpp, image=named, table=table))


def _look_into(path: Path) -> None:
    """Tell a path that may not be read from one that is no slide."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        raise SlideError(f"cannot be read ({error.strerror})", where=path, do="check its rights") from error
