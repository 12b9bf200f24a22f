"""A store of 20 spots, 5 genes and 64 px, and tables to put into it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import spatialdata as sd
from anndata import AnnData
from spatialdata.models import Image2DModel, ShapesModel, TableModel

NAME = "table_hyperst"
GENES = ("A", "B", "C", "D", "E")


def write_store(path: Path, *, counted: bool = True) -> Path:
    """Write a store that opens as a slide; without counts it has no group of tables."""
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2) * 12.0 + 8
    spots = ShapesModel.parse(centres, geometry=0, radius=3.0)
    image = Image2DModel.parse(rng.integers(0, 255, (3, 64, 64), dtype=np.uint8), dims=("c", "y", "x"))
    counts = AnnData(rng.poisson(3, (20, 5)).astype(np.float32), obs=_obs(), var=pd.DataFrame(index=[*GENES]))
    whole = sd.SpatialData(
        images={"he": image},
        shapes={"spots": spots},
        tables={"table": _parsed(counts)} if counted else {},
        attrs={"hyperst": {"mpp": 0.5, "spot_um": 3.0}, "theirs": {"a": [1, 2]}},
    )
    whole.write(path)
    return path


def table(number: float, genes: int = 5) -> AnnData:
    """Return a table that is ours, all of whose values are a number."""
    obs = _obs().assign(norm_spot_image=np.full(20, number, np.float32))
    found = AnnData(np.full((20, genes), number, np.float32), obs=obs, var=pd.DataFrame(index=[*GENES[:genes]]))
    found.obsm["hyperst_spot_image"] = np.full((20, 2), number, np.float32)
    found.uns["hyperst"] = {"command": str(number), "eta": {"a__b": number}}
    return _parsed(found)


def number_in(store: Path | sd.SpatialData, name: str = NAME) -> float | None:
    """Return the number that a store's table holds throughout; None where spatialdata finds no such table."""
    whole = store if isinstance(store, sd.SpatialData) else sd.read_zarr(store)
    found = whole.tables.get(name)
    if found is None:
        return None
    parts = (found.X, found.obs["norm_spot_image"], found.obsm["hyperst_spot_image"], found.uns["hyperst"]["command"])
    numbers = {float(one) for part in parts for one in np.asarray(part, dtype=float).ravel()}
    assert len(numbers) == 1, "a mix"
    return numbers.pop()


def hashes(store: Path, *, without: str | None = NAME) -> dict[str, str]:
    """Hash each file of a store but for a table's, and the root's metadata, which name it."""
    found = {}
    for file in sorted(store.rglob("*")):
        name = file.relative_to(store).as_posix()
        if file.is_file() and (without is None or not (name == "zarr.json" or name.startswith(f"tables/{without}/"))):
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _obs() -> pd.DataFrame:
    obs = {"region": pd.Categorical(["spots"] * 20), "spot_id": np.arange(20)}
    return pd.DataFrame(obs, index=[f"s{i}" for i in range(20)])


def _parsed(found: AnnData) -> AnnData:
    return TableModel.parse(found, region="spots", region_key="region", instance_key="spot_id")
