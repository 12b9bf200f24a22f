"""A slide becomes a chunked multiscale SpatialData Zarr: resumable, in bounded memory, all of it or nothing.

The work is done in a hidden folder beside the store, which takes its name when it is whole. Whatever ends the work
before that, a kill or a full disk, leaves that folder; the same conversion, started again, goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

from napari_hyperst.errors import HyperSTError, StoreError
from napari_hyperst.files import LOCK, check_place, hold_folder, to_disk, write_whole
from napari_hyperst.slides.commit import OURS
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.pyramid_writer import JOURNAL, PyramidWriter
from napari_hyperst.slides.slide import Slide

_PLAN, _PIXELS, _STORE = "plan.json", "pixels", "store"
#: A slide is told from another by this many squares of its pixels along each side, each this many px long.
_PROBES, _PROBE_PX = 4, 64


def convert(
    slide: Slide,
    path: str | Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    also: Callable[[Path], None] | None = None,
    keep: bool = True,
) -> Path:
    """Write a slide as a new SpatialData Zarr store with a chunked multiscale image.

    Level 0 is the slide's, pixel by pixel; each further level is the mean of 2 x 2 pixels of the one before. Spots,
    counts, ids, µm/px and transformations are the slide's. Memory does not grow with the image.

    Parameters
    ----------
    slide
        The slide.
    path
        The store to write.
    progress
        Called with how many blocks of pixels are written, and of how many; what it raises ends the work.
    also
        Called with the store before it takes its name, to write more into it.
    keep
        Whether pixels that are written stay beside the store when the disk fails. A killed process leaves them anyway.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreError
        If the name is taken, another process is writing the same store, or it cannot be written. Under the store's
        name there is nothing then; what is written so far is kept beside it, to go on with.
    SlideError
        If pixels cannot be read.
    """
    path = Path(path).expanduser().absolute()
    check_place(path)
    folder = partial_folder(path)
    with _locked(folder, path), _told(path, folder, keep):
        writer = PyramidWriter(slide.image.levels[0], folder / _PIXELS, slide.image.where)
        _prepare(slide, folder, writer)
        writer.write(progress or (lambda done, total: None))
        _assemble(slide, folder, writer)
        if also is not None:
            also(folder / _STORE)
        to_disk(folder / _STORE)
        check_place(path)
        (folder / _STORE).rename(path)
        shutil.rmtree(folder, ignore_errors=True)
    return path


def partial_folder(path: Path) -> Path:
    """Return the hidden folder in which a store is written before it takes its name."""
    return path.with_name(f".{path.name}.hyperst-partial")


def self_contained(slide: Slide, image: xr.DataArray | xr.DataTree | None = None) -> SpatialData:
    """Return the slide's elements in use as a new SpatialData object that knows its scale.

    Parameters
    ----------
    slide
        The slide.
    image
        The image to put in the place of the slide's.
    """
    sdata, source = slide.sdata, slide.source
    whole = SpatialData(
        images={source.image: sdata.images[source.image] if image is None else image},
        labels={} if source.tissue is None else {source.tissue: sdata.labels[source.tissue]},
        shapes={source.spots: sdata.shapes[source.spots]},
        tables={} if source.table is None else {source.table: sdata.tables[source.table]},
    )
    whole.attrs = {
        **sdata.attrs,
        OURS: {
            **sdata.attrs.get(OURS, {}),
            "mpp": slide.mpp,
            "spot_um": slide.spots.diameter_um,
            **({"pitch_um": source.pitch_um} if source.pitch_um is not None else {}),
            **({"laid": True} if source.laid else {}),
            **({"tissue": source.tissue} if source.tissue is not None else {}),
        },
    }
    return whole


def _prepare(slide: Slide, folder: Path, writer: PyramidWriter) -> None:
    """Make the folder ready to write pixels: from the start, or, for the same slide, where it stood.

    All but the pixels is written anew each time: it is little, and may have changed.
    """
    plan = json.dumps(_plan(slide, writer), indent=1)
    store = folder / _STORE
    there = (folder / _PLAN).read_text(encoding="utf-8") if (folder / _PLAN).is_file() else None
    if there != plan:
        _empty(folder)
        write_whole(folder / _PLAN, plan)
    elif store.exists():  # it was ended while the levels were moved into the store
        for level, moved in enumerate(_level_folders(store, slide, len(writer.shapes_px))):
            if moved.exists() and not writer.level_folder(level).exists():
                moved.rename(writer.level_folder(level))
    writer.prepare()
    for left in (store, folder / "new"):
        shutil.rmtree(left, ignore_errors=True)
    whole = self_contained(slide, _empty_image(slide, len(writer.shapes_px)))
    whole.write(folder / "new")
    (folder / "new").rename(store)


def _plan(slide: Slide, writer: PyramidWriter) -> dict[str, Any]:
    """Return what tells this conversion from another one to the same name."""
    height, width = slide.image.shape_px
    digest = hashlib.sha256()
    for y in np.linspace(0, max(0, height - _PROBE_PX), _PROBES).astype(int):
        for x in np.linspace(0, max(0, width - _PROBE_PX), _PROBES).astype(int):
            square = writer.read_source(slice(y, y + _PROBE_PX), slice(x, x + _PROBE_PX))
            digest.update(np.ascontiguousarray(square).tobytes())
    return {
        "image": slide.source.image,
        "shape": list(writer.source.shape),
        "dtype": str(writer.source.dtype),
        "blocks": [block.key for block in list(writer.blocks)[:2]],
        "pixels_sha256": digest.hexdigest(),
        "versions": {package: version(package) for package in ("napari-hyperst", "spatialdata", "zarr")},
    }


def _empty_image(slide: Slide, levels: int) -> xr.DataArray | xr.DataTree:
    """Return a tiny image with the channels, the transformations and the number of levels of the one to come."""
    element = slide.sdata.images[slide.source.image]
    finest = next(iter(element["scale0"].data_vars.values())) if isinstance(element, xr.DataTree) else element
    side = 2 ** (levels - 1)
    return Image2DModel.parse(
        da.zeros((finest.sizes["c"], side, side), dtype=finest.dtype),
        dims=("c", "y", "x"),
        c_coords=finest.coords["c"].to_numpy().tolist() if "c" in finest.coords else None,
        scale_factors=[2] * (levels - 1) or None,
        transformations=get_transformation(element, get_all=True),
    )


def _level_folders(store: Path, slide: Slide, levels: int) -> list[Path]:
    """Return where a store keeps the levels of its image."""
    image = store / "images" / slide.source.image
    ome: Any = zarr.open_group(image, mode="r", use_consolidated=False).attrs["ome"]
    datasets = ome["multiscales"][0]["datasets"]
    assert len(datasets) == levels
    return [image / dataset["path"] for dataset in datasets]


def _assemble(slide: Slide, folder: Path, writer: PyramidWriter) -> None:
    """Move the levels into the store, in the place of the tiny ones, and have its metadata say so."""
    store, shapes_px = folder / _STORE, writer.shapes_px
    for level, place in enumerate(_level_folders(store, slide, len(shapes_px))):
        if writer.level_folder(level).exists():
            shutil.rmtree(place, ignore_errors=True)
            writer.level_folder(level).rename(place)
    group = zarr.open_group(store / "images" / slide.source.image, mode="r+", use_consolidated=False)
    ome: Any = group.attrs["ome"]
    for dataset, (height, width) in zip(ome["multiscales"][0]["datasets"], shapes_px, strict=True):
        factors = shapes_px[0][0] / height, shapes_px[0][1] / width
        for transformation in dataset["coordinateTransformations"]:
            kind = transformation["type"]  # pixel i of a level is centred on i: it covers (factor) px of level 0
            transformation[kind] = (
                [1.0, *factors] if kind == "scale" else [0.0, *((factor - 1) / 2 for factor in factors)]
            )
    group.attrs["ome"] = ome
    whole = read_zarr(store)
    whole.write_consolidated_metadata()
    back = Pyramid.from_element(read_zarr(store).images[slide.source.image], str(store))
    if tuple(level.shape[1:] for level in back.levels) != shapes_px or back.levels[0].dtype != writer.source.dtype:
        raise StoreError("did not read back as written", where=store.name, do="check the disk, and try again")


@contextlib.contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Make the folder and keep other processes out of it."""
    try:
        folder.mkdir(exist_ok=True)
        lock = hold_folder(folder)
    except StoreError as error:
        raise StoreError("is being written by another process", where=path, do="wait for it, or end it") from error
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})", where=path, do="choose a folder that is there and may be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _told(path: Path, folder: Path, keep: bool) -> Iterator[None]:
    """Turn what goes wrong with the disk into an error for the user; where no pixel is to be kept, nothing is left."""
    try:
        yield
    except BaseException as error:
        kept = _any_pixels(folder) and (keep or not isinstance(error, Exception))
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, HyperSTError) or not isinstance(error, OSError | ValueError):
            raise
        do = "check disk space and rights, and start it again"
        raise StoreError(
            f"could not be written ({error})",
            where=path,
            do=f"{do}: it goes on where it stood ({folder.name} holds what is written)" if kept else do,
        ) from error


def _any_pixels(folder: Path) -> bool:
    journal = folder / _PIXELS / JOURNAL
    with contextlib.suppress(OSError):
        return journal.stat().st_size > 0
    return False


def _empty(folder: Path) -> None:
    """Delete what is of another slide, but for the lock."""
    for left in folder.iterdir():
        if left.name == LOCK:
            continue
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
