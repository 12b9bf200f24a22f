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
    from napari_hyperst.viewer.session import Session


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


def show_result(session: Session, key: str, name: str, read: Result | str) -> str:
    """Show a prediction that was read, if its slide is still open.

    Parameters
    ----------
    session, key
        The slide.
    name
        What the prediction's table is called in a store.
    read
        What ``read_in_thread`` told.

    Returns
    -------
    str
        Why it cannot be shown; empty where it can.
    """
    why = read if isinstance(read, str) else ""
    if isinstance(read, Result):
        try:
            session.set_prediction(key, read.table, name, read.path, read.slide, read.genes)
        except Exception as error:  # whatever it is, the window goes on
            why = f"{type(error).__name__}: {error}"
    return f"the prediction cannot be shown ({why})" if why else ""


def _read(path: Path, slide: Slide) -> Result | str:
    """Read a prediction, or say what went wrong: of an error alone the worker would print a traceback."""
    from anndata import read_h5ad

    try:
        table = read_h5ad(path)
        return Result(path, table, slide, genes_of(table, slide))
    except Exception as error:  # whatever it is, the workbench goes on
        return f"{type(error).__name__}: {error}"
