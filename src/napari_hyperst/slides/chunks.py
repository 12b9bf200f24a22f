"""Decoded chunks of a pyramid, each read once for all tiles that touch it, within a bound of memory."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.slides.image import Pyramid

#: The least side of what is read at once, in px: smaller chunks are read several together.
_PIECE_PX = 1024
#: Decoded px that are kept for tiles to come, in bytes. A Visium slide 20,000 px wide needs a third of it.
LIMIT_BYTES = 256 * 2**20
#: Pillow keeps RGB in four bytes.
_BYTES_PER_PX = 4

#: A part of a level that is read at once: level, row, column.
Piece = tuple[int, int, int]


@dataclass(frozen=True)
class Region:
    """A rectangle of a level in whole px, which may reach beyond its edges.

    Attributes
    ----------
    level
        Which level.
    left, top, right, bottom
        Extent in px of that level.
    """

    level: int
    left: int
    top: int
    right: int
    bottom: int


class Pieces:
    """How the levels of a pyramid are cut into what is read at once: whole chunks, some together if they are small.

    Parameters
    ----------
    image
        The pyramid.
    """

    def __init__(self, image: Pyramid) -> None:
        self.image = image

    @cached_property
    def edges(self) -> list[tuple[list[int], list[int]]]:
        """For each level, where its pieces end and begin, in y and in x."""
        return [(_edges(level.chunks[1]), _edges(level.chunks[2])) for level in self.image.levels]

    def touched(self, level: int, regions: NDArray[np.intp]) -> set[Piece]:
        """Return the pieces that some regions are made of, reflection at the image's edge included.

        Parameters
        ----------
        level
            Which level.
        regions
            (n, 4) left, top, right, bottom in px of the level.
        """
        height, width = self.image.levels[level].shape[1:]
        spans = []
        for axis, size in ((1, height), (0, width)):
            edges = np.array(self.edges[level][1 - axis])
            low, high = sources(regions[:, axis], regions[:, axis + 2], size)
            spans += [np.searchsorted(edges, low, "right") - 1, np.searchsorted(edges, high, "left")]
        return {
            (level, row, column)
            for top, bottom, left, right in np.unique(np.column_stack(spans), axis=0).tolist()
            for row in range(top, bottom)
            for column in range(left, right)
        }


class ChunkCache:
    """Pieces of a pyramid that are decoded, until the last tile that needs them is cut.

    What will be needed at which step is told beforehand. A piece is read when it is first asked for, by whichever
    thread comes first; the others wait for it. It is dropped with the last step that needs it, or, where more than
    the bound is kept, the one first that is needed last: then it is read again.

    Parameters
    ----------
    pieces
        How the pyramid is cut.
    steps
        For each step, the pieces it needs.
    limit_bytes
        The most to keep.
    """

    def __init__(self, pieces: Pieces, steps: Sequence[set[Piece]], limit_bytes: int = LIMIT_BYTES) -> None:
        self._pieces = pieces
        self._steps = steps
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._held: dict[Piece, Future[Image.Image]] = {}
        self._uses: dict[Piece, list[int]] = {}  # the steps to come that need a piece, the last one first
        for step in reversed(range(len(steps))):
            for piece in steps[step]:
                self._uses.setdefault(piece, []).append(step)

    def cut(self, region: Region) -> Image.Image:
        """Return the px of a region; beyond the image's edges, its reflection.

        Raises
        ------
        SlideError
            If the pixels cannot be read or decoded.
        """
        height, width = self._pieces.image.levels[region.level].shape[1:]
        if min(region.left, region.top) >= 0 and region.right <= width and region.bottom <= height:
            return self._assemble(region)
        left, right = (int(end) for end in sources(region.left, region.right, width))
        top, bottom = (int(end) for end in sources(region.top, region.bottom, height))
        inside = np.asarray(self._assemble(Region(region.level, left, top, right, bottom)))
        y = _reflected(region.top, region.bottom, height) - top
        x = _reflected(region.left, region.right, width) - left
        return Image.fromarray(np.ascontiguousarray(inside[y[:, None], x]))

    def done(self, step: int) -> None:
        """Drop what no later step needs, and what is over the bound."""
        with self._lock:
            for piece in self._steps[step]:
                self._uses[piece].remove(step)
                if not self._uses[piece]:
                    self._held.pop(piece, None)
            finished = [piece for piece, read in self._held.items() if read.done()]
            sizes = {piece: _BYTES_PER_PX * self._area(piece) for piece in finished}
            over = sum(sizes.values()) - self._limit
            for piece in sorted(finished, key=lambda piece: -self._uses[piece][-1]):
                if over <= 0:
                    break
                del self._held[piece]
                over -= sizes[piece]

    def _assemble(self, region: Region) -> Image.Image:
        """Put a region that lies in the image together from its pieces."""
        rows, columns = self._pieces.edges[region.level]
        touched = [
            (row, column)
            for row in range(bisect_right(rows, region.top) - 1, bisect_right(rows, region.bottom - 1))
            for column in range(bisect_right(columns, region.left) - 1, bisect_right(columns, region.right - 1))
        ]
        size = region.right - region.left, region.bottom - region.top
        whole = None if len(touched) == 1 else Image.new("RGB", size)
        for row, column in touched:
            piece = self._get((region.level, row, column))
            left, top = max(region.left, columns[column]), max(region.top, rows[row])
            right, bottom = min(region.right, columns[column + 1]), min(region.bottom, rows[row + 1])
            x, y = columns[column], rows[row]
            part = piece.crop((left - x, top - y, right - x, bottom - y))
            if whole is None:
                return part
            whole.paste(part, (left - region.left, top - region.top))
        assert whole is not None
        return whole

    def _get(self, piece: Piece) -> Image.Image:
        with self._lock:
            read = self._held.get(piece)
            mine = read is None
            if read is None:
                read = self._held[piece] = Future()
        if mine:
            try:
                read.set_result(self._read(piece))
            except BaseException as error:
                with self._lock:
                    self._held.pop(piece, None)
                read.set_exception(error)
        return read.result()

    def _read(self, piece: Piece) -> Image.Image:
        level, row, column = piece
        rows, columns = self._pieces.edges[level]
        y, x = slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1])
        pixels = self._pieces.image.read(level, y, x)
        # Stores keep planes; interleaving them is many times faster in Pillow than in numpy.
        return Image.merge("RGB", [Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(3)])

    def _area(self, piece: Piece) -> int:
        level, row, column = piece
        rows, columns = self._pieces.edges[level]
        return (rows[row + 1] - rows[row]) * (columns[column + 1] - columns[column])


def sources(start: NDArray[np.intp] | int, stop: NDArray[np.intp] | int, size: int) -> tuple[NDArray, NDArray]:
    """Return the px, from and up to, that a stretch of an axis of ``size`` px is made of once it is reflected."""
    start, stop = np.asarray(start), np.asarray(stop)
    low = np.where(stop > size, np.minimum(start, 2 * (size - 1) - (stop - 1)), start)
    high = np.where(start < 0, np.maximum(stop, 1 - start), stop)
    return np.clip(low, 0, size - 1), np.clip(high, 1, size)


def _reflected(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return which px stand at places along an axis that is reflected at its ends, the outermost px not repeated."""
    period = max(1, 2 * (size - 1))
    place = np.arange(start, stop) % period
    return np.where(place < size, place, period - place)


def _edges(chunks: Sequence[int]) -> list[int]:
    """Return where pieces begin and end along an axis of these chunks."""
    edges = [0]
    end = 0
    for chunk in chunks:
        end += chunk
        if end - edges[-1] >= _PIECE_PX:
            edges.append(end)
    if edges[-1] < end:
        edges.append(end)
    return edges
