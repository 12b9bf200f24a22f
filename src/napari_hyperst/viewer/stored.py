"""The predictions that a slide's store holds: read without the model, and believed only as far as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.provenance import read_provenance
from napari_hyperst.viewer.contract import OURS
from napari_hyperst.viewer.entry import annotates

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide


def stored_predictions(slide: Slide, warn: Callable[[str], None]) -> dict[str, AnnData]:
    """Return the tables of predictions of a slide's spots in its store, by name, the one made last at the end.

    Parameters
    ----------
    slide
        The slide.
    warn
        Told of each that cannot be shown, and why.
    """
    from napari_hyperst.slides.export.checks import check_prediction

    found: list[tuple[str, str, AnnData]] = []
    for name, table in slide.sdata.tables.items():
        if not annotates(table, slide.source.spots):
            continue
        try:
            made = read_provenance(table.uns[OURS], f"{slide.path} ({name})")
            check_prediction(table, f"{slide.path} ({name})")
        except SlideError as error:
            warn(f"the prediction {name} cannot be shown: {error}")
        else:
            found.append((made.run.at, name, table))
    return {name: table for _, name, table in sorted(found, key=lambda one: one[:2])}
