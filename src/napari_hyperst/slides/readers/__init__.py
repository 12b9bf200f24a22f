"""One reader a format; ``open_slide`` chooses by what is in the folder."""

from __future__ import annotations

from pathlib import Path

from napari_hyperst.errors import SlideError
from napari_hyperst.files import recover
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.formats import FORMATS, format_of
from napari_hyperst.slides.readers import legacy_st, space_ranger, spatialdata_zarr
from napari_hyperst.slides.slide import Slide, build_slide

#: Each has ``read(path, image, table)``.
READERS = {"spatialdata": spatialdata_zarr, "space_ranger": space_ranger, "legacy_st": legacy_st}


def open_slide(
    path: str | Path, mpp: float | None = None, *, image: str | Path | None = None, table: str | None = None
) -> Slide:
    """Open a slide: a Space Ranger ``outs`` folder, a SpatialData Zarr, or a legacy ST section folder.

    Reads metadata and counts, no pixels; but a jpg, png or untiled tif is decoded once into a cached pyramid.

    Parameters
    ----------
    path
        The folder or store.
    mpp
        µm per px of the H&E's level 0. By default it follows from the pitch of the spots' lattice.
    image
        Space Ranger and legacy ST: the full-resolution H&E file. SpatialData Zarr: the name of the image element,
        where several fit.
    table
        SpatialData Zarr: the name of the table of counts, where several fit.

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
    found = format_of(path)
    if found is None:
        raise SlideError("is no slide that can be read", where=path, do=f"give one of: {', '.join(FORMATS.values())}")
    named = None if image is None else str(image)
    source = READERS[found].read(path, image, table)
    return build_slide(source, mpp, SlideRef.model_construct(path=path.absolute(), mpp=mpp, image=named, table=table))
