"""Reading spot and niche tiles, over LazySlide's reader, SpatialData's ``ImageTilesDataset`` and naive cropping.

Same SpatialData Zarr store, same squares, same number of threads; all in turn, several times, and the median of the
ratios of each turn. Every reader ends with 224 px RGB tiles in memory. ``ratio`` is the least of the ratios over its
target, so that 1 means that all targets are met.

- ``lazyslide``: wsidata's ``TileImagesDataset``, which LazySlide extracts features from, on its SpatialData reader: it
  chooses a level and resamples by area.
- ``spatialdata``: ``ImageTilesDataset`` cropping level 0 (its default), resampled here with Pillow.
- ``spatialdata_rasterized``: the same, which resamples itself (``rasterize=True``).
- ``naive``: a slice of the level for each spot, resampled with Pillow.

``difference_*`` are mean absolute differences in grey levels to the peers' tiles: of spot tiles, of niche tiles, and on
average. LazySlide resamples by area where this package takes Lanczos' filter, as HyperST does:
``same_filter_lazyslide`` is what is left of the difference when the same crops are resampled with LazySlide's filter,
and ``lazyslide_spatialdata`` how far its tiles are from level 0 resampled by Lanczos' filter, where this package's are
``difference_spatialdata``.

The peers: ``uv pip install --group benchmarks``. Without LazySlide, it is left out, and said.

Usage: python benchmarks/tiles.py [SLIDE] [--spots N] [--threads 2] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dask
import geopandas
import numpy as np
import shapely
import zarr
from numpy.typing import NDArray
from PIL import Image
from spatialdata import SpatialData
from spatialdata.dataloader import ImageTilesDataset
from spatialdata.models import ShapesModel
from spatialdata.transformations import Identity, set_transformation

from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.slides.tiles import niche_um, read_tiles, spots_with_tiles

try:
    import cv2
    from wsidata import open_wsi
    from wsidata.dataset import TileImagesDataset
except ImportError:
    open_wsi = None

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("slide", nargs="?", default=sample_folder(), type=Path)
parser.add_argument("--spots", type=int, help="so many in the middle of the slide, instead of all")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--json", action="store_true")
words = parser.parse_args()
warnings.simplefilter("ignore")

#: How many times faster than a peer.
TARGETS = {"lazyslide": 2.0, "spatialdata": 5.0, "spatialdata_rasterized": 5.0}
PIXELS = 224

# Threads are the readers' own: neither dask, zarr nor OpenCV may add theirs.
dask.config.set(scheduler="synchronous")
zarr.config.set({"threading.max_workers": words.threads})
if open_wsi is not None:
    cv2.setNumThreads(1)

folder = tempfile.TemporaryDirectory()
given = open_slide(words.slide)
# Peers cut at whole px of a level, so all do: what is compared is resampling and not rounding.
height, width = (16 * (side // 16) for side in given.image.shape_px)
halves = replace(given, image=Pyramid((given.image.levels[0][:, :height, :width],), given.image.where))
slide, spec = open_slide(convert(halves, Path(folder.name) / "slide.zarr")), TileSpec(pixels=PIXELS)
sides = [4 * round(side / slide.mpp / 4) * slide.mpp for side in (spec.spot_um, niche_um(slide, spec))]
spec = TileSpec(spot_um=sides[0], niche_um=sides[1], pixels=PIXELS)
slide = replace(slide, spots=replace(slide.spots, centres_px=2 * np.rint(slide.spots.centres_px / 2)))
whole = spots_with_tiles(slide, spec)
whole = whole[slide.inside(max(sides))[whole]]  # peers have no policy for the edge
middle = slide.spots.centres_px[whole].mean(axis=0)
spots = np.sort(whole[np.abs(slide.spots.centres_px[whole] - middle).max(axis=1).argsort()[: words.spots]])
boxes = [slide.boxes_px(side)[spots] for side in sides]

element = slide.sdata.images[slide.source.image]
set_transformation(element, Identity(), "px")
points = geopandas.points_from_xy(*slide.spots.centres_px[spots].T)
centres = geopandas.GeoDataFrame({"radius": np.ones(len(spots))}, geometry=points)
squares = [geopandas.GeoDataFrame(geometry=shapely.box(*box.T)) for box in boxes]
sdata = SpatialData(
    images={"image": element},
    shapes={
        "centres": ShapesModel.parse(centres, transformations={"px": Identity()}),
        "spot": ShapesModel.parse(squares[0], transformations={"px": Identity()}),
        "niche": ShapesModel.parse(squares[1], transformations={"px": Identity()}),
    },
)
#: (2, n, pixels, pixels, 3): spot and niche tiles.
Tiles = NDArray[np.uint8]


def resampled(pixels: NDArray[np.uint8], box: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
    """Resample (height, width, 3) to a tile as Pillow does it best."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(
        image.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS, None if box is None else tuple(box)), dtype=np.uint8
    )


