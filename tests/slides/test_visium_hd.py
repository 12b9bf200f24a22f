"""Visium HD: the crop of a Visium slide with square bins laid over it, each with the counts of the spot next to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.formats import format_of

MPP = 100 / 138
#: Turned by a degree, as a real slide lies.
TURN = np.deg2rad(1.0)


def bins_over(crop, size: int, side: int | None = None):
    """Return the crop with bins for spots: those of ``size`` µm that lie on it, or ``side`` x ``side`` of them."""
    height, width = crop.pixels.shape[:2]
    pitch = size / MPP
    rows, columns = (int(extent / pitch) if side is None else side for extent in (height - 40, width - 40))
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
    turned = np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
    centres = (places[:, ::-1] * pitch) @ turned.T + (35, 5)
    centres += (0, pitch / 2)
    inside = ((centres >= 20) & (centres < (width - 20, height - 20))).all(axis=1)
    places, centres = places[inside], centres[inside]
    nearest = cKDTree(crop.centres).query(centres)[1]
    barcodes = [f"s_{size:03d}um_{row:05d}_{column:05d}-1" for row, column in places]
    return replace(crop, barcodes=barcodes, centres=centres, array=places, counts=crop.counts[nearest])


@pytest.fixture
def hd_run(crop, tmp_path: Path) -> Callable[..., Path]:
    """Return what writes an HD run of the crop, without feature slice file or full-resolution image."""

    def write(*sizes: int, side: int | None = None) -> Path:
        outs = tmp_path / "colon" / "outs"
        for size in sizes:
            bins, folder = bins_over(crop, size, side), outs / "binned_outputs" / f"square_{size:03d}um"
            bins.write_h5(folder / "filtered_feature_bc_matrix.h5")
            bins.write_positions(folder / "spatial", "tissue_positions.parquet")
            bins.write_scalefactors(
                folder / "spatial", microns_per_pixel=MPP, bin_size_um=float(size), spot_diameter_fullres=size / MPP
            )
            crop.write_image(folder / "spatial" / "tissue_hires_image.png", 0.5)
            crop.write_image(folder / "spatial" / "tissue_lowres_image.png", 0.25)
        return outs.parent

    return write


def check(slide, bins, size: int, *, factor: float = 1.0, tolerance: float = 0.0) -> None:
    places = {barcode: i for i, barcode in enumerate(bins.barcodes)}
    order = [places[one] for one in slide.spots.ids]
    assert len(set(order)) == len(bins.barcodes)
    np.testing.assert_allclose(slide.spots.centres_px, bins.centres[order] * factor, atol=1e-6)
    assert slide.lattice.kind == "square"
    assert slide.pitch_um == pytest.approx(size)
    assert slide.spots.diameter_um == size
    assert slide.mpp == pytest.approx(MPP / factor, rel=1e-3)
    np.testing.assert_array_equal(slide.counts[slide.count_rows].X.toarray(), bins.counts[order])
    bins.check_pixels(slide, factor=factor, tolerance=tolerance)


@pytest.mark.parametrize(
    ("size", "side", "opened"),
    [
        (2, 40, "colon"),
        (8, 60, "colon"),
        (16, None, "colon"),
        (16, None, "colon/outs"),
        (16, None, "colon/outs/binned_outputs"),
    ],
)
def test_bins_of_each_size_without_the_feature_slice_file(
    size: int, side: int | None, opened: str, crop, hd_run, tmp_path: Path
) -> None:
    run = hd_run(size, side=side)
    crop.write_image(run / "outs" / "microscope_image" / "slide.btf")
    crop.write_image(run / "outs" / "tissue_image.btf")
    path = tmp_path / opened
    assert format_of(path) == "visium_hd"
    slide = open_slide(path)
    assert slide.name == f"colon_square_{size:03d}um"
    assert slide.source.image == "colon_full_image"
    check(slide, bins_over(crop, size, side), size)
    inner = slide.lattice.complete.sum()
    assert 0.8 * len(slide.spots) < inner < len(slide.spots)


def test_one_folder_of_bins(crop, hd_run) -> None:
    folder = hd_run(16) / "outs" / "binned_outputs" / "square_016um"
    assert format_of(folder) == "visium_hd"
    with pytest.warns(HyperSTWarning, match=r"hires image at 1\.45 µm/px"):
        check(open_slide(folder), bins_over(crop, 16), 16, factor=0.5, tolerance=0.6)


def test_the_bins_to_read_are_named_and_else_the_largest(crop, hd_run) -> None:
    run = hd_run(8, 16, side=30)
    crop.write_image(run / "outs" / "tissue_image.tif")
    check(open_slide(run), bins_over(crop, 16, 30), 16)
    for named in ("square_008um", "8", "008"):
        check(open_slide(run, table=named), bins_over(crop, 8, 30), 8)
    with pytest.raises(SlideError, match="name one of square_008um, square_016um"):
        open_slide(run, table="square_002um")


def test_the_full_resolution_image_is_found_where_space_ranger_puts_it(crop, hd_run) -> None:
    run = hd_run(16)
    crop.write_image(run / "outs" / "microscope_image" / "tissue_image.btf")
    assert open_slide(run).source.image == "colon_full_image"


def test_bins_of_spatialdata_io(crop, hd_run) -> None:
    import spatialdata_io

    run = hd_run(8, 16, side=30)
    outs = run / "outs"
    full = crop.write_image(outs / "tissue_image.tif")
    with h5py.File(outs / "colon_feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps({"file_format": "1.0"})})
    theirs = spatialdata_io.visium_hd(
        outs, dataset_id="colon", bins_as_squares=False, fullres_image_file=full, load_segmentations_only=False
    )
    for size in (8, 16):
        key = f"square_{size:03d}um"
        slide = open_slide(run, table=key)
        table, circles = theirs.tables[key], theirs.shapes[f"colon_{key}"]
        assert slide.source.table == key
        assert slide.name == f"colon_{key}"
        assert set(slide.sdata.images) == set(theirs.images)
        assert set(slide.sdata.coordinate_systems) == set(theirs.coordinate_systems)
        np.testing.assert_array_equal(slide.counts.obs_names, table.obs_names)
        np.testing.assert_array_equal(slide.counts.var_names, table.var_names)
        assert (slide.counts.X != table.X).nnz == 0
        np.testing.assert_allclose(slide.spots.centres_px, np.c_[circles.geometry.x, circles.geometry.y])
        np.testing.assert_allclose(slide.sdata.shapes[slide.name]["radius"], circles["radius"])
        for column in ("in_tissue", "array_row", "array_col", "location_id"):
            np.testing.assert_array_equal(slide.counts.obs[column], table.obs[column])


def test_a_store_that_spatialdata_io_made_of_it(crop, hd_run, tmp_path: Path) -> None:
    """With squares for bins, and a table a size, about which is asked."""
    import spatialdata_io

    outs = hd_run(8, 16, side=30) / "outs"
    full = crop.write_image(outs / "tissue_image.tif")
    with h5py.File(outs / "feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps({"file_format": "1.0"})})
    spatialdata_io.visium_hd(outs, dataset_id="colon", fullres_image_file=full, load_segmentations_only=False).write(
        tmp_path / "colon.zarr"
    )
    with pytest.raises(
        SlideError, match=r"2 tables could be the counts: square_008um, square_016um; name one \(--table"
    ):
        open_slide(tmp_path / "colon.zarr")
    check(open_slide(tmp_path / "colon.zarr", table="square_016um"), bins_over(crop, 16, 30), 16)


def test_a_scale_factor_that_is_missing(hd_run) -> None:
    run = hd_run(16)
    path = run / "outs/binned_outputs/square_016um/spatial/scalefactors_json.json"
    said = json.loads(path.read_text())
    del said["microns_per_pixel"]
    path.write_text(json.dumps(said))
    with pytest.raises(SlideError, match="microns_per_pixel is None"):
        open_slide(run)


def test_the_shared_bins_that_spatialdata_io_refuses(shared_data: Path) -> None:
    """VisiumIO's 10 x 10 bins of 2 µm: no feature slice file, a lowres image alone, and no count but zero."""
    with pytest.warns(HyperSTWarning, match="lowres image"):
        slide = open_slide(shared_data / "visium" / "VisiumIO_extdata" / "binned_outputs")
    assert slide.spots.diameter_um == 2
    assert slide.mpp == pytest.approx(0.2738242950835738 / 0.02505533, rel=0.01)
    assert slide.counts.X.nnz == 0
