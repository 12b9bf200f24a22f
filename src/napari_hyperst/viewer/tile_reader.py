"""The two tiles that a model sees of one spot, read in a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import HyperSTError, SlideError
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.viewer.footprints import sides_um
from napari_hyperst.viewer.rows import spots_of_rows

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.entry import Entry


@dataclass(frozen=True)
class SpotTiles:
    """The tiles of a spot, as they are on the slide.

    Attributes
    ----------
    spot, niche
        (pixels, pixels, 3) uint8 RGB.
    spot_um, niche_um
        Their sides in µm.
    """

    spot: NDArray[np.uint8]
    niche: NDArray[np.uint8]
    spot_um: float
    niche_um: float


#: A prediction's table, the row of a spot in it, and its tiles or what went wrong.
Told = tuple["AnnData", int, SpotTiles | HyperSTError]


def read_in_thread(entry: Entry, row: int, told: Callable[[Told], None]) -> None:
    """Read the tiles of a spot in a thread.

    Parameters
    ----------
    entry
        A predicted slide.
    row
        Of the spot in its table.
    told
        A widget's method, called in the main thread with the table, the row, and the tiles or what went wrong.
    """
    from napari.qt.threading import create_worker

    assert entry.table is not None
    slide = entry.predicted or entry.slide
    sides = sides_um(entry)
    spec = TileSpec(spot_um=sides["spot"], niche_um=sides.get("niche", sides["spot"]))
    worker = create_worker(_read, slide, spec, int(spots_of_rows(entry.table, slide)[row]), (entry.table, row))
    worker.returned.connect(told)
    worker.start()


def _read(slide: Slide, spec: TileSpec, spot: int, asked: tuple[AnnData, int]) -> Told:
    """Read tiles, or say what went wrong: an error alone, returned or not, the worker would raise."""
    from napari_hyperst.slides.tiles import niche_um, read_tiles

    try:
        if spot < 0:
            raise SlideError("the spot is no longer on the slide", where=slide.path, do="predict again")
        if not slide.path.exists():  # of a store that is gone zarr reads black
            raise SlideError("the slide is no longer there", where=slide.path.name, do="open it from where it is now")
        (batch,) = read_tiles(slide, spec, np.array([spot]), threads=1)
        return *asked, SpotTiles(batch.spot[0], batch.niche[0], spec.spot_um, niche_um(slide, spec))
    except HyperSTError as error:
        return *asked, error
    except Exception as error:  # a library failed as no reader foresaw
        return *asked, SlideError(f"tiles cannot be read ({type(error).__name__}: {error})", where=slide.path)
