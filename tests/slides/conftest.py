"""A crop of a real Visium slide at full resolution, and the layouts that it may come in."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

#: How much smaller the hires and the lowres image are than the crop.
HIRES, LOWRES = 0.5, 0.25
#: Of Space Ranger, on the whole slide.
SPOT_DIAMETER_PX = 89.43859978699531
PITCH_PX = 138.0


@dataclass(frozen=True)
class Crop:
    """Real pixels, places and counts: what a slide must hold, whatever layout it was read from."""

    #: (y, x, 3) uint8.
    pixels: np.ndarray
    barcodes: list[str]
    #: (n, 2) x, y in px of the crop.
    centres: np.ndarray
    #: (n, 2) row, column of the array.
    array: np.ndarray
    #: (n, G) integers.
    counts: np.ndarray
    symbols: list[str]
    ids: list[str]
    #: Distance between neighbouring spots.
    pitch_px: float = PITCH_PX

    def write_image(self, path: Path, factor: float = 1.0) -> Path:
        """Write the crop, by what its name ends in; tif files in tiles, svs as an Aperio scanner signs it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = self.pixels.shape[:2]
        image = Image.fromarray(self.pixels)
        if factor != 1:
            step = round(1 / factor)  # the last rows and columns that fill no px are left out
            image = (
                image.crop((0, 0, width // step * step, height // step * step)).reduce(step)
                if step > 1
                else image.resize((round(width * factor), round(height * factor)))
            )
        if path.suffix in (".png", ".jpg"):
            image.save(path, quality=95)
            return path
        signed = (
            {"description": "Aperio Image Library v12\r\n|AppMag = 20|MPP = 0.725"} if path.suffix == ".svs" else {}
        )
        if path.suffix == ".btf":
            signed["bigtiff"] = True
        tifffile.imwrite(path, np.asarray(image), photometric="rgb", tile=(256, 256), metadata=None, **signed)
        return path

    def positions(self, *, in_tissue: int = 1) -> pd.DataFrame:
        """Return the table of positions, with two spots more that are not in tissue."""
        table = pd.DataFrame(
            {
                "barcode": self.barcodes,
                "in_tissue": in_tissue,
                "array_row": self.array[:, 0],
                "array_col": self.array[:, 1],
                "pxl_row_in_fullres": self.centres[:, 1],
                "pxl_col_in_fullres": self.centres[:, 0],
            }
        )
        outside = table[:2].assign(
            barcode=["TTTTTTTTTTTTTTTT-1", "TTTTTTTTTTTTTTTG-1"], in_tissue=0, array_row=[70, 72]
        )
        return pd.concat([outside, table], ignore_index=True)

    def write_positions(self, spatial: Path, name: str) -> None:
        """Write the table of positions as the version that calls it so does."""
        spatial.mkdir(parents=True, exist_ok=True)
        path, table = spatial / name, self.positions()
        if name.endswith(".parquet"):
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False, header=name == "tissue_positions.csv")

    def write_scalefactors(self, spatial: Path, **more: float) -> None:
        spatial.mkdir(parents=True, exist_ok=True)
        said = {"tissue_hires_scalef": HIRES, "tissue_lowres_scalef": LOWRES, "spot_diameter_fullres": SPOT_DIAMETER_PX}
        (spatial / "scalefactors_json.json").write_text(json.dumps(said | more))

    def write_h5(self, path: Path) -> None:
        """Write a 10x h5 file; a raw one has the two spots that are not in tissue too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        barcodes, values = self._matrix(path.name)
        by_row = sparse.csr_matrix(values)
        with h5py.File(path, "w") as file:
            file.attrs["version"] = 2
            matrix = file.create_group("matrix")
            matrix["barcodes"] = np.array(barcodes, dtype="S")
            matrix["data"], matrix["indices"] = by_row.data.astype(np.int32), by_row.indices.astype(np.int64)
            matrix["indptr"], matrix["shape"] = by_row.indptr.astype(np.int64), np.array(by_row.shape[::-1], np.int32)
            features = matrix.create_group("features")
            features["id"], features["name"] = np.array(self.ids, dtype="S"), np.array(self.symbols, dtype="S")
            features["feature_type"] = np.array(["Gene Expression"] * len(self.ids), dtype="S")
            features["genome"] = np.array(["mm10"] * len(self.ids), dtype="S")
            features["_all_tag_keys"] = np.array(["genome"], dtype="S")

    def write_mtx(self, folder: Path, *, gzipped: bool) -> None:
        """Write a folder with the matrix as text: gzipped as of version 3, plain before."""
        folder.mkdir(parents=True, exist_ok=True)
        barcodes, values = self._matrix(folder.name)
        text = io.BytesIO()
        mmwrite(text, sparse.coo_matrix(values.T.astype(np.int64)))
        features = "".join(f"{i}\t{s}\tGene Expression\n" for i, s in zip(self.ids, self.symbols, strict=True))
        names = ("matrix.mtx", "barcodes.tsv", "features.tsv")
        for name, said in zip(names, (text.getvalue(), "\n".join(barcodes).encode(), features.encode()), strict=True):
            if gzipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(said))
            else:
                (folder / ("genes.tsv" if name == "features.tsv" else name)).write_bytes(said)

    def _matrix(self, name: str) -> tuple[list[str], np.ndarray]:
        if name.startswith("raw"):
            return ["TTTTTTTTTTTTTTTT-1", *self.barcodes], np.vstack([self.counts[:1] * 0, self.counts])
        return self.barcodes, self.counts

    def renamed(self, symbols: list[str]) -> Crop:
        """Return the crop with other names of genes."""
        return replace(self, symbols=symbols)

    def check(self, slide: Any, *, factor: float = 1.0, tolerance: float = 0.0) -> None:
        """Check image, spots, scale and counts of a slide whose image is ``factor`` times the crop's size."""
        places = {barcode: i for i, barcode in enumerate(self.barcodes)}
        order = [places[one] for one in slide.spots.ids]
        assert len(set(order)) == len(slide.spots) == len(self.barcodes)
        np.testing.assert_allclose(slide.spots.centres_px, self.centres[order] * factor, atol=1e-6)
        assert slide.lattice.kind == "hex"
        assert slide.lattice.pitch_px == pytest.approx(self.pitch_px * factor, rel=0.005)
        assert slide.mpp == pytest.approx(100 / self.pitch_px / factor, rel=0.005)
        assert slide.spots.diameter_um == pytest.approx(55)
        self.check_pixels(slide, factor=factor, tolerance=tolerance)
        assert slide.counts.n_vars == len(self.symbols)
        assert sparse.issparse(slide.counts.X)
        measured = slide.counts[slide.count_rows].X.toarray()
        np.testing.assert_array_equal(measured, self.counts[order])
        assert list(slide.counts.var_names) == self.symbols

    def check_pixels(self, slide: Any, *, factor: float = 1.0, tolerance: float = 0.0) -> None:
        """Check that the pixels around each spot are the crop's."""
        for x, y in self.centres[::7]:
            left, top = (int((value - 16) * factor) for value in (x, y))
            side, step = int(32 * factor), round(1 / factor)
            read = slide.image.read(0, slice(top, top + side), slice(left, left + side)).astype(float)
            ours = self.pixels[top * step : (top + side) * step, left * step : (left + side) * step].astype(float)
            ours = ours.reshape(side, step, side, step, 3).mean(axis=(1, 3))
            assert np.abs(read - ours).mean() <= tolerance


@pytest.fixture(scope="session")
def crop(shared_data: Path) -> Crop:
    """Return squidpy's crop of the adult mouse brain: 49 spots, with the raw counts of 100 genes of the whole slide."""
    folder = shared_data / "visium"
    with Image.open(folder / "squidpy_test" / "test_img.jpg") as image:
        pixels = np.asarray(image.convert("RGB"))
    there = anndata.read_h5ad(folder / "squidpy_test" / "test_data.h5ad")
    barcodes = list(there.obs_names)
    brain = folder / "V1_Adult_Mouse_Brain"
    positions = pd.read_csv(brain / "spatial" / "tissue_positions_list.csv", header=None, index_col=0).loc[barcodes]
    with h5py.File(brain / "filtered_feature_bc_matrix.h5") as file:
        matrix = file["matrix"]
        parts = (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:])
        values = sparse.csr_matrix(parts, shape=tuple(matrix["shape"][:])[::-1])
        rows = {barcode: row for row, barcode in enumerate(matrix["barcodes"].asstr()[:])}
        symbols = list(matrix["features/name"].asstr()[:])
    known = pd.read_csv(shared_data / "mob" / "mouse_genes.tsv.gz", sep="\t").drop_duplicates("gene_name")
    ids = known.set_index("gene_name")["gene_id"].str.partition(".")[0]
    return Crop(
        pixels=pixels,
        barcodes=barcodes,
        centres=np.asarray(there.obsm["spatial"], dtype=float),
        array=positions[[2, 3]].to_numpy(),
        counts=values[[rows[barcode] for barcode in barcodes]].toarray(),
        symbols=symbols,
        ids=[ids.get(symbol, f"no-id-{symbol}") for symbol in symbols],
    )


