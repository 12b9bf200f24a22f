"""Memory that a prediction takes above the model, on a pyramid of 100,000 x 100,000 px.

The pyramid is generated: its finest level repeats 1,024 px of the packaged slide, and each level is exactly half the
one before, so that all chunks of a level hold the same bytes and are hard links to one file. Every reader reads,
decodes and cuts it like a slide of that size. Its spots lie on a Visium lattice all over it: a band from edge to edge
whose tiles share two rows of chunks, a patch as dense as a slide is, and others evenly spread.

A child loads the checkpoint, notes its memory, opens the slide, predicts, and tells its peak since then: what the
slide, its chunks, its tiles, the model's activations and the prediction take together. ``ratio`` is 2 GiB over that,
so that 1 or more means that the target is met.

Usage: python benchmarks/memory.py [--side 100000] [--spots 260] [--checkpoint REF] [--device cpu] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import dask.array as da
import geopandas
import numpy as np
import zarr
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel

from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.sample import sample_folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--side", type=int, default=100_000)
parser.add_argument("--spots", type=int, default=260, help="about so many")
parser.add_argument("--checkpoint", default="her2st-dinov2s")
parser.add_argument("--device", default="cpu")
parser.add_argument("--json", action="store_true")
parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)

LIMIT_BYTES = 2 * 2**30
MPP = 0.25
PITCH_PX = 100 / MPP
CHUNK_PX = 1024
LEVELS = 6
#: By how much the level that spot tiles come from is smaller than the finest.
SPOT_FACTOR = 2


def generate(folder: Path, side: int, spots: int) -> Path:
    """Write the store without ever holding more than a chunk of it."""
    store = folder / "slide.zarr"
    # A pyramid of the same levels, so small that it can be written as it is, is then told that it is large.
    small = np.zeros((3, 2**LEVELS, 2**LEVELS), np.uint8)
    element = Image2DModel.parse(da.from_array(small), dims=("c", "y", "x"), scale_factors=[2] * (LEVELS - 1))
    sdata = SpatialData(images={"image": element}, shapes={"spots": lattice(side, spots)})
    sdata.attrs = {"hyperst": {"mpp": MPP, "pitch_um": 100.0}}
    sdata.write(store)
    texture = open_slide(sample_folder()).image.read(0, slice(4096, 4096 + CHUNK_PX), slice(4096, 4096 + CHUNK_PX))
    pixels = np.moveaxis(texture, -1, 0).astype(np.float32)
    for level in range(LEVELS):
        array = store / "images" / "image" / f"s{level}"
        enlarge(array, side // 2**level)
        repeats = CHUNK_PX // pixels.shape[1]
        tiled = np.rint(np.tile(pixels, (1, repeats, repeats))).astype(np.uint8)
        zarr.open_array(array, mode="r+")[:, :CHUNK_PX, :CHUNK_PX] = tiled
        link_chunks(array / "c" / "0", -(-(side // 2**level) // CHUNK_PX))
        half = pixels.shape[1] // 2
        pixels = pixels.reshape(3, half, 2, half, 2).mean(axis=(2, 4))
    return store


def enlarge(array: Path, side: int) -> None:
    """Tell a zarr array that it is larger, and forget its chunks."""
    metadata = json.loads((array / "zarr.json").read_text())
    metadata["shape"] = [3, side, side]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [3, CHUNK_PX, CHUNK_PX]
    (array / "zarr.json").write_text(json.dumps(metadata))


def link_chunks(planes: Path, chunks: int) -> None:
    """Give all chunks of a level the bytes of its first."""
    for row in range(chunks):
        (planes / str(row)).mkdir(exist_ok=True)
        for column in range(chunks):
            if row or column:
                (planes / str(row) / str(column)).unlink(missing_ok=True)
                os.link(planes / "0" / "0", planes / str(row) / str(column))


def lattice(side: int, spots: int) -> geopandas.GeoDataFrame:
    """Return some spots of a hexagonal lattice over the whole slide."""
    rows = int((side - 2 * PITCH_PX) // (PITCH_PX * 3**0.5 / 2))
    columns = int((side - 3 * PITCH_PX) // PITCH_PX)
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    x = PITCH_PX * (1 + column + row % 2 / 2)
    y = PITCH_PX * (1 + row * 3**0.5 / 2)
    kept = chosen(x, y, side, spots)
    return ShapesModel.parse(
        geopandas.GeoDataFrame(
            {
                "radius": np.full(len(kept), 27.5 / MPP),
                "array_row": row[kept],
                "array_col": 2 * column[kept] + row[kept] % 2,
            },
            geometry=geopandas.points_from_xy(x[kept], y[kept]),
        )
    )


def chosen(x: NDArray[np.float64], y: NDArray[np.float64], side: int, spots: int) -> NDArray[np.intp]:
    """Choose about two fifths of the spots in a band, a quarter in a patch, and the rest all over."""
    block = 2 * CHUNK_PX * SPOT_FACTOR
    middle = side // 2 // block * block
    band = np.flatnonzero(np.abs(y - middle) < PITCH_PX * 3**0.5 / 2)
    patch = np.flatnonzero(np.maximum(np.abs(x - middle / 2), np.abs(y - middle / 2)) < block / 2)
    shares = (
        (band[np.argsort(x[band], kind="stable")], 2 * spots // 5),
        (patch[: spots // 4], spots // 4),
        (np.arange(len(x)), spots - 2 * spots // 5 - spots // 4),
    )
    spread = [some[np.linspace(0, len(some) - 1, min(n, len(some))).astype(int)] for some, n in shares]
    return np.unique(np.concatenate(spread))


def memory(peak: bool) -> int:
    """Return the bytes that this process has in memory, or the most since the peak was forgotten."""
    status = Path("/proc/self/status")
    if status.exists():
        key = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the most ever, for both
    return most if sys.platform == "darwin" else 1024 * most


def child(store: Path, words: argparse.Namespace) -> dict[str, float]:
    """Predict, and tell what it took."""
    checkpoint = load_checkpoint(words.checkpoint)
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    model = memory(peak=False)
    began = time.perf_counter()
    prediction = predict(open_slide(store), checkpoint, words.device)
    seconds = time.perf_counter() - began
    assert np.isfinite(prediction.expression).all()
    above = memory(peak=True) - model
    return {
        "ratio": LIMIT_BYTES / above,
        "gib_above_model": above / 2**30,
        "gib_model": model / 2**30,
        "spots": len(prediction.spots),
        "seconds": seconds,
    }


words = parser.parse_args()
warnings.simplefilter("ignore")
if words.child is not None:
    print(json.dumps(child(words.child, words)))
    sys.exit()
with tempfile.TemporaryDirectory() as folder:
    began = time.perf_counter()
    store = generate(Path(folder), words.side, words.spots)
    generated = time.perf_counter() - began
    apparent = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    command = [
        sys.executable,
        __file__,
        "--child",
        str(store),
        "--checkpoint",
        words.checkpoint,
        "--device",
        words.device,
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
result = {
    **json.loads(done.stdout.splitlines()[-1]),
    "side_px": words.side,
    "store_gb": apparent / 1e9,
    "seconds_to_generate": generated,
}
print(json.dumps(result) if words.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
