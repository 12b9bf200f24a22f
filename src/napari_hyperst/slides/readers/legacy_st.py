"""Legacy Spatial Transcriptomics section folders: one H&E, one table of counts, one table of spots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from spatialdata import SpatialData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Identity

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import IMAGE_SUFFIXES, selection_files
from napari_hyperst.slides.image import image_element
from napari_hyperst.slides.readers.files import element_name, image_file
from napari_hyperst.slides.slide import Source

#: Geometry of the legacy ST array.
PITCH_UM = 200.0
SPOT_UM = 100.0
_SPOT_COLUMNS = ("x", "y", "pixel_x", "pixel_y")


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read a section folder. Spots without counts are kept; they are predicted like the rest.

    Raises
    ------
    SlideError
        If a file is missing, doubled or broken, or the counts join no spot.
    """
    del table  # there is one table of counts
    spots_file = _only(selection_files(path), path, "*_selection.tsv", "spots")
    counts_file = _only(_counts_files(path), path, "*.tsv or *.tsv.gz", "counts")
    picture = (
        image_file(image, path)
        if image is not None
        else _only(sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), path, "image", "the H&E")
    )
    spots = _read_spots(spots_file)
    counts = _read_counts(counts_file)
    joined = [spot for spot in spots.index if spot in counts.index]
    if not joined:
        raise SlideError(
            f"none of its {len(counts)} rows is a spot of {spots_file.name}",
            where=counts_file,
            do="give counts and spots of the same section",
        )
    name = element_name(path.resolve().name)
    pitch_px = np.nan
    shapes = ShapesModel.parse(
        spots[["pixel_x", "pixel_y"]].to_numpy(float), geometry=0, radius=1.0, index=spots.index,
        transformations={name: Identity()},
    )  # fmt: skip
    shapes["array_row"], shapes["array_col"] = spots["y"].to_numpy(), spots["x"].to_numpy()
    pitch_px = _pitch_px(shapes)
    shapes["radius"] = SPOT_UM / PITCH_UM * pitch_px / 2
    counted = counts.loc[joined]
    adata = AnnData(
        csr_matrix(counted.to_numpy(np.float32)),
        obs=pd.DataFrame({"region": pd.Categorical([name] * len(joined)), "spot_id": joined}, index=joined),
        var=pd.DataFrame(index=counts.columns.astype(str)),
    )
    adata.obs["array_row"] = spots.loc[joined, "y"].to_numpy()
    adata.obs["array_col"] = spots.loc[joined, "x"].to_numpy()
    adata.obsm["spatial"] = spots.loc[joined, ["pixel_x", "pixel_y"]].to_numpy(float)
    sdata = SpatialData(
        images={f"{name}_full_image": image_element(picture, {name: Identity()})},
        shapes={name: shapes},
        tables={"table": TableModel.parse(adata, region=name, region_key="region", instance_key="spot_id")},
    )
    return Source(
        sdata, path, image=f"{name}_full_image", spots=name, table="table", pitch_um=PITCH_UM, spot_um=SPOT_UM
    )


def _counts_files(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.name.endswith((".tsv", ".tsv.gz")) and "_selection.tsv" not in p.name)


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
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise SlideError(f"cannot be read ({error})", where=path, do="give a tab-separated table") from error
    missing = [column for column in _SPOT_COLUMNS if column not in spots.columns]
    if missing:
        raise SlideError(f"lacks the columns {', '.join(missing)}", where=path, do="give a selection table of ST")
    if "selected" in spots.columns:
        spots = spots[spots["selected"] == 1]
    numbers = spots[list(_SPOT_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    if not np.isfinite(numbers.to_numpy()).all():
        bad = int((~np.isfinite(numbers.to_numpy())).any(axis=1).argmax())
        raise SlideError(f"spot {bad + 1} of the table has no number for its place", where=path, do="mend that line")
    numbers["x"], numbers["y"] = numbers["x"].round().astype(int), numbers["y"].round().astype(int)
    numbers.index = pd.Index([f"{x}x{y}" for x, y in zip(numbers["x"], numbers["y"], strict=True)])
    if numbers.index.has_duplicates:
        twice = numbers.index[numbers.index.duplicated()][0]
        raise SlideError(f"spot {twice} is named twice", where=path, do="keep one line a spot")
    return numbers


def _read_counts(path: Path) -> pd.DataFrame:
    try:
        counts = pd.read_csv(path, sep="\t", index_col=0, engine="c")
        values = counts.to_numpy(np.float32)
    except (OSError, EOFError, ValueError, UnicodeDecodeError) as error:
        raise SlideError(f"cannot be read ({error})", where=path, do="give a table of spots x genes") from error
    if values.size == 0 or not np.isfinite(values).all() or (values < 0).any():
        raise SlideError("holds no table of counts (negative, missing or no numbers)", where=path, do="give raw counts")
    if counts.index.has_duplicates:
        raise SlideError(
            f"spot {counts.index[counts.index.duplicated()][0]} is named twice", where=path, do="keep one row a spot"
        )
    return counts


def _pitch_px(shapes: pd.DataFrame) -> float:
    """Return the lattice pitch in px, to draw the spots at their size; 1 where there are too few spots to tell."""
    from napari_hyperst.slides.lattice import lattice_from_array

    centres = np.column_stack([shapes.geometry.x, shapes.geometry.y])
    lattice = lattice_from_array(centres, shapes[["array_row", "array_col"]].to_numpy(np.intp))
    return lattice.pitch_px if np.isfinite(lattice.pitch_px) else 1.0
