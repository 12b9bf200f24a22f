"""The predictions that a store holds, opened without a model."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from napari_hyperst.errors import StoreError
from napari_hyperst.nouns.provenance import read_provenance
from napari_hyperst.slides.commit import OURS
from napari_hyperst.slides.formats import format_of
from napari_hyperst.slides.opening import open_slide
from napari_hyperst.slides.readers.spatialdata_zarr import read_store
from napari_hyperst.slides.slide import Slide


def open_prediction(store: str | Path, table: str | None = None, *, image: str | None = None) -> tuple[Slide, str]:
    """Open the slide of a prediction in a store, as it was when it was predicted.

    Parameters
    ----------
    store
        A SpatialData Zarr.
    table
        The prediction's table, where the store holds several.
    image
        Name of the H&E, where the store holds several images.

    Returns
    -------
    tuple
        The slide, and the name of the table in ``slide.sdata.tables``.

    Raises
    ------
    SlideError
        If its slide cannot be opened, or what the table says of how it was made cannot be read.
    StoreError
        If nothing is there, it is no store, holds no prediction, several and none was named, or none of that name.
    """
    store = Path(store).expanduser()
    predictions = _predictions(store)
    if not predictions:
        raise StoreError("holds no prediction", where=store, do="predict the slide (napari-hyperst predict)")
    if table is None and len(predictions) > 1:
        raise StoreError(
            f"holds {len(predictions)} predictions: {', '.join(predictions)}",
            where=store,
            do="name one (--name, or table=)",
        )
    name = next(iter(predictions)) if table is None else table
    if name not in predictions:
        raise StoreError(f"holds no prediction {name!r}", where=store, do=f"name one of {', '.join(predictions)}")
    made = read_provenance(predictions[name].uns[OURS], f"{store} ({name})")
    region = predictions[name].uns["spatialdata_attrs"]["region"]
    measured = made.measured_table or (region if isinstance(region, str) else str(region[0]))
    return open_slide(store, made.mpp, image=image, table=measured), name


def _predictions(store: Path) -> dict[str, AnnData]:
    if not store.exists():
        raise StoreError("there is nothing here", where=store, do="check the path")
    if format_of(store) != "spatialdata":
        raise StoreError("is no SpatialData Zarr", where=store, do="give a store that a slide was predicted into")
    tables = read_store(store, ("tables",)).tables
    return {name: found for name, found in tables.items() if {OURS, "spatialdata_attrs"} <= set(found.uns)}
