"""A gene map as pixels: spots drawn in their size, in register with the H&E, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from napari_hyperst.slides.outputs.selection import GeneValues, are_squares, centres_px
from napari_hyperst.slides.slide import Slide

#: Side of a block, a chunk or tile of what is written.
BLOCK_PX = 512
#: A px of the finest level is the largest, of 1, 2, 4, … px of the H&E, of which a spot is at least this many long.
_SPOT_PX, _BIN_PX = 16, 4
#: Spots that are drawn at a time.
_AT_ONCE = 50_000


@dataclass(frozen=True)
class SpotRaster:
    """Maps of a slide's spots as a float32 pyramid; what no spot covers is NaN.

    Px i of level k covers px ``factor * 2**k * i`` to ``factor * 2**k * (i + 1)`` of the H&E's level 0: both begin at
    the same corner. A px of the finest level has the value of the spot in which its centre lies. A px of any other is
    the mean of those four of the finer one that have a value.

    Attributes
    ----------
    shape_px
        (height, width) of the H&E's level 0.
    mpp
        µm per px of the H&E.
    centres
        (n, 2) centres of the spots, (x, y) in level-0 px of the H&E.
    diameter_px
        Of a spot, or the side of a square bin, in level-0 px of the H&E.
    squares
        Whether the spots are square bins.
    values
        (c, n) what is drawn.
    factor
        Px of the H&E to a px of the finest level.
    """

    shape_px: tuple[int, int]
    mpp: float
    centres: NDArray[np.float64] = field(repr=False)
    diameter_px: float
    squares: bool
    values: NDArray[np.float32] = field(repr=False)
    factor: int

    @classmethod
    def of_slide(cls, slide: Slide, centres: NDArray[np.float64], values: NDArray[np.float32]) -> SpotRaster:
        """Lay out (c, n) values of the spots of a slide with these (n, 2) centres in level-0 px."""
        diameter_px, squares = slide.spots.diameter_um / slide.mpp, are_squares(slide)
        factor = 1
        while diameter_px / (2 * factor) >= (_BIN_PX if squares else _SPOT_PX):
            factor *= 2
        return cls(slide.image.shape_px, slide.mpp, centres, diameter_px, squares, values, factor)

    @classmethod
    def of_gene(cls, slide: Slide, table: AnnData, gene: GeneValues) -> SpotRaster:
        """Lay out the predicted and, where there is one, the measured map of a gene."""
        return cls.of_slide(slide, centres_px(table), np.stack(list(gene.maps.values())))

    @property
    def shapes_px(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level, halved (rounded up) until a block holds it."""
        height, width = (-(-side // self.factor) for side in self.shape_px)
        shapes = [(height, width)]
        while max(shapes[-1]) > BLOCK_PX:
            shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        return tuple(shapes)

    def um(self, level: int) -> float:
        """Return how many µm a px of a level is long."""
        return self.mpp * self.factor * 2**level

    def blocks(self, level: int) -> Iterator[tuple[int, int]]:
        """Give the row and the column of the first px of each block of a level, row by row."""
        height, width = self.shapes_px[level]
        for top in range(0, height, BLOCK_PX):
            for left in range(0, width, BLOCK_PX):
                yield top, left

    def block(self, level: int, top: int, left: int) -> NDArray[np.float32]:
        """Return (c, 512, 512) px of a level; what lies beyond its edge is NaN.

        Parameters
        ----------
        level
            0 is the finest.
        top, left
            The first row and column.
        """
        empty = np.full((len(self.values), BLOCK_PX, BLOCK_PX), np.nan, dtype=np.float32)
        height, width = self.shapes_px[level]
        if top >= height or left >= width or not len(self._within(level, top, left)):
            return empty
        if level == 0:
            drawn = self._drawn(top, left, empty)
            drawn[:, max(0, height - top) :], drawn[:, :, max(0, width - left) :] = np.nan, np.nan
            return drawn
        half = BLOCK_PX // 2
        for y in (0, 1):
            for x in (0, 1):
                finer = self.block(level - 1, 2 * top + y * BLOCK_PX, 2 * left + x * BLOCK_PX)
                empty[:, y * half : (y + 1) * half, x * half : (x + 1) * half] = _halved(finer)
        return empty

    def level(self, level: int) -> NDArray[np.float32]:
        """Return (c, height, width) px of a level whole: for those that are small."""
        height, width = self.shapes_px[level]
        whole = np.full((len(self.values), height, width), np.nan, dtype=np.float32)
        for top, left in self.blocks(level):
            part = whole[:, top : top + BLOCK_PX, left : left + BLOCK_PX]
            part[:] = self.block(level, top, left)[:, : part.shape[1], : part.shape[2]]
        return whole

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The order of the spots from top to bottom, and their y in that order."""
        order = np.argsort(self.centres[:, 1], kind="stable")
        return order, self.centres[order, 1]

    def _within(self, level: int, top: int, left: int) -> NDArray[np.intp]:
        """Return which spots may reach into a block, in their own order."""
        scale, reach = self.factor * 2**level, self.diameter_px / 2
        order, rows = self._by_row
        first, last = np.searchsorted(rows, [top * scale - reach, (top + BLOCK_PX) * scale + reach])
        found = order[first:last]
        x = self.centres[found, 0]
        return np.sort(found[(x > left * scale - reach) & (x < (left + BLOCK_PX) * scale + reach)])

    def _drawn(self, top: int, left: int, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Draw the spots that reach into a block of the finest level."""
        spots = self._within(0, top, left)
        radius = self.diameter_px / 2 / self.factor
        steps = np.arange(int(np.ceil(2 * radius)) + 1)
        for start in range(0, len(spots), _AT_ONCE // len(steps) + 1):
            some = spots[start : start + _AT_ONCE // len(steps) + 1]
            centres = self.centres[some] / self.factor - (left, top)  # (x, y) in px of the block
            x, y = (np.floor(centres[:, [axis]] - radius).astype(np.intp) + steps for axis in (0, 1))
            dx, dy = (places + 0.5 - centres[:, [axis]] for axis, places in ((0, x), (1, y)))
            if self.squares:  # half open, so that a px between two bins is of one of them
                in_x, in_y = ((-radius <= d) & (d < radius) for d in (dx, dy))
                inside = in_y[:, :, None] & in_x[:, None, :]
            else:
                inside = dy[:, :, None] ** 2 + dx[:, None, :] ** 2 <= radius**2
            inside &= ((y >= 0) & (y < BLOCK_PX))[:, :, None] & ((x >= 0) & (x < BLOCK_PX))[:, None, :]
            spot, row, column = np.nonzero(inside)
            block[:, y[spot, row], x[spot, column]] = self.values[:, some[spot]]
        return block


def _halved(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the px of each square of 2 x 2 that are not NaN; NaN where all are."""
    squares = fine.reshape(len(fine), fine.shape[1] // 2, 2, fine.shape[2] // 2, 2)
    there = np.isfinite(squares)
    count = there.sum(axis=(2, 4))
    total = np.where(there, squares, 0).sum(axis=(2, 4))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
