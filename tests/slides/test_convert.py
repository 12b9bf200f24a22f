"""Conversion: the same slide again, whatever happened on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import zarr
from filelock import FileLock
from spatialdata.transformations import Affine, get_transformation, set_transformation

from napari_hyperst.errors import SlideError, StoreError
from napari_hyperst.files import LOCK
from napari_hyperst.slides import Slide, open_slide, pyramid_writer
from napari_hyperst.slides.convert import convert, partial_folder
from napari_hyperst.slides.pyramid_writer import JOURNAL, PyramidWriter


def contents(store: Path) -> dict[str, object]:
    """Return all files of a store by what is in them; JSON by its values, as the order of its keys says nothing."""
    return {
        str(file.relative_to(store)): json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()
        for file in store.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def tiny(tiny_section: Path) -> Slide:
    return open_slide(tiny_section)


@pytest.fixture(scope="module")
def converted(tiny: Slide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that was converted without a break."""
    return convert(tiny, tmp_path_factory.mktemp("stores") / "corner.zarr")


def test_spatialdata_alone_and_we_read_the_same_slide(converted: Path, tiny: Slide) -> None:
    alone = sd.read_zarr(converted)
    was, now = tiny.sdata, alone
    image = tiny.source.image
    np.testing.assert_array_equal(now.images[image]["scale0"].image.to_numpy(), tiny.image.levels[0].compute())
    assert list(now.images[image]["scale0"].coords["c"].values) == ["r", "g", "b"]
    assert (now.tables["table"].X != was.tables["table"].X).nnz == 0
    assert now.tables["table"].obs.equals(was.tables["table"].obs)
    assert list(now.tables["table"].var_names) == list(was.tables["table"].var_names)
    np.testing.assert_array_equal(now.tables["table"].obsm["spatial"], was.tables["table"].obsm["spatial"])
    assert now.shapes["corner"].drop(columns="geometry").equals(was.shapes["corner"].drop(columns="geometry"))
    assert (now.shapes["corner"].geometry == was.shapes["corner"].geometry).all()
    assert now.attrs["hyperst"]["mpp"] == tiny.mpp
    again = open_slide(converted)
    assert again.mpp == tiny.mpp
    assert again.fingerprint == tiny.fingerprint
    assert again.spots.diameter_um == tiny.spots.diameter_um
    assert again.lattice.kind == tiny.lattice.kind
    np.testing.assert_array_equal(again.spots.ids, tiny.spots.ids)
    np.testing.assert_array_equal(again.spots.centres_px, tiny.spots.centres_px)
    np.testing.assert_array_equal(again.lattice.ring, tiny.lattice.ring)
    np.testing.assert_array_equal(again.count_rows, tiny.count_rows)