@pytest.fixture(scope="session")
def brain(crop: Crop, shared_data: Path) -> Crop:
    """Return the whole slide of the crop with its hires image: enough spots to tell their lattice by centres."""
    folder = shared_data / "visium" / "V1_Adult_Mouse_Brain"
    with h5py.File(folder / "filtered_feature_bc_matrix.h5") as file:
        matrix = file["matrix"]
        parts = (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:])
        values = sparse.csr_matrix(parts, shape=tuple(matrix["shape"][:])[::-1])
        barcodes = list(matrix["barcodes"].asstr()[:])
    factor = json.loads((folder / "spatial" / "scalefactors_json.json").read_text())["tissue_hires_scalef"]
    positions = pd.read_csv(folder / "spatial" / "tissue_positions_list.csv", header=None, index_col=0).loc[barcodes]
    with Image.open(folder / "spatial" / "tissue_hires_image.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    return replace(
        crop,
        pixels=pixels,
        barcodes=barcodes,
        centres=positions[[5, 4]].to_numpy() * factor,
        array=positions[[2, 3]].to_numpy(),
        counts=values.toarray(),
        pitch_px=PITCH_PX * factor,
    )


@pytest.fixture
def run_folder(crop: Crop, tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a Space Ranger run of the crop, without its full-resolution image."""

    def write(
        *,
        positions: str = "tissue_positions.csv",
        matrix: str = "filtered_feature_bc_matrix.h5",
        gzipped: bool = True,
        outs: bool = True,
        hires: bool = True,
    ) -> Path:
        folder = tmp_path / "brain"
        home = folder / "outs" if outs else folder
        crop.write_positions(home / "spatial", positions)
        crop.write_scalefactors(home / "spatial")
        if matrix.endswith(".h5"):
            crop.write_h5(home / matrix)
        else:
            crop.write_mtx(home / matrix, gzipped=gzipped)
        if hires:
            crop.write_image(home / "spatial" / "tissue_hires_image.png", HIRES)
        crop.write_image(home / "spatial" / "tissue_lowres_image.png", LOWRES)
        return folder

    return write
