"""A slide is seen from afar in a moment, and what is odd is passed over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import tifffile
from PIL import Image
from spatialdata.models import Image2DModel

from napari_hyperst.errors import HyperSTWarning
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides import open_slide, pillow
from napari_hyperst.slides.afar import coarse_picture
from napari_hyperst.slides.pillow import open_picture
from napari_hyperst.slides.sample import sample_folder


@pytest.fixture(scope="module")
def corner() -> Image.Image:
    """Return a corner of a real section, of odd sides."""
    with open_picture(next(sample_folder().glob("*.jpg"))) as image:
        return image.crop((4300, 4200, 6001, 5503))


def save(corner: Image.Image, path: Path, mode: str = "RGB") -> Path:
    corner.convert(mode).save(path, quality=95)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_coarse_picture_is_the_mean_of_what_it_covers(corner: Image.Image, tmp_path: Path, mode: str) -> None:
    path = save(corner, tmp_path / "he.jpg", mode)
    picture = coarse_picture(SlideRef(path=path))
    assert picture is not None
    assert picture.shape_px == (1303, 1701)
    assert picture.pixels.shape == (163, 213, 3)
    with Image.open(path) as saved:
        fine = np.asarray(saved.convert("RGB"))[: 162 * 8, : 212 * 8]  # the last px are of blocks that the edge cuts
    mean = fine.reshape(162, 8, 212, 8, 3).mean(axis=(1, 3))
    assert np.abs(picture.pixels[:162, :212] - mean).mean() < 2


def test_a_large_picture_is_no_longer_than_a_screen(corner: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "long.jpg"
    corner.resize((16_000, 400)).save(path)
    picture = coarse_picture(SlideRef(path=path))
    assert picture is not None
    assert picture.pixels.shape[:2] == (38, 1536)
    assert picture.shape_px == (400, 16_000)


def test_the_jpg_of_a_slide_is_found_where_there_is_but_one(corner: Image.Image, tmp_path: Path) -> None:
    assert coarse_picture(SlideRef(path=sample_folder())) is not None
    assert coarse_picture(SlideRef(path=tmp_path)) is None
    save(corner, tmp_path / "one.jpg")
    save(corner.resize((300, 200)), tmp_path / "two.JPEG")
    assert coarse_picture(SlideRef(path=tmp_path)) is None
    named = coarse_picture(SlideRef(path=tmp_path, image="two.JPEG"))
    assert named is not None
    assert named.shape_px == (200, 300)


def test_of_several_sections_in_a_folder_each_has_its_jpg(corner: Image.Image, tmp_path: Path) -> None:
    for i, name in enumerate(("A", "B")):
        save(corner.crop((0, 0, 400 + i, 300)), tmp_path / f"{name}.jpg")
        (tmp_path / f"alignment_table_{name}.tsv").touch()
    picture = coarse_picture(SlideRef(path=tmp_path / "alignment_table_B.tsv"))
    assert picture is not None
    assert picture.shape_px == (300, 401)
    assert coarse_picture(SlideRef(path=tmp_path)) is None


def test_of_a_pyramid_the_coarsest_level_is_seen(shared_data: Path, corner: Image.Image, tmp_path: Path) -> None:
    pixels = np.asarray(corner)
    with tifffile.TiffWriter(tmp_path / "he.tif") as tif:
        tif.write(pixels, photometric="rgb", tile=(256, 256), subifds=1)
        tif.write(pixels[::4, ::4], photometric="rgb", tile=(256, 256), subfiletype=1)
    picture = coarse_picture(SlideRef(path=tmp_path / "he.tif"))
    assert picture is not None
    assert picture.shape_px == (1303, 1701)
    np.testing.assert_array_equal(picture.pixels, pixels[::4, ::4])
    scan = coarse_picture(SlideRef(path=shared_data / "wsi" / "CMU-1-Small-Region.svs"))
    assert scan is not None
    assert scan.shape_px == (2967, 2220)
    assert scan.pixels.shape == (1536, 1149, 3)


def test_a_store_is_seen_as_it_is_then_read(tmp_path: Path, corner: Image.Image) -> None:
    he = np.moveaxis(np.asarray(corner), -1, 0)
    images = {
        "s_full_image": Image2DModel.parse(he, dims=("c", "y", "x"), scale_factors=[2, 2]),
        "s_hires_image": Image2DModel.parse(he[:, ::8, ::8], dims=("c", "y", "x")),
        "s_cytassist_image": Image2DModel.parse(he[:, ::9, ::9], dims=("c", "y", "x")),
    }
    store = tmp_path / "s.zarr"
    sdata = sd.SpatialData(images=images)
    sdata.write(store)
    (store / "shapes").mkdir(exist_ok=True)
    picture = coarse_picture(SlideRef(path=store))
    assert picture is not None
    assert picture.shape_px == (1303, 1701)
    coarsest = np.asarray(next(iter(sdata["s_full_image"]["scale2"].data_vars.values())))
    np.testing.assert_array_equal(np.moveaxis(picture.pixels, -1, 0), coarsest)
    named = coarse_picture(SlideRef(path=store, image="s_hires_image"))
    assert named is not None
    assert named.shape_px == (163, 213)
    level = store / "images" / "s_full_image" / "s2"
    level.rename(tmp_path / "elsewhere")
    level.symlink_to(tmp_path / "elsewhere")
    assert coarse_picture(SlideRef(path=store)) is None
    level.unlink()
    (tmp_path / "elsewhere").rename(level)
    metadata = json.loads((level / "zarr.json").read_text())
    metadata["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    (level / "zarr.json").write_text(json.dumps(metadata))
    assert coarse_picture(SlideRef(path=store)) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".svs"])
def test_a_hest_sample_is_seen_by_its_name(crop: Any, tmp_path: Path, suffix: str) -> None:
    for name in ("st", "wsis"):
        (tmp_path / name).mkdir()
    (tmp_path / "st" / "T1.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n")
    crop.write_image(tmp_path / "wsis" / f"T1{suffix}")
    corner = tmp_path / "wsis" / "other.jpg"
    crop.write_image(corner, 0.5)
    picture = coarse_picture(SlideRef(path=tmp_path))
    assert picture is not None
    assert picture.shape_px == crop.pixels.shape[:2]


@pytest.mark.parametrize("hires", [True, False])
def test_a_run_is_seen_by_the_picture_that_space_ranger_keeps(run_folder: Any, hires: bool) -> None:
    folder = run_folder(hires=hires)
    picture = coarse_picture(SlideRef(path=folder))
    assert picture is not None
    with pytest.warns(HyperSTWarning, match="no full-resolution image"):
        opened = open_slide(folder)
    assert picture.shape_px == opened.image.shape_px
    assert coarse_picture(SlideRef(path=folder, mpp=0.5)) is None


def test_what_cannot_be_seen_coarsely_is_passed_over(
    corner: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpg = save(corner, tmp_path / "he.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    corner.save(tmp_path / "in_strips.tif")
    corner.convert("I;16").save(tmp_path / "deep.png")
    corner.save(tmp_path / "large.png")
    for name in ("broken.jpg", "in_strips.tif", "deep.png", "missing.jpg"):
        assert coarse_picture(SlideRef(path=tmp_path / name)) is None
    assert coarse_picture(SlideRef(path=tmp_path / "large.png")) is not None
    monkeypatch.setattr(pillow, "_QUICK_PX", 1_000_000)
    assert coarse_picture(SlideRef(path=tmp_path / "large.png")) is None
    monkeypatch.setattr(pillow, "MAX_DECODED_PX", 1_000_000)
    assert coarse_picture(SlideRef(path=jpg)) is None


def test_a_coarse_picture_waits_for_no_library_of_slides(shared_data: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from napari_hyperst.nouns.tasks import SlideRef; "
        "from napari_hyperst.slides.afar import coarse_picture; print(all(coarse_picture(SlideRef(path=Path(p))) for p "
        "in sys.argv[1:]), {'spatialdata', 'dask.dataframe', 'anndata', 'torch'} & set(sys.modules))"
    )
    words = [str(sample_folder()), str(shared_data / "wsi" / "CMU-1-Small-Region.svs")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
