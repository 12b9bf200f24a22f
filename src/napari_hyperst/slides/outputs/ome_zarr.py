"""A gene map as an OME-Zarr 0.5 image that lies over the H&E."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from anndata import AnnData

from napari_hyperst.slides.commit import OURS
from napari_hyperst.slides.outputs.raster import BLOCK_PX, SpotRaster
from napari_hyperst.slides.outputs.selection import gene_values, provenance
from napari_hyperst.slides.outputs.staging import staged_folder
from napari_hyperst.slides.slide import Slide

#: Colours of the channels.
_COLOURS = {"predicted": "00FF00", "measured": "FF00FF"}


def write_ome_zarr(slide: Slide, table: AnnData, path: Path, gene: str) -> None:
    """Write the predicted and the measured map of a gene as the channels of a multiscale image.

    Its world is that of the H&E as an OME-Zarr with its µm/px as scale and no translation, where px 0 is centred on 0:
    a px of the map that covers k px of the H&E is centred (k - 1) / 2 px on.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.
    path
        The folder to write.
    gene
        The gene.

    Raises
    ------
    ConfigError
        If the gene is not predicted.
    StoreError
        If it cannot be written.
    """
    values = gene_values(table, gene)
    raster = SpotRaster.of_gene(slide, table, values)
    with staged_folder(path) as staged:
        group = zarr.create_group(staged, zarr_format=3)
        group.attrs.update(_attributes(raster, values.maps, values.name) | {OURS: provenance(table)})
        for level, shape_px in enumerate(raster.shapes_px):
            array = group.create_array(
                name=str(level),
                shape=(len(raster.values), *shape_px),
                chunks=(1, BLOCK_PX, BLOCK_PX),
                dtype="float32",
                fill_value=float("nan"),
                dimension_names=("c", "y", "x"),
            )
            for top, left in raster.blocks(level):
                part = raster.block(level, top, left)[:, : shape_px[0] - top, : shape_px[1] - left]
                if np.isfinite(part).any():
                    array[:, top : top + part.shape[1], left : left + part.shape[2]] = part


def is_ome_zarr_of_ours(path: Path) -> bool:
    """Tell whether a folder holds nothing but a gene map that we wrote."""
    try:
        if not all(entry.name == "zarr.json" or entry.name.isdigit() for entry in path.iterdir()):
            return False
        return {OURS, "ome"} <= set(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError):
        return False


def _attributes(raster: SpotRaster, maps: dict[str, Any], gene: str) -> dict[str, Any]:
    """Return the metadata of OME-Zarr 0.5."""
    datasets = []
    for level in range(len(raster.shapes_px)):
        shift = (raster.factor * 2**level - 1) / 2 * raster.mpp
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, raster.um(level), raster.um(level)]},
                    {"type": "translation", "translation": [0.0, shift, shift]},
                ],
            }
        )
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    finite = raster.values[np.isfinite(raster.values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    high = high if high > low else low + 1.0
    window = {"min": low, "max": high, "start": low, "end": high}
    channels = [
        {"label": f"{gene} {name}", "color": _COLOURS[name], "active": name == "predicted", "window": window}
        for name in maps
    ]
    multiscale = {"name": gene, "axes": axes, "datasets": datasets, "type": "mean of what is not NaN"}
    return {"ome": {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": channels}}}
