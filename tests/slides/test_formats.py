"""Formats are told by names, at once, without importing what reads them, and never with an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_hyperst.slides.formats import FORMATS, format_of

REAL = {
    "her2st/C2": "legacy_st",
    "her2st/C2/C2_selection.tsv": "legacy_st",
    "mob": "legacy_st",
    "mob/alignment_table_MOB2.tsv": "legacy_st",
    "visium/V1_Adult_Mouse_Brain": "space_ranger",
    "visium/perik_cytassist": "space_ranger",
    "visium/seurat_visium": "space_ranger",
    "visium/scanpy_visium_data/1.0.0": "space_ranger",
    "visium/VisiumIO_extdata/10xVisium/section1": "space_ranger",
    "visium/VisiumIO_extdata/10xVisium/section2/outs": "space_ranger",
    "visium/SFE_sample01": "space_ranger",
    "visium/VisiumIO_extdata/binned_outputs": "visium_hd",
    "visium/VisiumIO_extdata/binned_outputs/square_002um": "visium_hd",
    "visium/squidpy_test/test_data.h5ad": None,
    "visium/giotto_mini_visium": None,
    "visium": None,
}


@pytest.mark.parametrize("path", REAL)
def test_real_slides(path: str, shared_data: Path) -> None:
    assert format_of(shared_data / path) == REAL[path]


def test_telling_imports_nothing_heavy() -> None:
    code = (
        "import sys; import napari_hyperst.slides.formats as f; f.format_of(sys.executable); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'numpy', 'pandas', 'anndata', 'h5py',"
        "'zarr', 'spatialdata', 'xarray', 'dask', 'tifffile', 'PIL', 'scipy', 'napari', 'qtpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def odd(tmp_path: Path) -> list[object]:
    """Return what is no slide, each odd in its own way."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "cut.h5ad").write_bytes(b"\x89HDF")
    (tmp_path / "spots_selection.tsv").mkdir()
    (tmp_path / "x_coord.csv").write_text("")
    (tmp_path / "no.zarr").mkdir()
    (tmp_path / "no.zarr" / "zarr.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "dir.zarr").mkdir()
    (tmp_path / "dir.zarr" / "zarr.json").mkdir()
    (tmp_path / "cells" / "filtered_feature_bc_matrix").mkdir(parents=True)
    (tmp_path / "square_016um").mkdir()
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "a.h5ad").symlink_to(tmp_path / "loop")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.tsv")
    return [tmp_path, *tmp_path.iterdir(), "", "\0", "a" * 5000, tmp_path / "nothing", None, 7]


def test_what_is_no_slide_is_none_without_an_error(tmp_path: Path) -> None:
    for path in odd(tmp_path):
        assert format_of(path) is None, path


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may look into everything")
def test_a_folder_that_may_not_be_looked_into(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    assert format_of(tmp_path / "shut") is None


def test_every_format_has_a_name_and_a_reader() -> None:
    from napari_hyperst.slides.opening import READERS

    assert set(FORMATS) == {*READERS, "whole_slide"}  # of which open_slide wants more than path, image and table
