"""A slide that is open in a viewer, with its prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.viewer.contract import OURS
from napari_hyperst.viewer.filling import is_filling
from napari_hyperst.viewer.genes import Genes, genes_of
from napari_hyperst.viewer.map_values import MapValues
from napari_hyperst.viewer.maps import Map, maps_of
from napari_hyperst.viewer.rows import Rows, rows_of_spots

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide


@dataclass
class Entry:
    """A slide that is open in a viewer, with what is known of it.

    Attributes
    ----------
    key
        What it is called, unlike any other in the viewer.
    slide
        The slide; laid anew when the mask of an H&E-only slide is edited.
    maps, genes
        What can be shown, and what is known of the genes that were predicted.
    values
        The values of the maps; None before there is a prediction.
    predicted
        The slide as it was when ``table`` was predicted, whose spots that annotates.
    filled
        How many spots of it are predicted, while that is going on.
    mask_kept
        Whether opening ``ref`` again gives the mask that the spots are laid by.
    table, table_name
        The table of its prediction, and what it is called; None where there is none yet.
    result
        The file with that table, of the job that predicted it; None where it was in the store.
    covered
        Whether the rings of its spots are hidden, as a map of them all is seen.
    ringed
        Whether they are to be seen otherwise: not where they were hidden by hand.
    stored
        The tables of the predictions that were in its store, by name, the one made last at the end.
    """

    key: str
    slide: Slide
    table: AnnData | None = None
    table_name: str = ""
    result: Path | None = None
    maps: tuple[Map, ...] = ()
    genes: Genes = field(default_factory=Genes)
    values: MapValues | None = None
    predicted: Slide | None = None
    mask_kept: bool = True
    filled: int = 0
    covered: bool = False
    ringed: bool = True
    stored: dict[str, AnnData] = field(default_factory=dict)
    _rows: tuple[AnnData, Rows] | None = field(default=None, init=False, repr=False)

    @property
    def ref(self) -> SlideRef:
        """How to open it again."""
        return self.slide.ref

    @property
    def rows(self) -> Rows | None:
        """(m,) the row of each spot in its table, -1 for none; None without a table, or where they were laid since."""
        if self.table is None or self.predicted is None or self.predicted.spots is not self.slide.spots:
            return None
        if self._rows is None or self._rows[0] is not self.table:
            self._rows = self.table, rows_of_spots(self.table, self.predicted)
        return self._rows[1]

    @property
    def filling(self) -> bool:
        """Whether its prediction is still being made."""
        return self.table is not None and is_filling(self.table)

    def map(self, key: str) -> Map | None:
        """Return a map that can be shown, by its key."""
        return next((found for found in self.maps if found.key == key and not found.reason), None)


def hold(
    entry: Entry, table: AnnData, name: str, result: Path | None, slide: Slide | None, genes: Genes | None
) -> None:
    """Have a slide hold a prediction, in its SpatialData object too unless somebody else's table has that name.

    Parameters
    ----------
    entry
        The slide.
    table, name, result, slide, genes
        As ``Session.set_prediction`` takes them.
    """
    entry.maps = maps_of(table)
    entry.table, entry.table_name, entry.result = table, name, result
    entry.predicted, entry._rows = slide or entry.slide, None
    entry.genes = genes or genes_of(table, entry.predicted)
    entry.filled, entry.values = 0, MapValues(table)
    sdata = entry.predicted.sdata
    if result is not None and (name not in sdata or (name in sdata.tables and OURS in sdata.tables[name].uns)):
        sdata.tables.pop(name, None)  # spatialdata warns of a table that takes the place of another
        sdata.tables[name] = table


def let_go(entry: Entry) -> None:
    """Have a slide hold no prediction."""
    entry.table, entry.table_name, entry.result, entry.predicted = None, "", None, None
    entry.maps, entry.genes, entry.filled, entry.values = maps_of(None), Genes(), 0, None


def fill(entry: Entry, spots: int) -> None:
    """Take note that so many spots of a prediction that is being made are done."""
    entry.filled = spots
    if entry.values is not None:
        entry.values.fill(spots)


def annotates(table: AnnData, spots: str) -> bool:
    """Whether a table of a store is a prediction of these spots."""
    attrs = table.uns.get("spatialdata_attrs")
    region = attrs.get("region") if isinstance(attrs, dict) else None
    return OURS in table.uns and (region == spots if isinstance(region, str) else list(region or ()) == [spots])


def unlike(name: str, others: set[str]) -> str:
    """Return the name, with a number where one of the others is like it."""
    return next(k for k in (name if i == 0 else f"{name} [{i}]" for i in count()) if k not in others)
