"""An image of any size becomes a chunked pyramid on disk: in bounded memory, and resumable after a kill at any moment.

The levels are Zarr arrays ``s0``, ``s1``, … in one folder. They are written in blocks of whole chunks, finest level
first; each chunk appears under its name when it is whole (Zarr renames it there), and each block is then noted in the
file ``done``. What is noted is not written again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.halving import halved, level_shapes
from napari_hyperst.slides.scan import CHUNK_PX

#: The file that notes which blocks are written.
JOURNAL = "done"
#: What the folders of levels are called, before their number.
_LEVEL = "s"
#: How each of its lines ends.
_WHOLE = " written"
#: Blocks are at most this many chunks long, where the source's own chunks are that large.
_MOST_CHUNKS = 4
#: Blocks at work at once, and the bytes of their pixels together, whatever the image's size.
_MOST_WORKERS, _MOST_BYTES = 4, 2**27
#: Seconds after which progress is told anew, so that a request to stop is heard while a block takes long.
_TICK_S = 0.2


def level_folders(pyramid: Path) -> tuple[Path, ...]:
    """Return the folders of the levels in the folder of a pyramid, finest first."""
    return tuple(sorted(pyramid.glob(f"{_LEVEL}*"), key=lambda path: int(path.name.removeprefix(_LEVEL))))


@dataclass(frozen=True)
class Block:
    """A rectangle of whole chunks of a level.

    Attributes
    ----------
    level
        The level, 0 the finest.
    y, x
        Its rows and columns.
    """

    level: int
    y: slice
    x: slice

    @property
    def key(self) -> str:
        """What it is noted by."""
        return f"{self.level} {self.y.start} {self.x.start}"


@dataclass(frozen=True)
class PyramidWriter:
    """Writes the pyramid of one image.

    Attributes
    ----------
    source
        The image, (c, y, x), lazy.
    folder
        Where to; made if it is not there.
    where
        The slide, for messages.
    """

    source: da.Array
    folder: Path
    where: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def shapes_px(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level: halved until a chunk holds it."""
        return level_shapes((self.source.shape[1], self.source.shape[2]), CHUNK_PX)

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks, finest level first."""
        for level, (height, width) in enumerate(self.shapes_px):
            rows, columns = (self._block_px(axis) if level == 0 else CHUNK_PX for axis in (1, 2))
            for top in range(0, height, rows):
                for left in range(0, width, columns):
                    yield Block(level, slice(top, min(top + rows, height)), slice(left, min(left + columns, width)))

    def level_folder(self, level: int) -> Path:
        """Return the folder of a level."""
        return self.folder / f"{_LEVEL}{level}"

    def prepare(self) -> None:
        """Make the empty levels, or tidy up what a killed run left of a chunk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for level, shape_px in enumerate(self.shapes_px):
            path = self.level_folder(level)
            for torn in path.rglob("*.partial"):
                torn.unlink()
            if not (path / "zarr.json").exists():
                zarr.create_array(
                    store=path,
                    shape=(self.source.shape[0], *shape_px),
                    chunks=(self.source.shape[0], CHUNK_PX, CHUNK_PX),
                    dtype=self.source.dtype,
                    dimension_names=("c", "y", "x"),
                )

    def noted(self) -> set[str]:
        """Return which blocks are written; a line that was cut short, on a full disk, is none."""
        try:
            lines = (self.folder / JOURNAL).read_text().splitlines()
        except FileNotFoundError:
            return set()
        return {line.removesuffix(_WHOLE) for line in lines if line.endswith(_WHOLE)}

    def write(self, progress: Callable[[int, int], None]) -> None:
        """Write all blocks that are not written yet.

        Parameters
        ----------
        progress
            Called with how many blocks are done, and of how many: at once, after each block, and a few times a second.
            What it raises ends the work, which may be gone on with.

        Raises
        ------
        SlideError
            If the source's pixels cannot be read.
        OSError
            If they cannot be written.
        """
        noted, total = self.noted(), sum(1 for _ in self.blocks)
        done = len(noted)
        progress(done, total)
        workers = self._workers()
        with (
            (self.folder / JOURNAL).open("ab", buffering=0) as journal,
            ThreadPoolExecutor(workers, thread_name_prefix="hyperst-convert") as pool,
        ):
            if noted:
                journal.write(b"\n")  # ends a line that was cut short
            for level in range(len(self.shapes_px)):  # each is made from the one before
                missing = (b for b in self.blocks if b.level == level and b.key not in noted)
                running: set[Future[None]] = set()
                try:
                    while True:
                        for block in islice(missing, 2 * workers - len(running)):
                            running.add(pool.submit(self._write_block, block, journal))
                        if not running:
                            break
                        finished, running = wait(running, _TICK_S, FIRST_COMPLETED)
                        for future in finished:
                            future.result()
                        done += len(finished)
                        progress(done, total)
                except BaseException:
                    for future in running:
                        future.cancel()
                    raise

    def read_source(self, y: slice, x: slice) -> NDArray[Any]:
        """Read rows and columns of the source.

        Raises
        ------
        SlideError
            If they cannot be read.
        """
        try:
            # in this thread: the blocks are what is worked on side by side
            return np.asarray(self.source[:, y, x].compute(scheduler="synchronous"))
        except Exception as error:  # any codec or store may fail, each with errors of its own
            raise SlideError(
                f"pixels could not be read ({error})", where=self.where, do="copy the image again from its source"
            ) from error

    def _write_block(self, block: Block, journal: Any) -> None:
        pixels = self._source_pixels(block) if block.level == 0 else self._halved(block)
        zarr.open_array(self.level_folder(block.level), mode="r+")[:, block.y, block.x] = pixels
        with self._lock:
            journal.write(f"{block.key}{_WHOLE}\n".encode())

    def _source_pixels(self, block: Block) -> NDArray[Any]:
        return self.read_source(block.y, block.x)

    def _halved(self, block: Block) -> NDArray[Any]:
        finer = zarr.open_array(self.level_folder(block.level - 1), mode="r")
        fine_px, coarse_px = self.shapes_px[block.level - 1 : block.level + 1]
        return halved(lambda y, x: np.asarray(finer[:, y, x]), fine_px, coarse_px, block.y, block.x)

    def _block_px(self, axis: int) -> int:
        """Return the side of a block of level 0: the source's chunk, so that no chunk is decoded many times."""
        chunks = -(-max(self.source.chunks[axis]) // CHUNK_PX)
        return CHUNK_PX * min(max(chunks, 1), _MOST_CHUNKS)

    def _workers(self) -> int:
        block_bytes = self._block_px(1) * self._block_px(2) * self.source.shape[0] * self.source.dtype.itemsize
        return max(1, min(_MOST_WORKERS, os.cpu_count() or 1, _MOST_BYTES // block_bytes))
