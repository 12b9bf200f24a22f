"""An export that is killed at any moment leaves the old table or the new one, whole, in a store that opens."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import spatialdata as sd
from killing import killed_at
from tiny_store import NAME, hashes, number_in, table, write_store

from napari_hyperst.slides import commit, open_slide
from napari_hyperst.slides.export import write_table

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
OLD, NEW = 1.0, 2.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what helps against power cuts, and warnings about forking."""
    monkeypatch.setattr(commit, "to_disk", lambda _: None)
    warnings.simplefilter("ignore", DeprecationWarning)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("killed") / "bare.zarr")


@pytest.fixture(scope="module")
def uncounted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("killed") / "uncounted.zarr", counted=False)


@pytest.fixture(scope="module")
def predicted(bare: Path) -> Path:
    store = bare.with_name("predicted.zarr")
    shutil.copytree(bare, store)
    commit.put_table(store, NAME, table(OLD))
    return store


def _staged(store: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of a store in which the new table is staged, by an export that was killed just then."""
    shutil.copytree(store, to)
    with monkeypatch.context() as patched:
        patched.setattr(commit, "_commit", lambda *_: os._exit(9))
        assert killed_at(10**6, lambda: commit.put_table(to, NAME, table(NEW, genes=4)))
    return to


def _check(store: Path, allowed: set[float | None], alone: set[float | None], others: dict[str, str]) -> float | None:
    """Check that a killed export's store opens with spatialdata and with us; return what table we find."""
    found = number_in(store)
    assert found in alone
    slide = open_slide(store)
    assert len(slide.spots) == 20
    after = number_in(slide.sdata)
    assert after in allowed
    assert found in (None, after)
    now = hashes(store)
    assert {name: now.get(name) for name in others} == others
    assert now.keys() - others.keys() <= {"tables/zarr.json"}  # of a store that had no table
    assert not (store / commit.WORK).exists()
    return after


def _check_consolidated(store: Path) -> None:
    """Check that the consolidated metadata are what Zarr itself makes of the store."""
    told = json.loads((store / "zarr.json").read_text())
    sd.read_zarr(store).write_consolidated_metadata()
    assert json.loads((store / "zarr.json").read_text()) == told


@pytest.mark.parametrize("how", ["added", "added first", "exchanged", "by two renames"])
def test_killed_while_it_takes_its_place(
    how: str, bare: Path, uncounted: Path, predicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"added": bare, "added first": uncounted}.get(how, predicted)
    if how == "by two renames":
        monkeypatch.setattr(commit, "exchange_at_once", lambda *_: False)
    replaces = source is predicted
    staged = _staged(source, tmp_path / "staged.zarr", monkeypatch)
    others, seen = hashes(source), set()
    allowed: set[float | None] = {OLD, NEW} if replaces else {None, NEW}
    alone = allowed | {None} if how == "by two renames" else allowed
    change, killed = 0, True
    while killed:
        store = tmp_path / f"{change}.zarr"
        shutil.copytree(staged, store)
        killed = killed_at(change, lambda: commit._commit(store, store / commit.WORK, NAME))  # noqa: B023
        if how == "by two renames" and killed and change % 2:  # what is written next puts it right as well
            commit.put_table(store, NAME, table(3.0))
            assert number_in(store) == 3.0
            assert hashes(store) == others
            assert not (store / commit.WORK).exists()
            change += 1
            continue
        after = _check(store, allowed if killed else {NEW}, alone, others)
        if after not in seen:
            _check_consolidated(store)
            commit.put_table(store, NAME, table(3.0))
            assert number_in(store) == 3.0
            assert not (store / commit.WORK).exists()
        seen.add(after)
        shutil.rmtree(store)
        change += 1
    assert change > 4
    assert seen == allowed


def test_killed_while_it_is_written(bare: Path, predicted: Path, tmp_path: Path) -> None:
    """Some of Zarr's own changes, far apart, and what an export does next, without opening the store before."""
    for source, before in ((bare, None), (predicted, OLD)):
        others, change, killed, seen = hashes(source), 0, True, set()
        while killed:
            store = tmp_path / f"{before}{change}.zarr"
            shutil.copytree(source, store)
            killed = killed_at(change, lambda: commit.put_table(store, NAME, table(NEW)))  # noqa: B023
            seen.add(number_in(store))
            commit.put_table(store, NAME, table(3.0))
            assert number_in(store) == 3.0
            assert hashes(store) == others
            assert {file.name for file in store.iterdir()} == {file.name for file in source.iterdir()}
            change += 90 if change else 3
        assert change > 200
        assert seen == {before, NEW}


def test_killed_while_a_new_store_is_written(bare: Path, tmp_path: Path) -> None:
    slide, change, killed = open_slide(bare), 0, True
    while killed:
        folder = tmp_path / str(change)
        folder.mkdir()
        store = folder / "new.zarr"
        killed = killed_at(change, lambda: write_table(slide, table(NEW), store))  # noqa: B023
        assert {file.name for file in folder.iterdir()} <= {"new.zarr", ".new.zarr.hyperst-partial"}
        if store.exists():
            assert number_in(store) == NEW
            assert len(open_slide(store).spots) == 20
        else:
            assert killed
            write_table(slide, table(3.0), store)
            assert number_in(store) == 3.0
            assert [file.name for file in folder.iterdir()] == ["new.zarr"]
        change += 120 if change else 3
