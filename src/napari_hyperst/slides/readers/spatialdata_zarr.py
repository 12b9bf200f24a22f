"""SpatialData Zarr stores, from spatialdata-io, from sopa, from us or from others."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import get_transformation

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import bin_size_um
from napari_hyperst.slides.readers.counts import unique_names
from napari_hyperst.slides.slide import Source

#: Key under which a store that we wrote keeps its scale, and a table of ours its card.
ATTRS_KEY = "hyperst"
#: How spatialdata-io ends the names of one H&E at several resolutions, the finest first, and of another image.
_RESOLUTIONS = ("_full_image", "_hires_image", "_lowres_image")
_INSTRUMENT = "_cytassist_image"
_COLOURS = (1, 3, 4)


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Open a store lazily and choose image, spots and counts.

    Parameters
    ----------
    path
        The store.
    image
        Name of the image element, where several fit.
    table
        Name of the table of counts, where several fit; or of the spots, where none annotates them.

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
    named_spots = table if table in sdata.shapes and table not in sdata.tables else None
    table_name = None if named_spots else _choose_table(sdata, path, table)
    spots = named_spots or _choose_spots(sdata, path, table_name)
    if table_name is not None and not sdata.tables[table_name].var_names.is_unique:
        counts = sdata.tables[table_name]  # changed in memory, not in the store
        counts.var_names = unique_names(counts.var_names, path)
    hints = sdata.attrs.get(ATTRS_KEY, {})
    bins_um = bin_size_um(spots)
    return Source(
        sdata,
        path,
        image=_choose_image(sdata, path, spots, None if image is None else str(image)),
        spots=spots,
        table=table_name,
        pitch_um=hints.get("pitch_um", bins_um),
        spot_um=hints.get("spot_um", bins_um),
        mpp=hints.get("mpp"),
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
            raise SlideError(
                f"has no table {named!r}", where=path, do=f"name one of {', '.join(sdata.tables) or 'none'}"
            )
        return named
    if len(fitting) > 1:
        raise SlideError(
            f"{len(fitting)} tables could be the counts: {', '.join(fitting)}",
            where=path,
            do="name one (--table, or table=)",
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
    if not circles:
        raise SlideError("no spots", where=path, do="keep one shapes element of circles in the store")
    raise SlideError(
        f"{len(circles)} elements of circles could be spots: {', '.join(circles)}",
        where=path,
        do="name one (--table, or table=)",
    )


def _choose_image(sdata: SpatialData, path: Path, spots: str, named: str | None) -> str:
    """Choose the H&E among the images that share a coordinate system with the spots.

    Of one image at several resolutions the finest; fluorescence and the CytAssist instrument's image are none.
    """
    if named is not None:
        if named not in sdata.images:
            raise SlideError(
                f"has no image {named!r}", where=path, do=f"name one of {', '.join(sdata.images) or 'none'}"
            )
        return named
    systems = set(get_transformation(sdata.shapes[spots], get_all=True))
    sharing = [
        name for name, element in sdata.images.items() if systems & set(get_transformation(element, get_all=True))
    ]
    if not sharing:
        raise SlideError(
            "no image shares a coordinate system with the spots" if sdata.images else "no image",
            where=path,
            do="add the H&E to the store",
        )
    fitting = [name for name in sharing if _of_colours(sdata.images[name]) and not name.endswith(_INSTRUMENT)]
    finest: dict[str, str] = {}
    for name in fitting or sharing:
        ending = next((ending for ending in _RESOLUTIONS if name.endswith(ending)), "")
        sample = name.removesuffix(ending)
        best = finest.get(sample)
        if best is None or _RESOLUTIONS.index(ending) < _RESOLUTIONS.index(best.removeprefix(sample)):
            finest[sample] = name
    if len(finest) > 1:
        raise SlideError(
            f"{len(finest)} images could be the H&E: {', '.join(finest.values())}",
            where=path,
            do="name one (--image, or image=)",
        )
    return next(iter(finest.values()))


def _of_colours(element: xr.DataArray | xr.DataTree) -> bool:
    array = next(iter(element["scale0"].data_vars.values())) if isinstance(element, xr.DataTree) else element
    return array.sizes["c"] in _COLOURS
