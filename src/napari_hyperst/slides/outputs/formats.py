"""What a prediction is written as: told by how the path ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_hyperst.errors import ConfigError, StoreError
from napari_hyperst.files import check_place

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


@dataclass(frozen=True)
class OutputRequest:
    """What is to be written of a prediction, where, and how.

    Attributes
    ----------
    path, gene, measured, table, overwrite, copy
        As ``export`` takes them.
    """

    path: Path
    gene: str | None = None
    measured: bool = False
    table: str | None = None
    overwrite: bool = False
    copy: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.expanduser().absolute())

    @property
    def format(self) -> OutputFormat:
        """What the path's ending names.

        Raises
        ------
        StoreError
            If nothing is written that ends so.
        """
        return output_format(self.path)

    def check(self, is_ours: Callable[[Path], bool] = Path.exists) -> None:
        """Check that the format can do what is asked of it, and that a file may be written there.

        Whether a store may be hangs on the slide.

        Parameters
        ----------
        is_ours
            Tells whether what is there is of the kind that is to be written.

        Raises
        ------
        ConfigError
            If it needs a gene and none is named, or holds all genes and one is named, or cannot hold measured values,
            or a copy is asked for of what is no store.
        StoreError
            If there is something that may not be replaced, or no folder to write into, or none that may be written.
        """
        kind, path = self.format, self.path
        if self.copy and kind is not STORE:
            raise ConfigError(f"{_one(kind)} is no copy of a store", where=path, do="leave that out (--copy, or copy=)")
        if kind.gene == "needed" and self.gene is None:
            raise ConfigError(f"{_one(kind)} holds one gene", where=path, do="name it (--gene, or gene=)")
        if kind.gene == "none" and self.gene is not None:
            raise ConfigError(f"{_one(kind)} holds all genes", where=path, do="leave the gene out (--gene, or gene=)")
        if self.measured and not kind.measured:
            raise ConfigError(
                f"{_one(kind)} has the measured values wherever there are any",
                where=path,
                do="leave that out (--measured, or measured=)",
            )
        if kind is STORE:
            return
        if self.overwrite:
            other = "is something else, and is not overwritten"
            check_place(path, lambda there: not there.is_symlink() and is_ours(there), other)
        else:
            check_place(path, do="name a new one, or say that it may go (--overwrite, or overwrite=True)")


def _one(found: OutputFormat) -> str:
    return f"{'an' if found.name[0] in 'Oh' else 'a'} {found.name}"
