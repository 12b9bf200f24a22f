"""Other tools, run for real in a process of their own on what we exported."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from napari_hyperst.slides import open_slide
from napari_hyperst.slides.outputs import write_output
from napari_hyperst.slides.outputs.formats import OutputRequest

TOOLS = Path(__file__).with_name("tools")
ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / ("Scripts" if sys.platform == "win32" else "bin") / "python"


@pytest.fixture(scope="module")
def peers() -> Path:
    """Return the Python that has the other tools."""
    python = Path(os.environ.get("HYPERST_PEERS", PEERS))
    if not python.is_file():
        pytest.skip("the other tools are not installed: make peers (HYPERST_PEERS names another Python that has them)")
    return python


@pytest.fixture(scope="module")
def exported(tiny_section: Path, tiny_table: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store and an h5ad of one prediction."""
    folder = tmp_path_factory.mktemp("exported")
    slide = open_slide(tiny_section)
    write_output(slide, tiny_table, OutputRequest(folder / "corner.zarr"))
    write_output(slide, tiny_table, OutputRequest(folder / "corner.h5ad"))
    return folder


def told(python: Path | str, tool: str, *words: object, source: bool = False) -> dict[str, Any]:
    """Run a tool and return the object that it printed; our source is on its path only where it asks for that."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    if source:
        environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [python, TOOLS / f"{tool}.py", *map(str, words)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def moran(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Moran's I of each column by its definition."""
    centred = values - values.mean(axis=0)
    return len(values) / weights.sum() * (centred * (weights @ centred)).sum(axis=0) / (centred**2).sum(axis=0)


def test_scanpy_draws_the_spots_where_they_are(exported: Path, tiny_table: AnnData, tiny_section: Path) -> None:
    said = told(sys.executable, "with_scanpy", exported / "corner.h5ad", "FASN")
    spots = open_slide(tiny_section)
    assert said["off_px"] < 0.01
    assert said["diameter_px"] == pytest.approx(spots.spots.diameter_um / spots.mpp, rel=1e-3)
    assert said["images"] == 1
    assert said["pca"] == [tiny_table.n_obs, 3]


def test_squidpy_draws_predictions_and_finds_what_is_spatial(
    peers: Path, exported: Path, tiny_table: AnnData, tiny_section: Path
) -> None:
    said = told(peers, "with_squidpy", exported / "corner.h5ad", exported / "corner.zarr", "FASN")
    spots = open_slide(tiny_section)
    assert said["drawn"]["off_px"] < 0.01
    assert said["drawn"]["diameter_px"] == pytest.approx(spots.spots.diameter_um / spots.mpp, rel=1e-3)
    assert (said["drawn"]["images"], said["drawn"]["bars"]) == (1, 1)
    assert said["moran"]["h5ad"] == said["moran"]["store"]
    assert set(said["moran"]["h5ad"]) == set(tiny_table.var_names)
    weights = np.array(said["weights"])
    weights /= weights.sum(axis=1, keepdims=True)
    ours = dict(zip(tiny_table.var_names, moran(np.asarray(tiny_table.X, np.float64), weights), strict=True))
    assert said["moran"]["h5ad"] == pytest.approx(ours, abs=1e-4)


def test_napari_spatialdata_opens_a_store_and_colours_by_a_gene(
    peers: Path, exported: Path, tiny_table: AnnData
) -> None:
    said = told(peers, "with_napari_spatialdata", exported / "corner.zarr", "table_hyperst", "FASN")
    assert said["tables"] == ["table", "table_hyperst"]
    assert sorted(said["genes"]) == sorted(tiny_table.var_names)
    assert said["spots"] >= tiny_table.n_obs
    assert said["colours"] > 10


def test_napari_spatialdata_works_on_our_layers(peers: Path, exported: Path, tiny_table: AnnData) -> None:
    """The contract of layers: its widgets list our tables, and move, rename and remove our layers."""
    said = told(peers, "with_our_layers", exported / "corner.zarr", "table_hyperst", "FASN", source=True)
    assert said["tables"] == ["table", "table_hyperst"]
    assert sorted(said["genes"]) == sorted(tiny_table.var_names)
    assert said["coloured"] > 10
    assert {"image", "spots", "predicted", "measured"} == set(said["moved"])
    for kind, factors in said["moved"].items():
        assert factors == pytest.approx([2.0] * len(factors), rel=1e-3), kind
        assert said["back"][kind] == pytest.approx([1.0] * len(factors), rel=1e-3), kind
    assert said["left"] == 0


def test_lazyslide_opens_a_store_as_a_slide(exported: Path, tiny_table: AnnData) -> None:
    python = os.environ.get("HYPERST_LAZYSLIDE", sys.executable)
    if python == sys.executable and importlib.util.find_spec("lazyslide") is None:
        pytest.skip("LazySlide is not installed: uv pip install --group benchmarks")
    image = open_slide(exported / "corner.zarr").source.image
    said = told(python, "with_lazyslide", exported / "corner.zarr", image, "table_hyperst")
    assert said["same_pixels"]
    assert said["tissues"] > 0
    assert said["tiles"] > 10
    assert said["genes"] == tiny_table.n_vars