def in_threads(read: Callable[[int, int], NDArray[np.uint8]]) -> Tiles:
    """Call a reader of one tile, by kind and row, for all tiles."""
    tiles = np.empty((2, len(spots), PIXELS, PIXELS, 3), dtype=np.uint8)

    def keep(which: tuple[int, int]) -> None:
        tiles[which] = read(*which)

    with ThreadPoolExecutor(words.threads) as pool:
        list(pool.map(keep, np.ndindex(2, len(spots))))
    return tiles


def ours() -> Tiles:
    """Read as this package does."""
    tiles = np.empty((2, len(spots), PIXELS, PIXELS, 3), dtype=np.uint8)
    for batch in read_tiles(slide, spec, spots, threads=words.threads):
        rows = np.searchsorted(spots, batch.spots)
        tiles[0, rows], tiles[1, rows] = batch.spot, batch.niche
    return tiles


def by_area(pixels: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Resample (height, width, 3) to a tile as LazySlide does."""
    left, top, right, bottom = np.rint(box).astype(int)
    shrinks = right - left >= PIXELS
    return cv2.resize(
        np.ascontiguousarray(pixels[top:bottom, left:right]),
        (PIXELS, PIXELS),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )


def naive(resample: Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.uint8]] = resampled) -> Tiles:
    """Slice the level for each tile."""
    levels = [slide.image.level_for((box[0, 2] - box[0, 0]) / PIXELS) for box in boxes]

    def read(kind: int, row: int) -> NDArray[np.uint8]:
        level = levels[kind]
        factor_y, factor_x = slide.image.factors[level]
        box = boxes[kind][row] / (factor_x, factor_y, factor_x, factor_y)
        left, top = np.floor(box[:2]).astype(int)
        right, bottom = np.ceil(box[2:]).astype(int)
        pixels = slide.image.levels[level][:, top:bottom, left:right].compute()
        return resample(np.moveaxis(pixels, 0, -1), box - (left, top, left, top))

    return in_threads(read)


def spatialdata(rasterized: bool) -> Callable[[], Tiles]:
    """Return a reader by SpatialData's dataset."""
    datasets = [
        ImageTilesDataset(
            sdata,
            {"centres": "image"},
            {"centres": "px"},
            tile_dim_in_units=float(box[0, 2] - box[0, 0]),
            rasterize=rasterized,
            rasterize_kwargs={"target_width": PIXELS} if rasterized else {},
            transform=lambda found: next(iter(found.images.values())),
        )
        for box in boxes
    ]

    def read(kind: int, row: int) -> NDArray[np.uint8]:
        pixels = np.moveaxis(datasets[kind][row].data.compute(), 0, -1)
        return pixels if rasterized else resampled(pixels)

    return lambda: in_threads(read)


def lazyslide() -> Callable[[], Tiles]:
    """Return a reader by LazySlide's dataset."""
    wsi = open_wsi(sdata, image_key="image")
    datasets = [TileImagesDataset(wsi, key, image_size=PIXELS) for key in ("spot", "niche")]
    return lambda: in_threads(lambda kind, row: datasets[kind][row]["image"])


readers: dict[str, Callable[[], Tiles]] = {
    "naive": naive,
    "spatialdata": spatialdata(rasterized=False),
    "spatialdata_rasterized": spatialdata(rasterized=True),
}
if open_wsi is not None:
    readers["lazyslide"] = lazyslide()


def timed(read: Callable[[], Tiles]) -> tuple[float, Tiles]:
    """Return how long a reader takes, and its tiles."""
    began = time.perf_counter()
    tiles = read()
    return time.perf_counter() - began, tiles


def difference(tiles: Tiles, others: Tiles) -> list[float]:
    """Return mean absolute differences in grey levels: of spot tiles, of niche tiles, and on average."""
    kinds = [
        np.mean([np.abs(tile.astype(int) - same).mean() for tile, same in zip(*kind, strict=True)])
        for kind in zip(tiles, others, strict=True)
    ]
    return [round(float(value), 2) for value in (*kinds, np.mean(kinds))]


first = ours()  # warm up
peers = {name: read() for name, read in readers.items()}
differences = {f"difference_{name}": difference(tiles, first) for name, tiles in peers.items()}
if open_wsi is not None:
    differences["same_filter_lazyslide"] = difference(peers["lazyslide"], naive(by_area))
    differences["lazyslide_spatialdata"] = difference(peers["lazyslide"], peers["spatialdata"])
seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in readers}}
for _ in range(words.repeats):
    for name, reader in {"ours": ours, **readers}.items():
        seconds[name].append(timed(reader)[0])
over = {
    name: statistics.median(peer / mine for peer, mine in zip(seconds[name], seconds["ours"], strict=True))
    for name in readers
}
milliseconds = {name: 1e3 * statistics.median(taken) / first[..., 0, 0, 0].size for name, taken in seconds.items()}
result = {
    "ratio": min(over[name] / target for name, target in TARGETS.items() if name in over),
    **{f"over_{name}": value for name, value in over.items()},
    **differences,
    **{f"ms_per_tile_{name}": value for name, value in milliseconds.items()},
    "left_out": [] if open_wsi is not None else ["lazyslide (not installed)"],
    "tiles": 2 * len(spots),
    "threads": words.threads,
    "targets": TARGETS,
}
folder.cleanup()
print(json.dumps(result) if words.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
