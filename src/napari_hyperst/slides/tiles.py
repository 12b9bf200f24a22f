"""Spot and niche tiles: squares of tissue around each spot, resampled to the encoder's input size."""

from __future__ import annotations

import math
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides.chunks import ChunkCache, Pieces, Region
from napari_hyperst.slides.image import Pyramid, spread
from napari_hyperst.slides.read_ahead import read_ahead
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Slide
from napari_hyperst.slides.stains import Macenko, Reinhard, StainMap, WhiteBalance

#: Side of the blocks of spots whose tiles are read together, in px of the level of their spot tiles.
_BLOCK_PX = 2048
#: Least margin around a box, in px of its level, so that the resampling filter sees what lies beyond the edge. Pillow
#: rounds boxes to single precision, so another margin changes some px by a grey level.
_MARGIN_PX = 8
#: How far Pillow's Lanczos filter reaches, in px of the tile.
_REACH_PX = 3
#: Stains are found in about so many px of the tiles of so many spots, both evenly spread.
_STAIN_SPOTS = 64
_STAIN_PX = 500_000
#: Glass is looked for in the coarsest level, or where that is larger than this, in blocks evenly spread over it.
_OVERVIEW_PX = 2048
_OVERVIEW_BLOCKS = 8
#: More threads than this find nothing to do.
_MAX_THREADS = 8


@dataclass(frozen=True)
class TileBatch:
    """Tiles of some spots of a slide.

    Attributes
    ----------
    spots
        (n,) indices of the spots.
    spot, niche
        (n, pixels, pixels, 3) uint8 RGB.
    """

    spots: NDArray[np.intp]
    spot: NDArray[np.uint8]
    niche: NDArray[np.uint8]


def niche_um(slide: Slide, spec: TileSpec) -> float:
    """Return the side of the niche tile in µm.

    ``"ring"`` is twice (pitch + spot radius): on a hexagonal Visium lattice 255 µm, the square that HyperST's
    code crops around a spot and its six neighbours (METHODS 2.3). On a lattice that was laid over an H&E it is those
    255 µm too, whatever its pitch: what the model looks at does not hang on how densely it is asked to look.

    Raises
    ------
    SlideError
        If the side should follow from the lattice and the spots lie on none.
    """
    if spec.niche_um != "ring":
        return spec.niche_um
    if slide.source.laid:
        return 2 * VISIUM_PITCH_UM + VISIUM_SPOT_UM
    if slide.lattice.kind == "none":
        raise SlideError(
            "the spots lie on no lattice, so the niche has no ring of neighbours",
            where=slide.path,
            do="state the side of the niche in µm (niche_um)",
        )
    return 2 * (slide.pitch_um + slide.spots.diameter_um / 2)


def complete_niches(slide: Slide, spec: TileSpec) -> NDArray[np.bool_]:
    """Return (n,) whether a spot's niche is whole: its tile, and on a slide with counts its profile.

    That is, the niche tile lies in the image, and the whole ring of neighbours is there; on a slide with counts, the
    spot and all of the ring have some, since a niche's profile is the mean of those that do (METHODS 8, row 10).
    Without a lattice no niche is whole.
    """
    if slide.lattice.kind == "none":
        return np.zeros(len(slide.spots), dtype=bool)
    whole = slide.lattice.complete & slide.inside(niche_um(slide, spec))
    if slide.counts is None:
        return whole
    counted = slide.count_rows >= 0
    return whole & counted & counted[slide.lattice.ring].all(axis=1)


def spots_with_tiles(slide: Slide, spec: TileSpec) -> NDArray[np.intp]:
    """Return the indices of the spots whose spot tile lies wholly in the image.

    Raises
    ------
    SlideError
        If there is none.
    """
    kept = np.flatnonzero(slide.inside(spec.spot_um))
    if len(kept) == 0:
        height, width = slide.image.shape_px
        raise SlideError(
            f"no spot tile of {spec.spot_um:g} µm lies within the {width} x {height} px image",
            where=slide.path,
            do="check the scale (--mpp) and the image",
        )
    return kept


def fit_stains(slide: Slide, spec: TileSpec) -> StainMap | None:
    """Fit the normalisation of stains that a spec asks for to a slide; None where it asks for none.

    White is balanced by the whole slide; stains are found in spot tiles spread over it, so that what is found hangs on
    the slide and the spec alone.

    Raises
    ------
    ConfigError
        If what it needs is not installed.
    SlideError
        If no stains are found, or pixels cannot be read or decoded.
    """
    if spec.stain == "none":
        return None
    if spec.stain == "white_balance":
        return WhiteBalance.fit(_overview(slide.image), slide.path)
    method = Macenko if spec.stain == "macenko" else Reinhard
    return method.fit(_stain_pixels(slide, spec), slide.path)


