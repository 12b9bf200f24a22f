"""The lattice that spots lie on: its kind, its pitch, and each spot's ring of neighbours; or one that is laid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

LatticeKind = Literal["hex", "square", "none"]

#: How array coordinates number the places: ``hex`` as Visium does (neighbours in a row are two columns apart),
#: ``square`` one by one, ``checkerboard`` as dense legacy ST does (only places of one parity are used).
_Numbering = Literal["hex", "square", "checkerboard"]
#: Steps in (row, column) that are one pitch long, and those that complete the ring of neighbours.
_PITCH_STEPS: dict[_Numbering, tuple[tuple[int, int], ...]] = {
    "hex": ((0, 2), (1, 1), (1, -1), (0, -2), (-1, -1), (-1, 1)),
    "square": ((0, 1), (1, 0), (0, -1), (-1, 0)),
    "checkerboard": ((1, 1), (1, -1), (-1, -1), (-1, 1)),
}
_CORNER_STEPS: dict[_Numbering, tuple[tuple[int, int], ...]] = {
    "hex": (),
    "square": ((1, 1), (1, -1), (-1, -1), (-1, 1)),
    "checkerboard": ((0, 2), (2, 0), (0, -2), (-2, 0)),
}
#: Neighbours in a whole ring, and those of them that are one pitch away: as many as the lattice has directions.
_RING_SIZE: dict[LatticeKind, int] = {"hex": 6, "square": 8}
_FOLD: dict[LatticeKind, int] = {"hex": 6, "square": 4}
#: The ring in steps along two basis vectors, 60° apart (hex) or 90°; those one pitch long come first.
_PLANE_STEPS: dict[LatticeKind, NDArray[np.float64]] = {
    "hex": np.array([(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)], dtype=float),
    "square": np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1)], dtype=float),
}
#: Spots closer than this many times the usual distance to the nearest are one pitch away (the next are at 1.41).
_NEAR = 1.25
#: A step ends at most this far, in pitches, from where the lattice has a place.
_OFF = 0.3
#: A spot as many pitches from where its array coordinates have it has a mistaken position.
_MISPLACED = 1.0
#: There is no lattice where fewer steps fit it than this share of those that are about one pitch long.
_LEAST_FITTING = 0.6
#: Directions less regular than this (1 is ideal, 0 random) are of no lattice, nor those as regular as a few steps are
#: by chance (in units of their scatter), nor those almost all in one line.
_LEAST_ORDER, _LEAST_CHANCE, _LEAST_SPREAD = 0.6, 4.0, 0.1
#: Fewer spots than this leave the pitch undetermined.
_LEAST_SPOTS = 4


@dataclass(frozen=True)
class Lattice:
    """Where spots sit relative to one another.

    Attributes
    ----------
    kind
        ``"hex"``, ``"square"``, or ``"none"`` where no regular lattice was found.
    pitch_px
        Distance between neighbouring spots, in level-0 px; NaN for ``"none"``.
    ring
        (n, k) indices of each spot's ring of neighbours, k = 6 (hex), 8 (square) or 0; -1 where one is missing.
    """

    kind: LatticeKind
    pitch_px: float
    ring: NDArray[np.intp]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(n,) whether a spot's whole ring of neighbours is there; false for all without a lattice."""
        return (self.ring >= 0).all(axis=1) if self.ring.shape[1] else np.zeros(len(self.ring), dtype=bool)


