"""The frozen-prefix cache: what enters the first block that learns, computed once and kept in files.

DESIGN section 7: LoRA touches the last blocks only, so what enters the first of them never changes while training.
There is one file for each slide and symmetry, under a key of all that its content depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hyperst.models.encoders import Encoder, weights_sha256
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides.decoded import cache_folder
from napari_hyperst.slides.image import spread
from napari_hyperst.slides.slide import Slide
from napari_hyperst.slides.tiles import niche_um, spots_with_tiles
from napari_hyperst.training.encoding import Progress, check_size, encode_slide, state_shape
from napari_hyperst.training.state_files import StateFolder

#: Of the files, and of all that is computed for them in this package: to be counted up when either changes.
FORMAT = 1
#: Name of the folder within that of decoded images.
FOLDER = "states"
#: Of a level this large, or of as many px evenly spread over a larger one, all pixels go into the key.
_HASHED_PX, _HASHED_BLOCKS = 4096, 16


@dataclass(frozen=True)
class MappedStates:
    """States in memory-mapped files, indexed as a tensor would be.

    Attributes
    ----------
    files
        For each slide, for each symmetry, its (n, 2, ...) float16 states.
    starts
        Row, of all slides' spots, at which each slide begins.
    """

    files: tuple[tuple[NDArray[np.float16], ...], ...]
    starts: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.files[0])

    def __getitem__(self, index: tuple[Tensor, Tensor]) -> Tensor:
        """Return (B, 2, ...) states for (B,) symmetries and (B,) rows."""
        symmetries, rows = (part.numpy() for part in index)
        slides = np.searchsorted(self.starts, rows, side="right") - 1
        found = torch.empty((len(rows), *self.files[0][0].shape[1:]), dtype=torch.float16)
        places = zip(found.numpy(), slides, symmetries, rows - self.starts[slides], strict=True)
        for place, slide, symmetry, row in places:  # large copies, for which NumPy lets other threads run
            place[:] = self.files[slide][symmetry][row]
        return found


def map_states(
    slides: Sequence[Slide],
    kept: Sequence[NDArray[np.intp]],
    encoder: Encoder,
    spec: TileSpec,
    *,
    symmetries: int,
    cache_gib: float,
    progress: Progress | None = None,
    share: tuple[int, int] = (0, 1),
    wait: Callable[[], None] | None = None,
) -> MappedStates:
    """Find the states of the kept spots of some slides in the cache, and compute those that are not there.

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
        The most that the files of all runs may take, in GiB.
    progress
        Called with tiles done and tiles in all, of those that this process computes.
    share
        Which part of the files, of how many, is this process's to compute.
    wait
        Returns when all processes have called it. What the others wrote to another disk than this one is then
        computed here.

    Raises
    ------
    ConfigError
        If the states exceed ``cache_gib`` or the disk, the folder cannot be written, or half precision is too small.
    """
    check_size(encoder, symmetries * sum(len(spots) for spots in kept), cache_gib)
    path = cache_folder() / FOLDER
    path.mkdir(exist_ok=True)
    filling = _Filling(StateFolder(path, cache_gib), slides, kept, encoder, spec, symmetries)
    part, parts = share
    filling.complete(np.array_split(np.arange(len(filling.keys)), parts)[part].tolist(), progress)
    if wait is not None:
        wait()
    filling.complete(range(len(filling.keys)), progress)
    files = [filling.found[key] for key in filling.keys]
    by_slide = tuple(tuple(files[i : i + symmetries]) for i in range(0, len(files), symmetries))
    return MappedStates(by_slide, np.cumsum([0, *(len(spots) for spots in kept[:-1])]))


class _Filling:
    """A run's files, slide by slide and symmetry by symmetry, and those of them that are mapped already."""

    def __init__(
        self,
        folder: StateFolder,
        slides: Sequence[Slide],
        kept: Sequence[NDArray[np.intp]],
        encoder: Encoder,
        spec: TileSpec,
        symmetries: int,
    ) -> None:
        self.folder, self.slides, self.kept = folder, slides, kept
        self.encoder, self.spec, self.symmetries = encoder, spec, symmetries
        contents = [slide_content(slide, spots) for slide, spots in zip(slides, kept, strict=True)]
        if spec.stain != "none":  # is fitted to all spots of a slide, whichever are kept
            fitted = [slide_content(slide, spots_with_tiles(slide, spec)) for slide in slides]
            contents = [f"{content}, stains of {one}" for content, one in zip(contents, fitted, strict=True)]
        self.keys = [
            prefix_key(encoder, spec, niche_um(slide, spec), content, symmetry)
            for slide, content in zip(slides, contents, strict=True)
            for symmetry in range(symmetries)
        ]
        shape = state_shape(encoder)
        shapes = [(len(spots), 2, *shape) for spots in kept for _ in range(symmetries)]
        self.wanted = dict(zip(self.keys, shapes, strict=True))
        self.found: dict[str, NDArray[np.float16]] = {}

    def complete(self, indices: Sequence[int], progress: Progress | None) -> None:
        """Map some of the files, computing those that are not there."""
        for key in {self.keys[i] for i in indices} - self.found.keys():
            if (states := self.folder.find(key, self.wanted[key])) is not None:
                self.found[key] = states
        missing: dict[int, list[int]] = {}
        for i in indices:
            if self.keys[i] not in self.found:
                slide, symmetry = divmod(i, self.symmetries)
                missing.setdefault(slide, []).append(symmetry)
        total = sum(2 * len(some) * len(self.kept[slide]) for slide, some in missing.items())
        done = 0

        def count(tiles: int) -> None:
            nonlocal done
            done += tiles
            if progress is not None:
                progress(done, total)

        while missing:
            slide = min(missing)
            left = [self._key(i, symmetry) for i, some in missing.items() for symmetry in some]
            self._encode(slide, missing.pop(slide), left, count)

    def _key(self, slide: int, symmetry: int) -> str:
        return self.keys[slide * self.symmetries + symmetry]

    def _encode(self, slide: int, symmetries: Sequence[int], left: Sequence[str], count: Callable[[int], None]) -> None:
        keys = [self._key(slide, symmetry) for symmetry in symmetries]
        with ExitStack() as stack:
            writers = dict(zip(symmetries, self.folder.reserve(self.wanted, left, keys), strict=True))
            for writer in writers.values():
                stack.callback(writer.close)
            encoded = encode_slide(self.slides[slide], self.kept[slide], self.encoder, self.spec, symmetries)
            for rows, symmetry, states in stack.enter_context(closing(encoded)):
                writers[symmetry].write(rows, states.numpy())
                count(2 * len(rows))
            for key, writer in zip(keys, writers.values(), strict=True):
                self.found[key] = writer.finish()