def _stain_pixels(slide: Slide, spec: TileSpec) -> NDArray[np.uint8]:
    """Return (n, 3) px of spot tiles spread over a slide."""
    spots = spots_with_tiles(slide, spec)
    spots = spots[np.lexsort(slide.spots.centres_px[spots].T)]
    spots = spots[np.linspace(0, len(spots) - 1, min(len(spots), _STAIN_SPOTS)).astype(np.intp)]
    kind = _Kind.of(slide, spec.spot_um, spec.pixels)
    tiles = [cut for _, (cut,) in _read(slide, [kind], spots, batch=1, threads=_threads())]
    pixels = np.concatenate(tiles).reshape(-1, 3)
    return pixels[:: max(1, len(pixels) // _STAIN_PX)]


def read_tiles(
    slide: Slide,
    spec: TileSpec,
    spots: NDArray[np.intp],
    batch: int = 64,
    threads: int | None = None,
    stains: StainMap | None = None,
) -> Generator[TileBatch, None, None]:
    """Read the tiles of some spots, a block of neighbouring spots at a time.

    Tiles come from the coarsest level that is fine enough, resampled with an anti-aliasing filter on sub-pixel boxes.
    Each chunk of a level is read once for all tiles that touch it. Tiles that reach over the image's edge, as
    ``Slide.inside`` tells, see its reflection. Threads read as many batches ahead of the consumer as there are threads;
    the tiles and their order do not hang on how many.

    Parameters
    ----------
    slide
        The slide.
    spec
        Sizes of the tiles.
    spots
        (n,) indices of the spots, in any order.
    batch
        The most spots to yield at once.
    threads
        How many threads read, decode and resample; by default as many as there are cores, up to eight.
    stains
        What ``fit_stains`` gave for this slide and spec; fitted here if it is not given.

    Yields
    ------
    TileBatch
        Blocks in raster order; every spot once.

    Raises
    ------
    ConfigError
        If the stains' normalisation needs what is not installed.
    SlideError
        If the niche has no side, no stains are found, or pixels cannot be read or decoded.
    """
    kinds = [_Kind.of(slide, side, spec.pixels) for side in (spec.spot_um, niche_um(slide, spec))]
    if len(spots) > 0 and stains is None:
        stains = fit_stains(slide, spec)
    with closing(_read(slide, kinds, spots, batch, threads or _threads(), stains)) as parts:
        for part, (spot, niche) in parts:
            yield TileBatch(part, spot, niche)


@dataclass(frozen=True)
class _Kind:
    """The spot tiles of a slide, or its niche tiles.

    Attributes
    ----------
    level
        The level they are read from.
    boxes
        (n, 4) squares around all spots, (left, top, right, bottom) in px of that level.
    margin
        How many px around a box the resampling filter sees.
    pixels
        Side of a tile in px.
    """

    level: int
    boxes: NDArray[np.float64]
    margin: int
    pixels: int

    @classmethod
    def of(cls, slide: Slide, side_um: float, pixels: int) -> _Kind:
        side_px = side_um / slide.mpp
        level = slide.image.level_for(side_px / pixels)
        factor_y, factor_x = slide.image.factors[level]
        boxes = slide.boxes_px(side_um) / (factor_x, factor_y, factor_x, factor_y)
        shrinkage = side_px / min(factor_y, factor_x) / pixels
        margin = max(_MARGIN_PX, math.ceil(_REACH_PX * shrinkage) + 1)
        return cls(level, boxes, margin, pixels)

    def regions(self, spots: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return (n, 4) the px that the tiles of some spots are made of: left, top, right, bottom."""
        boxes = self.boxes[spots]
        low, high = np.floor(boxes[:, :2]) - self.margin, np.ceil(boxes[:, 2:]) + self.margin
        return np.hstack([low, high]).astype(np.intp)


def _batches(slide: Slide, level: int, spots: NDArray[np.intp], batch: int) -> list[NDArray[np.intp]]:
    """Split spots into blocks, in raster order, and blocks that are too full into batches."""
    if len(spots) == 0:
        return []
    cell = np.floor(slide.spots.centres_px[spots] / (_BLOCK_PX * slide.image.factors[level][0])).astype(int)
    order = np.lexsort((cell[:, 0], cell[:, 1]))
    edges = np.flatnonzero(np.any(np.diff(cell[order], axis=0) != 0, axis=1)) + 1
    blocks = np.split(spots[order], edges)
    return [block[start : start + batch] for block in blocks for start in range(0, len(block), batch)]


def _read(
    slide: Slide,
    kinds: list[_Kind],
    spots: NDArray[np.intp],
    batch: int,
    threads: int,
    stains: StainMap | None = None,
) -> Generator[tuple[NDArray[np.intp], list[NDArray[np.uint8]]], None, None]:
    """Yield spots, a part at a time, and their tiles of each kind."""
    parts = _batches(slide, kinds[0].level, spots, batch)
    pieces = Pieces(slide.image)
    needed = [set().union(*(pieces.touched(kind.level, kind.regions(part)) for kind in kinds)) for part in parts]
    cache = ChunkCache(pieces, needed)

    def read(step: int) -> list[NDArray[np.uint8]]:
        try:
            return [_cut(cache, parts[step], kind, stains) for kind in kinds]
        finally:
            cache.done(step)

    tasks = (partial(read, step) for step in range(len(parts)))
    with closing(read_ahead(tasks, threads, depth=threads)) as found:
        for part, (tiles, _) in zip(parts, found, strict=True):
            yield part, tiles


def _threads() -> int:
    return min(_MAX_THREADS, os.cpu_count() or 1)


def _cut(cache: ChunkCache, spots: NDArray[np.intp], kind: _Kind, stains: StainMap | None) -> NDArray[np.uint8]:
    """Cut the tiles of some spots: (n, pixels, pixels, 3) uint8."""
    size = (kind.pixels, kind.pixels)
    tiles = np.empty((len(spots), *size, 3), dtype=np.uint8)
    for tile, box, region in zip(tiles, kind.boxes[spots], kind.regions(spots).tolist(), strict=True):
        around = cache.cut(Region(kind.level, *region))
        left, top = region[:2]
        cut = np.asarray(around.resize(size, Image.Resampling.LANCZOS, tuple(box - (left, top, left, top))))
        tile[:] = cut if stains is None else stains(cut)
    return tiles


def _overview(image: Pyramid) -> NDArray[np.uint8]:
    """Return (n, 3) px of all of an image."""
    level = len(image.levels) - 1
    rows, columns = (spread(side, _OVERVIEW_PX, _OVERVIEW_BLOCKS) for side in image.levels[level].shape[1:])
    return np.concatenate([image.read(level, y, x).reshape(-1, 3) for y in rows for x in columns])
