"""A full disk, no right to write, two at once, a name taken: a clear error, and the store as it was."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from killing import arm, refused
from tiny_store import NAME, hashes, number_in, table, write_store

from napari_hyperst.errors import HyperSTWarning, SlideError, StoreError
from napari_hyperst.slides import commit, open_slide
from napari_hyperst.slides.export import write_table

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the file system fails a forked process")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = write_store(tmp_path / "own.zarr")
    commit.put_table(path, NAME, table(1.0))
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside Zarr's threads
    return path


@forks
def test_a_full_disk_leaves_the_old_store_whole(store: Path) -> None:
    before, change, told = hashes(store, without=None), 0, True
    while told:
        told = refused(change, lambda: commit.put_table(store, NAME, table(2.0)), errno.ENOSPC)
        if told:
            assert hashes(store, without=None) == before
            assert not (store / commit.WORK).exists()
        change += 45
    assert change > 100
    assert number_in(store) == 2.0


@forks
@pytest.mark.parametrize("atomic", [True, False])
def test_what_fails_while_it_takes_its_place_is_undone(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        monkeypatch.setattr(commit, "exchange_at_once", lambda *_: False)
    before, whole = hashes(store), hashes(store, without=None)
    stage = commit._commit
    for change in range(9):
        one = Path(shutil.copytree(store, tmp_path / "one.zarr"))

        def put() -> None:
            commit.put_table(one, NAME, table(2.0))  # noqa: B023

        def fail_from_here(place: Path, work: Path, name: str) -> None:
            _refuse_once(change)  # noqa: B023
            stage(place, work, name)

        monkeypatch.setattr(commit, "_commit", fail_from_here)
        told = refused(10**6, put, errno.EIO)
        monkeypatch.setattr(commit, "_commit", stage)
        if told:
            assert hashes(one, without=None) == whole
            assert not (one / commit.WORK).exists()
        else:
            assert len(open_slide(one).spots) == 20
            assert number_in(one) == 2.0
            assert hashes(one) == before
        shutil.rmtree(one)


def _refuse_once(change: int) -> None:
    """Have the n-th change from now on fail in this child, which already has its ear to them."""
    done = 0

    def refuse(_event: str, _told: tuple[object, ...]) -> None:
        nonlocal done
        done += 1
        if done == change + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    arm(refuse)


@forks
def test_no_right_to_write(store: Path) -> None:
    before = hashes(store, without=None)
    assert refused(0, lambda: commit.put_table(store, NAME, table(2.0)), errno.EACCES)
    slide = open_slide(store)
    assert refused(0, lambda: write_table(slide, table(2.0), store.with_name("new.zarr")), errno.EROFS)
    assert hashes(store, without=None) == before
    assert [path.name for path in store.parent.iterdir()] == ["own.zarr"]


def test_a_broken_off_export_in_a_store_that_cannot_be_written_is_told(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / commit.WORK).mkdir()

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(commit, "_held", deny)
    with pytest.warns(HyperSTWarning, match="cannot be tidied up"):
        slide = open_slide(store)
    assert NAME in slide.sdata.tables


def test_two_at_once_and_a_reader(store: Path) -> None:
    reader, slide = sd.read_zarr(store), open_slide(store)
    with commit.working_folder(store / commit.WORK, store):
        with pytest.raises(StoreError, match="being written by another process; wait"):
            commit.put_table(store, NAME, table(2.0))
        assert len(open_slide(store).spots) == 20  # reading is not writing, and tidies nothing up
        assert (store / commit.WORK).exists()
    new = store.with_name("new.zarr")
    with (
        commit.working_folder(store.with_name(".new.zarr.hyperst-export"), new),
        pytest.raises(StoreError, match="being written by another process"),
    ):
        write_table(slide, table(2.0), new, copy=True)
    assert [path.name for path in store.parent.iterdir()] == ["own.zarr"]
    commit.put_table(store, NAME, table(2.0))
    np.testing.assert_array_equal(reader.images["he"].compute(), slide.sdata.images["he"].compute())


def test_a_store_that_is_gone_meanwhile(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = open_slide(store)
    monkeypatch.setattr(commit, "_check_same", lambda *_: shutil.rmtree(store))
    with pytest.raises(StoreError, match="could not be written"):
        commit.put_table(store, NAME, table(2.0))
    assert not list(tmp_path.iterdir())
    with pytest.raises(StoreError):
        write_table(slide, table(2.0), store)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("table", "not ours"), ("TABLE_hyperst", "not ours"), ("spots", "not ours"), ("HE", "not ours"),
        ("../other", "cannot be named"), ("a/b", "cannot be named"), ("", None), ("__x", "cannot be named"),
        (".hidden", "cannot be named"), ("a b", "cannot be named"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_had(store: Path, name: str, match: str | None) -> None:
    before = hashes(store, without=None)
    if match is None:
        with pytest.raises(StoreError):
            commit.put_table(store, name, table(2.0))
    else:
        with pytest.raises(StoreError, match=match):
            write_table(open_slide(store), table(2.0), store, table=name)
    assert hashes(store, without=None) == before
    assert [path.name for path in store.parent.iterdir()] == ["own.zarr"]


def test_stores_that_are_not_written_into(store: Path, tmp_path: Path) -> None:
    (tmp_path / "older.zarr").mkdir()
    (tmp_path / "older.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(StoreError, match="Zarr 3; name a new store"):
        commit.put_table(tmp_path / "older.zarr", NAME, table(2.0))
    (store / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="zarr.json is broken"):
        commit.put_table(store, NAME, table(2.0))
    assert not (store / commit.WORK).exists()


def test_a_journal_of_somebody_elses_moves_nothing(store: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    for journal in ('{"table": "../../outside"}', "[]", "{", '{"table": 3}', "\0"):
        work = store / commit.WORK
        (work / "old").mkdir(parents=True)
        (work / "journal.json").write_text(journal)
        before = hashes(store / "tables", without=None)
        open_slide(store)
        assert hashes(store / "tables", without=None) == before
        assert not work.exists()
    (store / commit.WORK).symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "journal.json").write_text("{}")
    with pytest.raises(SlideError, match="link out of the store"):
        open_slide(store)
    assert (tmp_path / "outside" / "journal.json").is_file()


def test_a_copy_has_all_that_the_store_has(store: Path, tmp_path: Path) -> None:
    slide, before = open_slide(store), hashes(store, without=None)
    copy = write_table(slide, table(2.0), tmp_path / "copy.zarr", copy=True)
    assert number_in(copy) == 2.0
    assert hashes(copy) == hashes(store)
    assert hashes(store, without=None) == before
    assert sd.read_zarr(copy).attrs["theirs"] == {"a": [1, 2]}
    with pytest.raises(StoreError, match="lies within"):
        write_table(slide, table(2.0), store / "copy.zarr", copy=True)
    with pytest.raises(StoreError, match="is there already"):
        write_table(slide, table(2.0), copy, copy=True)
