"""HEST samples, made of a real crop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.formats import format_of

METADATA = {
    "st_technology": "Visium", "pixel_size_um_estimated": 100 / 138, "inter_spot_dist": 100, "spot_diameter": 55,
    "species": "Mus musculus",
}  # fmt: skip


def sample(crop) -> AnnData:
    obs = pd.DataFrame({"in_tissue": 1, "array_row": crop.array[:, 0], "array_col": crop.array[:, 1]})
    obs.index = pd.Index(crop.barcodes)
    var = pd.DataFrame({"gene_ids": crop.ids, "total_counts": crop.counts.sum(axis=0)}, index=pd.Index(crop.symbols))
    return AnnData(sparse.csr_matrix(crop.counts.astype(np.float32)), obs=obs, var=var, obsm={"spatial": crop.centres})


@pytest.fixture
def download(crop, tmp_path: Path) -> Path:
    """Return a download's folder with one sample."""
    for name in ("st", "wsis", "metadata", "patches"):
        (tmp_path / "hest" / name).mkdir(parents=True)
    sample(crop).write_h5ad(tmp_path / "hest" / "st" / "TENX1.h5ad")
    crop.write_image(tmp_path / "hest" / "wsis" / "TENX1.tif")
    (tmp_path / "hest" / "metadata" / "TENX1.json").write_text(json.dumps(METADATA))
    return tmp_path / "hest"


@pytest.mark.parametrize("opened", [".", "st/TENX1.h5ad"])
def test_a_sample(opened: str, crop, download: Path) -> None:
    assert format_of(download / opened) == "hest"
    slide = open_slide(download / opened)
    assert slide.name == "TENX1"
    crop.check(slide)
    assert list(slide.counts.var["gene_ids"]) == crop.ids


def test_several_samples_are_asked_about(crop, download: Path) -> None:
    sample(crop).write_h5ad(download / "st" / "TENX2.h5ad")
    crop.write_image(download / "wsis" / "TENX2.tif")
    with pytest.raises(SlideError, match=r"2 samples: TENX1, TENX2; open one, such as st/TENX1\.h5ad"):
        open_slide(download)
    slide = open_slide(download / "st" / "TENX2.h5ad")  # without metadata, by its lattice
    crop.check(slide)


def test_a_sample_as_hests_library_writes_it(crop, tmp_path: Path) -> None:
    folder = tmp_path / "SPA7"
    folder.mkdir()
    sample(crop).write_h5ad(folder / "aligned_adata.h5ad")
    crop.write_image(folder / "aligned_fullres_HE.tif")
    (folder / "metrics.json").write_text(json.dumps(METADATA))
    assert format_of(folder) == "hest"
    slide = open_slide(folder)
    assert slide.name == "SPA7"
    crop.check(slide)


def test_counts_alone_with_the_image_given(crop, tmp_path: Path) -> None:
    sample(crop).write_h5ad(tmp_path / "any.h5ad")
    image = crop.write_image(tmp_path / "he.png")
    assert format_of(tmp_path / "any.h5ad") is None
    crop.check(open_slide(tmp_path / "any.h5ad", image=image))


def test_spots_off_any_lattice_have_the_scale_of_the_metadata(crop, download: Path) -> None:
    """As samples of Xenium that HEST pooled: array coordinates that number something else are left out."""
    changed = sample(crop)
    rng = np.random.default_rng(0)
    changed.obsm["spatial"] = crop.centres + rng.uniform(-50, 50, crop.centres.shape)
    changed.obs["array_row"] = rng.permutation(len(changed))
    changed.obs["array_col"] = rng.permutation(len(changed))
    changed.write_h5ad(download / "st" / "TENX1.h5ad")
    with pytest.warns(HyperSTWarning, match="do not number"):
        slide = open_slide(download)
    assert slide.lattice.kind == "none"
    assert slide.mpp == pytest.approx(100 / 138)
    np.testing.assert_allclose(slide.spots.centres_px, changed.obsm["spatial"])


def test_metadata_that_contradict_the_lattice_are_told(crop, download: Path) -> None:
    (download / "metadata" / "TENX1.json").write_text(json.dumps(METADATA | {"pixel_size_um_estimated": 0.5}))
    with pytest.warns(HyperSTWarning, match=r"0\.72\d* µm/px is used, .* contradicts the 0\.5 µm/px"):
        open_slide(download)


@pytest.mark.parametrize("said", ["{", "[]"])
def test_metadata_that_cannot_be_read(said: str, download: Path) -> None:
    (download / "metadata" / "TENX1.json").write_text(said)
    with pytest.raises(SlideError, match=r"TENX1\.json"):
        open_slide(download)


def test_no_image(download: Path) -> None:
    (download / "wsis" / "TENX1.tif").unlink()
    with pytest.raises(SlideError, match=r"no TENX1\.tif with the H&E; add it, or name the H&E \(--image"):
        open_slide(download)


def test_scaled_values_of_an_h5ad_are_read_as_they_are(shared_data: Path, crop, tmp_path: Path) -> None:
    """squidpy's own file of the crop: normalised, which is told when it is to be learned from."""
    from napari_hyperst.slides.expression import counts_are_raw, require_raw

    image = crop.write_image(tmp_path / "he.png")
    slide = open_slide(shared_data / "visium" / "squidpy_test" / "test_data.h5ad", 100 / 138, image=image)
    np.testing.assert_allclose(slide.spots.centres_px, crop.centres)
    assert slide.counts.n_vars == 1999
    assert not counts_are_raw(slide.counts)
    with pytest.raises(SlideError, match=r"normalised or scaled.*train on raw counts"):
        require_raw(slide)
