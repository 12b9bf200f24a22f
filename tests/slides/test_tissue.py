"""The mask of the tissue, against H&E of which it is known where that is."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import painted
import pytest
import tifffile
from painted import CRACK, HOLE, INK, MIDDLE, MPP, PIECE, SHAPE, SPECK, paint, true_tissue
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import Slide
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.tissue import MASK_UM, Tissue, find_tissue, keep_mask, read_mask


def pyramid(pixels: np.ndarray, levels: int = 1) -> Pyramid:
    arrays = [np.moveaxis(pixels, -1, 0)]
    for _ in range(1, levels):
        arrays.append(arrays[-1][:, ::2, ::2])
    return Pyramid(tuple(da.from_array(array, chunks=(3, 512, 512)) for array in arrays), "painted")


@pytest.fixture(scope="module")
def he() -> np.ndarray:
    return paint()


@pytest.fixture(scope="module")
def found(he: np.ndarray) -> Tissue:
    return find_tissue(pyramid(he), MPP)


def at(found: Tissue, place: tuple[float, float]) -> bool:
    """Tell what the mask says of a place (y, x)."""
    return bool(found.at(np.array([place[::-1]]))[0])


def full_size(found: Tissue) -> np.ndarray:
    """Return the mask at each px of the H&E."""
    y, x = np.mgrid[: found.shape_px[0], : found.shape_px[1]] + 0.5
    return found.at(np.column_stack([x.ravel(), y.ravel()])).reshape(found.shape_px)


def test_the_mask_is_the_tissue_within_its_own_resolution(found: Tissue) -> None:
    assert found.mask.shape == (round(SHAPE[0] * MPP / MASK_UM), round(SHAPE[1] * MPP / MASK_UM))
    assert found.factors == pytest.approx((MASK_UM / MPP,) * 2)
    mask, truth = full_size(found), true_tissue()
    assert (mask & truth).sum() / (mask | truth).sum() > 0.98  # intersection over union
    away = sum(
        painted.disc(middle, radius + 8) ^ painted.disc(middle, radius - 8)
        for middle, radius in ((MIDDLE, painted.RADIUS), (HOLE, painted.HOLE_RADIUS), (PIECE, painted.PIECE_RADIUS))
    )
    assert not ((mask != truth) & ~away.astype(bool)).any()  # 16 µm from an outline it is right everywhere


def test_holes_stay_cracks_are_closed_specks_ink_and_black_edges_are_none(found: Tissue) -> None:
    assert at(found, (MIDDLE[0], MIDDLE[1] + 300))
    assert at(found, PIECE)
    assert not at(found, HOLE)
    assert at(found, CRACK)
    assert not at(found, SPECK)
    assert not found.mask[tuple(slice(s.start // 4, s.stop // 4) for s in INK)].any()
    assert not found.mask[:, :15].any()


def test_the_bounds_of_holes_and_specks_are_areas_in_um2(he: np.ndarray) -> None:
    hole, speck = (np.pi * (radius * MPP) ** 2 for radius in (painted.CRACK_RADIUS, painted.SPECK_RADIUS))
    finer = find_tissue(pyramid(he), MPP, hole_um2=0.8 * hole, speck_um2=0.8 * speck)
    assert not at(finer, CRACK)
    assert at(finer, SPECK)
    coarser = find_tissue(pyramid(he), MPP, hole_um2=1.2 * np.pi * 300**2, speck_um2=1.2 * np.pi * 360**2)
    assert at(coarser, HOLE)
    assert not at(coarser, PIECE)


def test_a_gap_that_the_edge_of_the_image_cuts_is_no_hole(he: np.ndarray) -> None:
    cut = he[: int(HOLE[0])]  # through the middle of the hole, and the crack is gone
    assert not at(find_tissue(pyramid(cut), MPP, hole_um2=1e9), (HOLE[0] - 10, HOLE[1]))


def test_glass_alone_has_no_tissue_and_tissue_alone_no_glass() -> None:
    random = np.random.default_rng(1)
    glass = np.clip((238, 235, 240) + random.normal(0, 5, (800, 800, 1)), 0, 255).astype(np.uint8)
    assert not find_tissue(pyramid(glass), 1.0).mask.any()
    assert not find_tissue(pyramid(np.full((300, 300, 3), 255, np.uint8)), 1.0).mask.any()
    tissue = np.where(random.random((800, 800, 1)) < 0.3, (110, 70, 150), (225, 160, 195)).astype(np.uint8)
    assert find_tissue(pyramid(tissue), 1.0).mask.all()


def test_no_level_finer_than_needed_is_read(he: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 2 µm/px the level four times as coarse is that of the mask, 8 µm/px."""
    levels: list[int] = []
    read = Pyramid.read
    monkeypatch.setattr(Pyramid, "read", lambda self, level, y, x: levels.append(level) or read(self, level, y, x))
    by_level = find_tissue(pyramid(he, levels=5), MPP)
    assert levels == [3]  # 16 µm/px, twice as coarse as the mask may be
    truth = true_tissue()
    mask = full_size(by_level)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.96


