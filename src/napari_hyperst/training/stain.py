"""Random changes of stain: haematoxylin, eosin and DAB, each a little stronger or weaker, on the device.

Optical density is minus the decimal logarithm of the light let through. In it stains add up, each with a colour of
its own, so a matrix tells them apart (Ruifrok and Johnston, Anal Quant Cytol Histol 23, 2001). A stain s becomes
(1 + alpha) s + beta with alpha and beta from a normal distribution (Tellez et al., IEEE TMI 37, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

#: Optical densities of red, green and blue of one unit of haematoxylin, eosin and DAB, as published.
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
#: The least light that is told from none.
_DARKEST = 1e-6


def draw_stains(rows: Iterable[int], seed: int, jitter: float) -> Tensor:
    """Draw a change of stain for each of some rows.

    It hangs on seed and row alone, so it is the same however a batch is split over micro-batches and processes.

    Parameters
    ----------
    rows
        Which rows.
    seed
        Of this step, or this epoch.
    jitter
        Standard deviation of alpha and beta.

    Returns
    -------
    Tensor
        (B, 2, 3) float32: alpha and beta of haematoxylin, eosin and DAB.
    """
    draws = [np.random.default_rng((seed, row)).normal(0, jitter, (2, 3)) for row in rows]
    return torch.from_numpy(np.array(draws, dtype=np.float32).reshape(-1, 2, 3))


def separate_stains(tiles: Tensor) -> Tensor:
    """Return (..., 3) float32 amounts of haematoxylin, eosin and DAB in (..., 3) uint8 RGB, in optical density."""
    return _density(tiles) @ torch.linalg.inv(_stains(tiles))


def change_stains(tiles: Tensor, change: Tensor) -> Tensor:
    """Change the stains of some tiles.

    Parameters
    ----------
    tiles
        (B, height, width, 3) uint8 RGB, on any device.
    change
        (B, 2, 3) alpha and beta of each tile's three stains, on the same device.

    Returns
    -------
    Tensor
        (B, height, width, 3) uint8 RGB; a change of 0 gives the tiles themselves.
    """
    stains = _stains(tiles)
    # s (1 + alpha) + beta on stains is one affine map on densities.
    scaled = torch.linalg.inv(stains) @ torch.diag_embed(1 + change[:, 0]) @ stains
    density = _density(tiles).flatten(1, 2) @ scaled + (change[:, 1] @ stains)[:, None]
    light = torch.exp(density * -math.log(10))
    return (light * 255).round_().clamp_(0, 255).to(torch.uint8).view_as(tiles)


def _density(tiles: Tensor) -> Tensor:
    return -torch.log10((tiles.float() / 255).clamp_(min=_DARKEST))


def _stains(tiles: Tensor) -> Tensor:
    return torch.tensor(STAINS, device=tiles.device)
