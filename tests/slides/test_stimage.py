"""STimage-1K4M slides, made of a real Visium crop and of a real corner of legacy ST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import painted
import pandas as pd
import pytest

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.formats import format_of


def write(crop, folder: Path, name: str, *, apart: bool = True) -> None:
    """Write a slide, its files in a folder a kind as on the hub, or side by side."""
    home = {kind: folder / kind if apart else folder for kind in ("coord", "gene_exp", "image")}
    for one in home.values():
        one.mkdir(parents=True, exist_ok=True)
    ids = [f"{name}_{barcode}" for barcode in crop.barcodes]
    coordinates = pd.DataFrame({"yaxis": crop.centres[:, 1], "xaxis": crop.centres[:, 0], "r": 44.7}, index=ids)
    coordinates.to_csv(home["coord"] / f"{name}_coord.csv")
    pd.DataFrame(crop.counts, index=ids, columns=crop.symbols)[::-1].to_csv(home["gene_exp"] / f"{name}_count.csv")
    crop.write_image(home["image"] / f"{name}.png")


@pytest.mark.parametrize(
    ("apart", "opened"),
    [(True, "."), (True, "coord/Mouse_Brain_1_coord.csv"), (True, "gene_exp/Mouse_Brain_1_count.csv"), (False, ".")],
)
def test_a_visium_slide(apart: bool, opened: str, brain, tmp_path: Path) -> None:
    write(brain, tmp_path / "Visium", "Mouse_Brain_1", apart=apart)
    path = tmp_path / "Visium" / opened
    assert format_of(path) == "stimage"
    slide = open_slide(path)
    assert slide.name == "Mouse_Brain_1"
    brain.check(slide)
    assert slide.sdata.shapes[slide.name]["radius"].unique() == pytest.approx(44.7)


def test_a_scale_that_the_image_records_otherwise_is_told(brain, tmp_path: Path) -> None:
    write(brain, tmp_path, "A")
    (tmp_path / "image" / "A.png").unlink()
    painted.write_tif(tmp_path / "image" / "A.tif", brain.pixels, mpp=5.0)
    with pytest.warns(HyperSTWarning, match=r"by the spots' pitch.* contradicts the 5 µm/px by the slide's metadata"):
        brain.check(open_slide(tmp_path))


def test_several_slides_are_asked_about(brain, tmp_path: Path) -> None:
    write(brain, tmp_path, "A")
    write(brain, tmp_path, "B")
    with pytest.raises(SlideError, match=r"2 slides: A, B; open the coordinates of one: A_coord\.csv"):
        open_slide(tmp_path)
    brain.check(open_slide(tmp_path / "coord" / "B_coord.csv"))


def test_a_slide_of_legacy_st(tiny_section: Path, tmp_path: Path) -> None:
    spots = pd.read_csv(tiny_section / "corner_selection.tsv", sep="\t")
    counts = pd.read_csv(tiny_section / "corner.tsv", sep="\t", index_col=0)
    ids = [f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)]
    for name in ("coord", "gene_exp", "image"):
        (tmp_path / name).mkdir()
    table = pd.DataFrame({"yaxis": spots.pixel_y.to_numpy(), "xaxis": spots.pixel_x.to_numpy(), "r": 73.0})
    table.set_axis([f"HER2_{one}" for one in ids]).to_csv(tmp_path / "coord" / "HER2_coord.csv")
    counts.loc[ids].set_axis([f"HER2_{one}" for one in ids]).to_csv(tmp_path / "gene_exp" / "HER2_count.csv")
    (tmp_path / "image" / "HER2.png").symlink_to(tiny_section / "he.png")
    slide, same = open_slide(tmp_path), open_slide(tiny_section)
    assert slide.fingerprint == same.fingerprint
    assert slide.mpp == pytest.approx(same.mpp)
    assert slide.pitch_um == pytest.approx(200)
    assert slide.spots.diameter_um == 100
    order = [list(same.spots.ids).index(one) for one in slide.spots.ids]
    np.testing.assert_array_equal(
        slide.counts[slide.count_rows].X.toarray(), same.counts[same.count_rows[order]].X.toarray()
    )


def test_files_of_different_slides(crop, tmp_path: Path) -> None:
    write(crop, tmp_path, "A")
    path = tmp_path / "gene_exp" / "A_count.csv"
    path.write_text(path.read_text().replace("A_", "B_"))
    with pytest.raises(SlideError, match="49 of its 49 spots have no place"):
        open_slide(tmp_path)


def test_a_radius_that_is_none(crop, tmp_path: Path) -> None:
    write(crop, tmp_path, "A")
    path = tmp_path / "coord" / "A_coord.csv"
    path.write_text(path.read_text().replace("44.7", "0", 1))
    with pytest.raises(SlideError, match=f"spot A_{crop.barcodes[0]} has no number for its place or radius"):
        open_slide(tmp_path)
