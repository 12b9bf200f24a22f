"""Visium slides in every layout that Space Ranger has had, made of a real crop."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import painted
import pytest

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.formats import format_of

#: Positions and matrices as the versions write them.
LAYOUTS = {
    "1.x": {"positions": "tissue_positions_list.csv", "matrix": "filtered_feature_bc_matrix.h5"},
    "1.x mtx plain": {
        "positions": "tissue_positions_list.csv", "matrix": "filtered_feature_bc_matrix", "gzipped": False,
    },
    "2.x": {"positions": "tissue_positions.csv", "matrix": "filtered_feature_bc_matrix.h5"},
    "2.x mtx": {"positions": "tissue_positions.csv", "matrix": "filtered_feature_bc_matrix"},
    "3.x parquet": {"positions": "tissue_positions.parquet", "matrix": "filtered_feature_bc_matrix.h5"},
    "raw": {"positions": "tissue_positions.csv", "matrix": "raw_feature_bc_matrix.h5"},
    "raw mtx": {"positions": "tissue_positions.parquet", "matrix": "raw_feature_bc_matrix"},
    "no outs": {"positions": "tissue_positions.csv", "matrix": "filtered_feature_bc_matrix.h5", "outs": False},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, crop, run_folder) -> None:
    folder = run_folder(**LAYOUTS[layout])
    home = folder / "outs" if (folder / "outs").is_dir() else folder
    crop.write_image(home / "tissue_image.tif")
    assert format_of(folder) == "space_ranger"
    slide = open_slide(folder)
    assert slide.name == "brain"
    crop.check(slide)
    assert list(slide.counts.var["gene_ids"]) == crop.ids


@pytest.mark.parametrize(
    "name",
    ["tissue_image.tif", "tissue_image.btf", "image.ome.tif", "brain.jpg", "tissue_image.png", "brain_HE.svs"],
)
def test_full_resolution_images_found_by_name(name: str, crop, run_folder) -> None:
    folder = run_folder()
    crop.write_image(folder / "outs" / name)
    slide = open_slide(folder)
    assert slide.source.image == "brain_full_image"
    crop.check(slide, tolerance=3 if name.endswith(".jpg") else 0)


@pytest.mark.parametrize("suffix", [".tif", ".btf", ".ome.tif", ".jpg", ".png", ".svs"])
def test_full_resolution_images_given_apart(suffix: str, crop, run_folder, tmp_path: Path) -> None:
    folder = run_folder()
    given = crop.write_image(tmp_path / "scans" / f"slide 7{suffix}")
    crop.check(open_slide(folder / "outs", image=given), tolerance=3 if suffix == ".jpg" else 0)


def test_a_scale_that_the_image_records_otherwise_is_told(crop, run_folder) -> None:
    folder = run_folder()
    painted.write_tif(folder / "outs" / "tissue_image.tif", crop.pixels, mpp=0.5)
    with pytest.warns(HyperSTWarning, match=r"by the spots' pitch.* contradicts the 0\.5 µm/px by the slide's"):
        crop.check(open_slide(folder))


def test_without_a_full_resolution_image_the_hires_and_then_the_lowres_one_is_used(crop, run_folder) -> None:
    folder = run_folder()
    with pytest.warns(HyperSTWarning, match=r"hires image at 1\.45 µm/px"):
        slide = open_slide(folder)
    assert slide.source.image == "brain_hires_image"
    crop.check(slide, factor=0.5, tolerance=0.6)
    (folder / "outs/spatial/tissue_hires_image.png").unlink()
    with pytest.warns(HyperSTWarning, match=r"lowres image at 2\.90 µm/px"):
        slide = open_slide(folder)
    crop.check(slide, factor=0.25, tolerance=0.6)


def test_the_image_of_the_cytassist_instrument_is_never_taken(crop, run_folder) -> None:
    folder = run_folder()
    for name in ("cytassist_image.tif", "brain_CytAssist_image.tif", "CytAssist_FFPE_Brain_image.tif"):
        crop.write_image(folder / "outs" / name)
    crop.write_image(folder / "outs/spatial/cytassist_image.tiff")
    crop.write_image(folder / "outs/spatial/aligned_fiducials.jpg", 0.25)
    with pytest.warns(HyperSTWarning, match="no full-resolution image"):
        assert open_slide(folder).source.image == "brain_hires_image"
    crop.write_image(folder / "outs" / "CytAssist_FFPE_Brain_tissue_image.tif")
    crop.check(open_slide(folder))


def test_an_image_that_cannot_be_the_full_resolution_one_is_not_taken(crop, run_folder) -> None:
    """By its size: the hires image and its scale factor tell what that must be."""
    folder = run_folder()
    crop.write_image(folder / "outs" / "tissue_image.tif", 0.7)
    with pytest.warns(HyperSTWarning, match="no full-resolution image"):
        assert open_slide(folder).source.image == "brain_hires_image"
    with pytest.warns(HyperSTWarning, match=r"665 x 1202 px, where Space Ranger's own images tell of 950 x 171[68]"):
        assert open_slide(folder, image="tissue_image.tif", mpp=1.03).source.image == "brain_full_image"


def test_two_images_that_could_be_it_are_asked_about(crop, run_folder) -> None:
    folder = run_folder()
    crop.write_image(folder / "outs" / "a_tissue_image.tif")
    crop.write_image(folder / "outs" / "b_tissue_image.png")
    with pytest.raises(SlideError, match=r"a_tissue_image\.tif, b_tissue_image\.png; name one \(--image"):
        open_slide(folder)
    crop.check(open_slide(folder, image="a_tissue_image.tif"))


def test_files_as_downloaded_with_the_samples_name_before_them(crop, tmp_path: Path) -> None:
    folder = tmp_path / "download"
    crop.write_h5(folder / "Mouse_Brain_filtered_feature_bc_matrix.h5")
    crop.write_h5(folder / "Mouse_Brain_raw_feature_bc_matrix.h5")
    crop.write_image(folder / "Mouse_Brain_image.tif")
    crop.write_positions(folder / "spatial", "tissue_positions.csv")
    crop.write_scalefactors(folder / "spatial")
    crop.check(open_slide(folder))
    crop.write_h5(folder / "Other_filtered_feature_bc_matrix.h5")
    with pytest.raises(SlideError, match=r"2 matrices of counts: Mouse_Brain.*Other"):
        open_slide(folder)


def test_all_files_side_by_side(crop, tmp_path: Path) -> None:
    """As GEO's series hold them, unpacked: no folder named spatial."""
    folder = tmp_path / "GSM1"
    crop.write_h5(folder / "filtered_feature_bc_matrix.h5")
    crop.write_positions(folder, "tissue_positions_list.csv")
    crop.write_scalefactors(folder)
    crop.write_image(folder / "tissue_hires_image.png", 0.5)
    with pytest.warns(HyperSTWarning, match="no full-resolution image"):
        crop.check(open_slide(folder), factor=0.5, tolerance=0.6)


