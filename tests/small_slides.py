"""Real slides of every format, reduced so that a hundred of them are read in no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
from anndata import AnnData
from PIL import Image
from scipy import sparse
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity

#: What files are called, by format.
H5, MTX = "filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix"
POSITIONS, SCALES = "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"
TIF, HIRES = "tissue_image.tif", "spatial/tissue_hires_image.png"
HD = "binned_outputs/square_016um"
HD_POSITIONS, HD_SCALES = f"{HD}/spatial/tissue_positions.parquet", f"{HD}/spatial/scalefactors_json.json"
H5AD, WSI, METADATA = "st/TENX1.h5ad", "wsis/TENX1.tif", "metadata/TENX1.json"
COORD, COUNT, PNG = "coord/A_coord.csv", "gene_exp/A_count.csv", "image/A.png"
ST, SPOTS = "st.tsv", "st_selection.tsv"
X, Y = "pxl_col_in_fullres", "pxl_row_in_fullres"
STORE = "slide.zarr"
#: By how much the real pixels are reduced, so that a hundred slides are read in no time.
STEP = 4
#: The reduced crop, where a damage needs to write a slide anew.
CROP: list[Any] = []


@dataclass(frozen=True)
class Truth:
    """What a slide must hold, where it opens: by spot, in any order."""

    pixels: np.ndarray
    ids: list[str]
    centres: np.ndarray
    counts: np.ndarray
    mpp: float

    def check(self, slide: Any, *, factor: float = 1.0, tolerance: float = 0.0, grey: bool = False) -> None:
        """Check pixels, centres, scale and counts of a slide whose image is ``factor`` times the size."""
        places = {one: i for i, one in enumerate(self.ids)}
        order = [places[one] for one in slide.spots.ids]
        assert len(set(order)) == len(order) == len(self.ids)
        np.testing.assert_allclose(slide.spots.centres_px, self.centres[order] * factor, atol=1e-6)
        assert slide.mpp == pytest.approx(self.mpp / factor, rel=0.01)
        assert (slide.count_rows >= 0).all()
        np.testing.assert_array_equal(slide.counts[slide.count_rows].X.toarray(), self.counts[order])
        if factor == 1.0:
            self.check_pixels(slide, tolerance=tolerance, grey=grey)

    def check_pixels(self, slide: Any, *, tolerance: float = 0.0, grey: bool = False) -> None:
        """Check that the H&E is the real one."""
        height, width = self.pixels.shape[:2]
        read = slide.image.read(0, slice(0, height), slice(0, width)).astype(float)
        ours = np.asarray(Image.fromarray(self.pixels).convert("L"))[..., None] if grey else self.pixels
        assert read.shape == self.pixels.shape
        assert np.abs(read - ours).mean() <= tolerance


def small(crop: Any) -> Any:
    """Reduce a crop, with its centres and its pitch."""
    height, width = (size // (STEP * 4) * STEP * 4 for size in crop.pixels.shape[:2])
    pixels = np.asarray(Image.fromarray(crop.pixels[:height, :width]).reduce(STEP))
    return replace(crop, pixels=pixels, centres=crop.centres / STEP, pitch_px=crop.pitch_px / STEP)


def bins(crop: Any, side: int = 16, size: int = 16) -> Any:
    """Lay ``side`` x ``side`` square bins over a crop, each with the counts of one of its spots."""
    pitch = size * crop.pitch_px / 100
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = places[:, ::-1] * pitch + 20.0
    barcodes = [f"s_{size:03d}um_{row:05d}_{column:05d}-1" for row, column in places]
    counts = crop.counts[np.arange(len(places)) % len(crop.counts)]
    return replace(crop, barcodes=barcodes, centres=centres, array=places, counts=counts)


def truth(crop: Any) -> Truth:
    return Truth(crop.pixels, list(crop.barcodes), crop.centres, crop.counts, 100 / crop.pitch_px)


def write_visium(crop: Any, folder: Path) -> Truth:
    crop.write_h5(folder / "filtered_feature_bc_matrix.h5")
    crop.write_positions(folder / "spatial", "tissue_positions.csv")
    crop.write_scalefactors(folder / "spatial")
    crop.write_image(folder / "spatial" / "tissue_hires_image.png", 0.5)
    crop.write_image(folder / "spatial" / "tissue_lowres_image.png", 0.25)
    crop.write_image(folder / "tissue_image.tif")
    return truth(crop)


def write_visium_mtx(crop: Any, folder: Path) -> Truth:
    told = write_visium(crop, folder)
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    crop.write_mtx(folder / "filtered_feature_bc_matrix", gzipped=True)
    return told


def write_visium_hd(crop: Any, folder: Path) -> Truth:
    told, home = bins(crop), folder / "binned_outputs" / "square_016um"
    told.write_h5(home / "filtered_feature_bc_matrix.h5")
    told.write_positions(home / "spatial", "tissue_positions.parquet")
    mpp = 100 / crop.pitch_px
    told.write_scalefactors(home / "spatial", microns_per_pixel=mpp, bin_size_um=16.0, spot_diameter_fullres=16 / mpp)
    crop.write_image(home / "spatial" / "tissue_hires_image.png", 0.5)
    crop.write_image(home / "spatial" / "tissue_lowres_image.png", 0.25)
    crop.write_image(folder / "tissue_image.tif")
    return truth(told)


def write_hest(crop: Any, folder: Path) -> Truth:
    for name in ("st", "wsis", "metadata"):
        (folder / name).mkdir(parents=True)
    obs = pd.DataFrame({"array_row": crop.array[:, 0], "array_col": crop.array[:, 1]}, index=pd.Index(crop.barcodes))
    counts = sparse.csr_matrix(crop.counts.astype(np.float32))
    var = pd.DataFrame(index=pd.Index(crop.symbols))
    AnnData(counts, obs=obs, var=var, obsm={"spatial": crop.centres}).write_h5ad(folder / "st" / "TENX1.h5ad")
    crop.write_image(folder / "wsis" / "TENX1.tif")
    said = {"st_technology": "Visium", "pixel_size_um_estimated": 100 / crop.pitch_px}
    (folder / "metadata" / "TENX1.json").write_text(json.dumps(said))
    return truth(crop)


def write_stimage(crop: Any, folder: Path) -> Truth:
    ids = [f"A_{barcode}" for barcode in crop.barcodes]
    for name in ("coord", "gene_exp", "image"):
        (folder / name).mkdir(parents=True)
    table = pd.DataFrame({"yaxis": crop.centres[:, 1], "xaxis": crop.centres[:, 0], "r": 11.2}, index=ids)
    table.to_csv(folder / "coord" / "A_coord.csv")
    pd.DataFrame(crop.counts, index=ids, columns=crop.symbols).to_csv(folder / "gene_exp" / "A_count.csv")
    crop.write_image(folder / "image" / "A.png")
    return truth(crop)


def write_store(crop: Any, folder: Path) -> Truth:
    store_elements(crop).write(folder / "slide.zarr")
    return truth(crop)


def write_whole_slide(crop: Any, folder: Path) -> Truth:
    per_cm = 1e4 * crop.pitch_px / 100
    said = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER", "tile": (128, 128), "metadata": None}
    tifffile.imwrite(folder / "he.tif", crop.pixels, photometric="rgb", **said)
    crop.write_image(folder / "he.png")
    return truth(crop)


def write_legacy_st(section: Path, folder: Path) -> Truth:
    """Write a legacy ST section reduced from the tiny one."""
    with Image.open(section / "he.png") as image:
        pixels = np.asarray(image.convert("RGB").crop((0, 0, 2192, 2064)).reduce(STEP))
    Image.fromarray(pixels).save(folder / "he.png")
    spots = pd.read_csv(section / "corner_selection.tsv", sep="\t")
    spots = spots[spots["pixel_y"] < 2040].reset_index(drop=True)
    spots[["pixel_x", "pixel_y"]] /= STEP
    spots.to_csv(folder / "st_selection.tsv", sep="\t", index=False)
    ids = [f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)]
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0).loc[ids]
    counts.to_csv(folder / "st.tsv", sep="\t")
    return Truth(pixels, ids, spots[["pixel_x", "pixel_y"]].to_numpy(float), counts.to_numpy(), 0.687 * STEP)


#: What writes each format but legacy ST, given a crop and an empty folder.
WRITERS: dict[str, Callable[[Any, Path], Truth]] = {
    "visium": write_visium, "visium mtx": write_visium_mtx, "visium hd": write_visium_hd, "hest": write_hest,
    "stimage": write_stimage, "store": write_store, "whole slide": write_whole_slide,
}  # fmt: skip


def store_elements(
    crop: Any, *, region: str = "places", index: Any = None, instances: Any = None, radius: Any = None
) -> sd.SpatialData:
    """Return the crop as SpatialData, whose table annotates ``region`` and whose index is as told."""
    systems = {"global": Identity()}
    n = len(crop.barcodes)
    index = np.arange(n) if index is None else index
    shapes = ShapesModel.parse(crop.centres, geometry=0, radius=11.2, index=index, transformations=systems)
    if radius is not None:
        shapes["radius"] = radius
    obs = pd.DataFrame(
        {
            "region": pd.Categorical([region] * n), "number": np.arange(n),
            "array_row": crop.array[:, 0], "array_col": crop.array[:, 1],
        },
        index=pd.Index(crop.barcodes),
    )  # fmt: skip
    counts = AnnData(
        sparse.csr_matrix(crop.counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=pd.Index(crop.symbols))
    )
    pixels = da.from_array(np.moveaxis(crop.pixels, -1, 0), chunks=(-1, 128, 128))
    annotating = TableModel.parse(counts, region=region, region_key="region", instance_key="number")
    if instances is not None:
        annotating.obs["number"] = instances  # after it was looked at
    return sd.SpatialData(
        images={"he": Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=systems)},
        shapes={"places": shapes},
        tables={"table": annotating},
    )
