"""Tiles cut out of chunks that are read once each, whatever the chunks, the threads and the memory allowed."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.chunks import ChunkCache, Pieces, Region, sources
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.tiles import TileBatch, niche_um, read_tiles, spots_with_tiles


@dataclass(frozen=True)
class Watched(Pyramid):
    """A pyramid that remembers what was read of it."""

    reads: list[tuple[int, slice, slice]] = field(default_factory=list)

    def read(self, level: int, y: slice, x: slice) -> NDArray[np.uint8]:
        self.reads.append((level, y, x))
        return super().read(level, y, x)


def watched(slide: Slide, chunk_px: int, levels: int | None = None) -> tuple[Slide, Watched]:
    """Return the slide with other chunks, and its watched image."""
    arrays = tuple(level.rechunk((3, chunk_px, chunk_px)) for level in slide.image.levels[:levels])
    image = Watched(arrays, slide.image.where)
    return replace(slide, image=image), image


def joined(slide: Slide, spec: TileSpec, **how: int) -> TileBatch:
    """Read all tiles of a slide, in the order of its spots."""
    batches = list(read_tiles(slide, spec, spots_with_tiles(slide, spec), **how))
    parts = [np.concatenate([getattr(batch, name) for batch in batches]) for name in ("spots", "spot", "niche")]
    order = np.argsort(parts[0])
    return TileBatch(*(part[order] for part in parts))


def naive(slide: Slide, side_um: float, spot: int, pixels: int) -> NDArray[np.uint8]:
    """Cut one tile out of its level, as a person would: pad, crop with the filter's margin, resample."""
    level = slide.image.level_for(side_um / slide.mpp / pixels)
    factor_y, factor_x = slide.image.factors[level]
    box = slide.boxes_px(side_um)[spot] / (factor_x, factor_y, factor_x, factor_y)
    margin = max(8, int(np.ceil(3 * (box[2] - box[0]) / pixels)) + 1)
    left, top = np.floor(box[:2]).astype(int) - margin
    right, bottom = np.ceil(box[2:]).astype(int) + margin
    whole, pad = slide.image.levels[level], 0
    if min(left, top) < 0 or bottom > whole.shape[1] or right > whole.shape[2]:
        pad = 600
        whole = np.pad(np.asarray(whole), ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    cut = np.asarray(whole[:, top + pad : bottom + pad, left + pad : right + pad])
    around = Image.fromarray(np.ascontiguousarray(np.moveaxis(cut, 0, -1)))
    inner = tuple(box - (left, top, left, top))
    return np.asarray(around.resize((pixels, pixels), Image.Resampling.LANCZOS, inner))


@pytest.fixture(scope="module")
def tiny(tiny_section) -> Slide:
    return open_slide(tiny_section)


def test_tiles_are_byte_for_byte_those_of_naive_cropping(c2: Slide) -> None:
    spec = TileSpec()
    spots = spots_with_tiles(c2, spec)[::17]
    for tiles in read_tiles(c2, spec, spots, threads=2):
        for spot, of_spot, of_niche in zip(tiles.spots, tiles.spot, tiles.niche, strict=True):
            assert np.array_equal(of_spot, naive(c2, spec.spot_um, spot, spec.pixels))
            assert np.array_equal(of_niche, naive(c2, niche_um(c2, spec), spot, spec.pixels))


@pytest.mark.parametrize("chunk_px", [300, 1024, 4096])
def test_chunks_and_edges_do_not_change_tiles(tiny: Slide, chunk_px: int) -> None:
    spec = TileSpec(pixels=48)
    slide, _ = watched(tiny, chunk_px)
    tiles = joined(slide, spec)
    inside = slide.inside(niche_um(slide, spec))[tiles.spots]
    assert 0 < inside.sum() < len(inside)
    for row, spot in enumerate(tiles.spots):
        assert np.array_equal(tiles.spot[row], naive(slide, spec.spot_um, spot, 48))
        assert np.array_equal(tiles.niche[row], naive(slide, niche_um(slide, spec), spot, 48))


def test_one_level_only_is_resampled_with_the_whole_filter(tiny: Slide) -> None:
    """Where the pyramid has no level near the one asked for, the filter reaches further than 8 px."""
    spec = TileSpec(pixels=32)
    slide, _ = watched(tiny, 512, levels=1)
    tiles = joined(slide, spec)
    for row in np.flatnonzero(slide.inside(niche_um(slide, spec))[tiles.spots])[:3]:
        spot = tiles.spots[row]
        assert np.array_equal(tiles.niche[row], naive(slide, niche_um(slide, spec), spot, 32))
        whole = Image.fromarray(np.moveaxis(np.asarray(slide.image.levels[0]), 0, -1))
        box = tuple(slide.boxes_px(niche_um(slide, spec))[spot])
        direct = np.asarray(whole.resize((32, 32), Image.Resampling.LANCZOS, box), float)
        assert np.abs(direct - tiles.niche[row]).max() <= 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_chunk_is_read_once_and_only_if_a_tile_touches_it(c2: Slide, threads: int) -> None:
    spec = TileSpec(pixels=64)
    slide, image = watched(c2, 1024)
    batches = list(read_tiles(slide, spec, spots_with_tiles(slide, spec), batch=9, threads=threads))
    seen = Counter((level, y.start, x.start) for level, y, x in image.reads)
    assert max(seen.values()) == 1
    one = spots_with_tiles(slide, spec)[:1]
    image.reads.clear()
    list(read_tiles(slide, spec, one, threads=threads))
    assert 2 <= len(image.reads) <= 8
    assert sum(len(batch.spots) for batch in batches) == len(spots_with_tiles(slide, spec))


def test_small_chunks_are_read_together(c2: Slide) -> None:
    spec = TileSpec(pixels=64)
    slide, image = watched(c2, 256)
    next(read_tiles(slide, spec, spots_with_tiles(slide, spec)[:1], threads=1))
    assert all(y.stop - y.start >= 1024 for _, y, _ in image.reads)


def test_threads_change_neither_tiles_nor_order(tiny: Slide) -> None:
    spec = TileSpec(pixels=32)
    spots = spots_with_tiles(tiny, spec)[::-1]
    alone = list(read_tiles(tiny, spec, spots, batch=4, threads=1))
    for threads in (2, 6):
        together = list(read_tiles(tiny, spec, spots, batch=4, threads=threads))
        assert len(alone) == len(together)
        for one, other in zip(alone, together, strict=True):
            for name in ("spots", "spot", "niche"):
                assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_small_bound_reads_again_and_keeps_little(c2: Slide) -> None:
    slide, image = watched(c2, 1024)
    pieces = Pieces(slide.image)
    steps: list[set[tuple[int, int, int]]] = [{(0, 0, 0)}, {(0, 0, 1)}, {(0, 0, 2)}, {(0, 0, 1)}, {(0, 0, 0)}]
    cache = ChunkCache(pieces, steps, limit_bytes=4 * 1024 * 1024)
    held = []
    for step, needed in enumerate(steps):
        for _, row, column in needed:
            cache.cut(Region(0, 1024 * column, 1024 * row, 1024 * column + 5, 1024 * row + 5))
        cache.done(step)
        held.append(sorted(cache._held))
    assert held == [[(0, 0, 0)], [(0, 0, 1)], [(0, 0, 1)], [], []]  # (0, 0, 0) is needed last, so it went first
    assert [x.start // 1024 for _, _, x in image.reads] == [0, 1, 2, 0]


def test_nothing_is_held_after_the_last_step(c2: Slide) -> None:
    pieces = Pieces(c2.image)
    regions = np.array([[100, 100, 1500, 400], [900, 900, 1100, 1100]])
    steps = [pieces.touched(0, regions[:1]), pieces.touched(0, regions)]
    assert steps == [{(0, 0, 0), (0, 0, 1)}, {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)}]
    cache = ChunkCache(pieces, steps)
    cache.cut(Region(0, *regions[0].tolist()))
    cache.done(0)
    assert set(cache._held) == steps[0]
    cache.cut(Region(0, *regions[1].tolist()))
    cache.done(1)
    assert not cache._held
    assert not any(cache._uses.values())


def test_threads_that_want_one_chunk_wait_for_one_read(c2: Slide) -> None:
    meet = threading.Barrier(4)
    slide, image = watched(c2, 1024)
    cache = ChunkCache(Pieces(slide.image), [{(0, 2, 2)}])

    def cut(shift: int) -> int:
        meet.wait(timeout=30)
        return np.asarray(cache.cut(Region(0, 2048 + shift, 2048, 2058 + shift, 2058))).shape[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(cut, range(4))) == [10] * 4
    assert len(image.reads) == 1


def test_an_unreadable_chunk_is_told_in_its_place(c2: Slide) -> None:
    def broken(block: NDArray[np.uint8], block_info=None) -> NDArray[np.uint8]:
        if block_info and block_info[None]["chunk-location"] == (0, 4, 4):
            raise OSError("checksum of the chunk")
        return block

    level = c2.image.levels[0].map_blocks(broken, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    slide = replace(c2, image=Pyramid((level,), "slide.zarr"))
    with pytest.raises(SlideError, match=r"slide\.zarr.*checksum of the chunk"):
        list(read_tiles(slide, TileSpec(pixels=32), spots_with_tiles(slide, TileSpec()), threads=3))


def test_a_reader_that_is_left_ends_its_threads(tiny: Slide) -> None:
    before = threading.active_count()
    reader = read_tiles(tiny, TileSpec(pixels=32), spots_with_tiles(tiny, TileSpec()), batch=2, threads=3)
    next(reader)
    reader.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("read-ahead")]
    assert threading.active_count() <= before + 1  # zarr's and dask's own threads may have begun


def test_no_spots_give_no_tiles(tiny: Slide) -> None:
    assert list(read_tiles(tiny, TileSpec(), np.array([], dtype=np.intp))) == []


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 40), start=st.integers(-60, 60), length=st.integers(1, 60))
def test_reflection_is_that_of_numpy(size: int, start: int, length: int) -> None:
    """Wherever a region lies, however small the image."""
    axis = np.arange(size, dtype=np.uint8)
    image = Pyramid((da.from_array(np.broadcast_to(axis, (3, 1, size)).copy()),), "axis")
    cache = ChunkCache(Pieces(image), [])
    cut = np.asarray(cache.cut(Region(0, start, 0, start + length, 1)))[0, :, 0]
    padded = np.pad(axis, 130, mode="reflect" if size > 1 else "edge")
    assert np.array_equal(cut, padded[start + 130 : start + length + 130])
    low, high = sources(start, start + length, size)
    assert low <= cut.min()
    assert cut.max() < high
