"""A pyramid's next level: half the size, every pixel the mean of the square it covers, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Reads a region of a level: (c, y, x) pixels between rows and columns of it.
Read = Callable[[slice, slice], NDArray[Any]]


def level_shapes(shape_px: tuple[int, int], least_px: int) -> tuple[tuple[int, int], ...]:
    """Return (height, width) of each level, halved (rounded up) until none is longer than ``least_px``."""
    shapes = [shape_px]
    while max(shapes[-1]) > least_px:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return tuple(shapes)


def halved(read: Read, fine_px: tuple[int, int], coarse_px: tuple[int, int], y: slice, x: slice) -> NDArray[Any]:
    """Return a block of the next coarser level.

    Each of its pixels is the mean of what it covers of the finer level, weighted by area. Where the finer level has an
    even number of pixels that is a square of 2 x 2. Where it has an odd one the coarse pixels are a trifle smaller, as
    both levels show the same tissue from edge to edge: so no level is ever moved against another.

    Parameters
    ----------
    read
        Reads the finer level.
    fine_px, coarse_px
        (height, width) of both levels.
    y, x
        Rows and columns of the coarser level.

    Returns
    -------
    NDArray
        (c, rows, columns) of the finer level's type; integers are rounded, halves up.
    """
    rows, row_weights = _covered(y, fine_px[0], coarse_px[0])
    columns, column_weights = _covered(x, fine_px[1], coarse_px[1])
    top, left = int(rows[0, 0]), int(columns[0, 0])
    fine = read(slice(top, int(rows[-1].max()) + 1), slice(left, int(columns[-1].max()) + 1))
    exact = np.float64 if fine.dtype.itemsize > 2 else np.float32  # 16-bit px times an eighth are whole in 24 bits
    narrow = _weighted(fine, columns - left, column_weights.astype(exact), axis=2)
    means = _weighted(narrow, rows - top, row_weights.astype(exact), axis=1)
    if fine.dtype.kind in "ui":
        means = np.floor(means + exact(0.5))
    return means.astype(fine.dtype)


def _covered(part: slice, fine: int, coarse: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return which pixels of a finer line each coarse pixel covers, (n, k), and by what share, rows summing to 1."""
    factor = fine / coarse
    start = np.arange(part.start, part.stop) * factor
    first = np.floor(start).astype(np.intp)
    index = first[:, None] + np.arange(2 if fine == 2 * coarse else 3)
    overlap = np.minimum(index + 1, (start + factor)[:, None]) - np.maximum(index, start[:, None])
    return np.minimum(index, fine - 1), np.clip(overlap, 0, None) / factor


def _weighted(pixels: NDArray[Any], index: NDArray[np.intp], weights: NDArray[Any], axis: int) -> NDArray[Any]:
    """Add up pixels along an axis, k of them for each place, each times its weight."""
    shape = [1, 1, 1]
    shape[axis] = -1
    total = np.take(pixels, index[:, 0], axis=axis) * weights[:, 0].reshape(shape)
    for k in range(1, index.shape[1]):
        total += np.take(pixels, index[:, k], axis=axis) * weights[:, k].reshape(shape)
    return total
