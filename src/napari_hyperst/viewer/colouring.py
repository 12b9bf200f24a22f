"""What the points of a plot of spots can be coloured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.viewer.maps import values_of
from napari_hyperst.viewer.rows import spots_of_rows

if TYPE_CHECKING:
    from napari_hyperst.viewer.entry import Entry

#: A column with more different words than this says nothing as colours.
MAX_CATEGORIES = 20
_FIRST = 1000
GENE, NORM = "gene", "norm"
_ANNOTATION = "obs:"
#: Columns that tell where a spot is, not what.
_PLACES = ("array_row", "array_col", "in_tissue", "pxl_row_in_fullres", "pxl_col_in_fullres")


@dataclass(frozen=True)
class Colouring:
    """Something that spots can be coloured by.

    Attributes
    ----------
    key
        Its name.
    title
        What the user reads.
    """

    key: str
    title: str


@dataclass(frozen=True)
class Coloured:
    """Numbers or categories of spots.

    Attributes
    ----------
    values
        (n,) float32, NaN where there is none; of categories their place in ``categories``.
    label
        What they are, with their unit.
    categories
        Names of the categories; empty for numbers.
    """

    values: NDArray[np.float32]
    label: str
    categories: tuple[str, ...] = ()


def colourings(entry: Entry) -> tuple[Colouring, ...]:
    """List what the spots of a predicted slide can be coloured by: gene, norm, violations, annotations."""
    violations = (shown for shown in entry.maps if shown.key.startswith("violation_") and not shown.reason)
    return (
        Colouring(GENE, "Gene shown (predicted)"),
        Colouring(NORM, "Norm (depth)"),
        *(Colouring(shown.key, shown.title) for shown in violations),
        *(Colouring(f"{_ANNOTATION}{column}", f"Annotation: {column}") for column in _annotations(entry)),
    )


def coloured(entry: Entry, key: str, genes: Sequence[str], title: str, embedding: str) -> Coloured:
    """Return what spots are coloured by.

    Parameters
    ----------
    entry
        A predicted slide.
    key
        Of ``colourings``.
    genes, title
        The genes that are shown, and what they are called.
    embedding
        Whose norms are meant.
    """
    assert entry.table is not None
    if key == GENE:
        return Coloured(values_of(entry.table, "predicted", genes), f"Predicted {title}, log2(count + 1)")
    if key == NORM:
        return Coloured(values_of(entry.table, f"norm_{embedding}", ()), "Distance from the origin")
    if key.startswith(_ANNOTATION):
        return _annotation(entry, key.removeprefix(_ANNOTATION))
    shown = entry.map(key)
    return Coloured(values_of(entry.table, key, ()), f"{'' if shown is None else shown.title} (°)")


def _annotations(entry: Entry) -> list[str]:
    """Return the columns of the measured table that say something of spots."""
    counts = (entry.predicted or entry.slide).counts
    if counts is None:
        return []
    attrs = counts.uns["spatialdata_attrs"]
    passed = {attrs["region_key"], attrs["instance_key"], *_PLACES}
    return [column for column in counts.obs.columns if column not in passed and _says(counts.obs[column])]


def _says(column: Any) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if is_numeric_dtype(column) and not is_bool_dtype(column):
        return bool(np.isfinite(column.to_numpy(dtype=float, na_value=np.nan)).any())
    first = column.iloc[:_FIRST].nunique()  # half a million barcodes take long to tell apart
    return bool(first <= MAX_CATEGORIES and 1 <= column.nunique() <= MAX_CATEGORIES)


def _annotation(entry: Entry, column: str) -> Coloured:
    from pandas import Categorical
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    slide = entry.predicted or entry.slide
    assert entry.table is not None
    assert slide.counts is not None
    spots = spots_of_rows(entry.table, slide)
    rows = np.where(spots >= 0, slide.count_rows[spots], -1)
    told: Any = slide.counts.obs[column]
    categories: tuple[str, ...] = ()
    if is_numeric_dtype(told) and not is_bool_dtype(told):
        numbers = told.to_numpy(dtype=np.float32, na_value=np.nan)
    else:
        words = Categorical(told).remove_unused_categories()
        categories = tuple(str(name) for name in words.categories)
        numbers = np.where(words.codes >= 0, words.codes, np.nan).astype(np.float32)
    return Coloured(np.where(rows >= 0, numbers[rows], np.float32(np.nan)), column, categories)
