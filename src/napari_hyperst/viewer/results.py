"""What a job predicted, read in a thread: of half a million bins that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hyperst.viewer.genes import Genes, genes_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide


@dataclass(frozen=True, eq=False)
class Result:
    """A prediction as a job wrote it.

    Attributes
    ----------
    path
        The file that it was read from.
    table
        The prediction's table.
    slide
        The slide as it was when it was predicted.
    genes
        What is known of its genes.
    """

    path: Path
    table: AnnData
    slide: Slide
    genes: Genes


def read_in_thread(path: Path, slide: Slide, told: Callable[[Result | str], None]) -> None:
    """Read a prediction in a thread.

    Parameters
    ----------
    path
        The file with its table.
    slide
        The slide as it was when it was predicted.
    told
        Called in the main thread with the prediction, or with what went wrong.
    """
    from napari.qt.threading import create_worker

    worker = create_worker(_read, path, slide)
    worker.returned.connect(told)
    worker.start()


def _read(path: Path, slide: Slide) -> Result | str:
    """Read a prediction, or say what went wrong: of an error alone the worker would print a traceback."""
    from anndata import read_h5ad

    try:
        table = read_h5ad(path)
        return Result(path, table, slide, genes_of(table, slide))
    except Exception as error:  # whatever it is, the workbench goes on
        return f"{type(error).__name__}: {error}"
