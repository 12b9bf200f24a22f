"""Positions of spots and bins, and the scale factors beside them, as Space Ranger of any version writes them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.formats import POSITIONS, SCALES
from napari_hyperst.slides.lattice import is_mirrored
from napari_hyperst.slides.readers.files import read_json

_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
#: Larger numbers are no scale factors, and no rows, columns or px.
_MOST_FACTOR, MOST_PLACES = 1e9, 1e9


def read_scalefactors(spatial: Path, keys: tuple[str, ...]) -> dict[str, float]:
    """Read scale factors, of which some must be there and positive.

    Raises
    ------
    SlideError
        If the file is missing or broken, or a key has no positive number.
    """
    path = spatial / SCALES
    factors = read_json(path)
    for key in keys:
        value = factors.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MOST_FACTOR:
            raise SlideError(
                f"{key} is {str(value)[:20]}, no positive number", where=path, do="copy it again from Space Ranger"
            )
    return factors


def find_positions(spatial: Path) -> Path:
    """Return the table of positions, of whatever version.

    Raises
    ------
    SlideError
        If there is none.
    """
    path = next((spatial / name for name in POSITIONS if (spatial / name).is_file()), None)
    if path is None:
        raise SlideError(f"no {' or '.join(POSITIONS)}", where=spatial, do="add it from Space Ranger")
    return path


def read_positions(path: Path, barcodes: pd.Index, matrix: str) -> pd.DataFrame:
    """Read the positions of the barcodes of a matrix.

    Parameters
    ----------
    path
        A parquet file, or a csv file with or without a header.
    barcodes
        The matrix's barcodes.
    matrix
        What the matrix is called, for messages.

    Returns
    -------
    DataFrame
        A row a barcode, in their order: ``in_tissue``, ``array_row``, ``array_col`` and the px of the centre,
        ``pxl_row_in_fullres`` (y) and ``pxl_col_in_fullres`` (x).

    Raises
    ------
    SlideError
        If it is no such table, names a barcode twice, lacks one or its numbers, or has no spot in tissue.
    """
    try:
        if path.suffix == ".parquet":
            positions = pd.read_parquet(path)[_COLUMNS]
        else:
            with path.open(encoding="utf-8") as file:
                headed = "in_tissue" in file.readline()
            positions = pd.read_csv(path, header=0 if headed else None)
            positions = positions[_COLUMNS] if headed else positions.set_axis(_COLUMNS, axis="columns")
        positions = positions.set_index("barcode").apply(pd.to_numeric)
    except Exception as error:  # pandas and pyarrow raise errors of many kinds on broken files
        raise SlideError(
            f"is no table of positions ({error})", where=path, do="copy it again from Space Ranger"
        ) from error
    if positions.index.has_duplicates:
        twice = positions.index[positions.index.duplicated()][0]
        raise SlideError(f"barcode {twice} is named twice", where=path, do="keep one line a barcode")
    missing = ~barcodes.isin(positions.index)
    if missing.all():
        raise SlideError(
            f"none of the {len(barcodes)} barcodes of {matrix} has a position: the counts join no spot",
            where=path,
            do="give counts and positions of the same section",
        )
    if missing.any():
        raise SlideError(
            f"{int(missing.sum())} of {len(barcodes)} barcodes of {matrix} have no position, "
            f"{barcodes[missing][0]} for one",
            where=path,
            do="give counts and positions of the same run of Space Ranger",
        )
    mine = positions.loc[barcodes]
    finite = np.isfinite(mine.to_numpy(float)).all(axis=1)
    if not finite.all():
        raise SlideError(
            f"barcode {mine.index[~finite][0]} has no number for its place", where=path, do="mend that line"
        )
    numbered = mine[["array_row", "array_col"]].to_numpy(float)
    whole = ((numbered == np.rint(numbered)) & (np.abs(numbered) < MOST_PLACES)).all(axis=1)
    if not whole.all():
        raise SlideError(
            f"barcode {mine.index[~whole][0]} has no whole number for its row or column of the array",
            where=path,
            do="copy it again from Space Ranger",
        )
    if not (mine["in_tissue"] == 1).any():
        raise SlideError("no spot is in tissue", where=path, do="check the in_tissue column")
    return mine


def centres_px(positions: pd.DataFrame) -> np.ndarray:
    """Return (n, 2) centres, (x, y) in px of the full-resolution image."""
    return positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float)


def places(positions: pd.DataFrame) -> np.ndarray:
    """Return (n, 2) rows and columns of the array."""
    return positions[["array_row", "array_col"]].to_numpy(np.intp)


def warn_of_mirrored(centres: np.ndarray, array: np.ndarray, where: Path) -> None:
    """Tell that the array lies mirrored on the image, as it does where x and y of the positions are swapped.

    Parameters
    ----------
    centres
        (n, 2) centres, (x, y) in px.
    array
        (n, 2) row and column of each spot.
    where
        The table of positions, for the warning.
    """
    if is_mirrored(centres, array):
        warnings.warn(
            f"{where}: rows and columns of the array lie mirrored on the image: x and y may be swapped; check that the "
            "spots lie on the tissue, and swap them if not",
            HyperSTWarning,
            stacklevel=6,
        )
