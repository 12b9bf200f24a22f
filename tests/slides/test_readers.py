from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from PIL import Image

from napari_hyperst.errors import HyperSTError, HyperSTWarning, SlideError
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.halving import halved


def test_c2_has_its_published_geometry(c2: Slide) -> None:
    assert len(c2.spots) == 187
    assert c2.lattice.kind == "square"
    assert c2.pitch_um == pytest.approx(200)
    assert c2.mpp == pytest.approx(0.687, abs=0.005)
    assert c2.spots.diameter_um == 100
    assert (c2.count_rows >= 0).all()
    assert c2.name == "C2"


def test_image_pyramid_is_whole_and_in_register(c2: Slide) -> None:
    """Level 0 is as large as the picture, and each level shows all of it, at half the size rounded up."""
    sides = [level.shape[1:] for level in c2.image.levels]
    assert sides == [(9911, 9274), (4956, 4637), (2478, 2319), (1239, 1160), (620, 580)]
    exact = [(9911 / height, 9274 / width) for height, width in sides]
    np.testing.assert_allclose(c2.image.factors, exact)
    part = slice(2000, 2256)

    def finest(y: slice, x: slice) -> np.ndarray:
        return np.moveaxis(c2.image.read(0, y, x), -1, 0)

    half = np.moveaxis(halved(finest, sides[0], sides[1], part, part), 0, -1)
    np.testing.assert_array_equal(c2.image.read(1, part, part), half)


