from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from anndata import AnnData
from PIL import Image
from shapely.geometry import Point, Polygon, shape
from spatialdata import read_zarr
from spatialdata.models import ShapesModel
from spatialdata.transformations import Affine, get_transformation

from napari_hyperst import export
from napari_hyperst.errors import ConfigError, HyperSTError, SlideError, StoreError
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.prediction import predict
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.outputs import check_output, open_prediction, write_output
from napari_hyperst.slides.outputs.formats import FORMATS, OutputRequest, output_format
from napari_hyperst.slides.outputs.raster import SpotRaster

ASKED: dict[str, dict[str, Any]] = {
    "x.h5ad": {},
    "x.csv": {"measured": True},
    "x.csv.gz": {},
    "x.parquet": {},
    "x.ome.zarr": {"gene": "FASN"},
    "x.ome.tif": {"gene": "FASN"},
    "x.png": {},
    "x.pdf": {"gene": "FASN"},
    "x.geojson": {"gene": "FASN", "measured": True},
}


def files_of(path: Path) -> dict[str, bytes]:
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def written(corner: Slide, tiny_table: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with each format but the store, to be read only."""
    folder = tmp_path_factory.mktemp("written")
    for name, asked in ASKED.items():
        assert write_output(corner, tiny_table, OutputRequest(folder / name, **asked)) == folder / name
    return folder


def test_the_ending_chooses() -> None:
    assert {suffix for name in ASKED for suffix in output_format(name).suffixes} == {
        suffix for found in FORMATS for suffix in found.suffixes if found.name != "SpatialData store"
    }
    assert output_format("a/B.OME.ZARR").name == "OME-Zarr"
    assert output_format("a.zarr").name == output_format("a").name == "SpatialData store"
    with pytest.raises(StoreError, match=r"nothing is written that ends in \.xlsx; name it with one of .*\.h5ad"):
        output_format("a.xlsx")


def test_nothing_is_left_beside_what_is_written(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted(ASKED)


def test_the_same_prediction_gives_the_same_bytes(
    corner: Slide, tiny_table: AnnData, written: Path, tmp_path: Path
) -> None:
    for name, asked in ASKED.items():
        again = write_output(corner, tiny_table, OutputRequest(tmp_path / name, **asked))
        assert files_of(again) == files_of(written / name), name


def test_csv_and_parquet_hold_spots_by_genes(written: Path, corner: Slide, tiny_table: AnnData) -> None:
    with_measured = pd.read_csv(written / "x.csv")
    packed = pd.read_csv(written / "x.csv.gz")
    parquet = pd.read_parquet(written / "x.parquet")
    genes = list(tiny_table.var_names)
    assert list(packed.columns) == ["spot", "x_px", "y_px", "x_um", "y_um", *genes]
    assert list(with_measured.columns) == [*packed.columns, *(f"{gene}_measured" for gene in genes)]
    for frame in (with_measured, packed, parquet):
        assert list(frame["spot"]) == list(tiny_table.obs_names)
        np.testing.assert_array_equal(frame[genes].to_numpy(np.float32), tiny_table.X)
        np.testing.assert_allclose(frame[["x_px", "y_px"]], tiny_table.obsm["spatial"], rtol=1e-12)
        np.testing.assert_allclose(frame[["x_um", "y_um"]], tiny_table.obsm["spatial"] * corner.mpp, rtol=1e-12)
    measured = with_measured[[f"{gene}_measured" for gene in genes]].to_numpy(np.float32)
    np.testing.assert_array_equal(measured, tiny_table.layers["measured"])
    assert parquet.dtypes[genes[0]] == np.float32
    assert pq.read_schema(written / "x.parquet").metadata[b"hyperst_checkpoint"] == b"tiny"
    assert gzip.decompress((written / "x.csv.gz").read_bytes()).endswith(b"\n")


def test_h5ad_has_what_scanpy_draws_with_in_register(written: Path, corner: Slide, tiny_table: AnnData) -> None:
    table = anndata.read_h5ad(written / "x.h5ad")
    np.testing.assert_array_equal(table.X, tiny_table.X)
    assert table.uns["hyperst"]["checkpoint"] == "tiny"
    said = table.uns["spatial"]["corner"]
    factors = said["scalefactors"]
    assert factors["spot_diameter_fullres"] * corner.mpp == pytest.approx(corner.spots.diameter_um)
    height, width = corner.image.shape_px
    for name, longest in (("hires", 2000), ("lowres", 600)):
        pixels, factor = said["images"][name], factors[f"tissue_{name}_scalef"]
        assert longest / 2 < max(pixels.shape) <= longest
        assert pixels.shape[:2] == (-(-height * factor // 1), -(-width * factor // 1))
        step = round(1 / factor)
        for x, y in (tiny_table.obsm["spatial"][::9] * factor).astype(int):  # a px is the mean of what it covers
            whole = corner.image.read(0, slice(y * step, (y + 1) * step), slice(x * step, (x + 1) * step))
            np.testing.assert_allclose(pixels[y, x], whole.mean(axis=(0, 1)), atol=2)


def raster_levels(path: Path) -> list[np.ndarray]:
    if path.is_dir():
        group = zarr.open_group(path, mode="r")
        datasets: Any = group.attrs["ome"]["multiscales"][0]["datasets"]
        return [np.asarray(group[one["path"]]) for one in datasets]
    with tifffile.TiffFile(path) as file:
        return [level.asarray() for level in file.series[0].levels]


@pytest.mark.parametrize("name", ["x.ome.zarr", "x.ome.tif"])
def test_a_raster_has_each_spot_where_it_is_on_the_tissue(
    written: Path, corner: Slide, tiny_table: AnnData, name: str
) -> None:
    """By areas and centres of mass, in level-0 px of the H&E: to a hundredth of a spot, half a px being a fifth."""
    levels = raster_levels(written / name)
    height, width = corner.image.shape_px
    factor = round(height / levels[0].shape[1])
    values = np.stack([tiny_table[:, "FASN"].X[:, 0], tiny_table[:, "FASN"].layers["measured"][:, 0]])
    radius = corner.spots.diameter_um / corner.mpp / 2
    assert radius * 2 / factor >= 16
    for k, level in enumerate(levels):
        scale = factor * 2**k
        assert level.shape == (2, -(-height // scale), -(-width // scale))
        assert level.dtype == np.float32
    finest = levels[0]
    rows, columns = ((np.arange(side) + 0.5) * factor for side in finest.shape[1:])
    inner = [
        (spot, x, y)
        for spot, (x, y) in enumerate(tiny_table.obsm["spatial"])
        if radius < x < width - radius and radius < y < height - radius
    ]
    assert len(inner) > 20
    for spot, x, y in inner:
        near = np.hypot(columns[None] - x, rows[:, None] - y) < radius * 1.2
        drawn = near & np.isfinite(finest[0])
        np.testing.assert_array_equal(np.unique(finest[0][drawn]), values[0, spot])
        np.testing.assert_array_equal(np.unique(finest[1][drawn]), values[1, spot])
        assert drawn.sum() * factor**2 == pytest.approx(np.pi * radius**2, rel=0.03)
        at_row, at_column = np.nonzero(drawn)
        assert columns[at_column].mean() == pytest.approx(x, abs=0.02 * radius)
        assert rows[at_row].mean() == pytest.approx(y, abs=0.02 * radius)
    assert np.isnan(finest).mean() > 0.3


def test_blocks_are_parts_of_one_pyramid_and_coarser_levels_are_means_of_what_is_there() -> None:
    random = np.random.default_rng(0)
    centres = random.uniform(0, (2503, 3001), (150, 2))
    values = random.normal(size=(2, 150)).astype(np.float32)
    for squares in (False, True):
        raster = SpotRaster((3001, 2503), 0.5, centres, 40.0, squares, values, factor=2)
        assert raster.shapes_px == ((1501, 1252), (751, 626), (376, 313))
        fine = raster.level(0)
        x, y = (np.arange(side) * 2 + 1 for side in (1252, 1501))  # centres of px in px of the H&E
        dx, dy = x[:, None] - centres[:, 0], y[:, None] - centres[:, 1]
        for row in range(0, 1501, 97):
            inside = (abs(dx) < 20) & (abs(dy[row]) < 20) if squares else dx**2 + dy[row] ** 2 < 400
            np.testing.assert_array_equal(np.isfinite(fine[0, row]), inside.any(axis=1))
            alone = inside.sum(axis=1) == 1
            np.testing.assert_array_equal(fine[1, row, alone], values[1, inside[alone].argmax(axis=1)])
        for level in (1, 2):
            coarse = raster.level(level)
            height, width = coarse.shape[1:]
            padded = np.full((2, 2 * height, 2 * width), np.nan, np.float32)
            padded[:, : fine.shape[1], : fine.shape[2]] = fine
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                means = np.nanmean(padded.reshape(2, height, 2, width, 2), axis=(2, 4))
            np.testing.assert_allclose(coarse, means, rtol=1e-4, atol=1e-6)
            fine = coarse


def test_the_ome_zarr_is_read_by_its_own_library_in_um(written: Path, corner: Slide) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models.v05 import Image as Model

    path = written / "x.ome.zarr"
    model = Model.from_zarr(zarr.open_group(path, mode="r"))
    axes = model.ome_attributes.multiscales[0].axes
    assert [(axis.name, axis.unit) for axis in axes] == [("c", None), ("y", "micrometer"), ("x", "micrometer")]
    node = next(iter(Reader(parse_url(path))()))
    levels = raster_levels(path)
    assert [level.shape for level in node.data] == [level.shape for level in levels]
    for level, steps in zip(levels, node.metadata["coordinateTransformations"], strict=True):
        um = steps[0]["scale"][1]
        k = um / corner.mpp  # px of the H&E to a px of this level, the first of which is centred on 0 µm
        assert k == pytest.approx(round(k))
        assert -(-corner.image.shape_px[0] // round(k)) == level.shape[1]
        assert steps[1]["translation"] == pytest.approx([0, (k - 1) / 2 * corner.mpp, (k - 1) / 2 * corner.mpp])
    assert zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"][0]["label"] == "FASN predicted"


def test_the_ome_tiff_says_how_long_its_px_are(written: Path, corner: Slide) -> None:
    from ome_types import from_tiff

    with tifffile.TiffFile(written / "x.ome.tif") as file:
        assert file.is_ome
        page = file.series[0].levels[0].pages[0]
        assert page.is_tiled
        assert page.dtype == np.float32
        assert file.series[0].axes == "CYX"
        factor = round(corner.image.shape_px[0] / page.shape[0])
    image = from_tiff(written / "x.ome.tif").images[0]
    assert image.pixels.physical_size_x == pytest.approx(corner.mpp * factor)
    assert image.pixels.physical_size_x_unit.value == "µm"
    assert [channel.name for channel in image.pixels.channels] == ["FASN predicted", "FASN measured"]
    assert "research use" in image.description


def test_geojson_is_what_qupath_imports(
    corner: Slide, tiny_table: AnnData, written: Path, predicted_store: Path, tmp_path: Path
) -> None:
    said = json.loads((written / "x.geojson").read_text())
    assert said["type"] == "FeatureCollection"
    radius = corner.spots.diameter_um / corner.mpp / 2
    assert len(said["features"]) == tiny_table.n_obs
    for i, feature in enumerate(said["features"]):
        assert feature["properties"]["objectType"] == "detection"
        assert feature["properties"]["name"] == tiny_table.obs_names[i]
        outline = shape(feature["geometry"])
        assert outline.is_valid
        assert outline.centroid.distance(Point(tiny_table.obsm["spatial"][i])) < 0.02
        assert outline.area == pytest.approx(np.pi * radius**2, rel=0.02)
        numbers = feature["properties"]["measurements"]
        assert numbers["FASN predicted"] == pytest.approx(tiny_table[i, "FASN"].X.item(), abs=1e-4)
        assert numbers["FASN measured"] == pytest.approx(tiny_table[i, "FASN"].layers["measured"].item(), abs=1e-4)
        assert {"norm_spot_image", "violation_spot_image__niche_image"} <= set(numbers)
        assert all(np.isfinite(list(numbers.values())))
    assert len({feature["id"] for feature in said["features"]}) == tiny_table.n_obs

    # Regions of the slide, in a frame of their own, come as annotations in px of the H&E.
    slide, name = open_prediction(predicted_store)
    system = slide.coordinate_system
    to_image = get_transformation(slide.sdata.images[slide.source.image], system)
    square = Polygon([(10, 20), (110, 20), (110, 70), (10, 70)])
    twice = Affine(np.diag([2.0, 2.0, 1.0]), ("x", "y"), ("x", "y"))
    from geopandas import GeoDataFrame
    from spatialdata.transformations import Sequence

    frame = GeoDataFrame({"geometry": [square]}, index=["tumour"])
    slide.sdata.shapes["regions"] = ShapesModel.parse(frame, transformations={system: Sequence([twice, to_image])})
    out = write_output(slide, slide.sdata.tables[name], OutputRequest(tmp_path / "regions.geojson"))
    first, *spots = json.loads(out.read_text())["features"]
    assert first["properties"] == {
        "objectType": "annotation", "name": "tumour", "classification": {"name": "regions"},
    }  # fmt: skip
    assert shape(first["geometry"]).equals(Polygon([(20, 40), (220, 40), (220, 140), (20, 140)]))
    assert len(spots) == tiny_table.n_obs
    assert len([title for title in spots[0]["properties"]["measurements"] if title.endswith(" predicted")]) == 8


def test_figures_are_pictures(written: Path, corner: Slide, tiny_table: AnnData, tmp_path: Path) -> None:
    with Image.open(written / "x.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 15
        assert "For research use only" in picture.text["Description"]  # type: ignore[attr-defined]
        assert picture.width > 2 * picture.height
    assert (written / "x.pdf").read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in (written / "x.pdf").read_bytes()
    alone = tiny_table.copy()
    del alone.layers["measured"], alone.var["pcc"], alone.var["mse"]
    narrower = write_output(corner, alone, OutputRequest(tmp_path / "alone.png", gene="FASN"))
    with Image.open(narrower) as one, Image.open(written / "x.png") as both:
        assert one.width < both.width
        assert one.height == both.height


def test_what_is_there_is_kept_unless_it_may_go(corner: Slide, tiny_table: AnnData, tmp_path: Path) -> None:
    for name in ("x.csv", "x.ome.zarr"):
        asked = ASKED[name]
        path = write_output(corner, tiny_table, OutputRequest(tmp_path / name, **asked))
        before = files_of(path)
        with pytest.raises(StoreError, match=r"is there already; .*--overwrite"):
            write_output(corner, tiny_table, OutputRequest(path, **asked))
        assert files_of(path) == before
        write_output(corner, tiny_table, OutputRequest(path, **{**asked, "gene": "ERBB2"}, overwrite=True))
        assert files_of(path) != before
    # A folder of the user's is never overwritten: nor is another image, which a name may mean too.
    (tmp_path / "mine.csv").mkdir()
    zarr.create_group(tmp_path / "mine.ome.zarr").attrs["ome"] = {"version": "0.5"}
    for name, asked in {"mine.csv": {}, "mine.ome.zarr": {"gene": "FASN"}}.items():
        with pytest.raises(StoreError, match="is something else"):
            write_output(corner, tiny_table, OutputRequest(tmp_path / name, **asked, overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "mine.ome.zarr", "x.csv", "x.ome.zarr"]


def test_a_full_disk_leaves_what_was_there(
    corner: Slide, tiny_table: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_output(corner, tiny_table, OutputRequest(tmp_path / "x.parquet"))
    before = files_of(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for name in ("x.parquet", "x.geojson", "x.ome.zarr"):
        with pytest.raises(StoreError, match="No space left on device"):
            write_output(corner, tiny_table, OutputRequest(tmp_path / name, gene="FASN", overwrite=True))
    assert files_of(path) == before
    assert [one.name for one in tmp_path.iterdir()] == ["x.parquet"]


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no gene of a map": ("x.ome.tif", {}, "holds one gene; name it"),
    "a gene of all": ("x.h5ad", {"gene": "FASN"}, "holds all genes"),
    "measured twice": ("x.png", {"measured": True}, "wherever there are any"),
    "a gene that is not there": ("x.csv", {"gene": "TP53"}, "'TP53' is not among the 8 genes"),
    "no folder": ("none/x.csv", {}, "there is no such folder"),
    "no ending": ("x.docx", {}, "nothing is written that ends in .docx"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    corner: Slide, tiny_table: AnnData, tmp_path: Path, name: str
) -> None:
    where, asked, told = WRONG[name]
    with pytest.raises(HyperSTError) as caught:
        write_output(corner, tiny_table, OutputRequest(tmp_path / where, **asked))
    assert told in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_measured_values_that_are_not_there_and_tables_of_others_are_refused(
    corner: Slide, tiny_table: AnnData, tmp_path: Path
) -> None:
    alone = tiny_table.copy()
    del alone.layers["measured"]
    with pytest.raises(ConfigError, match="nothing was measured"):
        write_output(corner, alone, OutputRequest(tmp_path / "x.csv", measured=True))
    alone.uns["spatialdata_attrs"] = {**alone.uns["spatialdata_attrs"], "region": "elsewhere"}
    with pytest.raises(StoreError, match="no prediction of the spots 'corner'"):
        write_output(corner, alone, OutputRequest(tmp_path / "x.csv"))
    assert not list(tmp_path.iterdir())


def test_python_exports_by_the_ending(corner: Slide, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    prediction = predict(corner, tiny_checkpoint)
    export(prediction, tmp_path / "x.zarr", command="a test")
    assert read_zarr(tmp_path / "x.zarr").tables["table_hyperst"].uns["hyperst"]["command"] == "a test"
    table = anndata.read_h5ad(export(prediction, tmp_path / "x.h5ad", command="a test"))
    np.testing.assert_array_equal(table.X, prediction.expression)
    assert table.uns["hyperst"]["command"] == "a test"


def test_a_store_alone_gives_every_format(predicted_store: Path, written: Path, tmp_path: Path) -> None:
    """As the slide and the model gave it, and without torch; figures and h5ad go the same way."""
    asked = {name: said for name, said in ASKED.items() if not name.endswith((".png", ".pdf", ".h5ad", ".tif"))}
    code = f"""
import sys
from pathlib import Path
from napari_hyperst.slides.outputs import check_output, open_prediction, write_output
from napari_hyperst.slides.outputs.formats import OutputRequest
slide, name = open_prediction({str(predicted_store)!r})
for where, asked in {asked!r}.items():
    write_output(slide, slide.sdata.tables[name], OutputRequest(Path({str(tmp_path)!r}) / where, **asked))
assert not {{"torch", "timm", "peft"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in asked:
        assert files_of(tmp_path / name) == files_of(written / name), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(asked)


def test_a_store_of_several_predictions_asks_which(
    corner: Slide, tiny_table: AnnData, tiny_section: Path, tmp_path: Path
) -> None:
    store = write_output(corner, tiny_table, OutputRequest(tmp_path / "two.zarr", table="first"))
    write_output(open_slide(store), tiny_table, OutputRequest(store, table="second"))
    with pytest.raises(StoreError, match="holds 2 predictions: first, second; name one"):
        open_prediction(store)
    assert open_prediction(store, "second")[1] == "second"
    with pytest.raises(StoreError, match="no prediction 'third'; name one of first, second"):
        open_prediction(store, "third")
    with pytest.raises(StoreError, match="is no SpatialData Zarr"):
        open_prediction(tiny_section)
    with pytest.raises(StoreError, match="there is nothing here"):
        open_prediction(tmp_path / "none.zarr")


def test_a_table_that_says_nonsense_of_how_it_was_made_is_refused(predicted_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "odd.zarr"
    shutil.copytree(predicted_store, store)
    uns = zarr.open_group(store / "tables" / "table_hyperst" / "uns" / "hyperst", use_consolidated=False)
    del uns["mpp"]
    zarr.consolidate_metadata(store)
    with pytest.raises(SlideError, match=r"odd.zarr \(table_hyperst\): .* cannot be read \(mpp: "):
        open_prediction(store)


def test_nothing_but_tables_is_written_into_the_own_store(predicted_store: Path) -> None:
    slide, _ = open_prediction(predicted_store)
    for place in (predicted_store / "x.csv", predicted_store / "images" / "x.csv"):
        with pytest.raises(StoreError, match="lies within the slide's own store"):
            check_output(slide, OutputRequest(place))


def test_a_name_with_signs_of_mathematics_is_drawn_as_it_is(corner: Slide, tiny_table: AnnData, tmp_path: Path) -> None:
    odd = tiny_table.copy()
    odd.var_names = [r"$\frac$", *odd.var_names[1:]]
    assert write_output(corner, odd, OutputRequest(tmp_path / "odd.png", gene=r"$\frac$")).is_file()


def test_measured_values_are_not_asked_of_an_assay_that_was_not_made(corner: Slide, tmp_path: Path) -> None:
    bare = replace(corner, source=replace(corner.source, table=None))
    with pytest.raises(ConfigError, match="nothing was measured"):
        check_output(bare, OutputRequest(tmp_path / "x.csv", measured=True))
    check_output(corner, OutputRequest(tmp_path / "x.csv", measured=True))
