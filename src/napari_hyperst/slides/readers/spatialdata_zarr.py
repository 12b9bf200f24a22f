"""SpatialData Zarr stores, from spatialdata-io, from us or from others."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import get_transformation

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.slide import Source

#: Key under which a store that we wrote keeps its scale, and a table of ours its card.
ATTRS_KEY = "hyperst"


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Open a store lazily and choose image, spots and counts.

    Raises
    ------
    SlideError
        If the store is broken, lacks an image or spots, or holds several that fit and none was named.
    """
    try:
        sdata = read_zarr(path)
    except Exception as error:  # zarr, anndata, geopandas and spatialdata each raise errors of their own
        raise SlideError(
            f"is no SpatialData store that can be read ({error})", where=path, do="write it again"
        ) from error
    table_name = _choose_table(sdata, path, table)
    spots = _choose_spots(sdata, path, table_name)
    hints = sdata.attrs.get(ATTRS_KEY, {})
    return Source(
        sdata,
        path,
        image=_choose_image(sdata, path, spots, None if image is None else str(image)),
        spots=spots,
        table=table_name,
        pitch_um=hints.get("pitch_um"),
        spot_um=hints.get("spot_um"),
        mpp=hints.get("mpp"),
        laid=bool(hints.get("laid", False)),
        tissue=hints.get("tissue") if hints.get("tissue") in sdata.labels else None,
    )


def _choose_table(sdata: SpatialData, path: Path, named: str | None) -> str | None:
    """Choose the table of counts: one that annotates shapes, and is not a prediction of ours."""
    fitting = [
        name
        for name, table in sdata.tables.items()
        if ATTRS_KEY not in table.uns and _region(table.uns) in sdata.shapes
    ]
    if named is not None:
        if named not in sdata.tables:
            raise SlideError(f"has no table {named!r}", where=path, do=f"name one of {', '.join(sdata.tables)}")
        return named
    if len(fitting) > 1:
        raise SlideError(
            f"{len(fitting)} tables could be the counts: {', '.join(fitting)}", where=path, do="name one (--table)"
        )
    return fitting[0] if fitting else None


def _region(uns: dict[str, object]) -> str | None:
    attrs = uns.get("spatialdata_attrs")
    region = attrs.get("region") if isinstance(attrs, dict) else None
    return region[0] if isinstance(region, list) and len(region) == 1 else region if isinstance(region, str) else None


def _choose_spots(sdata: SpatialData, path: Path, table: str | None) -> str:
    if table is not None:
        region = _region(sdata.tables[table].uns)
        if region is None or region not in sdata.shapes:
            raise SlideError(f"table {table!r} annotates no single shapes element", where=path, do="name another table")
        return region
    circles = [name for name, shapes in sdata.shapes.items() if "radius" in shapes.columns]
    if len(circles) == 1:
        return circles[0]
    found = f"{len(circles)} elements of circles could be spots: {', '.join(circles)}" if circles else "no spots"
    raise SlideError(found, where=path, do="keep one shapes element of circles in the store")


def _choose_image(sdata: SpatialData, path: Path, spots: str, named: str | None) -> str:
    """Choose the finest of the images that share a coordinate system with the spots."""
    if named is not None:
        if named not in sdata.images:
            raise SlideError(f"has no image {named!r}", where=path, do=f"name one of {', '.join(sdata.images)}")
        return named
    systems = set(get_transformation(sdata.shapes[spots], get_all=True))
    fitting = [
        name for name, element in sdata.images.items() if systems & set(get_transformation(element, get_all=True))
    ]
    if not fitting:
        raise SlideError(
            "no image shares a coordinate system with the spots" if sdata.images else "no image",
            where=path,
            do="add the H&E to the store",
        )
    return max(fitting, key=lambda name: _pixels(sdata.images[name]))


def _pixels(element: xr.DataArray | xr.DataTree) -> int:
    array = next(iter(element["scale0"].data_vars.values())) if isinstance(element, xr.DataTree) else element
    return int(array.sizes["y"] * array.sizes["x"])
