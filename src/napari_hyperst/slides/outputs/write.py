"""One verb for all formats: the path's ending chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hyperst.errors import ConfigError, StoreError
from napari_hyperst.nouns.prediction import Prediction
from napari_hyperst.slides.export import check_target, prediction_table, write_table
from napari_hyperst.slides.expression import counts_are_raw
from napari_hyperst.slides.outputs.formats import STORE, OutputRequest
from napari_hyperst.slides.outputs.ome_zarr import is_ome_zarr_of_ours, write_ome_zarr
from napari_hyperst.slides.outputs.selection import LEAVE_OUT, NOT_MEASURED, check_gene, check_table
from napari_hyperst.slides.slide import Slide

if TYPE_CHECKING:
    from anndata import AnnData


def export(
    prediction: Prediction[Slide],
    path: str | Path,
    *,
    gene: str | None = None,
    measured: bool = False,
    table: str | None = None,
    overwrite: bool = False,
    copy: bool = False,
    command: str = "",
) -> Path:
    """Write a prediction in the format that the path's ending names.

    ====================================  =================================================================
    ``.zarr``, or no ending               SpatialData store: slide, spots, counts, and the prediction's table
    ``.h5ad``                             the table, with what scanpy and squidpy need to draw it on the H&E
    ``.csv``, ``.csv.gz``, ``.parquet``   spots x genes, with the spots' ids and places
    ``.ome.zarr``                         a gene's map as an OME-Zarr 0.5 pyramid that lies over the H&E
    ``.ome.tif``, ``.ome.tiff``           the same as a tiled OME-TIFF pyramid
    ``.png``, ``.pdf``                    a figure of a gene: H&E, measured, predicted
    ``.geojson``                          spots with measurements, and the slide's polygons, for QuPath
    ====================================  =================================================================

    Parameters
    ----------
    prediction
        From ``predict``.
    path
        What to write. Into the store that the slide was opened from, the table is added; any other store, and any
        file, is a new one.
    gene
        One gene: needed for a map; the best predicted one, if not told, in a figure; all in tables and GeoJSON.
    measured
        Whether tables and GeoJSON are to have the measured values too; the other formats have them anyway.
    table
        What to call the table in a store; ``<measured table>_hyperst``, or ``hyperst`` where nothing was measured.
    overwrite
        Whether a file of the same format may be replaced. Of a store only a table of ours ever is.
    copy
        Whether a new store is a copy of the slide's own, with all its elements.
    command
        What made the prediction, for the record.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ConfigError
        If the gene is not predicted, or the format and what is asked of it do not go together.
    StoreError
        If something is there already, or it cannot be written. Nothing is left behind then.
    """
    request = OutputRequest(Path(path), gene, measured, table, overwrite, copy)
    check_output(prediction.slide, request)
    return write_output(prediction.slide, prediction_table(prediction, command), request)


def check_output(slide: Slide, request: OutputRequest) -> None:
    """Check that ``export`` may write what is asked, before the work of predicting is done.

    Parameters
    ----------
    slide
        The slide to be predicted.
    request
        What is asked.

    Raises
    ------
    ConfigError, StoreError
        As ``export``; also where measured values are asked for and there are no raw counts.
    """
    _check_place(slide, request)
    if request.measured and (slide.counts is None or not counts_are_raw(slide.counts)):
        raise ConfigError(NOT_MEASURED, where=slide.path, do=LEAVE_OUT)


def _check_place(slide: Slide, request: OutputRequest) -> None:
    """Check that what is asked for may be written there, whatever there is to write."""
    request.check(is_ome_zarr_of_ours if request.format.name == "OME-Zarr" else Path.is_file)
    own = slide.sdata.path
    if request.format is STORE:
        check_target(slide, request.path, request.table, copy=request.copy)
    elif own is not None and Path(own).resolve() in request.path.resolve().parents:
        raise StoreError("lies within the slide's own store", where=request.path, do="name another place")


def write_output(
    slide: Slide, annotation: AnnData, request: OutputRequest, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the table of a prediction, new or out of a store, as ``export`` does.

    Parameters
    ----------
    slide
        The slide that the table annotates.
    annotation
        From ``prediction_table``, or a prediction's table of a store.
    request
        What is asked.
    progress
        Called with how many blocks of pixels of a new store are written, and of how many.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ConfigError, StoreError
        As ``export``.
    """
    _check_place(slide, request)
    path, gene, measured = request.path, request.gene, request.measured
    check_table(slide, annotation, path)
    check_gene(annotation, gene)
    match request.format.name:
        case "OME-Zarr":
            write_ome_zarr(slide, annotation, path, str(gene))
        case "OME-TIFF":
            from napari_hyperst.slides.outputs.ome_tiff import write_ome_tiff

            write_ome_tiff(slide, annotation, path, str(gene))
        case "h5ad":
            from napari_hyperst.slides.outputs.h5ad import write_h5ad

            write_h5ad(slide, annotation, path)
        case "CSV":
            from napari_hyperst.slides.outputs.tables import write_csv

            write_csv(slide, annotation, path, gene, measured)
        case "Parquet":
            from napari_hyperst.slides.outputs.tables import write_parquet

            write_parquet(slide, annotation, path, gene, measured)
        case "figure":
            from napari_hyperst.slides.outputs.figure import draw_gene

            draw_gene(slide, annotation, path, gene)
        case "GeoJSON":
            from napari_hyperst.slides.outputs.geojson import write_geojson

            write_geojson(slide, annotation, path, gene, measured)
        case _:
            return write_table(slide, annotation, path, table=request.table, copy=request.copy, progress=progress)
    return path