def prefix_key(encoder: Encoder, spec: TileSpec, niche_side_um: float, content: str, symmetry: int) -> str:
    """Return the key of the states of a slide under a symmetry.

    Parameters
    ----------
    encoder
        On its device.
    spec, niche_side_um
        Sizes and stains of the tiles, and the side of the niche on this slide in µm.
    content
        The slide's, as ``slide_content`` gives it.
    symmetry
        Which of the eight.
    """
    known = encoder.spec
    depends_on = {
        "format": FORMAT,
        "weights": weights_sha256(known.weights),
        "encoder": [known.timm_name, known.size, known.mean, known.std, known.adds_patch_mean, dict(known.options)],
        "first trained": encoder.first_trained,
        "computing": [str(encoder.dtype), next(encoder.parameters()).device.type],
        "tiles": [spec.spot_um, niche_side_um, spec.pixels, *([spec.stain] if spec.stain != "none" else [])],
        "symmetry": symmetry,
        "slide": content,
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def slide_content(slide: Slide, spots: NDArray[np.intp]) -> str:
    """Return a hash of what the tiles of some spots are cut from: scale, centres and pixels, but no name and no path.

    Of the pixels, those of the coarsest level are hashed, or an even sample of them where there is no coarse one.
    """
    image = slide.image
    levels = [level.shape[1:] for level in image.levels]
    digest = hashlib.sha256(json.dumps([levels, slide.mpp]).encode())
    digest.update(np.ascontiguousarray(slide.spots.centres_px[spots], "<f8"))
    rows, columns = (spread(side, _HASHED_PX, _HASHED_BLOCKS) for side in levels[-1])
    for y in rows:
        for x in columns:
            digest.update(np.ascontiguousarray(image.read(len(levels) - 1, y, x)))
    return digest.hexdigest()