def test_each_level_is_the_mean_of_the_one_before(converted: Path) -> None:
    levels = [level.compute() for level in open_slide(converted).image.levels]
    assert [level.shape[1:] for level in levels] == [(2200, 2200), (1100, 1100), (550, 550)]
    for fine, coarse in zip(levels, levels[1:], strict=False):
        blocks = fine.reshape(3, coarse.shape[1], 2, coarse.shape[2], 2).astype(int)
        np.testing.assert_array_equal(coarse, (blocks.sum(axis=(2, 4)) + 2) // 4)


def test_pixels_are_in_chunks_whose_metadata_tells_their_place(converted: Path, tiny: Slide) -> None:
    group = zarr.open_group(converted / "images" / tiny.source.image, mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert [zarr.open_array(group.store_path / d["path"]).chunks for d in datasets] == [(3, 1024, 1024)] * 3
    told = [[t.get("scale") or t.get("translation") for t in d["coordinateTransformations"]] for d in datasets]
    assert told == [[[1, f, f], [0, (f - 1) / 2, (f - 1) / 2]] for f in (1, 2, 4)]


def test_a_turned_slide_of_odd_size_and_16_bits_keeps_pixels_and_transformations(section: Path, tmp_path: Path) -> None:
    import tifffile

    rng = np.random.default_rng(0)
    (section / "he.png").unlink()
    tifffile.imwrite(
        section / "he.tif", rng.integers(0, 4096, (2205, 2301, 3), dtype=np.uint16), photometric="rgb", tile=(512, 512)
    )
    slide = open_slide(section)
    matrix, axes = np.array([[0.0, -2.0, 5000.0], [2.0, 0.0, 300.0], [0, 0, 1]]), ("x", "y")
    turned = Affine(matrix, input_axes=axes, output_axes=axes)
    for element in (slide.sdata.images[slide.source.image], slide.sdata.shapes[slide.name]):
        set_transformation(element, turned, "turned")
    again = open_slide(convert(slide, tmp_path / "out.zarr"))
    assert again.image.levels[0].dtype == np.uint16
    np.testing.assert_array_equal(again.image.levels[0].compute(), slide.image.levels[0].compute())
    for element in (again.sdata.images[again.source.image], again.sdata.shapes[again.name]):
        kept = get_transformation(element, "turned").to_affine_matrix(input_axes=axes, output_axes=axes)
        np.testing.assert_array_equal(kept, matrix)
        assert set(get_transformation(element, get_all=True)) == {"turned", slide.coordinate_system}
    np.testing.assert_array_equal(again.spots.centres_px, slide.spots.centres_px)


def test_levels_of_odd_size_are_in_register(tiny: Slide, tmp_path: Path) -> None:
    """A ramp is read off each level where spatialdata's own coordinates say that its pixels are."""
    ramp = da.broadcast_to((da.arange(2301, chunks=700) * 20).astype(np.uint16), (3, 2203, 2301))
    slide = replace(tiny, image=replace(tiny.image, levels=(ramp,)))
    store = convert(slide, tmp_path / "ramp.zarr")
    for node in sd.read_zarr(store).images[tiny.source.image].children.values():
        row = node["image"].isel(c=0, y=0)
        np.testing.assert_allclose(row.to_numpy() / 20 + 0.5, row.coords["x"], atol=0.2)  # px of level 0
    assert open_slide(store).image.shape_px == (2203, 2301)


def test_the_users_scale_stays_the_slides(tiny_section: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"0\.55 µm/px is used"):
        slide = open_slide(tiny_section, mpp=0.55)
    store = convert(slide, tmp_path / "stated.zarr")
    with pytest.warns(UserWarning, match=r"0\.55 µm/px is used"):
        assert open_slide(store).mpp == 0.55


#: Opens the slide once, then converts it in children, each killed at a moment of its own.
KILLED = """
import json, os, signal, sys, threading
from pathlib import Path
import spatialdata, zarr
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.pyramid_writer import PyramidWriter
OWNERS = {
    "a level is made": (zarr, "create_array"),
    "the rest is written": (spatialdata.SpatialData, "write"),
    "a block is read": (PyramidWriter, "_source_pixels"),
    "a block is halved": (PyramidWriter, "_halved"),
    "something takes its name": (Path, "rename"),
}
slide = open_slide(sys.argv[1])
for number, (moment, count) in enumerate(json.loads(sys.argv[3])):
    child = os.fork()
    if child == 0:
        owner, name = OWNERS[moment]
        was, lock, calls = getattr(owner, name), threading.Lock(), []
        def counted(*args, **kwargs):
            with lock:
                calls.append(0)
                if len(calls) == count: os.kill(os.getpid(), signal.SIGKILL)
            return was(*args, **kwargs)
        setattr(owner, name, counted)
        folder = Path(sys.argv[2]) / str(number)
        folder.mkdir()
        convert(slide, folder / "corner.zarr")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""
#: The moment, the how many-th of its kind, and how many blocks are written by then at least.
MOMENTS = [
    ("a level is made", 2, 0),
    ("the rest is written", 1, 0),
    ("a block is read", 2, 0),
    ("a block is read", 8, 3),
    ("a block is halved", 1, 9),
    ("a block is halved", 5, 13),
    ("something takes its name", 1, 0),  # the store without pixels
    ("something takes its name", 2, 14),  # its first level
    ("something takes its name", 4, 14),  # its last
    ("something takes its name", 5, 14),  # the store
]


@pytest.fixture(scope="module")
def killed(tiny_section: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of folders, each with what a conversion left that was killed at one of the moments."""
    if sys.platform == "win32":
        pytest.skip("there is no SIGKILL")
    folder = tmp_path_factory.mktemp("killed")
    words = [tiny_section, folder, json.dumps([moment[:2] for moment in MOMENTS])]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], env=os.environ, check=True)
    return folder


@pytest.mark.parametrize("number", range(len(MOMENTS)), ids=[f"{moment} {count}" for moment, count, _ in MOMENTS])
def test_a_killed_conversion_goes_on_where_it_stood(killed: Path, tiny: Slide, converted: Path, number: int) -> None:
    out = killed / str(number) / "corner.zarr"
    assert not out.exists()
    folder = partial_folder(out)
    journal = folder / "pixels" / JOURNAL
    noted = journal.read_text().splitlines() if journal.exists() else []
    assert MOMENTS[number][2] <= len(noted) <= 14
    written = [
        (chunk.stat().st_ino, chunk.stat().st_mtime_ns)
        for chunk in folder.rglob("c/0/*/*")
        if chunk.suffix != ".partial" and "corner" in str(chunk)
    ]
    reports: list[tuple[int, int]] = []
    convert(tiny, out, lambda done, total: reports.append((done, total)))
    assert reports[0] == (len(noted), 14)
    assert reports[-1] == (14, 14)
    assert contents(out) == contents(converted)
    assert [file.name for file in out.parent.iterdir()] == ["corner.zarr"]
    now = {(chunk.stat().st_ino, chunk.stat().st_mtime_ns) for chunk in out.rglob("c/0/*/*")}
    assert len(now.intersection(written)) >= len(noted)  # what was noted was not written again


