"""Image files as scanners and programs write them: which pixels, which levels, which scale."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import painted
import pytest
import tifffile
from PIL import Image

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import image as images
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.formats import format_of
from napari_hyperst.slides.image import Pyramid, image_element
from napari_hyperst.slides.scan import open_scan, recorded_mpp

MPP = 0.5


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.integers(60, 250, (40, 52, 3))
    return np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)  # 640 x 832 px, smooth enough for JPEG


def read(path: Path) -> Pyramid:
    from spatialdata.transformations import Identity

    return Pyramid.from_element(image_element(path, {"global": Identity()}), str(path))


def whole(pyramid: Pyramid, level: int = 0) -> np.ndarray:
    height, width = pyramid.levels[level].shape[1:]
    return pyramid.read(level, slice(0, height), slice(0, width))


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.ome.tif", "a.btf", "A.TIF"])
def test_tiled_tiff_is_read_where_it_is(tmp_path: Path, cache: Path, pixels: np.ndarray, name: str) -> None:
    path = painted.write_tif(tmp_path / name, pixels, levels=3, mpp=MPP)
    before = set(cache.iterdir())
    pyramid = read(path)
    np.testing.assert_array_equal(whole(pyramid), pixels)
    assert [level.shape[1:] for level in pyramid.levels] == [(640, 832), (320, 416), (160, 208)]
    assert recorded_mpp(path) == pytest.approx(MPP, rel=1e-4)
    assert format_of(path) == "whole_slide"
    assert set(cache.iterdir()) == before


def test_tiff_without_tiles_is_decoded_once(tmp_path: Path, cache: Path, pixels: np.ndarray) -> None:
    path = painted.write_tif(tmp_path / "strips.tif", pixels, tile=None, mpp=MPP)
    before = set(cache.iterdir())
    np.testing.assert_array_equal(whole(read(path))[:640, :832], pixels)
    (decoded,) = set(cache.iterdir()) - before
    written = decoded.stat().st_mtime_ns
    read(path)
    assert decoded.stat().st_mtime_ns == written


def test_levels_that_a_file_lacks_are_computed_when_asked_for(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHUNK_PX", 256)
    pyramid = read(painted.write_tif(tmp_path / "flat.tif", pixels, mpp=MPP))
    assert [level.shape[1:] for level in pyramid.levels] == [(640, 832), (320, 416), (160, 208)]
    mean = pixels.reshape(160, 4, 208, 4, 3).mean(axis=(1, 3))
    assert np.abs(whole(pyramid, 2) - mean).max() <= 1
    assert pyramid.factors == ((1, 1), (2, 2), (4, 4))


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "lzw", "zstd", None])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_whatever_a_scanner_compresses_with(tmp_path: Path, pixels: np.ndarray, compression: str | None) -> None:
    path = painted.write_tif(tmp_path / "a.tif", pixels, compression=compression)
    assert np.abs(whole(read(path)).astype(float) - pixels).mean() < 4


def test_16_bits_grey_and_transparency(tmp_path: Path, pixels: np.ndarray) -> None:
    deep = painted.write_tif(tmp_path / "deep.tif", pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(whole(read(deep)), pixels)
    grey = painted.write_tif(tmp_path / "grey.tif", pixels[..., 0], photometric="minisblack")
    np.testing.assert_array_equal(whole(read(grey)), pixels[..., [0, 0, 0]])
    clear = np.dstack([pixels, np.full(pixels.shape[:2], 0, np.uint8)])
    see_through = painted.write_tif(tmp_path / "clear.tif", clear, extrasamples=["unassalpha"])
    assert (whole(read(see_through)) == 255).all()


def test_other_colour_spaces_go_through_pillow(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert open_scan(tmp_path / "cmyk.tif") is None
    assert np.abs(whole(read(tmp_path / "cmyk.tif"))[:640, :832].astype(float) - pixels).mean() < 2


def test_of_several_planes_the_middle_one_and_of_several_pictures_the_largest(
    tmp_path: Path, pixels: np.ndarray
) -> None:
    stack = np.stack([np.full_like(pixels, 9), pixels, np.full_like(pixels, 200)])
    tifffile.imwrite(tmp_path / "z.ome.tif", stack, photometric="rgb", tile=(256, 256), metadata={"axes": "ZYXS"})
    with pytest.warns(HyperSTWarning, match="middle one of 3 focal planes"):
        np.testing.assert_array_equal(whole(read(tmp_path / "z.ome.tif")), pixels)
    with tifffile.TiffWriter(tmp_path / "label.tif") as tif:
        tif.write(pixels[:64, :64], photometric="rgb", tile=(32, 32))
        tif.write(pixels, photometric="rgb", tile=(256, 256))
    np.testing.assert_array_equal(whole(read(tmp_path / "label.tif")), pixels)


@pytest.mark.parametrize(
    ("unit", "value", "mpp"),
    [
        ("CENTIMETER", 20_000, 0.5),
        ("INCH", 50_800, 0.5),
        ("MILLIMETER", 2000, 0.5),
        ("MICROMETER", 2, 0.5),
        ("NONE", 20_000, None),
        ("INCH", 300, None),  # of a printer
        ("INCH", 1, None),
    ],
)
def test_resolution_tags_are_believed_where_they_are_a_microscopes(
    tmp_path: Path, unit: str, value: float, mpp: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", resolution=(value, value),
                     resolutionunit=unit)  # fmt: skip
    assert recorded_mpp(path) == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(
    ("unit", "size", "mpp"), [("µm", 0.5, 0.5), ("nm", 500, 0.5), ("mm", 5e-4, 0.5), ("pixel", 1, None)]
)
def test_ome_states_its_unit(tmp_path: Path, unit: str, size: float, mpp: float | None) -> None:
    path = tmp_path / "a.ome.tif"
    said = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeXUnit": unit, "PhysicalSizeY": size,
            "PhysicalSizeYUnit": unit}  # fmt: skip
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", metadata=said)
    assert recorded_mpp(path) == (None if mpp is None else pytest.approx(mpp))


def test_imagej_states_its_unit(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    assert recorded_mpp(path) == pytest.approx(0.5)


def test_px_that_are_not_square_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", resolution=(20_000, 10_000),
                     resolutionunit="CENTIMETER")  # fmt: skip
    with pytest.warns(HyperSTWarning, match=r"0\.5 µm wide and 1 µm high"):
        assert recorded_mpp(path) == pytest.approx(np.sqrt(0.5))


def test_aperio(shared_data: Path) -> None:
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    assert recorded_mpp(path) == pytest.approx(0.499)
    pyramid = read(path)
    with tifffile.TiffFile(path) as tif:
        np.testing.assert_array_equal(whole(pyramid), tif.pages[0].asarray())


@pytest.mark.parametrize("suffix", [".svs", ".ndpi", ".scn", ".bif", ".tif", ".png", ".jpg"])
def test_what_is_no_image_is_told(tmp_path: Path, suffix: str) -> None:
    for i, content in enumerate((b"", b"II*\0", b"not an image at all", b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 99)):
        path = tmp_path / f"broken{i}{suffix}"
        path.write_bytes(content)
        with pytest.raises(SlideError, match=f"broken{i}"):
            open_slide(path, 0.5)


def test_a_truncated_scan_is_told_when_its_pixels_are_read(tmp_path: Path) -> None:
    path = painted.write_tif(tmp_path / "cut.tif", painted.paint(), compression=None)
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(SlideError, match=r"cut\.tif"):
        open_slide(path, 2.0)


def test_mrxs_without_openslide_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    path = tmp_path / "a.mrxs"
    path.touch()
    assert format_of(path) == "whole_slide"
    with pytest.raises(SlideError, match="need openslide, which is not installed; pip install 'napari-hyp"):
        open_slide(path)


def test_mrxs_goes_through_openslide(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of openslide's interface: its C library is no dependency."""

    class OpenSlide:
        level_count, level_dimensions, level_downsamples = 2, ((832, 640), (416, 320)), (1.0, 2.0)
        properties = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}  # noqa: RUF012

        def __init__(self, name: str) -> None:
            self.picture = Image.fromarray(pixels)

        def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
            left, top = (place // 2**level for place in corner)
            small = self.picture.reduce(2**level).convert("RGBA").crop((left, top, left + size[0], top + size[1]))
            small.paste((0, 0, 0, 0), (0, 0, 8, 8) if corner == (0, 0) else (0, 0, 0, 0))  # not scanned
            return small

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    module = ModuleType("openslide")
    module.OpenSlide = OpenSlide  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openslide", module)
    path = tmp_path / "a.mrxs"
    path.touch()
    pyramid = read(path)
    assert recorded_mpp(path) == 0.25
    assert [level.shape for level in pyramid.levels] == [(3, 640, 832), (3, 320, 416)]
    found = whole(pyramid)
    np.testing.assert_array_equal(found[8:, 8:], pixels[8:, 8:])
    assert (found[:8, :8] == 255).all()


@pytest.mark.parametrize("suffix", [".svs", ".tif"])
def test_tiles_that_are_not_in_the_file_read_as_black(suffix: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(60, 200, (512, 512, 3), dtype=np.uint8)
    tiles = [pixels[:256, :256], None, pixels[256:, :256], pixels[256:, 256:]]
    path = tmp_path / f"sparse{suffix}"
    tifffile.imwrite(
        path, iter(tiles), shape=pixels.shape, dtype=pixels.dtype, tile=(256, 256), photometric="rgb", metadata=None,
        description="Aperio Image Library v12\r\n|AppMag = 20|MPP = 0.5",
    )  # fmt: skip
    pixels[:256, 256:] = 0
    np.testing.assert_array_equal(np.asarray(open_scan(path).levels[0]), np.moveaxis(pixels, -1, 0))