@pytest.mark.parametrize("positions", ["tissue_positions_list.csv", "tissue_positions.csv"])
@pytest.mark.parametrize("matrix", ["filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5"])
def test_elements_are_those_of_spatialdata_io(positions: str, matrix: str, crop, run_folder) -> None:
    import spatialdata_io

    folder = run_folder(positions=positions, matrix=matrix)
    full = crop.write_image(folder / "outs" / "tissue_image.tif")
    theirs = spatialdata_io.visium(folder / "outs", dataset_id="brain", counts_file=matrix, fullres_image_file=full)
    slide = open_slide(folder)
    ours = slide.sdata
    assert set(ours.images) == set(theirs.images)
    assert set(ours.shapes) == set(theirs.shapes)
    assert set(ours.tables) == set(theirs.tables)
    assert set(ours.coordinate_systems) == set(theirs.coordinate_systems)
    # They keep the spots out of tissue that a raw matrix has.
    table = theirs.tables["table"]
    table = table[table.obs["in_tissue"] == 1]
    np.testing.assert_array_equal(slide.counts.obs_names, table.obs_names)
    np.testing.assert_array_equal(slide.counts.var_names, table.var_names)
    assert (slide.counts.X != table.X).nnz == 0
    for column in ("in_tissue", "array_row", "array_col"):
        np.testing.assert_array_equal(slide.counts.obs[column], table.obs[column])
    np.testing.assert_array_equal(slide.counts.obsm["spatial"], table.obsm["spatial"])
    circles = theirs.shapes["brain"].loc[table.obs["spot_id"]]
    np.testing.assert_allclose(slide.spots.centres_px, np.c_[circles.geometry.x, circles.geometry.y])
    np.testing.assert_allclose(ours.shapes["brain"]["radius"], circles["radius"])
    from spatialdata.transformations import get_transformation

    for system in theirs.coordinate_systems:
        for kind in ("images", "shapes"):
            for name, element in getattr(theirs, kind).items():
                wanted = get_transformation(element, get_all=True).get(system)
                if wanted is None or name.endswith(("hires_image", "lowres_image")):
                    continue
                found = get_transformation(getattr(ours, kind)[name], get_all=True)[system]
                axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
                np.testing.assert_allclose(found.to_affine_matrix(**axes), wanted.to_affine_matrix(**axes))
    image = (
        next(iter(theirs.images["brain_full_image"]["scale0"].data_vars.values()))
        if hasattr(theirs.images["brain_full_image"], "children")
        else theirs.images["brain_full_image"]
    )
    height, width = crop.pixels.shape[:2]
    np.testing.assert_array_equal(
        slide.image.read(0, slice(0, height), slice(0, width)), np.moveaxis(np.asarray(image), 0, -1)
    )


