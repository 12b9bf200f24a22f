"""Stain normalisation: against torchstain, against known stains, and from a slide to its prediction."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from napari_hyperst.errors import ConfigError, HyperSTWarning, SlideError
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide, stains
from napari_hyperst.slides import tiles as tiles_module
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.stains import Macenko, Reinhard, WhiteBalance
from napari_hyperst.slides.tiles import fit_stains, read_tiles, spots_with_tiles

MACENKO = TileSpec(pixels=32, stain="macenko")
WHITE = TileSpec(pixels=32, stain="white_balance")
#: Colours of haematoxylin and eosin in torchstain's reference, and their amounts at the 99th percentile: what tiles
#: look like hangs on them, and so what a checkpoint was trained on.
COLOURS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
AMOUNTS = np.array([1.9705, 1.0308])


@pytest.fixture(scope="module")
def tiny(tiny_section) -> Slide:
    return open_slide(tiny_section)


def stained(colours: NDArray[np.float64], amounts: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (n, 3) px of (n, 2) amounts of two stains."""
    return np.rint(240 * np.exp(-amounts @ colours.T)).clip(0, 255).astype(np.uint8)


def recoloured(slide: Slide, change) -> Slide:
    """Return the slide with a change of the light of each channel, (c, y, x) in 0 to 1, in all of its levels."""

    def block(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.rint(255 * change(pixels / 255.0)).clip(0, 255).astype(np.uint8)

    levels = tuple(level.map_blocks(block, dtype=np.uint8) for level in slide.image.levels)
    return replace(slide, image=Pyramid(levels, slide.image.where))


def all_tiles(slide: Slide, spec: TileSpec) -> NDArray[np.uint8]:
    batches = list(read_tiles(slide, spec, spots_with_tiles(slide, spec)))
    return np.concatenate([tiles for batch in batches for tiles in (batch.spot, batch.niche)])


def test_macenko_is_that_of_torchstain(tiny: Slide) -> None:
    normalizers = pytest.importorskip("torchstain.base.normalizers")
    pixels = all_tiles(tiny, TileSpec(pixels=32)).reshape(-1, 3)
    theirs, _, _ = normalizers.MacenkoNormalizer(backend="numpy").normalize(pixels[None], stains=False)
    ours = Macenko.fit(pixels, "slide")(pixels)
    assert np.abs(ours.astype(int) - theirs[0]).max() <= 1  # they cut off what is rounded here
    assert np.abs(ours.astype(int) - pixels).mean() > 10


def test_macenko_takes_known_stains_to_the_reference() -> None:
    """Of px that hold either stain alone, and both, the stains are found, whatever their colours and amounts."""
    pytest.importorskip("torchstain")
    rng = np.random.default_rng(0)
    colours = np.array([[0.60, 0.25], [0.70, 0.90], [0.30, 0.35]])
    colours /= np.linalg.norm(colours, axis=0)
    amounts = rng.uniform(0.8, 1.6, (20_000, 2)) * (1.1, 0.9)
    amounts[:2000, 0] = amounts[2000:4000, 1] = 0
    seen = stained(colours, amounts)
    wanted = stained(COLOURS, amounts * AMOUNTS / np.percentile(amounts, 99, axis=0))
    found = Macenko.fit(seen, "slide")(seen)
    assert np.abs(found.astype(int) - wanted).mean() < 2
    assert np.abs(seen.astype(int) - wanted).mean() > 10


def test_macenko_takes_a_slide_that_was_stained_longer_to_the_same_colours(tiny: Slide) -> None:
    pytest.importorskip("torchstain")
    darker = recoloured(tiny, lambda light: (241 / 256) * (light * 255 / 240).clip(0, 1) ** 1.3)
    plain, normalised = (
        np.abs(all_tiles(tiny, spec).astype(int) - all_tiles(darker, spec)).mean()
        for spec in (TileSpec(pixels=32), MACENKO)
    )
    assert plain > 10
    assert normalised < plain / 4


def test_reinhard_gives_colours_the_mean_and_the_spread_of_the_reference() -> None:
    rng = np.random.default_rng(0)
    pixels = stained(COLOURS, rng.uniform(0.3, 0.9, (20_000, 2)))
    lab = rgb2lab(Reinhard.fit(pixels, "slide")(pixels))
    np.testing.assert_allclose(lab.mean(axis=0), stains._REFERENCE_MEAN, atol=1.0)
    np.testing.assert_allclose(lab.std(axis=0), stains._REFERENCE_SPREAD, rtol=0.1)
    assert np.abs(rgb2lab(pixels).mean(axis=0) - stains._REFERENCE_MEAN).max() > 5


def test_reinhards_reference_is_the_packaged_section(c2: Slide) -> None:
    """So its own colours stay as they are."""
    pixels = tiles_module._stain_pixels(c2, TileSpec())
    found = Reinhard.fit(pixels, "C2")
    np.testing.assert_allclose(found.scale, 1, atol=1e-3)
    np.testing.assert_allclose(found.shift, 0, atol=0.05)
    assert np.abs(found(pixels[::50]).astype(int) - pixels[::50]).max() <= 2


def test_reinhard_takes_a_slide_in_other_light_to_the_same_colours(tiny: Slide) -> None:
    pinker = recoloured(tiny, lambda light: light**1.3 * np.array([1.0, 0.85, 0.95])[:, None, None])
    plain, normalised = (
        np.abs(all_tiles(tiny, spec).astype(int) - all_tiles(pinker, spec)).mean()
        for spec in (TileSpec(pixels=32), TileSpec(pixels=32, stain="reinhard"))
    )
    assert plain > 10
    assert normalised < plain / 3


def test_reinhard_warns_of_no_colour_and_refuses_a_picture_of_one(tiny: Slide) -> None:
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Reinhard.fit(all_tiles(tiny, TileSpec(pixels=16)).reshape(-1, 3), "slide")(every).shape == every.shape
    with pytest.raises(SlideError, match="slide: haematoxylin and eosin cannot be told apart"):
        Reinhard.fit(np.full((500, 3), 200, np.uint8), "slide")


def test_stains_hang_on_the_slide_and_not_on_which_tiles_are_read(tiny: Slide) -> None:
    pytest.importorskip("torchstain")
    whole = {
        spot: tile
        for batch in read_tiles(tiny, MACENKO, spots_with_tiles(tiny, MACENKO))
        for spot, tile in zip(batch.spots.tolist(), batch.niche, strict=True)
    }
    for spot in list(whole)[:3]:
        (alone,) = read_tiles(tiny, MACENKO, np.array([spot]), threads=1)
        assert np.array_equal(alone.niche[0], whole[spot])
    mixed = replace(
        tiny,
        spots=replace(tiny.spots, centres_px=tiny.spots.centres_px[::-1]),
    )
    assert np.array_equal(fit_stains(mixed, MACENKO).matrix, fit_stains(tiny, MACENKO).matrix)


def test_fitted_stains_are_not_fitted_again(tiny: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fit_stains(tiny, WHITE)
    spots = spots_with_tiles(tiny, WHITE)
    (wanted,) = read_tiles(tiny, WHITE, spots[:1])
    monkeypatch.setattr(tiles_module, "fit_stains", None)
    (found,) = read_tiles(tiny, WHITE, spots[:1], stains=fitted)
    assert np.array_equal(found.spot, wanted.spot)


def test_white_balance_makes_glass_white(tiny: Slide) -> None:
    glass = np.array([200.0, 220.0, 190.0])
    image = np.full((3, 64, 64), 100, np.uint8)
    image[:, :16] = glass.astype(np.uint8)[:, None, None]
    balance = WhiteBalance.fit(image.reshape(3, -1).T, "slide")
    assert balance(glass.astype(np.uint8)).tolist() == [255, 255, 255]
    np.testing.assert_array_equal(balance(np.full((2, 3), 90, np.uint8))[0], np.rint(90 * 255 / glass))
    assert balance(np.full((4, 5, 3), 255, np.uint8)).min() == 255


def test_white_balance_undoes_the_colour_of_the_lamp(tiny: Slide) -> None:
    lamp = np.array([0.95, 0.85, 0.8])[:, None, None]
    yellow = recoloured(tiny, lambda light: light * lamp)
    plain, balanced = (
        np.abs(all_tiles(tiny, spec).astype(int) - all_tiles(yellow, spec)).mean()
        for spec in (TileSpec(pixels=32), WHITE)
    )
    assert plain > 20
    assert balanced < 1


def test_white_is_looked_for_all_over_a_large_level() -> None:
    """Glass is at one end only of an image with no coarse level."""
    tall = da.full((3, 9000, 40), 100, dtype=np.uint8, chunks=(3, 1000, 40))
    tall = da.concatenate([tall, da.full((3, 300, 40), 210, dtype=np.uint8)], axis=1)
    pixels = tiles_module._overview(Pyramid((tall,), "tall"))
    assert len(pixels) == 8 * 256 * 40
    assert set(np.unique(pixels)) == {100, 210}


def test_a_slide_without_glass_is_left_as_it_is_and_told() -> None:
    pixels = np.full((100, 3), (230, 120, 170), np.uint8)
    with pytest.warns(HyperSTWarning, match="slide: no glass is seen .*230, 120, 170"):
        balance = WhiteBalance.fit(pixels, "slide")
    assert np.array_equal(balance(pixels), pixels)


@pytest.mark.parametrize("kind", ["white", "black", "grey", "one stain"])
def test_a_picture_without_stains_is_told(kind: str) -> None:
    pytest.importorskip("torchstain")
    amounts = np.linspace(0.8, 2, 500)[:, None]
    pixels = {
        "white": np.full((500, 3), 255, np.uint8),
        "black": np.zeros((500, 3), np.uint8),
        "grey": np.linspace(40, 200, 500).astype(np.uint8)[:, None].repeat(3, axis=1),
        "one stain": stained(COLOURS[:, :1], amounts),
    }[kind]
    with pytest.raises(SlideError, match=r"slide: haematoxylin and eosin cannot be told apart.*tiles\.stain=none"):
        Macenko.fit(pixels, "slide")


def test_without_torchstain_what_to_install_is_said(tiny: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchstain.base.normalizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'napari-hyperst\[stain\]'"):
        list(read_tiles(tiny, MACENKO, spots_with_tiles(tiny, MACENKO)))


def test_the_reference_is_the_published_one() -> None:
    normalizers = pytest.importorskip("torchstain.base.normalizers")
    reference = normalizers.MacenkoNormalizer(backend="numpy")
    np.testing.assert_array_equal(reference.HERef, COLOURS)
    np.testing.assert_array_equal(reference.maxCRef, AMOUNTS)
