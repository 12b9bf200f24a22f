"""Tiles of slides become what enters the first block of an encoder that learns, under the symmetries of the square."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hyperst.errors import ConfigError
from napari_hyperst.models.encoders import Encoder
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides.read_ahead import read_ahead
from napari_hyperst.slides.slide import Slide
from napari_hyperst.slides.tiles import read_tiles

#: The symmetries of the square: four quarter turns, and each of them mirrored.
SYMMETRIES = 8
#: Called with tiles done and tiles in all.
Progress = Callable[[int, int], None]
#: Spots whose tiles are encoded at once. A state's last bits may hang on it, so it is the same for all caches.
_BATCH = 16
_BYTES = 2  # of a half-precision number


def turn(tiles: Tensor, symmetry: int) -> Tensor:
    """Apply one of the eight symmetries of the square to (B, size, size, 3) tiles; 0 leaves them as they are."""
    turned = torch.rot90(tiles, symmetry % 4, (1, 2))
    return turned.flip(2) if symmetry >= 4 else turned


def turn_each(tiles: Tensor, symmetry: Tensor) -> Tensor:
    """Apply to each row of tiles a symmetry of its own.

    Parameters
    ----------
    tiles
        (B, K, size, size, 3), on any device; the K tiles of a row are turned alike.
    symmetry
        (B,) on the CPU.
    """
    if not symmetry.any():
        return tiles
    turned = torch.empty_like(tiles)
    for each in symmetry.unique().tolist():
        rows = (symmetry == each).nonzero().squeeze(1).to(tiles.device)
        turned[rows] = turn(tiles[rows].flatten(0, 1), each).unflatten(0, (len(rows), -1))
    return turned


def state_shape(encoder: Encoder) -> tuple[int, ...]:
    """Return the shape of what ``Encoder.prefix`` makes of one tile, without running it."""
    if encoder.frozen:
        return (encoder.width,)
    vit = encoder.vit
    return (int(vit.patch_embed.num_patches + vit.num_prefix_tokens), int(vit.embed_dim))


def state_gib(encoder: Encoder, spots: int) -> float:
    """Return the GiB that the states of the two tiles of some spots take, of each under one symmetry."""
    return _BYTES * spots * 2 * math.prod(state_shape(encoder)) / 2**30


def check_size(encoder: Encoder, spots: int, cache_gib: float) -> None:
    """Refuse the states of some spots, each counted as often as there are symmetries, where they take too much.

    Raises
    ------
    ConfigError
        If they do.
    """
    gib = state_gib(encoder, spots)
    if gib > cache_gib:
        raise ConfigError(
            f"the encoder states of all slides and symmetries take {gib:.3g} GiB, over the {cache_gib:g} of cache_gib",
            do="set fewer symmetries, a larger cache_gib, cache=off, or method.lora_blocks=0",
        )


def encode_slide(
    slide: Slide, spots: NDArray[np.intp], encoder: Encoder, spec: TileSpec, symmetries: Sequence[int]
) -> Generator[tuple[NDArray[np.intp], int, Tensor], None, None]:
    """Run the two tiles of some spots through the part of the encoder that never changes.

    The next tiles are read while the last ones are encoded. What is encoded together hangs on slide and spots alone,
    so that the same numbers come out whichever of the symmetries are asked for.

    Parameters
    ----------
    slide
        The slide.
    spots
        (n,) indices of its spots.
    encoder
        On its device.
    spec
        Sizes of the tiles.
    symmetries
        Which of the eight.

    Yields
    ------
    rows, symmetry, states
        (b,) where in ``spots`` these are, which symmetry, and the (b, 2, ...) float16 states on the CPU.

    Raises
    ------
    ConfigError
        If a state is too large a number for half precision.
    """
    row_of = np.full(len(slide.spots), -1)
    row_of[spots] = np.arange(len(spots))
    device = next(encoder.parameters()).device
    reader = read_tiles(slide, spec, spots, batch=_BATCH)
    with closing(read_ahead(repeat(partial(next, reader, None)), workers=1, depth=2)) as batches:
        for tiles, _ in batches:
            if tiles is None:
                return
            both = torch.from_numpy(np.concatenate([tiles.spot, tiles.niche])).to(device)
            for symmetry in symmetries:
                states = encoder.prefix(turn(both, symmetry)).half().cpu()
                if not torch.isfinite(states).all():
                    raise ConfigError(
                        f"states of {encoder.spec.name} are too large for half precision",
                        where=slide.path,
                        do="set cache=off",
                    )
                yield row_of[tiles.spots], symmetry, torch.stack(states.chunk(2), dim=1)


def encode_tiles(
    slides: Sequence[Slide],
    kept: Sequence[NDArray[np.intp]],
    encoder: Encoder,
    spec: TileSpec,
    *,
    symmetries: int = SYMMETRIES,
    cache_gib: float = 8.0,
    progress: Progress | None = None,
) -> Tensor:
    """Encode the two tiles of the kept spots of some slides, in memory.

    Parameters
    ----------
    slides, kept
        The slides, and the indices of the spots of each.
    encoder
        On its device.
    spec
        Sizes of the tiles.
    symmetries
        How many of the eight symmetries.
    cache_gib
        The most memory to use, in GiB.
    progress
        Called with tiles done and tiles in all.

    Returns
    -------
    Tensor
        (symmetries, n, 2, ...) float16 states.

    Raises
    ------
    ConfigError
        If they do not fit in the memory allowed, or into half precision.
    """
    total = sum(len(spots) for spots in kept)
    check_size(encoder, symmetries * total, cache_gib)
    states = torch.empty((symmetries, total, 2, *state_shape(encoder)), dtype=torch.float16)
    start = done = 0
    for slide, spots in zip(slides, kept, strict=True):
        with closing(encode_slide(slide, spots, encoder, spec, range(symmetries))) as parts:
            for rows, symmetry, encoded in parts:
                states[symmetry, torch.from_numpy(start + rows)] = encoded
                done += 2 * len(rows)
                if progress is not None:
                    progress(done, 2 * symmetries * total)
        start += len(spots)
    return states
