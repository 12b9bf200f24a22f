"""Pictures through Pillow: a jpg is seen coarsely in a moment, and what is odd is passed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides import pillow
from napari_hyperst.slides.pillow import coarse_picture, open_picture
from napari_hyperst.slides.sample import sample_folder


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    """Return a corner of a real section, of odd sides."""
    with open_picture(next(sample_folder().glob("*.jpg"))) as image:
        return image.crop((4300, 4200, 6001, 5503))


def save(crop: Image.Image, path: Path, mode: str = "RGB") -> Path:
    crop.convert(mode).save(path, quality=95)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_coarse_picture_is_the_mean_of_what_it_covers(crop: Image.Image, tmp_path: Path, mode: str) -> None:
    path = save(crop, tmp_path / "he.jpg", mode)
    picture = coarse_picture(SlideRef(path=path))
    assert picture is not None
    assert picture.shape_px == (1303, 1701)
    assert picture.pixels.shape == (163, 213, 3)
    with Image.open(path) as saved:
        fine = np.asarray(saved.convert("RGB"))[: 162 * 8, : 212 * 8]  # the last px are of blocks that the edge cuts
    mean = fine.reshape(162, 8, 212, 8, 3).mean(axis=(1, 3))
    assert np.abs(picture.pixels[:162, :212] - mean).mean() < 2


def test_a_large_picture_is_no_longer_than_a_screen(crop: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "long.jpg"
    crop.resize((16_000, 400)).save(path)
    picture = coarse_picture(SlideRef(path=path))
    assert picture is not None
    assert picture.pixels.shape[:2] == (38, 1536)
    assert picture.shape_px == (400, 16_000)


def test_the_jpg_of_a_slide_is_found_where_there_is_but_one(crop: Image.Image, tmp_path: Path) -> None:
    assert coarse_picture(SlideRef(path=sample_folder())) is not None
    assert coarse_picture(SlideRef(path=tmp_path)) is None
    save(crop, tmp_path / "one.jpg")
    save(crop.resize((300, 200)), tmp_path / "two.JPEG")
    assert coarse_picture(SlideRef(path=tmp_path)) is None
    named = coarse_picture(SlideRef(path=tmp_path, image="two.JPEG"))
    assert named is not None
    assert named.shape_px == (200, 300)


def test_what_cannot_be_seen_coarsely_is_passed_over(
    crop: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpg = save(crop, tmp_path / "he.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    for name in ("he.png", "he.tif"):
        crop.save(tmp_path / name)
    for name in ("broken.jpg", "he.png", "he.tif", "missing.jpg"):
        assert coarse_picture(SlideRef(path=tmp_path / name)) is None
    monkeypatch.setattr(pillow, "MAX_DECODED_PX", 1_000_000)
    assert coarse_picture(SlideRef(path=jpg)) is None


def test_a_coarse_picture_waits_for_no_library_of_slides() -> None:
    code = (
        "import sys; from napari_hyperst.slides.pillow import coarse_picture; "
        "print({'spatialdata', 'pandas', 'dask', 'anndata', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
