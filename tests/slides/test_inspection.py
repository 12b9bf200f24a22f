"""What is said of a path that is no slide, before anything is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.inspection import inspect_slide


def touch(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")

    return make


def zarr(folder: Path) -> None:
    (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    (folder / "0").mkdir()


def picture(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "he.png")


NOT_SLIDES = {
    "nothing": (touch(), "an empty folder", "check the path"),
    "a matrix alone": (
        touch("filtered_feature_bc_matrix.h5"),
        r"a matrix of counts \(filtered_feature_bc_matrix.h5\), but no folder spatial",
        "copy spatial",
    ),
    "outs without spatial": (
        touch("outs/raw_feature_bc_matrix/matrix.mtx"),
        r"a matrix of counts \(raw_feature_bc_matrix\), but no folder spatial",
        "to .*outs$",
    ),
    "another zarr": (zarr, "a Zarr store that is no SpatialData, with 0, zarr.json", "images and shapes"),
    "slides": (touch("a/spatial/scalefactors_json.json", "b/x"), r"a folder of slides \(a\)", "such as .*a$"),
    "coordinates": (touch("A_coord.csv"), r"A_coord.csv, but no \*_count.csv", "gene_exp/NAME_count.csv"),
    "counts of STimage": (touch("A_count.csv.gz"), r"A_count.csv, but no \*_coord.csv", "coord/NAME_coord.csv"),
    "counts of ST": (touch("C2.tsv.gz", "C2.jpg"), r"C2.tsv, but no \*_selection.tsv", "alignment_table_NAME"),
    "an h5ad": (touch("x.h5ad"), "x.h5ad, but no", "wsis/NAME.tif and metadata/NAME.json"),
    "an image": (picture, "no counts, but he.png", "give the file: .*he.png$"),
    "notes": (touch("a.txt", "b.txt", "c.txt", "d.txt"), "it holds a.txt, b.txt, c.txt, …", "a Space Ranger outs"),
}


@pytest.mark.parametrize("name", NOT_SLIDES)
def test_what_a_folder_holds_and_lacks_is_said(name: str, tmp_path: Path) -> None:
    make, what, do = NOT_SLIDES[name]
    make(tmp_path)
    with pytest.raises(SlideError, match=f"is no slide that can be read: {what}.*; .*{do}"):
        inspect_slide(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("x.h5ad", r"counts without an H&E; name the H&E \(--image.*metadata/x.json"),
        ("m.h5", "one file of a slide; give the folder"),
        ("x.docx", "a file of type .docx; give one of"),
        ("README", r"a file of type \(none\)"),
    ],
)
def test_what_a_file_is_is_said(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(SlideError, match=what):
        inspect_slide(tmp_path / name)


CELLS = ("cell_segmentations.geojson", "filtered_feature_cell_matrix.h5", "spatial/scalefactors_json.json")


@pytest.mark.parametrize("opened", ["", "outs", "outs/segmented_outputs"])
def test_segmented_cells_are_refused_and_the_bins_named(opened: str, tmp_path: Path) -> None:
    touch(*(f"outs/segmented_outputs/{name}" for name in CELLS), "outs/spatial/tissue_hires_image.png")(tmp_path)
    with pytest.raises(SlideError, match=r"holds single cells \(segmented_outputs\).*; open binned_outputs"):
        inspect_slide(tmp_path / opened)
    touch("outs/binned_outputs/square_008um/spatial/scalefactors_json.json")(tmp_path)
    if opened != "outs/segmented_outputs":
        assert inspect_slide(tmp_path / opened) == "visium_hd"


def test_options_that_a_slide_has_no_use_for_are_refused_before_it_is_read(tmp_path: Path) -> None:
    touch("spatial/scalefactors_json.json")(tmp_path)
    assert inspect_slide(tmp_path) == "space_ranger"
    with pytest.raises(SlideError, match="has spots of its own, so none are laid over it"):
        inspect_slide(tmp_path, laying=True)
    with pytest.raises(SlideError, match="has one table of counts"):
        inspect_slide(tmp_path, table=True)
    shutil.rmtree(tmp_path / "spatial")
    for laid in (True, False):
        attributes = {"spatialdata_attrs": {}, "hyperst": {"laid": laid}}
        (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
        assert inspect_slide(tmp_path) == "spatialdata"
        if laid:
            assert inspect_slide(tmp_path, laying=True) == "spatialdata"
        else:
            with pytest.raises(SlideError, match="has spots of its own"):
                inspect_slide(tmp_path, laying=True)
