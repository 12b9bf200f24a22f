"""Legacy Spatial Transcriptomics sections: one H&E, one table of counts, one table of spots, in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Identity

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import IMAGE_SUFFIXES, sections
from napari_hyperst.slides.image import image_element
from napari_hyperst.slides.lattice import lattice_from_array
from napari_hyperst.slides.readers.counts import read_count_table
from napari_hyperst.slides.readers.files import element_name, image_file
from napari_hyperst.slides.readers.positions import MOST_PLACES, warn_of_mirrored
from napari_hyperst.slides.scan import recorded_mpp
from napari_hyperst.slides.slide import Source

#: Geometry of the legacy ST array. A dense array has one more spot amid each four: its nearest are 141 µm apart.
PITCH_UM = 200.0
DENSE_PITCH_UM = PITCH_UM / np.sqrt(2)
SPOT_UM = 100.0
_SPOT_COLUMNS = ("x", "y", "pixel_x", "pixel_y")
#: Columns of a table that gives the symbols of Ensembl ids.
_SYMBOL_COLUMNS = ("gene_id", "gene_name")


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read a section. Spots without counts are kept; they are predicted like the rest.

    Parameters
    ----------
    path
        A folder with one section, or the table of spots of one section among several.
    image
        The H&E, where there are several that could be it.
    table
        Not used: a section has one table of counts.

    Raises
    ------
    SlideError
        If a file is missing, doubled or broken, or the counts join no spot.
    """
    del table
    folder = path if path.is_dir() else path.parent
    name, spots_file = _section(path)
    alone = len(sections(folder)) == 1
    counts_file = _only(_counts_files(folder, name, alone), folder, "*.tsv or *.tsv.gz", "counts")
    picture = (
        image_file(image, folder)
        if image is not None
        else _only(_images(folder, name, alone), folder, "image", "the H&E")
    )
    spots = _read_spots(spots_file)
    counts = read_count_table(counts_file, "\t")
    counts = counts[[spot for spot in spots.index if spot in counts.obs_names]].copy()
    if not counts.n_obs:
        raise SlideError(
            f"none of its rows is a spot of {spots_file.name}",
            where=counts_file,
            do="give counts and spots of the same section",
        )
    _name_symbols(counts, folder)
    element = element_name(folder.resolve().name if path.is_dir() and alone else name)
    centres = spots[["pixel_x", "pixel_y"]].to_numpy(float)
    array = spots[["y", "x"]].to_numpy(np.intp)
    warn_of_mirrored(centres, array, spots_file)
    pitch_um = PITCH_UM if len(np.unique(array.sum(axis=1) % 2)) > 1 else DENSE_PITCH_UM
    lattice = lattice_from_array(centres, array)
    pitch_px = lattice.pitch_px if lattice.kind != "none" else 1.0
    shapes = ShapesModel.parse(
        centres, geometry=0, radius=SPOT_UM / pitch_um * pitch_px / 2, index=spots.index,
        transformations={element: Identity()},
    )  # fmt: skip
    shapes["array_row"], shapes["array_col"] = array[:, 0], array[:, 1]
    sdata = SpatialData(
        images={f"{element}_full_image": image_element(picture, {element: Identity()})},
        shapes={element: shapes},
        tables={"table": _table(counts, spots, element)},
    )
    return Source(
        sdata,
        path,
        image=f"{element}_full_image",
        spots=element,
        table="table",
        pitch_um=pitch_um,
        spot_um=SPOT_UM,
        mpp=recorded_mpp(picture),
    )


def _table(counts: AnnData, spots: pd.DataFrame, element: str) -> AnnData:
    counted = spots.loc[counts.obs_names]
    counts.obs["region"] = pd.Categorical([element] * counts.n_obs)
    counts.obs["spot_id"] = counts.obs_names
    counts.obs["array_row"], counts.obs["array_col"] = counted["y"].to_numpy(), counted["x"].to_numpy()
    counts.obsm["spatial"] = counted[["pixel_x", "pixel_y"]].to_numpy(float)
    return TableModel.parse(counts, region=element, region_key="region", instance_key="spot_id")