def test_proteins_are_left_out_and_names_made_unique_with_a_warning(crop, run_folder) -> None:
    import h5py

    folder = run_folder()
    path = folder / "outs" / "filtered_feature_bc_matrix.h5"
    crop.renamed([crop.symbols[0], crop.symbols[0], *crop.symbols[2:]]).write_h5(path)
    with h5py.File(path, "r+") as file:
        file["matrix/features/feature_type"][5] = b"Antibody Capture"
    crop.write_image(folder / "outs" / "tissue_image.tif")
    with pytest.warns(HyperSTWarning, match=rf"1 genes bear the name of another \({crop.symbols[0]}\)"):
        slide = open_slide(folder)
    assert list(slide.counts.var_names[:2]) == [crop.symbols[0], f"{crop.symbols[0]}-1"]
    assert slide.counts.n_vars == len(crop.symbols) - 1
    assert crop.symbols[5] not in slide.counts.var_names
    np.testing.assert_array_equal(slide.counts[:, 5].X.toarray().ravel(), crop.counts[:, 6])


def test_probes_are_no_genes(shared_data: Path, run_folder) -> None:
    home = run_folder() / "outs"
    (home / "filtered_feature_bc_matrix.h5").unlink()
    probes = shared_data / "visium" / "scanpy_visium_data" / "2.1.0" / "raw_probe_bc_matrix.h5"
    shutil.copy(probes, home)
    with pytest.raises(SlideError, match=r"no matrix of counts.*raw_probe_bc_matrix\.h5 counts probes, not genes"):
        open_slide(home)
    shutil.copy(probes, home / "raw_feature_bc_matrix.h5")
    with pytest.raises(SlideError, match="counts probes, not genes"):
        open_slide(home)


def test_an_image_of_another_section_is_refused(shared_data: Path) -> None:
    """A run whose counts and positions were cut to 12 spots, and its images to others."""
    with pytest.raises(SlideError, match="12 of 12 spots lie outside the 45 x 77 px image"):
        open_slide(shared_data / "visium" / "SFE_sample01")


def test_a_table_that_is_not_to_choose(crop, run_folder) -> None:
    with pytest.raises(SlideError, match="leave --table"):
        open_slide(run_folder(), table="raw")
