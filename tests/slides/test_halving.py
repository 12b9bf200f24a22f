from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_hyperst.slides.halving import halved, level_shapes


def half(image: np.ndarray, block: int = 10_000) -> np.ndarray:
    """Halve a whole image, block by block."""
    fine, coarse = level_shapes(image.shape[1:], 1)[:2]
    out = np.zeros((len(image), *coarse), image.dtype)
    for top in range(0, coarse[0], block):
        for left in range(0, coarse[1], block):
            y, x = slice(top, min(top + block, coarse[0])), slice(left, min(left + block, coarse[1]))
            out[:, y, x] = halved(lambda y, x: image[:, y, x], fine, coarse, y, x)
    return out


def test_levels_halve_until_a_chunk_holds_them() -> None:
    assert level_shapes((9911, 9274), 1024) == ((9911, 9274), (4956, 4637), (2478, 2319), (1239, 1160), (620, 580))
    assert level_shapes((1024, 3), 1024) == ((1024, 3),)
    assert level_shapes((1, 5), 1) == ((1, 5), (1, 3), (1, 2), (1, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_even_images_become_means_of_two_by_two(dtype: type) -> None:
    image = (np.random.default_rng(0).random((3, 64, 32)) * (1 if dtype is np.float32 else 255)).astype(dtype)
    means = image.astype(float).reshape(3, 32, 2, 16, 2).mean(axis=(2, 4))
    wanted = (
        means if dtype is np.float32 else np.floor(means + 0.5)
    )  # halves up, so that nothing darkens level by level
    assert half(image).dtype == dtype
    np.testing.assert_allclose(half(image), wanted, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(2, 40), block=st.integers(1, 9), seed=st.integers(0, 9))
def test_any_size_keeps_its_mean_and_does_not_depend_on_the_blocks(
    height: int, width: int, block: int, seed: int
) -> None:
    image = np.random.default_rng(seed).random((1, height, width))
    whole = half(image)
    np.testing.assert_array_equal(half(image, block), whole)
    assert whole.mean() == pytest.approx(image.mean())


def test_levels_of_odd_images_stay_in_register() -> None:
    """A ramp's value tells the place: pixel i of a level of f covers i f to (i + 1) f px of level 0."""
    ramp = np.broadcast_to(np.arange(1001) + 0.5, (1, 3, 1001)).astype(np.float32)
    level, factor = ramp, 1.0
    for _ in range(4):
        factor *= level.shape[2] / (-(-level.shape[2] // 2))
        level = half(level)
        np.testing.assert_allclose(level[0, 0], (np.arange(level.shape[2]) + 0.5) * factor, atol=factor / 16)
    assert factor == pytest.approx(1001 / level.shape[2])


def test_fine_stripes_turn_grey_and_do_not_alias() -> None:
    stripes = np.zeros((1, 64, 64), np.uint8)
    stripes[:, :, ::2] = 254
    assert (half(stripes) == 127).all()
