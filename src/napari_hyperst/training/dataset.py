"""Training data: targets on the panel's scale, and for each tile what enters the first block that learns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.models.encoders import Encoder
from napari_hyperst.models.method import Batch
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides.expression import (
    detected_genes,
    log2_counts,
    measured_genes,
    names_on,
    niche_counts,
    require_raw,
    spot_counts,
)
from napari_hyperst.slides.genes import why_none_is_found
from napari_hyperst.slides.slide import Slide
from napari_hyperst.slides.stains import StainMap
from napari_hyperst.slides.tiles import complete_niches, fit_stains, niche_um, read_tiles, spots_with_tiles
from napari_hyperst.training.encoding import SYMMETRIES, Progress, encode_tiles, turn, turn_each
from napari_hyperst.training.prefix_cache import map_states
from napari_hyperst.training.stain import change_stains, draw_stains

__all__ = [
    "SYMMETRIES",
    "Fetched",
    "SlideTiles",
    "TrainingSet",
    "build_training_set",
    "count_detected",
    "encode_tiles",
    "measure",
    "trainable_spots",
    "turn",
]


class States(Protocol):
    """What a training set looks at: a (symmetries, n, 2, ...) tensor, or what is indexed as one would be."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: tuple[Tensor, Tensor], /) -> Tensor: ...


@dataclass(frozen=True)
class SlideTiles:
    """Tiles of some spots, read from their slides each time they are asked for.

    Attributes
    ----------
    slides, kept
        The slides, and the indices of the spots of each.
    spec
        Sizes and stains of the tiles.
    symmetries
        How many symmetries there are to ask for; tiles are upright under each, and turned on the device.
    """

    slides: Sequence[Slide]
    kept: Sequence[NDArray[np.intp]]
    spec: TileSpec
    symmetries: int

    def __len__(self) -> int:
        return self.symmetries

    @cached_property
    def stains(self) -> list[StainMap | None]:
        """The normalisation of each slide's stains, fitted once."""
        return [fit_stains(slide, self.spec) for slide in self.slides]

    def __getitem__(self, index: tuple[Tensor, Tensor], /) -> Tensor:
        """Return (B, 2, pixels, pixels, 3) uint8 upright spot and niche tiles of (B,) rows."""
        rows, place = np.unique(index[1].numpy(), return_inverse=True)
        starts = np.cumsum([0, *(len(spots) for spots in self.kept)])
        found = np.empty((len(rows), 2, self.spec.pixels, self.spec.pixels, 3), dtype=np.uint8)
        each = zip(self.slides, self.kept, self.stains, starts, starts[1:], strict=False)
        for slide, spots, stains, start, end in each:
            here = np.flatnonzero((rows >= start) & (rows < end))
            if len(here) == 0:
                continue
            place_of = np.full(len(slide.spots), -1)
            asked = spots[rows[here] - start]
            place_of[asked] = here
            for tiles in read_tiles(slide, self.spec, asked, batch=len(here), stains=stains):
                found[place_of[tiles.spots], 0] = tiles.spot
                found[place_of[tiles.spots], 1] = tiles.niche
        return torch.from_numpy(found[place])


@dataclass(frozen=True)
class Fetched:
    """Some spots as they were read, on the CPU.

    Attributes
    ----------
    states
        (B, 2, ...) float16 states of spot and niche tile, turned already; or (B, 2, size, size, 3) uint8 upright tiles.
    symmetry
        (B,) which of the symmetries is each row's.
    stain
        (B, 2, 3) change of each row's stains, for tiles; None for none.
    spot_genes, niche_genes, slide, detected
        As in ``Batch``.
    """

    states: Tensor
    symmetry: Tensor
    stain: Tensor | None
    spot_genes: Tensor
    niche_genes: Tensor
    slide: Tensor
    detected: Tensor

    def to(self, device: torch.device) -> Batch:
        """Move to a device, and change stains and turn tiles there; both tiles of a spot alike.

        Returns
        -------
        Batch
            Of float32 states, or of uint8 tiles.
        """
        later = device.type == "cuda"  # pinned memory is copied while the device computes

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=later)

        states = move(self.states)
        if states.is_floating_point():
            spot, niche = states.float().unbind(1)
        else:
            if self.stain is not None:
                change = move(self.stain).repeat_interleave(2, dim=0)
                states = change_stains(states.flatten(0, 1), change).view_as(states)
            spot, niche = turn_each(states, self.symmetry).unbind(1)
        others = (self.spot_genes, self.niche_genes, self.slide, self.detected)
        return Batch(spot, niche, *(move(values) for values in others))


