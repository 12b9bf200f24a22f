"""Training data: targets on the panel's scale, and for each tile what enters the first block that learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_hyperst.errors import ConfigError, SlideError
from napari_hyperst.models.encoders import Encoder
from napari_hyperst.models.method import Batch
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides.expression import detected_genes, log2_counts, niche_counts, spot_counts
from napari_hyperst.slides.slide import Slide
from napari_hyperst.slides.tiles import read_tiles, spots_with_tiles

#: The symmetries of the square: four quarter turns, and each of them mirrored.
SYMMETRIES = 8


@dataclass(frozen=True)
class TrainingSet:
    """Spots of some slides, ready to be learnt from.

    Attributes
    ----------
    states
        (S, n, 2, ...) float16, what ``Encoder.prefix`` makes of the spot and the niche tile under S symmetries.
    spot_genes, niche_genes
        (n, G) float32 measured log2(count + 1).
    slide
        (n,) which of the slides a spot is on.
    detected
        (n,) how many genes were found in a spot, of all that were measured.
    """

    states: Tensor
    spot_genes: Tensor
    niche_genes: Tensor
    slide: Tensor
    detected: Tensor

    def __len__(self) -> int:
        return len(self.spot_genes)

    def batch(self, rows: Tensor, symmetry: Tensor, device: torch.device) -> Batch:
        """Return some spots, each under a symmetry that its two tiles share.

        Parameters
        ----------
        rows, symmetry
            (B,) which spots, and which of the symmetries for each.
        device
            Where to put them.
        """
        states = self.states[symmetry, rows].to(device).float()
        others = (self.spot_genes, self.niche_genes, self.slide, self.detected)
        return Batch(states[:, 0], states[:, 1], *(values[rows].to(device) for values in others))


def turn(tiles: Tensor, symmetry: int) -> Tensor:
    """Apply one of the eight symmetries of the square to (B, size, size, 3) tiles; 0 leaves them as they are."""
    turned = torch.rot90(tiles, symmetry % 4, (1, 2))
    return turned.flip(2) if symmetry >= 4 else turned


def trainable_spots(slide: Slide, spec: TileSpec, complete_niches_only: bool = False) -> np.ndarray:
    """Return the indices of the spots that have counts and whose spot tile lies in the image.

    Raises
    ------
    SlideError
        If there is none.
    """
    spots = spots_with_tiles(slide, spec)
    kept = spots[slide.count_rows[spots] >= 0]
    if complete_niches_only:
        kept = kept[slide.lattice.complete[kept]]
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
    cache_gib: float = 8.0,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """Read all tiles, run them through the part of the encoder that never changes, and measure the panel's genes.

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
    cache_gib
        The most memory to use, in GiB.
    progress
        Called with tiles done and tiles in all.

    Raises
    ------
    ConfigError
        If the states do not fit in the memory allowed.
    SlideError
        If a slide has no spot to train on.
    """
    kept = [trainable_spots(slide, spec, complete_niches_only) for slide in slides]
    return TrainingSet(
        encode_tiles(slides, kept, encoder, spec, symmetries=symmetries, cache_gib=cache_gib, progress=progress),
        *measure(slides, kept, panel),
        torch.cat([torch.full((len(spots),), i) for i, spots in enumerate(kept)]),
        count_detected(slides, kept),
    )


def encode_tiles(
    slides: Sequence[Slide],
    kept: Sequence[np.ndarray],
    encoder: Encoder,
    spec: TileSpec,
    *,
    symmetries: int = SYMMETRIES,
    cache_gib: float = 8.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return (symmetries, n, 2, ...) float16 states of the kept spots' two tiles; see ``build_training_set``."""
    total = sum(len(spots) for spots in kept)
    device = next(encoder.parameters()).device
    blank = torch.zeros((1, spec.pixels, spec.pixels, 3), dtype=torch.uint8, device=device)
    shape = (symmetries, total, 2, *encoder.prefix(blank).shape[1:])
    gib = 2 * np.prod(shape) / 2**30
    if gib > cache_gib:
        raise ConfigError(
            f"the encoder states of {total} spots under {symmetries} symmetries take {gib:.1f} GiB, over {cache_gib:g}",
            do="set fewer symmetries, a larger cache_gib, or method.lora_blocks=0",
        )
    states = torch.empty(shape, dtype=torch.float16)
    start = done = 0
    for slide, spots in zip(slides, kept, strict=True):
        row_of = np.full(len(slide.spots), -1)
        row_of[spots] = np.arange(start, start + len(spots))
        for tiles in read_tiles(slide, spec, spots, batch=16):
            rows = torch.from_numpy(row_of[tiles.spots])
            both = torch.from_numpy(np.concatenate([tiles.spot, tiles.niche])).to(device)
            for symmetry in range(symmetries):
                spot, niche = encoder.prefix(turn(both, symmetry)).half().cpu().chunk(2)
                states[symmetry, rows] = torch.stack([spot, niche], dim=1)
            done += 2 * symmetries * len(rows)
            if progress is not None:
                progress(done, 2 * symmetries * total)
        start += len(spots)
    return states


def measure(slides: Sequence[Slide], kept: Sequence[np.ndarray], panel: GenePanel) -> tuple[Tensor, Tensor]:
    """Return (n, G) measured log2(count + 1) of the kept spots and of their niches; genes not measured count as 0."""
    of_spots = [spot_counts(slide, panel.genes) for slide in slides]
    of_niches = [niche_counts(slide, counts) for slide, counts in zip(slides, of_spots, strict=True)]
    return _targets(of_spots, kept), _targets(of_niches, kept)


def count_detected(slides: Sequence[Slide], kept: Sequence[np.ndarray]) -> Tensor:
    """Return (n,) how many genes were found in the kept spots, of all that were measured on their slide."""
    return torch.from_numpy(
        np.concatenate([detected_genes(slide)[spots] for slide, spots in zip(slides, kept, strict=True)])
    )


def _targets(counts: Sequence[np.ndarray], kept: Sequence[np.ndarray]) -> Tensor:
    rows = [values[spots] for values, spots in zip(counts, kept, strict=True)]
    return torch.from_numpy(np.nan_to_num(log2_counts(np.concatenate(rows))))
