"""Pictures that are decoded whole: once, by one process, all of a picture or nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from PIL import Image
from spatialdata.transformations import Identity

from napari_hyperst.errors import SlideError
from napari_hyperst.files import hold_folder
from napari_hyperst.slides import decoded, image
from napari_hyperst.slides.decoded import clear_cache, decoded_levels, progress_told
from napari_hyperst.slides.halving import halved, level_shapes
from napari_hyperst.slides.image import Pyramid, image_element
from napari_hyperst.slides.pyramid_writer import JOURNAL, PyramidWriter
from napari_hyperst.slides.sample import sample_folder

#: Odd both ways, and three levels.
SIZE = (2305, 2051)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Return a corner of a real section, whose sides are odd."""
    with contextlib.closing(decoded_picture()) as whole:
        return np.asarray(whole.crop((4300, 4200, 4300 + SIZE[1], 4200 + SIZE[0])))


def decoded_picture() -> Image.Image:
    from napari_hyperst.slides.pillow import open_picture

    return open_picture(next(sample_folder().glob("*.jpg")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of its own."""
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def picture(pixels: np.ndarray, tmp_path: Path, folder: Path) -> Path:
    Image.fromarray(pixels).save(tmp_path / "he.png", compress_level=1)
    return tmp_path / "he.png"


def whole(level: da.Array) -> np.ndarray:
    return np.asarray(level)


def test_a_picture_keeps_its_shape_and_each_level_is_half_the_one_before(picture: Path, pixels: np.ndarray) -> None:
    element = image_element(picture, {"global": Identity()})
    pyramid = Pyramid.from_element(element, "test")
    assert tuple(level.shape[1:] for level in pyramid.levels) == level_shapes(SIZE, 1024)
    fine = np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(whole(pyramid.levels[0]), fine)
    for level in pyramid.levels[1:]:
        shape = level.shape[1:]
        both = (slice(0, side) for side in shape)
        fine = halved(lambda y, x, fine=fine: fine[:, y, x], fine.shape[1:], shape, *both)
        np.testing.assert_array_equal(whole(level), fine)
    for node, factor in zip(element.children.values(), pyramid.factors, strict=True):
        np.testing.assert_allclose(node["image"].coords["x"][:2], (np.arange(2) + 0.5) * factor[1])


def test_levels_that_are_computed_when_read_are_those_that_are_written(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = decoded_levels(picture, None)
    lazy = image._with_coarser(written[:1])
    assert [level.shape for level in lazy] == [level.shape for level in written]
    for one, other in zip(lazy[1:], written[1:], strict=True):
        np.testing.assert_array_equal(whole(one), whole(other))


def test_decoding_tells_how_far_it_is_stops_and_goes_on(picture: Path, folder: Path) -> None:
    class Stop(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise Stop

    with progress_told(stop), pytest.raises(Stop):
        decoded_levels(picture, None)
    assert not list(folder.glob("*.zarr"))
    (partial,) = folder.iterdir()
    noted = len((partial / "pixels" / JOURNAL).read_text().splitlines())
    told: list[tuple[int, int]] = []
    with progress_told(lambda done, total: told.append((done, total))):
        decoded_levels(picture, None)
    assert told[:2] == [(0, 0), (noted, 14)]
    assert told[-1] == (14, 14)
    assert [store.suffix for store in folder.iterdir()] == [".zarr"]
    told.clear()
    with progress_told(lambda done, total: told.append((done, total))):
        decoded_levels(picture, None)
    assert told == []  # it is there


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a codec of its own mind")])
def test_what_goes_wrong_names_the_picture_and_leaves_nothing(
    picture: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    if isinstance(error, OSError):
        monkeypatch.setattr(PyramidWriter, "_halved", fail)
    else:
        monkeypatch.setattr(decoded, "decode", lambda path: decoded_broken(path, error))
    with pytest.raises(SlideError, match=r"he\.png: .*(No space left|of its own mind)"):
        decoded_levels(picture, None)
    assert list(folder.iterdir()) == []


def decoded_broken(path: Path, error: Exception) -> np.ndarray:
    raise SlideError(f"is no image that can be read ({error})", where=path)


def test_two_who_open_a_picture_at_once_decode_it_once(
    picture: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodings, real = [], decoded.decode
    second = threading.Event()

    def decode(path: Path) -> np.ndarray:
        decodings.append(path)
        assert second.wait(30)
        return real(path)

    monkeypatch.setattr(decoded, "decode", decode)
    shapes: list[tuple[int, ...]] = []

    def first() -> None:
        shapes.append(decoded_levels(picture, None)[0].shape)

    def other() -> None:
        def told(done: int, total: int) -> None:
            waited.append((done, total))
            if len(waited) == 3:
                second.set()

        waited: list[tuple[int, int]] = []
        with progress_told(told):
            shapes.append(decoded_levels(picture, None)[0].shape)
        assert set(waited) == {(0, 0)}

    threads = [threading.Thread(target=first)]
    threads[0].start()
    while not decodings:
        time.sleep(0.01)
    threads.append(threading.Thread(target=other))
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert shapes == [(3, *SIZE)] * 2
    assert len(decodings) == 1
    assert [store.suffix for store in folder.iterdir()] == [".zarr"]


#: Decodes a picture in children, each killed at a moment of its own, then in two at once; prints what the cache holds
#: after each, and in how many it was decoded.
KILLED = """
import os, signal, sys, threading
from pathlib import Path
import zarr
from napari_hyperst.slides import decoded
from napari_hyperst.slides.pyramid_writer import PyramidWriter
picture, cache, log = Path(sys.argv[1]), decoded.cache_folder(), Path(sys.argv[2])
def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            decoded.decoded_levels(picture, None)
        finally:
            os._exit(1)
    return pid
def killed(owner, name, count):
    was, lock, calls = getattr(owner, name), threading.Lock(), []
    def counted(*args, **kwargs):
        with lock:
            calls.append(0)
            if len(calls) == count: os.kill(os.getpid(), signal.SIGKILL)
        return was(*args, **kwargs)
    setattr(owner, name, counted)
moments = [(decoded, "decode", 1), (zarr, "create_array", 2), (PyramidWriter, "_source_pixels", 5),
           (PyramidWriter, "_halved", 3), (Path, "rename", 1)]
for moment in moments:
    status = os.waitpid(child(lambda: killed(*moment)), 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, moment
    assert not list(cache.glob("*.zarr")), moment
def counted():
    was = decoded.decode
    def decode(path):
        with log.open("a") as file: file.write("decoded\\n")
        return was(path)
    decoded.decode = decode
for pid in [child(counted), child(counted)]:
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_a_killed_process_left_is_never_read_and_gone_on_with(
    picture: Path, folder: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", KILLED, str(picture), str(tmp_path / "log")]
    subprocess.run(words, env=os.environ, check=True)
    assert (tmp_path / "log").read_text() == "decoded\n"  # by one of the two
    (store,) = folder.iterdir()
    assert store.suffix == ".zarr"
    levels = decoded_levels(picture, None)
    np.testing.assert_array_equal(whole(levels[0]), np.moveaxis(pixels, -1, 0))
    assert tuple(level.shape[1:] for level in levels) == level_shapes(SIZE, 1024)


@pytest.mark.parametrize("most", [2**26, 1000])
def test_a_file_is_known_by_its_content_and_a_large_one_by_parts_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(decoded, "_MOST_BYTES", most)
    monkeypatch.setattr(decoded, "_SAMPLES", 4)
    path = tmp_path / "large.tif"

    def key(change: Callable[[bytearray], None] = lambda content: None, time_ns: int = 1_000_000_000) -> str:
        content = bytearray(np.random.default_rng(0).bytes(100_000))
        change(content)
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        return decoded._key(path)

    def set_at(place: int) -> Callable[[bytearray], None]:
        return lambda content: content.__setitem__(place, content[place] ^ 1)

    was = key()
    assert key() == was
    assert key(set_at(0)) != was
    assert key(set_at(-1)) != was
    assert key(lambda content: content.append(0)) != was
    large = most < 100_000
    assert (key(time_ns=2_000_000_000) != was) == large  # a copy of a small file is known again
    assert (key(set_at(500)) == was) == large  # and no more than a part of a large one is read


def test_clearing_the_cache_leaves_nothing_but_what_is_not_ours_or_at_work(picture: Path, folder: Path) -> None:
    decoded_levels(picture, None)
    (store,) = folder.iterdir()
    for left in (".pyramid-abc/image.zarr", f".{'0' * 32}.partial/pixels", f".{'1' * 32}.partial", "mine.zarr"):
        (folder / left).mkdir(parents=True)
    for mask in (f"tissue-{'0' * 32}.png", f".tissue-{'0' * 32}.png", "notes.txt"):
        (folder / mask).touch()
    lock = hold_folder(folder / f".{'1' * 32}.partial")

    def clear() -> None:
        clear_cache()

    thread = threading.Thread(target=clear)  # a lock lets its own thread in
    thread.start()
    thread.join()
    assert not store.exists()
    assert sorted(file.name for file in folder.iterdir()) == [f".{'1' * 32}.partial", "mine.zarr", "notes.txt"]
    lock.release()


def test_what_was_left_a_day_ago_is_deleted_when_something_else_is_decoded(picture: Path, folder: Path) -> None:
    folder.mkdir()
    old, new = folder / f".{'0' * 32}.partial", folder / f".{'1' * 32}.partial"
    for partial, age_s in ((old, 90_000), (new, 80_000)):
        (partial / "pixels").mkdir(parents=True)
        then = time.time() - age_s
        os.utime(partial, (then, then))
    decoded_levels(picture, None)
    assert not old.exists()
    assert new.exists()
