from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed, rgb_from_hed

from napari_hyperst.training.stain import STAINS, change_stains, draw_stains, separate_stains

#: scikit-image counts stains in units of -log(1e-6), ours are decimal logarithms.
UNITS = 6.0


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    """Return 4 tiles of all colours."""
    return torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def stained() -> torch.Tensor:
    """Return 4 tiles of colours that positive amounts of the three stains make, not too dark for 8 bits."""
    amounts = np.random.default_rng(0).uniform(0.01, 0.25, (4, 32, 32, 3))
    return torch.from_numpy(np.rint(255 * 10.0 ** -(amounts @ np.array(STAINS))).astype(np.uint8))


def test_stains_are_those_of_scikit_image(stained: torch.Tensor) -> None:
    np.testing.assert_array_equal(STAINS, rgb_from_hed)
    wanted = rgb2hed(stained.numpy())
    ours = separate_stains(stained).numpy() / UNITS
    positive = (wanted > 0).all(axis=-1)  # it cuts negative ones off
    assert positive.mean() > 0.9
    np.testing.assert_allclose(ours[positive], wanted[positive], atol=1e-5)


def test_changes_are_those_of_scikit_images_stains(stained: torch.Tensor) -> None:
    change = draw_stains(range(4), seed=3, jitter=0.05)
    alpha, beta = change.numpy()[:, :, None, None].swapaxes(0, 1)
    changed = separate_stains(stained).numpy() * (1 + alpha) + beta
    inside = (changed > 0).all(axis=-1)
    wanted = np.rint(255 * hed2rgb(changed / UNITS)).clip(0, 255)
    ours = change_stains(stained, change).numpy()
    assert inside.mean() > 0.5
    assert np.abs(ours[inside].astype(float) - wanted[inside]).max() <= 1  # of rounding
    assert np.abs(ours.astype(float) - stained.numpy()).mean() > 1


def test_no_change_gives_every_colour_back(tiles: torch.Tensor) -> None:
    assert torch.equal(change_stains(tiles, torch.zeros(4, 2, 3)), tiles)


def test_each_tile_has_its_own_change_and_each_stain(stained: torch.Tensor) -> None:
    """More of a stain darkens most what it darkens most."""
    for stain, densities in enumerate(STAINS):
        change = torch.zeros(4, 2, 3)
        change[2, 1, stain] = 0.3
        changed = change_stains(stained, change)
        assert torch.equal(changed[[0, 1, 3]], stained[[0, 1, 3]])
        ratio = (changed[2].double().mean(dim=(0, 1)) / stained[2].double().mean(dim=(0, 1))).log10()
        np.testing.assert_allclose(-ratio, 0.3 * np.array(densities), atol=0.02)


def test_draws_hang_on_seed_and_row_alone() -> None:
    whole = draw_stains([5, 6, 7, 8], seed=1, jitter=0.1)
    assert torch.equal(draw_stains([8, 6], seed=1, jitter=0.1), whole[[3, 1]])
    assert len({tuple(draw.flatten().tolist()) for draw in whole}) == 4
    assert not torch.equal(draw_stains([5], seed=2, jitter=0.1), whole[:1])
    assert draw_stains([], seed=1, jitter=0.1).shape == (0, 2, 3)
    many = draw_stains(range(2000), seed=0, jitter=0.1)
    assert abs(many.mean()) < 0.005
    assert many.std() == pytest.approx(0.1, rel=0.05)