def test_opening_again_decodes_nothing(c2: Slide, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*.zarr")}
    assert before
    open_slide(c2.path)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.zarr")} == before


def test_spots_without_counts_are_kept(shared_data: Path) -> None:
    slide = open_slide(shared_data / "her2st" / "C4")
    assert (slide.count_rows < 0).sum() == 3
    uncounted = slide.spots.ids[slide.count_rows < 0]
    assert not set(uncounted) & set(slide.counts.obs_names)


def test_visium_without_full_resolution_image(shared_data: Path) -> None:
    with pytest.warns(HyperSTWarning, match=r"hires image at 4\.26 µm/px"):
        slide = open_slide(shared_data / "visium" / "V1_Adult_Mouse_Brain")
    assert slide.lattice.kind == "hex"
    assert len(slide.spots) == 2702
    assert slide.spots.diameter_um == 55
    # From the pitch, not from spot_diameter_fullres, which would give 55 / 89.44 / 0.170 = 3.6 µm/px.
    full_resolution = json.loads(
        (shared_data / "visium/V1_Adult_Mouse_Brain/spatial/scalefactors_json.json").read_text()
    )["tissue_hires_scalef"]
    assert slide.mpp == pytest.approx(100 / 138 / full_resolution, rel=0.01)
    assert slide.counts.shape == (2702, 100)


def test_spots_lie_on_tissue_of_the_hires_image(shared_data: Path) -> None:
    with pytest.warns(HyperSTWarning):
        slide = open_slide(shared_data / "visium" / "V1_Adult_Mouse_Brain")
    height, width = slide.image.shape_px
    pixels = slide.image.read(0, slice(0, height), slice(0, width))
    at_spots = pixels[tuple(np.floor(slide.spots.centres_px[:, ::-1]).astype(int).T)].mean()
    assert at_spots < pixels.mean() - 15


@pytest.mark.parametrize(
    ("folder", "spots"),
    [("perik_cytassist", 2898), ("seurat_visium", 2695), ("VisiumIO_extdata/10xVisium/section1", 22)],
)
def test_other_space_ranger_layouts_open(shared_data: Path, folder: str, spots: int) -> None:
    """CytAssist with a header and float px; an h5 without attributes with RGBA images; a raw matrix only."""
    with pytest.warns(HyperSTWarning, match="no full-resolution image"):
        slide = open_slide(shared_data / "visium" / folder)
    assert len(slide.spots) == spots
    region = slide.image.read(len(slide.image.levels) - 1, slice(0, 50), slice(0, 50))
    assert region.dtype == np.uint8
    assert region.shape == (50, 50, 3)


def test_visium_with_its_full_resolution_image(section_visium: Path) -> None:
    slide = open_slide(section_visium, image="full.png")
    assert slide.source.image == "visium_full_image"
    assert slide.mpp == pytest.approx(100 / 138, rel=0.01)


def test_converted_slide_is_the_same_slide(tiny_section: Path, tmp_path: Path) -> None:
    slide = open_slide(tiny_section)
    store = convert(slide, tmp_path / "corner.zarr")
    again = open_slide(store)
    assert again.fingerprint == slide.fingerprint
    assert again.mpp == pytest.approx(slide.mpp)
    assert again.spots.diameter_um == pytest.approx(100)
    np.testing.assert_allclose(again.spots.centres_px, slide.spots.centres_px)
    np.testing.assert_array_equal(again.spots.ids, slide.spots.ids)
    assert again.lattice.kind == slide.lattice.kind
    np.testing.assert_array_equal(again.lattice.ring, slide.lattice.ring)
    for level in range(len(slide.image.levels)):
        rows, columns = slide.image.levels[level].shape[1:]
        np.testing.assert_allclose(
            again.image.read(level, slice(0, rows), slice(0, columns)).astype(int),
            slide.image.read(level, slice(0, rows), slice(0, columns)).astype(int),
            atol=level,  # the pyramid of a decoded image is rounded down at each level, that of a store to the nearest
        )
    assert (again.counts.X != slide.counts.X).nnz == 0


def test_store_of_spatialdata_io_opens(shared_data: Path, tmp_path: Path) -> None:
    import spatialdata_io

    spatialdata_io.visium(shared_data / "visium" / "V1_Adult_Mouse_Brain", dataset_id="brain").write(
        tmp_path / "brain.zarr"
    )
    slide = open_slide(tmp_path / "brain.zarr")
    assert slide.source.image == "brain_hires_image"
    with pytest.warns(HyperSTWarning):
        direct = open_slide(shared_data / "visium" / "V1_Adult_Mouse_Brain")
    assert slide.mpp == pytest.approx(direct.mpp)
    assert slide.fingerprint == direct.fingerprint


def test_stated_scale_overrides_the_lattice_and_the_contradiction_is_told(tiny_section: Path) -> None:
    with pytest.warns(HyperSTWarning, match="contradicts"):
        slide = open_slide(tiny_section, mpp=0.5)
    assert slide.mpp == 0.5
    assert slide.fingerprint == open_slide(tiny_section).fingerprint
    assert open_slide(tiny_section, mpp=0.69).mpp == 0.69


@pytest.mark.filterwarnings("ignore::napari_hyperst.errors.HyperSTWarning")
@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_impossible_scale(tiny_section: Path, mpp: float) -> None:
    with pytest.raises(SlideError, match="no scale"):
        open_slide(tiny_section, mpp=mpp)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK", "I;16", "1"])
def test_images_of_other_modes_open(section: Path, mode: str) -> None:
    """Grey, transparent, palette, CMYK and 16-bit pictures become 8-bit RGB of the same picture."""
    with Image.open(section / "he.png") as image:
        small = image.convert("RGB").resize((550, 550))
    if mode == "I;16":
        grey = np.asarray(small.convert("L"), dtype=np.uint16) * 257
        changed = Image.fromarray(grey)
    elif mode == "RGBA":
        alpha = np.full((550, 550), 255, np.uint8)
        alpha[:50] = 0
        changed = small.copy()
        changed.putalpha(Image.fromarray(alpha))
    else:
        changed = small.convert(mode)
    (section / "he.png").unlink()
    changed.save(section / ("he.tif" if mode == "CMYK" else "he.png"))
    _shrink_spots(section, 4)
    slide = open_slide(section)
    region = slide.image.read(0, slice(0, 550), slice(0, 550))
    assert region.shape == (550, 550, 3)
    if mode == "RGBA":
        assert (region[:50] == 255).all()
        region = region[50:]
        small = small.crop((0, 50, 550, 550))
    wanted = np.asarray(small.convert("L"), float)
    difference = np.abs(region.mean(axis=2) - wanted).mean()
    assert difference < (130 if mode == "1" else 25)


def test_sixteen_bit_rgb_tiff(section: Path) -> None:
    import tifffile

    with Image.open(section / "he.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    (section / "he.png").unlink()
    tifffile.imwrite(section / "he.tif", pixels.astype(np.uint16) * 16, photometric="rgb", tile=(256, 256))
    slide = open_slide(section)
    region = slide.image.read(0, slice(0, 500), slice(0, 500)).astype(int)
    assert np.abs(region - pixels[:500, :500]).max() <= 2


def test_pillows_bomb_limit_gives_way_to_our_bound(section: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_hyperst.slides import decoded, pillow

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert len(open_slide(section).spots) > 30
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr(pillow, "MAX_DECODED_PX", 1_000_000)
    monkeypatch.setattr(decoded, "cache_folder", lambda: section)  # where it has not been decoded yet
    with pytest.raises(SlideError, match=r"2200 x 2200 px, over the 1,000,000 px .*tiled TIFF"):
        open_slide(section)


def _shrink_spots(section: Path, factor: float) -> None:
    path = section / "corner_selection.tsv"
    spots = pd.read_csv(path, sep="\t")
    spots[["pixel_x", "pixel_y"]] /= factor
    spots.to_csv(path, sep="\t", index=False)


# Bad input: each ends in one line that names the file and what to do, and nothing is written.


def _edit_table(path: Path, change) -> None:
    table = pd.read_csv(path, sep="\t")
    change(table).to_csv(path, sep="\t", index=False)


def _edit_lines(path: Path, change) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


BROKEN_ST = {
    "no H&E": (lambda f: (f / "he.png").unlink(), "the H&E"),
    "two H&E": (lambda f: shutil.copy(f / "he.png", f / "two.png"), "--image"),
    "H&E is no image": (lambda f: (f / "he.png").write_bytes(b"hello"), "he.png"),
    "H&E is cut off": (lambda f: (f / "he.png").write_bytes((f / "he.png").read_bytes()[:5000]), "he.png"),
    "no counts": (lambda f: (f / "corner.tsv").unlink(), "counts"),
    "counts are empty": (lambda f: (f / "corner.tsv").write_text(""), "corner.tsv"),
    "counts are text": (lambda f: (f / "corner.tsv").write_text("\tA\n1x1\tmany\n"), "corner.tsv"),
    "counts are negative": (lambda f: (f / "corner.tsv").write_text("\tA\n1x1\t-3\n"), "corner.tsv"),
    "counts of another section": (
        lambda f: _edit_lines(f / "corner.tsv", lambda lines: [lines[0], *(f"9{line}" for line in lines[1:])]),
        "none of its",
    ),
    "spots lack columns": (
        lambda f: _edit_table(f / "corner_selection.tsv", lambda t: t.drop(columns="pixel_x")), "pixel_x",
    ),
    "spots without a place": (
        lambda f: _edit_table(f / "corner_selection.tsv", lambda t: t.assign(pixel_y=["?", *map(str, t.pixel_y[1:])])),
        "no number",
    ),
    "a spot twice": (lambda f: _edit_table(f / "corner_selection.tsv", lambda t: pd.concat([t, t[:1]])), "twice"),
    "no spot selected": (
        lambda f: _edit_table(f / "corner_selection.tsv", lambda t: t.assign(selected=0)), "no spot is selected",
    ),
    "spots off the image": (
        lambda f: _edit_table(f / "corner_selection.tsv", lambda t: t.assign(pixel_x=t.pixel_x + 9000)), "outside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_ST)
def test_broken_st_folder(section: Path, name: str) -> None:
    break_it, told = BROKEN_ST[name]
    break_it(section)
    before = sorted(section.rglob("*"))
    with pytest.raises(SlideError) as caught:
        open_slide(section)
    line = str(caught.value)
    assert told in line
    assert "\n" not in line
    assert str(section) in line
    assert caught.value.do
    assert sorted(section.rglob("*")) == before


@pytest.fixture
def section_visium(shared_data: Path, tmp_path: Path) -> Path:
    """Return a Space Ranger folder of 49 mouse brain spots with a full-resolution crop, to be changed at will."""
    source = shared_data / "visium"
    folder = tmp_path / "visium"
    (folder / "spatial").mkdir(parents=True)
    shutil.copy(source / "V1_Adult_Mouse_Brain" / "filtered_feature_bc_matrix.h5", folder)
    for name in ("scalefactors_json.json", "tissue_hires_image.png", "tissue_positions_list.csv"):
        shutil.copy(source / "V1_Adult_Mouse_Brain" / "spatial" / name, folder / "spatial")
    Image.new("RGB", (11293, 11757), (200, 150, 190)).save(folder / "full.png", compress_level=1)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BROKEN_VISIUM = {
    "no scalefactors": (lambda f: (f / "spatial/scalefactors_json.json").unlink(), "scalefactors_json.json"),
    "scalefactors are no JSON": (
        lambda f: (f / "spatial/scalefactors_json.json").write_text("{"), "scalefactors_json.json",
    ),
    "a scale factor is zero": (
        lambda f: _edit_json(f / "spatial/scalefactors_json.json", tissue_hires_scalef=0), "tissue_hires_scalef",
    ),
    "a scale factor is missing": (
        lambda f: (f / "spatial/scalefactors_json.json").write_text("{}"), "tissue_hires_scalef is None",
    ),
    "wrong scale factor": (
        lambda f: _edit_json(f / "spatial/scalefactors_json.json", tissue_hires_scalef=1.7), "outside the",
    ),
    "no positions": (lambda f: (f / "spatial/tissue_positions_list.csv").unlink(), "tissue_positions"),
    "positions are no table": (
        lambda f: (f / "spatial/tissue_positions_list.csv").write_text("a,b\n1\n"), "tissue_positions_list.csv",
    ),
    "positions of other barcodes": (
        lambda f: _edit_lines(
            f / "spatial/tissue_positions_list.csv", lambda ls: [line.replace("-1,", "-2,", 1) for line in ls]
        ),
        "join no spot",
    ),
    "some barcodes have no position": (
        lambda f: _edit_lines(f / "spatial/tissue_positions_list.csv", lambda ls: ls[:3000]), "have no position",
    ),
    "a position twice": (
        lambda f: _edit_lines(f / "spatial/tissue_positions_list.csv", lambda ls: [*ls, ls[0]]), "twice",
    ),
    "no spot in tissue": (
        lambda f: _edit_lines(
            f / "spatial/tissue_positions_list.csv", lambda ls: [line.replace("-1,1,", "-1,0,", 1) for line in ls]
        ),
        "no spot is in tissue",
    ),
    "no matrix": (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), "no matrix of counts"),
    "matrix is cut off": (
        lambda f: (f / "filtered_feature_bc_matrix.h5").write_bytes(
            (f / "filtered_feature_bc_matrix.h5").read_bytes()[:10000]
        ),
        "filtered_feature_bc_matrix.h5",
    ),
    "no image": (lambda f: (f / "spatial/tissue_hires_image.png").unlink(), "no image"),
    "image is no image": (
        lambda f: (f / "spatial/tissue_hires_image.png").write_bytes(b"no"), "no image that can be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_VISIUM)
@pytest.mark.filterwarnings("ignore::napari_hyperst.errors.HyperSTWarning")
def test_broken_space_ranger_folder(section_visium: Path, name: str) -> None:
    break_it, told = BROKEN_VISIUM[name]
    break_it(section_visium)
    before = sorted(section_visium.rglob("*"))
    with pytest.raises(SlideError) as caught:
        open_slide(section_visium)
    line = str(caught.value)
    assert told in line
    assert "\n" not in line
    assert str(section_visium) in line
    assert caught.value.do
    assert sorted(section_visium.rglob("*")) == before


def test_a_named_image_that_is_not_there(section_visium: Path) -> None:
    with pytest.raises(SlideError, match=r"nothing\.tif.*no such image"):
        open_slide(section_visium, image="nothing.tif")
    with pytest.raises(SlideError, match="images of type"):
        open_slide(section_visium, image="filtered_feature_bc_matrix.h5")


@pytest.mark.parametrize("make", ["empty folder", "file", "nothing"])
def test_what_is_no_slide(tmp_path: Path, make: str) -> None:
    path = tmp_path / "thing"
    if make == "empty folder":
        path.mkdir()
    elif make == "file":
        path.write_text("hello")
    with pytest.raises(SlideError, match="nothing here" if make == "nothing" else "no slide that can be read"):
        open_slide(path)


def test_stores_that_are_not_enough(tiny_section: Path, tmp_path: Path) -> None:
    slide = open_slide(tiny_section)
    sd.SpatialData(images={"he": slide.sdata.images[slide.source.image]}).write(tmp_path / "image.zarr")
    with pytest.raises(SlideError, match="no spots"):
        open_slide(tmp_path / "image.zarr")
    sd.SpatialData(shapes={"corner": slide.sdata.shapes["corner"]}).write(tmp_path / "spots.zarr")
    with pytest.raises(SlideError, match="no image"):
        open_slide(tmp_path / "spots.zarr")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    with pytest.raises(HyperSTError, match=r"broken\.zarr"):
        open_slide(tmp_path / "broken.zarr")


def test_few_spots_off_the_image_are_left_out_with_a_warning(section: Path) -> None:
    def move(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[0, "pixel_x"] = 99999
        return table

    _edit_table(section / "corner_selection.tsv", move)
    with pytest.warns(HyperSTWarning, match="1 of .* spots lie outside"):
        open_slide(section)