@dataclass(frozen=True)
class TrainingSet:
    """Spots of some slides, ready to be learnt from.

    Attributes
    ----------
    states
        (S, n, 2, ...) float16, what ``Encoder.prefix`` makes of the spot and the niche tile under S symmetries; or
        what is indexed like it, and may be upright uint8 tiles.
    spot_genes, niche_genes
        (n, G) float32 measured log2(count + 1).
    slide
        (n,) which of the slides a spot is on.
    detected
        (n,) how many genes were found in a spot, of all that were measured.
    stain_jitter
        Standard deviation of the random change of stains; of no effect on states.
    pinned
        Whether to fetch into memory that a CUDA device copies from by itself.
    absent
        (slides, G) which genes a slide lacks; None where all have all. They count as 0 in ``spot_genes``.
    """

    states: States
    spot_genes: Tensor
    niche_genes: Tensor
    slide: Tensor
    detected: Tensor
    stain_jitter: float = 0.0
    pinned: bool = False
    absent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.spot_genes)

    def measured(self) -> NDArray[np.float32]:
        """Return (n, G) measured log2(count + 1), NaN for a gene that a spot's slide lacks."""
        values = self.spot_genes.numpy()
        return values if self.absent is None else np.where(self.absent[self.slide].numpy(), np.float32("nan"), values)

    @property
    def symmetries(self) -> int:
        """How many symmetries there are."""
        return len(self.states)

    def fetch(self, rows: Tensor, symmetry: Tensor, seed: int | None = None) -> Fetched:
        """Read some spots, in any thread.

        Parameters
        ----------
        rows, symmetry
            (B,) which spots, and which of the symmetries for each, which its two tiles share.
        seed
            What random changes of stain hang on, with the row; None for no change.
        """
        states = self.states[symmetry, rows]
        stain = None
        if seed is not None and self.stain_jitter > 0 and not states.is_floating_point():
            stain = draw_stains(rows.tolist(), seed, self.stain_jitter)
        others = (values[rows] for values in (self.spot_genes, self.niche_genes, self.slide, self.detected))
        return Fetched(self._pin(states), symmetry, stain, *(self._pin(values) for values in others))

    def batch(self, rows: Tensor, symmetry: Tensor, device: torch.device) -> Batch:
        """Return some spots, each under a symmetry that its two tiles share, their stains as they are.

        Parameters
        ----------
        rows, symmetry
            (B,) which spots, and which of the symmetries for each.
        device
            Where to put them.
        """
        return self.fetch(rows, symmetry).to(device)

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.pinned else tensor


def trainable_spots(slide: Slide, spec: TileSpec, complete_niches_only: bool = False) -> NDArray[np.intp]:
    """Return the indices of the spots that have counts and whose spot tile lies in the image, or niche is complete.

    Raises
    ------
    SlideError
        If there is none.
    """
    spots = spots_with_tiles(slide, spec)
    kept = spots[slide.count_rows[spots] >= 0]
    if complete_niches_only:
        kept = kept[complete_niches(slide, spec)[kept]]
    if len(kept) == 0:
        raise SlideError("has no spot to train on", where=slide.path, do="give a slide with counts in tissue")
    return kept


