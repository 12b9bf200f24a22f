"""In which order spots are seen: a matter of seed and epoch alone, so that a run can be resumed anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_hyperst.training.step import seed_of


def epoch_order(slide: Tensor, symmetries: int, seed: int, epoch: int, balance: bool = False) -> tuple[Tensor, Tensor]:
    """Return the rows of an epoch in their order, and the symmetry that each is seen under.

    Parameters
    ----------
    slide
        (n,) which slide a row is of.
    symmetries
        How many there are to draw from.
    seed, epoch
        What the order depends on.
    balance
        Take as many rows of each slide, n in all: all of its rows, as often as it takes, the rest drawn.

    Returns
    -------
    tuple of Tensor
        (n,) rows and (n,) symmetries.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, epoch, 1))
    if balance:
        slides = slide.unique()
        shares = torch.arange(len(slide)).tensor_split(len(slides))
        drawn = [
            _drawn(torch.nonzero(slide == one).squeeze(1), len(share), generator)
            for one, share in zip(slides, shares, strict=True)
        ]
        rows = torch.cat(drawn)
    else:
        rows = torch.arange(len(slide))
    rows = rows[torch.randperm(len(rows), generator=generator)]
    return rows, torch.randint(symmetries, (len(rows),), generator=generator)


def _drawn(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    rounds = -(-count // len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)])[:count]
