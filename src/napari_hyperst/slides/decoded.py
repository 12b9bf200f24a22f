"""The cache of decoded images: a file that cannot be read in parts, or from afar, becomes a pyramid once.

A pyramid is written in a hidden folder, which one process at a time holds, and takes its name when it is whole. What a
killed process left is gone on with when the same file is opened again, and else deleted after a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from napari_hyperst.errors import HyperSTWarning, SlideError, StoreError
from napari_hyperst.files import hold_folder
from napari_hyperst.slides.pillow import CoarsePicture, check_size, decode, pixels_from_afar
from napari_hyperst.slides.pyramid_writer import PyramidWriter, level_folders
from napari_hyperst.slides.scan import CHUNK_PX, Scan

CACHE_VARIABLE = "NAPARI_HYPERST_CACHE"
#: Changed whenever the same file would give another pyramid.
_VERSION = b"napari-hyperst pyramid 2"
#: A file is told from others by all of its bytes, or, where there are more than so many, by as many of them.
_MOST_BYTES, _SAMPLES = 2**26, 64
_PIXELS = "pixels"
#: Seconds after which it is looked again whether another process has decoded the same file, or what it left is stale.
_LOOK_S, _STALE_S = 0.2, 86_400.0
_PROGRESS: ContextVar[Callable[[int, int], None] | None] = ContextVar("progress", default=None)
_SEEN: ContextVar[Callable[[CoarsePicture], None] | None] = ContextVar("seen", default=None)


@contextlib.contextmanager
def progress_told(progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """Have those who decode an image meanwhile, in this thread, tell how far they are.

    Parameters
    ----------
    progress
        Called with how many blocks of pixels are written, and of how many; with 0 of 0 while the file is decoded whole,
        or another process does it. What it raises ends the work, which may be gone on with.
    """
    before = _PROGRESS.set(progress)
    try:
        yield
    finally:
        _PROGRESS.reset(before)


@contextlib.contextmanager
def seen_from_afar(seen: Callable[[CoarsePicture], None]) -> Iterator[None]:
    """Have those who decode an image whole meanwhile, in this thread, show it from afar before its pyramid is written.

    Parameters
    ----------
    seen
        Called with the picture, in this thread.
    """
    before = _SEEN.set(seen)
    try:
        yield
    finally:
        _SEEN.reset(before)


def decoded_levels(path: Path, scan: Scan | None) -> tuple[da.Array, ...]:
    """Return the pyramid of an image file, decoded by whoever first asks for it.

    Parameters
    ----------
    path
        The file.
    scan
        It opened, if it is no picture that Pillow reads.

    Returns
    -------
    tuple
        Lazy arrays of dimensions (c, y, x), finest first: each half as large as the one before, rounded up.

    Raises
    ------
    SlideError
        If the file is no image, is broken or too large, or the cache cannot be written.
    """
    store = cache_folder() / f"{_key(path)}.zarr"
    if not store.exists():
        _delete_stale(store.parent)
        try:
            _decode_into(store, path, scan)
        except OSError as error:
            raise SlideError(
                f"could not be decoded ({error})", where=path, do=f"check the file, and disk space in {store.parent}"
            ) from error
    return tuple(da.from_zarr(str(folder)) for folder in level_folders(store))


def cache_folder() -> Path:
    """Return the folder of decoded pyramids, made if it is not there."""
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named) if named else user_cache_path("napari-hyperst")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        fallback = Path(tempfile.gettempdir()) / "napari-hyperst"
        warnings.warn(
            f"{folder}: cannot be written; decoded images go to {fallback} (set {CACHE_VARIABLE})",
            HyperSTWarning,
            stacklevel=2,
        )
        folder = fallback
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_cache() -> None:
    """Delete all decoded pyramids and kept masks of tissue, but for what another process is decoding now."""
    cache = cache_folder()
    for store in cache.iterdir():
        if re.fullmatch(r"[0-9a-f]{32}\.zarr", store.name):
            with contextlib.suppress(OSError):  # another process deletes it too
                store.rename(store.with_name(f".{store.stem}-cleared.partial"))  # half of it is never read
        elif re.fullmatch(r"\.?tissue-[0-9a-f]{32}\.png", store.name):
            store.unlink(missing_ok=True)
    _delete_stale(cache, 0.0)


def _delete_stale(cache: Path, age_s: float = _STALE_S) -> None:
    """Delete what killed processes left, this long ago, of pyramids that nobody is decoding; also of older versions."""
    for folder in (*cache.glob(".*.partial"), *cache.glob(".pyramid-*")):
        with contextlib.suppress(OSError, StoreError):  # somebody else deletes it, or is at work on it
            if time.time() - folder.stat().st_mtime >= age_s:
                hold_folder(folder).release()
                shutil.rmtree(folder)


def _key(path: Path) -> str:
    """Return what tells a file from others: its content; of a large one its size, its time and a part of its content.

    At most 64 MiB are read, whatever the file's size.
    """
    digest = hashlib.sha256(_VERSION)
    try:
        with path.open("rb") as file:
            told = os.fstat(file.fileno())
            if told.st_size <= _MOST_BYTES:
                digest.update(file.read())
            else:
                digest.update(f"{told.st_size} {told.st_mtime_ns}".encode())
                length = _MOST_BYTES // _SAMPLES
                for start in np.linspace(0, told.st_size - length, _SAMPLES).astype(np.int64).tolist():
                    file.seek(start)
                    digest.update(file.read(length))
    except OSError as error:
        raise SlideError(
            f"cannot be read ({error.strerror})", where=path, do="check the file and its rights"
        ) from error
    return digest.hexdigest()[:32]


def _decode_into(store: Path, path: Path, scan: Scan | None) -> None:
    """Make a pyramid, or wait until another process, or thread, has."""
    folder, tell = store.with_name(f".{store.stem}.partial"), _PROGRESS.get() or (lambda done, total: None)
    while True:
        tell(0, 0)
        folder.mkdir(exist_ok=True)
        try:
            lock = hold_folder(folder)
            break
        except FileNotFoundError:  # another process has just ended, and took the folder with it
            continue
        except StoreError:
            time.sleep(_LOOK_S)
    kept = False
    try:
        if not store.exists():  # nobody made it meanwhile
            writer = PyramidWriter(_pixels(path, scan), folder / _PIXELS, str(path))
            writer.prepare()
            kept = True  # what is written if this is killed, or stopped
            writer.write(tell)
            writer.folder.rename(store)
            kept = False
    except (SlideError, OSError):
        kept = False
        raise
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _pixels(path: Path, scan: Scan | None) -> da.Array:
    """Return the finest level of an image file, in memory where it cannot be read in parts."""
    if scan is None:
        decoded = np.moveaxis(decode(path), -1, 0)
        _show(decoded)
        return da.from_array(decoded, chunks=(-1, CHUNK_PX, CHUNK_PX))
    pixels = scan.levels[0]
    if scan.in_parts:
        return pixels
    check_size(pixels.shape[2], pixels.shape[1], path)
    try:
        decoded = np.asarray(pixels)
    except Exception as error:  # tifffile's codecs raise what they like on broken files
        raise SlideError(
            f"is no TIFF that can be read ({error})", where=path, do="save it again as an 8-bit RGB TIFF"
        ) from error
    _show(decoded)
    return da.from_array(decoded, chunks=(-1, CHUNK_PX, CHUNK_PX))


def _show(pixels: NDArray[Any]) -> None:
    """Show a picture, (c, y, x), from afar to whoever waits for it."""
    seen = _SEEN.get()
    if seen is not None and (picture := pixels_from_afar(pixels, (pixels.shape[1], pixels.shape[2]))) is not None:
        seen(picture)
