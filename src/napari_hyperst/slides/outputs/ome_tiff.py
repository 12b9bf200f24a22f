"""A gene map as a tiled, pyramidal OME-TIFF, for QuPath, Fiji and their like."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from anndata import AnnData
from numpy.typing import NDArray

from napari_hyperst.slides.outputs.raster import BLOCK_PX, SpotRaster
from napari_hyperst.slides.outputs.selection import gene_values, provenance
from napari_hyperst.slides.outputs.staging import staged_file
from napari_hyperst.slides.slide import Slide


def write_ome_tiff(slide: Slide, table: AnnData, path: Path, gene: str) -> None:
    """Write the predicted and the measured map of a gene as the channels of a float32 pyramid.

    It begins at the same corner as the H&E, and says how many µm its px are long. What no spot covers is NaN.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.
    path
        The file to write.
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
    told = provenance(table)
    metadata = {
        "axes": "CYX",
        "Name": values.name,
        "Description": "; ".join(f"{key}: {value}" for key, value in told.items()),
        "PhysicalSizeX": raster.um(0),
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": raster.um(0),
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": [f"{values.name} {name}" for name in values.maps]},
        "UUID": str(uuid.UUID(hashlib.sha256(repr((values.name, told)).encode()).hexdigest()[:32])),
    }
    with staged_file(path) as staged, tifffile.TiffWriter(staged, bigtiff=True, ome=True) as file:
        for level, (height, width) in enumerate(raster.shapes_px):
            per_cm = 1e4 / raster.um(level)
            file.write(
                _tiles(raster, level),
                shape=(len(raster.values), height, width),
                dtype=np.float32,
                tile=(BLOCK_PX, BLOCK_PX),
                photometric="minisblack",
                compression="zlib",
                predictor=True,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                **(
                    {"subifds": len(raster.shapes_px) - 1, "metadata": metadata}
                    if level == 0
                    else {"subfiletype": 1, "metadata": None}
                ),
            )


def _tiles(raster: SpotRaster, level: int) -> Iterator[NDArray[np.float32]]:
    """Give the tiles of a level as they stand in the file: channel by channel, row by row."""
    for channel in range(len(raster.values)):
        for top, left in raster.blocks(level):
            yield raster.block(level, top, left)[channel]
