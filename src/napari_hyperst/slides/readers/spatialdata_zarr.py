"""SpatialData Zarr stores, from spatialdata-io, from sopa, from us or from others."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from anndata import AnnData
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import get_transformation

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.commit import OURS, recover_store
from napari_hyperst.slides.formats import bin_size_um, finest_images, is_of_instrument
from napari_hyperst.slides.readers.counts import unique_names
from napari_hyperst.slides.readers.stored import check_store
from napari_hyperst.slides.slide import Source

#: ome-zarr tells on standard error of each mask that lies in no picture's group, as SpatialData has them.
logging.getLogger("ome_zarr.reader").addFilter(lambda record: "no parent found" not in str(record.msg))
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
        Name of the table of counts, where several fit; or of the spots, where none annotates them, or one table
        several.

    Raises
    ------
    SlideError
        If the store is broken, lacks an image or spots, or holds several that fit and none was named.
    """
    sdata = read_store(path)
    table_name, spots = _choose_counts(sdata, path, table)
    if table_name is not None:
        _check_table(sdata.tables[table_name], f"{path} ({table_name})")
    if table_name is not None and not sdata.tables[table_name].var_names.is_unique:
        counts = sdata.tables[table_name]  # changed in memory, not in the store
        counts.var_names = unique_names(counts.var_names, path)
    hints = _hints(sdata.attrs.get(OURS), path)
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
        settled="mpp" in hints,
        laid=bool(hints.get("laid", False)),
        tissue=hints["tissue"] if hints.get("tissue") in list(sdata.labels) else None,
    )


def read_store(path: Path, kinds: tuple[str, ...] | None = None) -> SpatialData:
    """Open a store lazily, which may be anybody's, after what a killed export left in it has been put right.

    Parameters
    ----------
    path
        The store.
    kinds
        Which kinds of elements to read, ``"tables"`` for one; all if not told.

    Raises
    ------
    SlideError
        If it is none, is broken, or claims what none of ours would.
    """
    recover_store(path)
    try:
        check_store(path)
        return read_zarr(path, selection=kinds)
    except Exception as error:  # zarr, anndata, geopandas and spatialdata each raise errors of their own
        raise SlideError(
            f"is no SpatialData store that can be read ({error})", where=path, do="write it again"
        ) from error


def _hints(said: Any, path: Path) -> dict[str, Any]:
    """Check what we wrote into a store of its scale: it can be anybody's."""
    hints = said if isinstance(said, dict) else {}
    for key in ("pitch_um", "spot_um", "mpp"):
        value = hints.get(key)
        if value is not None and (isinstance(value, bool | str | list | dict) or not 0 < value < math.inf):
            raise SlideError(f"says that {key} is {str(value)[:50]}", where=path, do="write it again, or tell --mpp")
    return hints


def _choose_counts(sdata: SpatialData, path: Path, named: str | None) -> tuple[str | None, str]:
    """Choose the table of counts, if there is one, and the spots that it annotates."""
    if named is not None and named not in sdata.tables and named not in sdata.shapes:
        raise SlideError(
            f"has no table {named!r}",
            where=path,
            do=f"name one of {', '.join([*sdata.tables, *sdata.shapes]) or 'none'}",
        )
    # Tables that annotate shapes and are no predictions of ours, each with the shapes.
    annotated = {
        name: [region for region in _regions(table) if region in sdata.shapes]
        for name, table in sdata.tables.items()
        if OURS not in table.uns or name == named
    }
    fitting = [(name, region) for name, regions in annotated.items() for region in regions]
    if named is not None:
        fitting = [one for one in fitting if one[0] == named] or [one for one in fitting if one[1] == named]
        if not fitting and named in sdata.tables:
            raise SlideError(f"table {named!r} annotates no shapes", where=path, do="name another table")
        if not fitting:
            return None, named
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        if annotated:
            told = ", ".join(
                f"{name} of {' and '.join(_regions(sdata.tables[name])) or 'nothing'}" for name in annotated
            )
            warnings.warn(
                f"{path}: opened without counts, since no table annotates shapes ({told})", HyperSTWarning, stacklevel=4
            )
        return None, _circles(sdata, path)
    names, regions = list(dict(fitting)), [region for _, region in fitting]
    if len(names) == 1:
        raise SlideError(
            f"table {names[0]!r} is of {len(regions)} elements: {', '.join(regions)}",
            where=path,
            do="name one (--table, or table=)",
        )
    raise SlideError(
        f"{len(names)} tables could be the counts: {', '.join(names)}", where=path, do="name one (--table, or table=)"
    )


def _check_table(table: AnnData, where: str) -> None:
    """Refuse a table of which a part is gone: anndata opens it, and numbers the genes from 0."""
    if table.X is None or 0 in table.shape:
        raise SlideError("the table holds no counts", where=where, do="write the store again")
    if table.var_names.equals(pd.RangeIndex(table.n_vars).astype(str)):
        raise SlideError("the table has no names of genes", where=where, do="write the store again")


def _regions(table: AnnData) -> list[str]:
    attrs = table.uns.get("spatialdata_attrs")
    regions = attrs.get("region") if isinstance(attrs, dict) else None
    return [regions] if isinstance(regions, str) else [str(region) for region in regions or ()]


def _circles(sdata: SpatialData, path: Path) -> str:
    """Choose the spots of a store without counts."""
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
    fitting = [name for name in sharing if _of_colours(sdata.images[name]) and not is_of_instrument(name)]
    finest = finest_images(fitting or sharing)
    if len(finest) > 1:
        raise SlideError(
            f"{len(finest)} images could be the H&E: {', '.join(finest)}",
            where=path,
            do="name one (--image, or image=)",
        )
    return finest[0]


def _of_colours(element: xr.DataArray | xr.DataTree) -> bool:
    array = next(iter(element["scale0"].data_vars.values())) if isinstance(element, xr.DataTree) else element
    return array.sizes["c"] in _COLOURS
