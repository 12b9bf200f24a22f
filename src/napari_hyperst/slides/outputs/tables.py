"""Spots x genes as CSV and Parquet."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from anndata import AnnData

from napari_hyperst.slides.outputs.selection import centres_px, genes_of, provenance
from napari_hyperst.slides.outputs.staging import staged_file
from napari_hyperst.slides.slide import Slide


def spots_by_genes(slide: Slide, table: AnnData, gene: str | None = None, measured: bool = False) -> pd.DataFrame:
    """Lay a prediction out as a plain table, a row a spot.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.
    gene
        One gene; all if not told.
    measured
        Whether measured values are to stand beside the predicted ones.

    Returns
    -------
    DataFrame
        ``spot`` (its id), ``x_px`` and ``y_px`` (its centre in level-0 px of the H&E, where px i spans i to i + 1),
        ``x_um`` and ``y_um``, then each gene's log2(count + 1), and after these ``<gene>_measured``.

    Raises
    ------
    ConfigError
        If the gene is not predicted, or nothing was measured.
    """
    values = genes_of(table, gene, measured)
    names = list(table.var_names) if gene is None else [gene]
    px = centres_px(table)
    places = {"spot": table.obs_names.astype(str), "x_px": px[:, 0], "y_px": px[:, 1]}
    places |= {"x_um": px[:, 0] * slide.mpp, "y_um": px[:, 1] * slide.mpp}
    endings = {"predicted": "", "measured": "_measured"}
    columns = [pd.DataFrame(matrix, columns=[n + endings[kind] for n in names]) for kind, matrix in values.items()]
    return pd.concat([pd.DataFrame(places), *columns], axis=1)


def write_csv(slide: Slide, table: AnnData, path: Path, gene: str | None, measured: bool) -> None:
    """Write ``spots_by_genes`` as text, compressed where the name ends in ``.gz``.

    Raises
    ------
    ConfigError
        As ``spots_by_genes``.
    StoreError
        If it cannot be written.
    """
    frame = spots_by_genes(slide, table, gene, measured)
    with staged_file(path) as staged, staged.open("wb") as raw:
        if path.suffix.lower() == ".gz":  # without name and time, which would make each file another
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                _write_rows(frame, packed)
        else:
            _write_rows(frame, raw)


def _write_rows(frame: pd.DataFrame, file: gzip.GzipFile | io.BufferedWriter) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    frame.to_csv(text, index=False, lineterminator="\n")
    text.flush()
    text.detach()


def write_parquet(slide: Slide, table: AnnData, path: Path, gene: str | None, measured: bool) -> None:
    """Write ``spots_by_genes`` as Parquet, with how it was made in the schema's metadata.

    Raises
    ------
    ConfigError
        As ``spots_by_genes``.
    StoreError
        If it cannot be written.
    """
    rows = pa.Table.from_pandas(spots_by_genes(slide, table, gene, measured), preserve_index=False)
    said = {f"hyperst_{key}": value for key, value in provenance(table).items()}
    with staged_file(path) as staged:
        pa.parquet.write_table(rows.replace_schema_metadata({**(rows.schema.metadata or {}), **said}), staged)