def lay_hexagonal(
    tissue: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    shape_px: tuple[int, int],
    pitch_px: float,
    margin_px: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Lay a hexagonal lattice over an image, and keep its places in tissue.

    Place (row, column) has its centre at x = column * pitch / 2 and y = row * pitch * sqrt(3) / 2 from the image's top
    left corner, row and column both even or both odd, as Visium numbers its spots. So a place has one name whatever
    the tissue, and the lattice of half the pitch holds every place of the whole, under twice its numbers.

    Parameters
    ----------
    tissue
        Says which of (n, 2) places, (x, y) in level-0 px, are in tissue.
    shape_px
        (height, width) of the image's level 0.
    pitch_px
        Distance between neighbouring places in level-0 px.
    margin_px
        How far from the image's edge a centre has to be.

    Returns
    -------
    tuple
        (n, 2) centres, (x, y) in level-0 px, row by row, and their (n, 2) array coordinates, (row, column).
    """
    height, width = shape_px
    step_y, step_x = pitch_px * np.sqrt(3) / 2, pitch_px / 2
    rows = np.arange(np.ceil(margin_px / step_y), np.floor((height - margin_px) / step_y) + 1).astype(np.intp)
    columns = np.arange(np.ceil(margin_px / step_x), np.floor((width - margin_px) / step_x) + 1).astype(np.intp)
    kept = [np.empty((0, 2), dtype=np.intp)]
    for row in rows:  # a row at a time: most places of a fine lattice lie on glass
        in_row = columns[columns % 2 == row % 2]
        places = np.column_stack([np.full(len(in_row), row), in_row])
        kept.append(places[tissue(places[:, ::-1] * (step_x, step_y))])
    array = np.concatenate(kept)
    return array[:, ::-1] * (step_x, step_y), array


def is_mirrored(centres_px: NDArray[np.float64], array: NDArray[np.intp]) -> bool:
    """Tell whether columns and rows, which run right and down however turned, lie as in a mirror.

    Parameters
    ----------
    centres_px
        (n, 2) centres, (x, y) in level-0 px.
    array
        (n, 2) row and column of each spot.

    Returns
    -------
    bool
        False too where the spots are too few, or all in one line, to tell.
    """
    design = np.column_stack([array[:, ::-1], np.ones(len(array))])
    steps, _, rank, _ = np.linalg.lstsq(design, centres_px, rcond=None)
    return bool(rank == 3 and np.linalg.det(steps[:2]) < 0)


def lattice_from_array(centres_px: NDArray[np.float64], array: NDArray[np.intp], reach: int = 1) -> Lattice:
    """Find the lattice from array coordinates.

    The pitch comes from a least-squares fit of pixel to array coordinates: the medians of nearest-neighbour
    distances that come to mind first are 7 % off on some real sections. Spots a pitch or more from where the others
    have them, as single ones of mistaken positions are, are left out of a second fit.

    Parameters
    ----------
    centres_px
        (n, 2) spot centres, (x, y) in level-0 px.
    array
        (n, 2) integer (row, column) of each spot; unique.
    reach
        How many pitches away the ring of neighbours is: 2 on a lattice laid at half the pitch of an assay, where the
        ring is that of the assay.

    Returns
    -------
    Lattice
        Of kind ``"none"`` when the spots are too few or do not span a plane.
    """
    if len(array) < _LEAST_SPOTS or len(np.unique(array, axis=0)) < len(array):
        return _no_lattice(len(array))
    design = np.column_stack([array, np.ones(len(array))]).astype(float)
    if np.linalg.matrix_rank(design - design.mean(axis=0)) < 2:
        return _no_lattice(len(array))
    fit, *_ = np.linalg.lstsq(design, centres_px, rcond=None)
    numbering, pitch_px = _pitch(array, fit[:2])
    placed = np.linalg.norm(design @ fit - centres_px, axis=1) < _MISPLACED * pitch_px
    if not placed.all() and 2 * placed.sum() > len(placed) and np.linalg.matrix_rank(design[placed]) == 3:
        fit, *_ = np.linalg.lstsq(design[placed], centres_px[placed], rcond=None)
        numbering, pitch_px = _pitch(array, fit[:2])
    around = _PITCH_STEPS[numbering] + _CORNER_STEPS[numbering]
    ring = np.column_stack([_at(array, array + reach * np.array(step)) for step in around])
    return Lattice("hex" if numbering == "hex" else "square", pitch_px, ring)


def _pitch(array: NDArray[np.intp], steps: NDArray[np.float64]) -> tuple[_Numbering, float]:
    """Tell how (n, 2) array coordinates number the places, and the pitch, of (2, 2) px a row and a column."""
    numbering = _numbering(array, steps)
    of_a_pitch = np.array(_PITCH_STEPS[numbering], dtype=float) @ steps
    return numbering, float(np.sqrt((of_a_pitch**2).sum(axis=1).mean()))


def lattice_from_centres(centres_px: NDArray[np.float64]) -> Lattice:
    """Find the lattice from spot centres alone.

    The steps from each spot to the nearest others point in six directions on a hexagonal lattice and in four on a
    square one: the mean of exp(i m θ) over their angles θ is of length 1 for the m that fits, and its angle is m times
    the lattice's (0 for places at random). The steps are then fitted to whole multiples of two basis vectors, so that
    neither the scatter of single spots nor a bend over the whole section moves the pitch; it takes no median of
    nearest distances, which scatter alone makes too short. Any rotation, 30 % of spots missing and 2 % of scatter
    are borne.

    Parameters
    ----------
    centres_px
        (n, 2) spot centres, (x, y) in level-0 px.

    Returns
    -------
    Lattice
        Of kind ``"none"`` when the steps to the nearest spots are those of no regular lattice.
    """
    n = len(centres_px)
    if n < 9:
        return _no_lattice(n)
    distances, neighbours = cKDTree(centres_px).query(centres_px, k=9)
    distances, neighbours = distances[:, 1:], neighbours[:, 1:]  # without itself; all of the ring is among them
    unit = float(np.median(distances[:, 0]))
    if not unit > 0:
        return _no_lattice(n)
    links = centres_px[neighbours] - centres_px[:, None]
    near = links[distances < _NEAR * unit]
    kind, angle = _symmetry(near)
    if kind == "none":
        return _no_lattice(n)
    turn = np.pi / 3 if kind == "hex" else np.pi / 2
    length = float(np.linalg.norm(near, axis=1).mean())
    basis = length * np.array([[np.cos(a), np.sin(a)] for a in (angle, angle + turn)])
    for _ in range(2):  # the second time with the links that the fitted basis, not the first guess, takes for steps
        steps, fits = _nearest_steps(links, basis)
        fits &= _slot(steps, kind) >= 0
        if np.linalg.matrix_rank(steps[fits].T @ steps[fits]) < 2:
            return _no_lattice(n)
        basis = np.linalg.solve(steps[fits].T @ steps[fits], steps[fits].T @ links[fits])  # least squares
        sides = np.linalg.norm(_PLANE_STEPS[kind][: _FOLD[kind]] @ basis, axis=1)
        if fits.sum() < _LEAST_FITTING * len(near) or sides.min() < 0.5 * sides.max():
            return _no_lattice(n)
    steps, fits = _nearest_steps(links, basis)
    slots = np.where(fits, _slot(steps, kind), -1)
    ring = np.full((n, _RING_SIZE[kind]), -1, dtype=np.intp)
    rows, nth = np.nonzero(slots >= 0)
    ring[rows, slots[rows, nth]] = neighbours[rows, nth]
    return Lattice(kind, float(np.sqrt((sides**2).mean())), ring)


def _symmetry(steps: NDArray[np.float64]) -> tuple[LatticeKind, float]:
    """Tell from (n, 2) steps between neighbours what lattice they are of, and the angle of its first direction."""
    spread = np.linalg.eigvalsh(steps.T @ steps / len(steps))
    if spread[0] < _LEAST_SPREAD * spread[1]:  # all in one row
        return "none", 0.0
    theta = np.arctan2(steps[:, 1], steps[:, 0])
    order = {kind: np.exp(1j * fold * theta).mean() for kind, fold in _FOLD.items()}
    kind = max(order, key=lambda k: abs(order[k]))
    if abs(order[kind]) < max(_LEAST_ORDER, _LEAST_CHANCE / np.sqrt(len(steps))):
        return "none", 0.0
    return kind, float(np.angle(order[kind])) / _FOLD[kind]


def _nearest_steps(
    links: NDArray[np.float64], basis: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (n, k, 2) links in whole steps along the basis, and which end near enough to one."""
    steps = np.rint(links @ np.linalg.inv(basis))
    off = np.linalg.norm(links - steps @ basis, axis=-1)
    return steps, off < _OFF * np.linalg.norm(basis, axis=1).mean()


def _slot(steps: NDArray[np.float64], kind: LatticeKind) -> NDArray[np.intp]:
    """Return the place of each step in the ring, -1 where it is none of the ring's."""
    places = np.full((3, 3), -1, dtype=np.intp)
    for place, (along, across) in enumerate(_PLANE_STEPS[kind].astype(int)):
        places[along + 1, across + 1] = place
    whole = steps.astype(np.intp)
    found = places[tuple(np.moveaxis(np.clip(whole, -1, 1) + 1, -1, 0))]
    return np.where((np.abs(whole) <= 1).all(axis=-1), found, -1)


def _at(array: NDArray[np.intp], wanted: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the index in ``array`` of each wanted (row, column), -1 where there is no spot."""
    low = np.minimum(array.min(axis=0), wanted.min(axis=0))
    width = int(max(array[:, 1].max(), wanted[:, 1].max()) - low[1]) + 1
    keys, asked = ((places - low) @ (width, 1) for places in (array, wanted))
    order = np.argsort(keys)
    place = order[np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)]
    return np.where(keys[place] == asked, place, -1)


def _numbering(array: NDArray[np.intp], to_px: NDArray[np.float64]) -> _Numbering:
    """Tell how places are numbered, from their parity and from how long the steps are in px."""
    if len(np.unique(array.sum(axis=1) % 2)) > 1:
        return "square"
    along_row, diagonal = np.linalg.norm(np.array([(0.0, 2.0), (1.0, 1.0)]) @ to_px, axis=1)
    # The two are equal on a hexagonal lattice; on a checkerboard the first is longer by the root of two.
    return "hex" if along_row < 1.2 * diagonal else "checkerboard"


def _no_lattice(n: int) -> Lattice:
    return Lattice("none", float("nan"), np.empty((n, 0), dtype=np.intp))
