"""Square bins side by side, as of Visium HD, are an image of the bins: points of half a million take seconds."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_hyperst.slides.slide import Slide

#: Squares on a square lattice are side by side where they are wider than this share of its pitch.
_SIDE_BY_SIDE = 0.9
#: The fit begins with bins this many pitches around one amid them, and goes on with so many times as many.
_FIRST, _TIMES = 8.0, 3.0
#: Bins lie on their places to within this share of the pitch, or they are none.
_OFF = 0.25
#: Where less than this share of the places has a bin, points take less than an image.
_LEAST_FILLED = 0.02


@dataclass(frozen=True)
class Grid:
    """The array that the bins of a slide make.

    Attributes
    ----------
    shape
        Rows and columns.
    matrix
        (3, 3) from (row, column, 1) to the centre of a bin, (y, x, 1) in level-0 px.
    """

    shape: tuple[int, int]
    matrix: NDArray[np.float64]

    def places(self, centres_px: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return (n, 2) rows and columns of bins with these (n, 2) centres, (x, y) in level-0 px."""
        return np.rint(_apply(np.linalg.inv(self.matrix), centres_px[:, ::-1])).astype(np.intp)

    def fill(self, places: NDArray[np.intp], values: NDArray[Any], empty: Any) -> NDArray[Any]:
        """Return (rows, columns) values, ``empty`` where there is no bin."""
        filled = np.full(self.shape, empty, dtype=values.dtype)
        filled[tuple(places.T)] = values
        return filled

    def placement(self, where: dict[str, Any]) -> dict[str, Any]:
        """Return scale, affine and units of an image of the bins.

        Parameters
        ----------
        where
            Those that put level-0 px of the slide into the viewer.
        """
        pitch = float(np.sqrt(abs(np.linalg.det(self.matrix[:2, :2]))))
        um_a_px = float(where["scale"][0])
        scale = pitch * um_a_px
        to_um = np.diag([um_a_px, um_a_px, 1.0]) @ self.matrix @ np.diag([1 / scale, 1 / scale, 1.0])
        return {"scale": (scale, scale), "affine": where["affine"] @ to_um, "units": where["units"]}

    def outline(self, places: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return (rows, columns) 1 where bins end, 0 within and without."""
        there = np.pad(self.fill(places, np.ones(len(places), dtype=np.uint8), 0), 1)
        within = there[:-2, 1:-1] & there[2:, 1:-1] & there[1:-1, :-2] & there[1:-1, 2:]
        return there[1:-1, 1:-1] & (1 - within)


#: What was found of spots that are there, by what they are: half a million bins take a third of a second.
_FOUND: dict[int, Grid | None] = {}


def grid_of(slide: Slide) -> Grid | None:
    """Return the array of a slide's bins; None where its spots are apart, or on no square lattice."""
    key = id(slide.spots)
    if key not in _FOUND:
        _FOUND[key] = _find_grid(slide)
        weakref.finalize(slide.spots, _FOUND.pop, key)
    return _FOUND[key]


def _find_grid(slide: Slide) -> Grid | None:
    """Find the array of a slide's bins.

    Rows and columns are found from the centres: a least-squares fit over bins around one amid them says where those
    farther away are, until all are in it.
    """
    side_by_side = slide.spots.diameter_um >= _SIDE_BY_SIDE * slide.pitch_um
    if slide.lattice.kind != "square" or not side_by_side or len(slide.spots) < 4:
        return None
    yx = slide.spots.centres_px[:, ::-1]
    away = np.linalg.norm(yx - np.median(yx, axis=0), axis=1)
    first = int(away.argmin())
    near = slide.lattice.ring[:, :4]
    steps = (yx[near] - yx[:, None])[near >= 0]
    turned = np.angle(np.mean(np.exp(4j * np.arctan2(steps[:, 1], steps[:, 0])))) / 4  # down the rows, 90° being none
    pitch = slide.lattice.pitch_px
    matrix = np.eye(3)
    matrix[:2, :2] = pitch * np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    matrix[:2, 2] = yx[first]
    away, reach = np.linalg.norm(yx - yx[first], axis=1) / pitch, _FIRST
    while True:
        within = away <= reach
        places = np.rint(_apply(np.linalg.inv(matrix), yx[within]))
        if np.ptp(places, axis=0).min() > 0:  # not all in one line
            fitted = np.linalg.lstsq(np.column_stack([places, np.ones(len(places))]), yx[within], rcond=None)[0]
            matrix[:2] = fitted.T
        if within.all():
            break
        reach *= _TIMES
    places = np.rint(_apply(np.linalg.inv(matrix), yx))
    low = places.min(axis=0)
    rows, columns = (np.ptp(places, axis=0) + 1).astype(int)
    apart = len(np.unique((places - low) @ (columns, 1))) == len(places)
    if np.abs(_apply(matrix, places) - yx).max() > _OFF * pitch or not apart:
        return None
    matrix[:2, 2] = _apply(matrix, low[None])[0]
    return Grid((int(rows), int(columns)), matrix) if len(places) >= _LEAST_FILLED * rows * columns else None


def _apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ matrix[:2, :2].T + matrix[:2, 2]
