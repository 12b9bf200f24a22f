"""Spot and niche tiles: squares of tissue around each spot, resampled to the encoder's input size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Slide

#: Side of the blocks of spots whose pixels are read at once, in px of the level they are read from.
_BLOCK_PX = 2048
#: Margin around a box, in px of its level, so that the resampling filter sees what lies beyond the edge.
_MARGIN_PX = 8


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


def read_tiles(slide: Slide, spec: TileSpec, spots: NDArray[np.intp], batch: int = 64) -> Iterator[TileBatch]:
    """Read the tiles of some spots, a block of neighbouring spots at a time.

    Each block's pixels are read once for all its tiles, from the coarsest level that is fine enough, and
    resampled with an anti-aliasing filter on sub-pixel boxes. Niche tiles that reach over the image's edge see
    its reflection.

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

    Yields
    ------
    TileBatch
        Blocks in raster order; every spot once.
    """
    sides = (spec.spot_um, niche_um(slide, spec))
    levels = [slide.image.level_for(side / slide.mpp / spec.pixels) for side in sides]
    block_px = _BLOCK_PX * slide.image.factors[levels[0]][0]
    cell = np.floor(slide.spots.centres_px[spots] / block_px).astype(int)
    order = np.lexsort((cell[:, 0], cell[:, 1]))
    edges = np.flatnonzero(np.any(np.diff(cell[order], axis=0) != 0, axis=1)) + 1
    for block in np.split(spots[order], edges):
        for start in range(0, len(block), batch):
            part = block[start : start + batch]
            spot, niche = (
                _crop(slide, level, slide.boxes_px(side)[part], spec.pixels)
                for side, level in zip(sides, levels, strict=True)
            )
            yield TileBatch(part, spot, niche)


def _crop(slide: Slide, level: int, boxes_px: NDArray[np.float64], pixels: int) -> NDArray[np.uint8]:
    """Cut boxes, in level-0 px, out of one region of a level that holds them all."""
    factor_y, factor_x = slide.image.factors[level]
    boxes = boxes_px / (factor_x, factor_y, factor_x, factor_y)
    height, width = slide.image.levels[level].shape[1:]
    left, top = (math.floor(low) - _MARGIN_PX for low in boxes[:, :2].min(axis=0))
    right, bottom = (math.ceil(high) + _MARGIN_PX for high in boxes[:, 2:].max(axis=0))
    inner = max(0, left), max(0, top), min(width, right), min(height, bottom)
    region = slide.image.read(level, slice(inner[1], inner[3]), slice(inner[0], inner[2]))
    beyond = ((inner[1] - top, bottom - inner[3]), (inner[0] - left, right - inner[2]), (0, 0))
    if np.any(beyond):
        region = np.pad(region, beyond, mode="reflect" if min(region.shape[:2]) > 1 else "edge")
    tiles = np.empty((len(boxes), pixels, pixels, 3), dtype=np.uint8)
    for tile, box in zip(tiles, boxes - (left, top, left, top), strict=True):
        x0, y0 = (math.floor(low) - _MARGIN_PX for low in box[:2])
        x1, y1 = (math.ceil(high) + _MARGIN_PX for high in box[2:])
        around = Image.fromarray(np.ascontiguousarray(region[y0:y1, x0:x1]))
        inner_box = tuple(box - (x0, y0, x0, y0))
        tile[:] = np.asarray(around.resize((pixels, pixels), Image.Resampling.LANCZOS, inner_box))
    return tiles