def _section(path: Path) -> tuple[str, Path]:
    """Return the name and the table of spots of the one section at a path."""
    found = sections(path)
    if len(found) > 1:
        raise SlideError(
            f"{len(found)} sections: {', '.join(found)}",
            where=path,
            do=f"open the table of spots of one, such as {next(iter(found.values())).name}",
        )
    return next(iter(found.items()))


def _counts_files(folder: Path, name: str, alone: bool) -> list[Path]:
    """Return the tables that may be a section's counts: the one named like it, or any where it is the only one."""
    spots = set(sections(folder).values())
    tables = [p for p in _tables(folder) if p not in spots]
    named = [p for p in tables if p.name.removesuffix(".gz") == f"{name}.tsv"]
    if named:
        return named
    return [p for p in tables if alone and _symbols(p) is None]


def _tables(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.name.endswith((".tsv", ".tsv.gz")) and p.is_file()]


def _images(folder: Path, name: str, alone: bool) -> list[Path]:
    images = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if len(images) < 2 and alone:
        return images
    return [p for p in images if p.stem.lower() == name.lower()] or (images if alone else [])


def _symbols(path: Path) -> pd.Series | None:
    """Read a table of the symbols of Ensembl ids; None if a file is none."""
    try:
        if not set(_SYMBOL_COLUMNS) <= set(pd.read_csv(path, sep="\t", nrows=0).columns):
            return None
        table = pd.read_csv(path, sep="\t", usecols=list(_SYMBOL_COLUMNS), dtype=str)
    except Exception:  # gzip and pandas raise errors of many kinds on broken files
        return None
    return table.drop_duplicates("gene_id").set_index("gene_id")["gene_name"]


def _name_symbols(counts: AnnData, folder: Path) -> None:
    """Keep the symbols of genes named by Ensembl ids, where a table in the folder gives them."""
    if not counts.var_names.str.startswith("ENS").any():
        return
    for path in _tables(folder):
        symbols = _symbols(path)
        if symbols is not None:
            named = symbols.reindex(counts.var_names)
            counts.var["gene_name"] = named.fillna(counts.var_names.to_series()).to_numpy(object)
            return


def _only(found: list[Path], folder: Path, pattern: str, what: str) -> Path:
    if len(found) == 1:
        return found[0]
    if not found:
        raise SlideError(f"no {pattern} file with {what}", where=folder, do="add the missing file")
    raise SlideError(
        f"{len(found)} {pattern} files could be {what}: {', '.join(p.name for p in found)}",
        where=folder,
        do="keep one section a folder" if what != "the H&E" else "name the H&E (--image, or image=)",
    )


def _read_spots(path: Path) -> pd.DataFrame:
    try:
        spots = pd.read_csv(path, sep="\t")
    except Exception as error:  # gzip and pandas raise errors of many kinds on broken files
        raise SlideError(f"cannot be read ({error})", where=path, do="give a tab-separated table") from error
    missing = [column for column in _SPOT_COLUMNS if column not in spots.columns]
    if missing:
        raise SlideError(f"lacks the columns {', '.join(missing)}", where=path, do="give a selection table of ST")
    if "selected" in spots.columns:
        spots = spots[spots["selected"] == 1]
    if spots.empty:
        raise SlideError("no spot is selected", where=path, do="select the spots in tissue")
    numbers = spots[list(_SPOT_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    bad_places = ~(np.abs(numbers.to_numpy(float)) < MOST_PLACES).all(axis=1)  # NaN is less than nothing
    if bad_places.any():
        bad = int(bad_places.argmax())
        raise SlideError(f"spot {bad + 1} of the table has no number for its place", where=path, do="mend that line")
    numbers["x"], numbers["y"] = numbers["x"].round().astype(int), numbers["y"].round().astype(int)
    numbers.index = pd.Index([f"{x}x{y}" for x, y in zip(numbers["x"], numbers["y"], strict=True)])
    if numbers.index.has_duplicates:
        twice = numbers.index[numbers.index.duplicated()][0]
        raise SlideError(f"spot {twice} is named twice", where=path, do="keep one line a spot")
    return numbers
