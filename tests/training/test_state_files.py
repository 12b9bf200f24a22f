from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from napari_hyperst.errors import ConfigError
from napari_hyperst.training.state_files import StateFolder, file_bytes

SHAPE = (6, 2, 5)
GIB = file_bytes(SHAPE) / 2**30
ROOM = 3.5 * GIB


def states(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


def put(folder: StateFolder, key: str, values: np.ndarray) -> np.ndarray:
    (writer,) = folder.reserve({key: SHAPE}, [key], [key])
    order = np.random.default_rng(1).permutation(len(values))
    writer.write(order[:4], values[order[:4]])
    writer.write(order[4:], values[order[4:]])
    return writer.finish()


def keys(folder: StateFolder) -> set[str]:
    return {file.stem for file in folder.path.glob("*.npy")}


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    """Return a folder with room for three files."""
    return StateFolder(tmp_path, ROOM)


def test_what_was_written_is_found_and_is_an_array_of_numpys(folder: StateFolder) -> None:
    values = states()
    np.testing.assert_array_equal(put(folder, "a", values), values)
    found = folder.find("a", SHAPE)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(np.load(folder.path / "a.npy", mmap_mode="r"), values)
    assert (folder.path / "a.npy").stat().st_size == file_bytes(SHAPE)
    assert folder.find("b", SHAPE) is None
    assert folder.find("a", (6, 5, 2)) is None
    assert folder.find("a", (3, 4, 5)) is None


@pytest.mark.parametrize("harm", ["truncated", "longer", "header", "data", "checksum", "empty"])
def test_a_file_that_is_not_whole_is_not_found_and_is_replaced(folder: StateFolder, harm: str) -> None:
    put(folder, "a", states())
    file = folder.path / "a.npy"
    content = bytearray(file.read_bytes())
    if harm in ("header", "data", "checksum"):
        content[{"header": 1, "data": 140, "checksum": -1}[harm]] ^= 1
    file.write_bytes({"truncated": content[:-9], "longer": content + b"x", "empty": b""}.get(harm, content))
    assert folder.find("a", SHAPE) is None
    np.testing.assert_array_equal(put(folder, "a", states()), states())


def test_the_longest_unused_make_room(folder: StateFolder) -> None:
    for age, key in enumerate(["c", "b", "a"]):
        put(folder, key, states())
        os.utime(folder.path / f"{key}.npy", (1000 - age, 1000 - age))
    assert folder.find("a", SHAPE) is not None  # so it was used last
    put(folder, "d", states())
    assert keys(folder) == {"a", "c", "d"}
    put(folder, "e", states())
    assert keys(folder) == {"a", "d", "e"}


def test_what_is_in_use_stays(folder: StateFolder) -> None:
    held = [put(folder, key, states()) for key in "abc"]
    with pytest.raises(ConfigError, match="over the .* of cache_gib; wait for the other run, or set"):
        put(folder, "d", states())
    assert keys(folder) == {"a", "b", "c"}
    assert list(folder.path.glob(".*.part")) == []
    del held[1]
    put(folder, "d", states())
    assert keys(folder) == {"a", "c", "d"}
    np.testing.assert_array_equal(held[0], states())


def test_a_runs_own_files_stay(folder: StateFolder) -> None:
    """Those that another of its processes will map as well."""
    for key in "abc":
        put(folder, key, states())
    wanted = dict.fromkeys("abd", SHAPE)
    (writer,) = folder.reserve(wanted, ["d"], ["d"])
    assert keys(folder) == {"a", "b"}
    writer.close()


def test_what_is_being_written_takes_room_and_is_no_dead_writers(folder: StateFolder) -> None:
    writers = folder.reserve(dict.fromkeys("ab", SHAPE), "ab", "ab")
    with pytest.raises(ConfigError, match="others in use"):
        folder.reserve(dict.fromkeys("cd", SHAPE), "cd", "cd")
    for writer in writers:
        writer.write(np.arange(6), states())
        writer.finish()
    assert keys(folder) == {"a", "b"}


def test_two_writers_of_one_key_both_end_with_it(folder: StateFolder) -> None:
    wanted = {"a": SHAPE}
    (first,), (second,) = (folder.reserve(wanted, "a", "a") for _ in range(2))
    for writer in (first, second):
        writer.write(np.arange(6), states())
    one, two = first.finish(), second.finish()
    np.testing.assert_array_equal(one, two)
    assert [file.name for file in folder.path.glob("*a*")] == ["a.npy"]


@pytest.mark.skipif(sys.platform == "win32", reason="a closed file is told from an open one there, not a dead process")
def test_what_a_dead_writer_left_is_removed(folder: StateFolder) -> None:
    (folder.path / ".a.123.part").write_bytes(b"half")
    put(folder, "b", states())
    assert list(folder.path.glob(".*.part")) == []


def test_without_locks_age_tells_the_dead_from_the_living(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_hyperst.training.state_files._lock", lambda *_, **__: None)
    young, old = folder.path / ".a.1.part", folder.path / ".a.2.part"
    for file in (young, old):
        file.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    put(folder, "b", states())
    assert young.exists()
    assert not old.exists()


def test_a_full_disk_is_told_before_and_while_writing(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage(10, 10, file_bytes(SHAPE) * 2 - 1))
        with pytest.raises(ConfigError, match="do not fit on the disk") as told:
            folder.reserve(dict.fromkeys("ab", SHAPE), "ab", "a")
        assert told.value.where == str(folder.path)
        folder.reserve(dict.fromkeys("ab", SHAPE), "a", "a")[0].close()
    (writer,) = folder.reserve({"a": SHAPE}, "a", "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer.write(np.arange(6), states())
    with pytest.raises(ConfigError, match="No space left on device.*; free some space"):
        writer.finish()
    writer.close()
    assert {file.name for file in folder.path.iterdir()} == {".lock"}