def test_a_torn_line_and_a_torn_chunk_are_none(
    tiny: Slide, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corner.zarr"
    _stop_after(monkeypatch, 3, OSError(28, "No space left on device"))
    with pytest.raises(StoreError):
        convert(tiny, out)
    monkeypatch.undo()
    pixels = partial_folder(out) / "pixels"
    with (pixels / JOURNAL).open("a") as journal:
        journal.write("1 0 0")
    (pixels / "s0" / "c" / "0" / "0" / "1.abc.partial").write_bytes(b"torn")
    convert(tiny, out)
    assert contents(out) == contents(converted)


def _stop_after(monkeypatch: pytest.MonkeyPatch, blocks: int, error: BaseException) -> None:
    """Let the write of one block, after so many, fail."""
    calls, write = [], PyramidWriter._write_block

    def fail(self: PyramidWriter, *args: object) -> None:
        calls.append(args)
        if len(calls) > blocks:
            raise error
        write(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(PyramidWriter, "_write_block", fail)
    monkeypatch.setattr(pyramid_writer, "_MOST_WORKERS", 1)


def test_a_full_disk_is_told_and_what_is_written_is_gone_on_with(
    tiny: Slide, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corner.zarr"
    _stop_after(monkeypatch, 5, OSError(28, "No space left on device"))
    with pytest.raises(StoreError, match=r"No space left .* goes on where it stood") as caught:
        convert(tiny, out)
    assert str(out) in str(caught.value)
    assert not out.exists()
    monkeypatch.undo()
    reports: list[int] = []
    convert(tiny, out, lambda done, total: reports.append(done))
    assert reports[0] == 5
    assert contents(out) == contents(converted)


def test_a_disk_that_was_full_from_the_start_leaves_nothing(
    tiny: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sd.SpatialData, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        convert(tiny, tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())


def test_pixels_that_cannot_be_read_name_the_image(tiny: Slide, tmp_path: Path) -> None:
    def broken(block: np.ndarray) -> np.ndarray:
        raise ValueError("a codec of its own mind")

    levels = (tiny.image.levels[0].map_blocks(broken, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)),)
    slide = replace(tiny, image=replace(tiny.image, levels=levels))
    with pytest.raises(SlideError, match=r"corner.*of its own mind"):
        convert(slide, tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_stays(tiny: Slide, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    for name in ("folder", "file", "link", "none/x.zarr", "file/x.zarr", "x" * 300):
        with pytest.raises(StoreError) as caught:
            convert(tiny, tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert caught.value.do
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_store_that_appears_meanwhile_is_not_replaced(tiny: Slide, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"

    def appear(done: int, total: int) -> None:
        if done == total:
            out.mkdir(exist_ok=True)

    with pytest.raises(StoreError, match="is there already"):
        convert(tiny, out, appear)
    assert list(out.iterdir()) == []
    out.rmdir()
    convert(tiny, out)  # nothing of it was lost
    assert len(open_slide(out).spots) == len(tiny.spots)


def test_a_folder_that_may_not_be_written(tiny: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):  # root may write anywhere

        def refuse(path: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        convert(tiny, locked / "out.zarr")
    assert not list(locked.iterdir())


def test_another_process_at_work_is_left_alone(tiny: Slide, tmp_path: Path) -> None:
    folder = partial_folder(tmp_path / "out.zarr")
    folder.mkdir()
    with FileLock(folder / LOCK), pytest.raises(StoreError, match="by another process"):
        convert(tiny, tmp_path / "out.zarr")
    convert(tiny, tmp_path / "out.zarr")


def test_what_is_left_of_another_slide_is_not_gone_on_with(
    c2: Slide, tiny: Slide, converted: Path, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise Enough

    out = tmp_path / "corner.zarr"
    with pytest.raises(Enough):
        convert(c2, out, stop)
    reports: list[int] = []
    convert(tiny, out, lambda done, total: reports.append(done))
    assert reports[0] == 0
    assert contents(out) == contents(converted)


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    def peak(side: int) -> int:
        image = da.from_array(np.broadcast_to(np.uint8(7), (1, side, side)), chunks=(1, 1024, 1024)) + np.uint8(1)
        writer = PyramidWriter(image, tmp_path / str(side), "test")
        tracemalloc.start()
        writer.prepare()
        writer.write(lambda done, total: None)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2048)  # what is imported on the way
    assert peak(12288) < 1.5 * peak(4096)


@pytest.mark.parametrize(("chunk", "side"), [(300, 1024), (1024, 1024), (2048, 2048), (1500, 2048), (9000, 4096)])
def test_blocks_are_as_large_as_the_sources_chunks_within_bounds(tmp_path: Path, chunk: int, side: int) -> None:
    writer = PyramidWriter(da.zeros((3, 9000, 9000), chunks=(3, chunk, chunk), dtype=np.uint8), tmp_path, "test")
    finest = [block for block in writer.blocks if block.level == 0]
    assert finest[0].y == finest[0].x == slice(0, side)
    covered = np.zeros((9000, 9000), np.uint8)
    for block in finest:
        covered[block.y, block.x] += 1
    assert (covered == 1).all()