def build_training_set(
    slides: Sequence[Slide],
    panel: GenePanel,
    encoder: Encoder,
    spec: TileSpec,
    *,
    symmetries: int = SYMMETRIES,
    complete_niches_only: bool = False,
    cache: Literal["disk", "memory", "off"] = "memory",
    cache_gib: float = 8.0,
    stain_jitter: float = 0.0,
    progress: Progress | None = None,
    share: tuple[int, int] = (0, 1),
    wait: Callable[[], None] | None = None,
    kept: Sequence[NDArray[np.intp]] | None = None,
) -> TrainingSet:
    """Measure the panel's genes, and run all tiles through the part of the encoder that never changes.

    Parameters
    ----------
    slides
        Slides with raw counts.
    panel
        The genes to learn.
    encoder
        On its device.
    spec
        Sizes of the tiles.
    symmetries
        How many of the eight symmetries to keep.
    complete_niches_only
        Leave out spots without a whole ring of neighbours.
    cache
        Where to keep what the encoder makes of the tiles: in files that later runs find, in the memory of each
        process, or nowhere; then tiles are read as they are fetched.
    cache_gib
        The most that may take, in GiB; of files, those of all runs together.
    stain_jitter
        Standard deviation of the random change of stains, in optical density.
    progress
        Called with tiles done and tiles in all, of those that are not in the cache yet.
    share
        Which process this is, of how many. Each encodes its part of the files; in memory, everything.
    wait
        Returns when all processes have called it: each does once, where the cache is on disk.
    kept
        For each slide, which spots; by default all that ``trainable_spots`` finds.

    Raises
    ------
    ConfigError
        If the states do not fit into what is allowed, or are too large for half precision.
    SlideError
        If a slide has no spot to train on, or its spots lie on no lattice and the niche asks for one.

    Warns
    -----
    HyperSTWarning
        If stains are to change, but not the states that are kept.
    """
    if stain_jitter > 0 and cache != "off" and share[0] == 0:
        warnings.warn(
            f"stain_jitter={stain_jitter:g} has no effect on what is kept with cache={cache}; set cache=off for it",
            HyperSTWarning,
            stacklevel=2,
        )
    if kept is None:
        kept = [trainable_spots(slide, spec, complete_niches_only) for slide in slides]
    states: States
    if cache == "off":
        for slide in slides:
            niche_um(slide, spec)  # raises now what the first batch would
        states = SlideTiles(slides, kept, spec, symmetries)
    elif cache == "memory":
        states = encode_tiles(
            slides, kept, encoder, spec, symmetries=symmetries, cache_gib=cache_gib, progress=progress
        )
    else:
        states = map_states(
            slides, kept, encoder, spec,
            symmetries=symmetries, cache_gib=cache_gib, progress=progress, share=share, wait=wait,
        )  # fmt: skip
    return TrainingSet(
        states,
        *measure(slides, kept, panel),
        torch.cat([torch.full((len(spots),), i) for i, spots in enumerate(kept)]),
        count_detected(slides, kept),
        stain_jitter,
        pinned=next(encoder.parameters()).device.type == "cuda",
        absent=_absent_genes(slides, panel),
    )


def measure(slides: Sequence[Slide], kept: Sequence[NDArray[np.intp]], panel: GenePanel) -> tuple[Tensor, Tensor]:
    """Return (n, G) measured log2(count + 1) of the kept spots and of their niches; genes not measured count as 0.

    Raises
    ------
    SlideError
        If a slide has no raw counts, or none of the panel's genes.
    """
    for slide in slides:
        table = require_raw(slide)
        if not measured_genes(slide, names_on(slide, panel)).any():
            why = why_none_is_found(panel.genes, list(table.var_names))
            raise SlideError(
                f"none of the panel's {len(panel)} genes ({', '.join(panel.genes[:3])}, …) is among its {table.n_vars} "
                f"({', '.join(table.var_names[:3])}, …)" + (f": {why[0]}" if why else ""),
                where=slide.path,
                do=why[1] if why else "give slides of one species",
            )
    of_spots = [spot_counts(slide, names_on(slide, panel)) for slide in slides]
    of_niches = [niche_counts(slide, counts) for slide, counts in zip(slides, of_spots, strict=True)]
    return _targets(of_spots, kept), _targets(of_niches, kept)


def count_detected(slides: Sequence[Slide], kept: Sequence[NDArray[np.intp]]) -> Tensor:
    """Return (n,) how many genes were found in the kept spots, of all that were measured on their slide."""
    return torch.from_numpy(
        np.concatenate([detected_genes(slide)[spots] for slide, spots in zip(slides, kept, strict=True)])
    )


def _absent_genes(slides: Sequence[Slide], panel: GenePanel) -> Tensor | None:
    """Return (slides, G) which genes of the panel a slide lacks, with a warning; None where all have all."""
    absent = np.stack([~measured_genes(slide, names_on(slide, panel)) for slide in slides])
    for slide, lacks in zip(slides, absent, strict=True):
        if lacks.any():
            names = ", ".join(np.array(panel.genes)[lacks][:5])
            warnings.warn(
                f"{slide.path} lacks {lacks.sum()} of the {len(panel)} genes ({names}); it is not measured by them",
                HyperSTWarning,
                stacklevel=3,
            )
    return torch.from_numpy(absent) if absent.any() else None


def _targets(counts: Sequence[NDArray[np.float32]], kept: Sequence[NDArray[np.intp]]) -> Tensor:
    rows = [values[spots] for values, spots in zip(counts, kept, strict=True)]
    return torch.from_numpy(np.nan_to_num(log2_counts(np.concatenate(rows))))