def test_c2s_tissue_is_where_its_spots_were_chosen(c2: Slide) -> None:
    """Real tissue: the spots of the assay that somebody selected by eye lie in the mask, and it is hardly larger."""
    found = find_tissue(c2.image, c2.mpp)
    assert found.at(c2.spots.centres_px).mean() > 0.97
    area = found.mask.mean() * np.prod(c2.image.shape_px) * c2.mpp**2
    assert 0.8 < area / (len(c2.spots) * c2.pitch_um**2) < 1.15


def test_places_off_the_image_are_in_no_tissue(found: Tissue) -> None:
    beyond = np.array([(-0.1, 5), (5, -0.1), (SHAPE[1] + 0.1, 5), (5, SHAPE[0] + 0.1), (1e9, 1e9)])
    whole = Tissue(np.ones_like(found.mask), found.shape_px)
    assert not whole.at(beyond).any()
    assert whole.at(np.array([(0.0, 0.0), (SHAPE[1] - 0.1, SHAPE[0] - 0.1)])).all()


def test_a_mask_is_kept_once_and_read_back_as_it_was(found: Tissue, tmp_path: Path) -> None:
    path = keep_mask(found.mask.astype(np.uint8), tmp_path)
    assert keep_mask(found.mask * 7, tmp_path) == path
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    back = read_mask(path, SHAPE)
    np.testing.assert_array_equal(back.mask, found.mask)
    assert keep_mask(~found.mask, tmp_path) != path
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".png", ".png"]  # nothing staged is left


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_mask_may_be_of_any_kind_of_picture(tmp_path: Path, mode: str) -> None:
    bits = painted.disc((30, 50), 20, (60, 80))
    picture = Image.fromarray(bits.astype(np.uint16) * 9) if mode == "I;16" else Image.fromarray(bits)
    picture = picture if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (600, 800)).mask, bits)
    picture.save(tmp_path / "mask.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif", (600, 800)).mask, bits)


def test_transparency_and_ringing_are_no_tissue(tmp_path: Path) -> None:
    bits = np.zeros((60, 80), dtype=bool)
    bits[20:40, 10:50] = True
    colours = np.dstack([np.repeat(bits[..., None] * np.uint8(255), 3, axis=2), np.full((60, 80), 255, np.uint8)])
    tifffile.imwrite(tmp_path / "mask.tif", colours, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif", (600, 800)).mask, bits)
    Image.fromarray(bits.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=50)
    assert (read_mask(tmp_path / "mask.jpg", (600, 800)).mask != bits).mean() < 0.005


def test_a_mask_that_is_none_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((60, 80), 255, np.uint8)).save(tmp_path / "turned.png")
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, shape, said in (
        ("turned.png", (800, 600), "does not span an H&E of 600 x 800 px; give one of the whole"),
        ("black.png", (600, 800), "marks no tissue; make the tissue white"),
        ("text.png", (600, 800), "is no mask that can be read"),
        ("missing.png", (600, 800), "is no mask that can be read"),
    ):
        with pytest.raises(SlideError, match=said):
            read_mask(tmp_path / name, shape)
    with pytest.raises(SlideError, match="is no picture"):
        keep_mask(np.zeros((2, 3, 4)), tmp_path)
