"""STimage-1K4M slides: an image, a table of counts, and a table of centres and radii in its px."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.transformations import Identity

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import IMAGE_SUFFIXES, stimage_slides
from napari_hyperst.slides.image import image_element
from napari_hyperst.slides.lattice import lattice_from_array, lattice_from_centres
from napari_hyperst.slides.readers.counts import read_count_table
from napari_hyperst.slides.readers.elements import counted_spots
from napari_hyperst.slides.readers.files import element_name, image_file
from napari_hyperst.slides.readers.legacy_st import DENSE_PITCH_UM, PITCH_UM, SPOT_UM
from napari_hyperst.slides.scan import recorded_mpp
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Source

_COLUMNS = ["yaxis", "xaxis", "r"]
_PLACE = re.compile(r"(\d+)x(\d+)")


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read a slide.

    Visium and legacy ST are told by their lattices, and so is the scale. Bins of Visium HD may be of any size, which
    the files do not tell: where the image records no scale either, state µm per px.

    Parameters
    ----------
    path
        A folder with one slide, or the table of coordinates or counts of one among several.
    image
        The H&E, where it is not in ``image`` under the slide's name.
    table
        Not used: a slide has one table of counts.

    Raises
    ------
    SlideError
        If there are several slides, or a file is missing or broken.
    """
    del table
    slide, coordinates_file, counts_file = _slide(path)
    home = coordinates_file.parent.parent if coordinates_file.parent.name == "coord" else coordinates_file.parent
    picture = image_file(image, home) if image is not None else _picture(slide, home)
    spots = _read_coordinates(coordinates_file)
    counts = read_count_table(counts_file, ",")
    there = counts.obs_names.isin(spots.index)
    if not there.all():
        raise SlideError(
            f"{int((~there).sum())} of its {len(there)} spots have no place in {coordinates_file.name}, "
            f"{counts.obs_names[~there][0]} for one",
            where=counts_file,
            do="give counts and coordinates of the same slide",
        )
    spots = spots.loc[counts.obs_names]
    counts.obs.index = counts.obs_names.str.removeprefix(f"{slide}_")
    centres = spots[["xaxis", "yaxis"]].to_numpy(float)
    array = _places(counts.obs_names)
    pitch_um, spot_um = _geometry(centres, array)
    name = element_name(slide)
    systems = {name: Identity()}
    circles, annotating = counted_spots(
        counts, centres, name=name, radius_px=float(spots["r"].median()), transformations=systems, array=array
    )
    sdata = SpatialData(
        images={f"{name}_full_image": image_element(picture, systems)},
        shapes={name: circles},
        tables={"table": annotating},
    )
    return Source(
        sdata,
        path,
        image=f"{name}_full_image",
        spots=name,
        table="table",
        pitch_um=pitch_um,
        spot_um=spot_um,
        mpp=recorded_mpp(picture),
    )


def _slide(path: Path) -> tuple[str, Path, Path]:
    found = stimage_slides(path)
    if len(found) > 1:
        first = next(iter(found.values()))[0]
        named = ", ".join(list(found)[:5]) + (", …" if len(found) > 5 else "")
        raise SlideError(f"{len(found)} slides: {named}", where=path, do=f"open the coordinates of one: {first.name}")
    name, (coordinates, counts) = next(iter(found.items()))
    return name, coordinates, counts


def _picture(slide: str, home: Path) -> Path:
    folders = [folder for folder in (home / "image", home) if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    found = [path for path in files if path.stem == slide and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not found:
        raise SlideError(f"no image {slide}.png", where=folders[0], do="add it, or name the H&E (--image, or image=)")
    return found[0]


def _read_coordinates(path: Path) -> pd.DataFrame:
    try:
        spots = pd.read_csv(path, index_col=0)
    except Exception as error:  # gzip and pandas raise errors of many kinds on broken files
        raise SlideError(f"cannot be read ({error})", where=path, do="give a table of coordinates") from error
    missing = [column for column in _COLUMNS if column not in spots.columns]
    if missing:
        raise SlideError(f"lacks the columns {', '.join(missing)}", where=path, do="give STimage's own coordinates")
    spots.index = spots.index.astype(str)
    if spots.index.has_duplicates:
        twice = spots.index[spots.index.duplicated()][0]
        raise SlideError(f"spot {twice} is named twice", where=path, do="keep one line a spot")
    numbers = spots[_COLUMNS].apply(pd.to_numeric, errors="coerce")
    bad = ~np.isfinite(numbers.to_numpy(float)).all(axis=1) | (numbers["r"] <= 0).to_numpy()
    if bad.any():
        raise SlideError(
            f"spot {spots.index[bad][0]} has no number for its place or radius", where=path, do="mend that line"
        )
    return numbers


def _places(ids: pd.Index) -> NDArray[np.intp] | None:
    """Read rows and columns of the array out of ``XxY`` ids; None where they are barcodes."""
    places = [_PLACE.fullmatch(one) for one in ids]
    if not all(places):
        return None
    return np.array([(int(place[2]), int(place[1])) for place in places if place], dtype=np.intp)


def _geometry(centres: NDArray[np.float64], array: NDArray[np.intp] | None) -> tuple[float | None, float | None]:
    """Return pitch and diameter in µm, where lattice and ids tell the technology: ST has places for ids."""
    if array is not None and lattice_from_array(centres, array).kind == "square":
        dense = len(np.unique(array.sum(axis=1) % 2)) == 1
        return (DENSE_PITCH_UM if dense else PITCH_UM), SPOT_UM
    if lattice_from_centres(centres).kind == "hex":
        return VISIUM_PITCH_UM, VISIUM_SPOT_UM
    return None, None
