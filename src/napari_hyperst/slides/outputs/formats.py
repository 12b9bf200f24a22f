"""What a prediction is written as: told by how the path ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_hyperst.errors import ConfigError, StoreError

#: What a format does with a gene: it holds one, that has to be named; shows one, the best predicted unless told; holds
#: all, or one that is named; or always holds all.
GeneChoice = Literal["needed", "best", "optional", "none"]


@dataclass(frozen=True)
class OutputFormat:
    """A format that predictions are written in.

    Attributes
    ----------
    name
        What messages call it.
    suffixes
        How its paths end, the usual ending first.
    gene
        What it does with a gene.
    measured
        Whether it can hold the measured values beside the predicted ones, where that is asked for.
    """

    name: str
    suffixes: tuple[str, ...]
    gene: GeneChoice
    measured: bool = False


STORE = OutputFormat("SpatialData store", (".zarr",), "none")
#: All formats; an ending that ends another one comes after it.
FORMATS = (
    OutputFormat("OME-Zarr", (".ome.zarr",), "needed"),
    STORE,
    OutputFormat("OME-TIFF", (".ome.tif", ".ome.tiff"), "needed"),
    OutputFormat("h5ad", (".h5ad",), "none"),
    OutputFormat("CSV", (".csv", ".csv.gz"), "optional", measured=True),
    OutputFormat("Parquet", (".parquet",), "optional", measured=True),
    OutputFormat("figure", (".png", ".pdf"), "best"),
    OutputFormat("GeoJSON", (".geojson",), "optional", measured=True),
)


def output_format(path: str | Path) -> OutputFormat:
    """Tell by a path's ending what is to be written there; a name without an ending is that of a store.

    Raises
    ------
    StoreError
        If nothing is written that ends so.
    """
    path = Path(path)
    name = path.name.lower()
    for found in FORMATS:
        if name.endswith(found.suffixes):
            return found
    if not path.suffix or path.is_dir():
        return STORE
    known = ", ".join(suffix for found in FORMATS for suffix in found.suffixes)
    raise StoreError(f"nothing is written that ends in {path.suffix}", where=path, do=f"name it with one of {known}")


def check_request(found: OutputFormat, path: Path, gene: str | None, measured: bool, copy: bool = False) -> None:
    """Check that a format can do what is asked of it.

    Raises
    ------
    ConfigError
        If it needs a gene and none is named, or holds all genes and one is named, or cannot hold measured values, or a
        copy is asked for of what is no store.
    """
    if copy and found is not STORE:
        raise ConfigError(f"{_one(found)} is no copy of a store", where=path, do="leave that out (--copy, or copy=)")
    if found.gene == "needed" and gene is None:
        raise ConfigError(f"{_one(found)} holds one gene", where=path, do="name it (--gene, or gene=)")
    if found.gene == "none" and gene is not None:
        raise ConfigError(f"{_one(found)} holds all genes", where=path, do="leave the gene out (--gene, or gene=)")
    if measured and not found.measured:
        raise ConfigError(
            f"{_one(found)} has the measured values wherever there are any",
            where=path,
            do="leave that out (--measured, or measured=)",
        )


def _one(found: OutputFormat) -> str:
    return f"{'an' if found.name[0] in 'Oh' else 'a'} {found.name}"
