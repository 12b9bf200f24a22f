"""A table takes its place in a SpatialData Zarr, or the place of another: all of it, or nothing, whatever happens.

spatialdata cannot overwrite an element of a store that it has open, and between deleting and writing one a crash would
lose it. Here the new table is written in a hidden folder of the store, read back, and moved to its place by renaming.
What is at work is noted in a journal before anything of the store is changed, and the next one to open or to write the
store puts right what a crash left. Readers find the old table or the new one; no other element is touched.

1. The table is written to ``.hyperst-export/staged.zarr``, read back, and flushed to the disk.
2. The journal is written.
3. A new table is renamed to its place, unseen as the root's consolidated metadata do not name it yet. One that is
   replaced changes places with the old one in one system call; where there is none, the old table is first taken out of
   the root's metadata, so that the store can be read throughout, and then moved aside.
4. The root's ``zarr.json``, whose consolidated metadata name the new table, is replaced at once.
5. The hidden folder, with the journal, is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from spatialdata import SpatialData, read_zarr

from napari_hyperst.errors import HyperSTError, HyperSTWarning, StoreError
from napari_hyperst.files import exchange_at_once, to_disk, write_whole

#: The hidden folder within a store in which a table is written.
WORK = ".hyperst-export"
#: Where a prediction says how it was made, in a table's ``uns``, by which a table is ours; and where a store of ours
#: keeps its scale, in its attributes.
OURS = "hyperst"
_LOCK, _JOURNAL, _STAGED, _OLD = "lock", "journal.json", "staged.zarr", "old"
_ROOT, _TABLES = "zarr.json", "tables"
_KINDS = ("images", "labels", "points", "shapes", _TABLES)


def put_table(store: Path, name: str, table: AnnData) -> None:
    """Put a table into a store, in the place of one of ours with its name, if there is one.

    Parameters
    ----------
    store
        A SpatialData Zarr.
    name, table
        The table, as SpatialData parsed it.

    Raises
    ------
    StoreError
        If the name cannot be had, another process is writing the store, or it cannot be written. The store is as it
        was, and nothing is left behind.
    """
    with _never_made_again(store), working_folder(store / WORK, store) as work:
        _settle(store, work)
        check_name(store, name)
        staged = work / _STAGED
        for left in (staged, work / _OLD):
            shutil.rmtree(left, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that what the table annotates is not beside it
            SpatialData(tables={name: table}).write(staged)
            back = read_zarr(staged).tables[name]
        _check_same(back, table, store)
        to_disk(staged)
        _commit(store, work, name)


def check_name(store: Path, name: str) -> None:
    """Check that a table of ours may have a name in a store.

    Raises
    ------
    StoreError
        If the name is none that SpatialData allows, something that is not ours has it, or the store is of a format
        that is not written any more.
    """
    check_table_name(name, store)
    if not (store / _ROOT).is_file():
        raise StoreError("is no SpatialData store of Zarr 3", where=store, do="name a new store")
    _read_root(store)
    for kind in _KINDS:
        for there in (store / kind).iterdir() if (store / kind).is_dir() else ():
            same = there.name.casefold() == name.casefold()  # SpatialData tells no names apart by their case alone
            ours = kind == _TABLES and there.name == name and (there / "uns" / OURS).is_dir()
            if same and not ours:
                raise StoreError(
                    f"has an element {there.name!r} that is not ours", where=store, do="name the table otherwise"
                )


def check_table_name(name: str, store: Path) -> None:
    """Check that SpatialData allows the name of a table.

    Raises
    ------
    StoreError
        If it does not.
    """
    if not name or name.startswith((".", "__")) or not all(letter.isalnum() or letter in "_-." for letter in name):
        raise StoreError(
            f"a table cannot be named {name!r}", where=store, do="use letters, digits, underscores, dots and hyphens"
        )


def recover_store(store: Path) -> None:
    """Put right what an export that was killed left in a store; without one, look and do nothing.

    Where another process is at it, or the store cannot be written, it is left as it is: it can be read all the same.

    Warns
    -----
    HyperSTWarning
        If the store cannot be written, or is broken.
    """
    work = store / WORK
    if work.is_symlink() or not work.is_dir():
        return
    try:
        with _held(work):
            _settle(store, work)
            shutil.rmtree(work)
    except Timeout:
        return
    except (OSError, ValueError, TypeError, AttributeError, HyperSTError) as error:  # also what is broken there
        warnings.warn(
            f"{store}: an export into it was broken off, and it cannot be tidied up ({error}); its table may be "
            "missing until that can be done",
            HyperSTWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def working_folder(folder: Path, target: Path) -> Iterator[Path]:
    """Make a hidden folder to write in, and keep other processes out of it; afterwards it is gone.

    Parameters
    ----------
    folder
        The folder; what a killed process left of it may be there.
    target
        What is to be written, for errors.

    Raises
    ------
    StoreError
        If another process has it, or what is done meanwhile fails for reasons of the disk.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})", where=target, do="choose a folder that is there and may be written"
        ) from error
    try:
        with _held(folder):
            try:
                yield folder
            finally:
                if not (folder / _JOURNAL).exists():  # else the old table may still be here
                    shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise StoreError("is being written by another process", where=target, do="wait for it, or end it") from error
    except HyperSTError:
        raise
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where not even the lock could be written
        raise StoreError(
            f"could not be written ({error})", where=target, do="check disk space and rights, and try again"
        ) from error


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; it may be deleted meanwhile.

    Raises
    ------
    Timeout
        If another one has it.
    """
    lock = folder / _LOCK
    with FileLock(lock, timeout=0):
        if not lock.exists():  # deleted by the one that had it while this one waited for it
            raise Timeout(str(lock))
        yield
    if sys.platform == "win32":  # where what is open cannot be deleted, so that the lock is still there
        with contextlib.suppress(OSError):
            lock.unlink()
            folder.rmdir()


@contextlib.contextmanager
def _never_made_again(store: Path) -> Iterator[None]:
    """Where a store is deleted while it is written into, leave no folder that was made again by writing."""
    try:
        yield
    except StoreError:
        if not (store / _ROOT).exists():
            with contextlib.suppress(OSError):
                store.rmdir()
        raise


def _commit(store: Path, work: Path, name: str) -> None:
    """Move the staged table to its place, and have the store's metadata say so; whatever fails is undone."""
    target, new = store / _TABLES / name, work / _STAGED / _TABLES / name
    if not (store / _TABLES).exists():
        target, new = target.parent, new.parent
    replaces, exchanged = target.exists(), False
    write_whole(work / _JOURNAL, json.dumps({"table": name}))
    try:
        if not replaces:
            new.rename(target)
        elif exchange_at_once(new, target):
            exchanged = True
        else:
            _write_root(store, work, name, hidden=True)
            target.rename(work / _OLD)
            new.rename(target)
        _write_root(store, work, name)
    except BaseException:  # also when it is interrupted
        if exchanged:
            exchange_at_once(new, target)
        elif not new.exists() and target.exists():
            target.rename(new)
        _settle(store, work)
        raise
    with contextlib.suppress(OSError):  # it is done; whoever opens the store tidies up
        (work / _JOURNAL).unlink()


def _settle(store: Path, work: Path) -> None:
    """End what was begun: a table is in its place, the old one or the new, and the store's metadata tell of it."""
    journal = work / _JOURNAL
    if not journal.is_file():
        return
    try:
        name = json.loads(journal.read_text(encoding="utf-8"))["table"]
        check_table_name(name, store)
    except (ValueError, KeyError, TypeError, AttributeError, StoreError):  # it was not written by us
        journal.unlink()
        return
    target, old = store / _TABLES / name, work / _OLD
    if old.is_dir() and not target.exists():
        old.rename(target)
    _write_root(store, work, name)
    journal.unlink()


def _write_root(store: Path, work: Path, name: str, *, hidden: bool = False) -> None:
    """Have the consolidated metadata of the store tell of a table what is on the disk, or nothing.

    What they tell of other elements is left as it is, and where a store has none there is nothing to do.
    """
    root, told = store / _ROOT, _read_root(store)
    consolidated = told.get("consolidated_metadata")
    if not consolidated:
        return
    path = f"{_TABLES}/{name}"
    known = consolidated["metadata"]
    metadata = {key: value for key, value in known.items() if key != path and not key.startswith(f"{path}/")}
    metadata |= {} if hidden else _metadata_of(store, name)
    if metadata == known:
        return
    consolidated["metadata"] = dict(sorted(metadata.items(), key=_order))
    staged = work / _ROOT
    with staged.open("w", encoding="utf-8") as file:
        json.dump(told, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(root, staged)
    os.replace(staged, root)


def _read_root(store: Path) -> dict[str, Any]:
    """Read what the root of a store says.

    Raises
    ------
    StoreError
        If it is broken.
    """
    try:
        told = json.loads((store / _ROOT).read_text(encoding="utf-8"))
        consolidated = told.get("consolidated_metadata")
        if consolidated and not isinstance(consolidated["metadata"], dict):
            raise ValueError("its consolidated metadata are none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"its {_ROOT} is broken ({error})", where=store, do="write the store again") from error
    return dict(told)


def _metadata_of(store: Path, name: str) -> dict[str, Any]:
    """Return the metadata of a table and of all in it, by their paths in the store, as Zarr consolidates them."""
    found: dict[str, Any] = {}
    groups = [root.parent for root in sorted((store / _TABLES / name).rglob(_ROOT))]
    for folder in (store / _TABLES, *groups) if groups else ():
        document = json.loads((folder / _ROOT).read_text(encoding="utf-8"))
        if document.get("node_type") == "group":
            document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
        found[folder.relative_to(store).as_posix()] = document
    return found


def _order(item: tuple[str, Any]) -> tuple[int, str]:
    """Sort consolidated metadata as Zarr does."""
    return item[0].count("/"), unicodedata.normalize("NFKC", item[0]).casefold()


def _check_same(back: AnnData, written: AnnData, store: Path) -> None:
    """Check that a table reads back as it was written.

    Raises
    ------
    StoreError
        If it does not.
    """
    pairs: list[tuple[Any, Any]] = [(back.X, written.X)]
    for ours, theirs in ((back.layers, written.layers), (back.obsm, written.obsm)):
        read = dict(ours.items())
        pairs += [(read.get(key), value) for key, value in theirs.items()]
    same = all(one is not None and np.array_equal(_dense(one), _dense(other), equal_nan=True) for one, other in pairs)
    frames: list[tuple[Any, Any]] = [(back.obs, written.obs), (back.var, written.var)]
    if not same or not all(_alike(*both) for both in frames) or _as_json(back.uns) != _as_json(written.uns):
        raise StoreError("did not read back as written", where=store.name, do="check the disk, and try again")


def _alike(frame: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Tell whether two frames hold the same; strings and categories may be stored otherwise."""
    try:
        pd.testing.assert_frame_equal(
            frame,
            other,
            check_exact=True,
            check_dtype=False,
            check_categorical=False,
            check_index_type=False,
            check_column_type=False,
        )
    except AssertionError:
        return False
    return True


def _dense(matrix: Any) -> NDArray[Any]:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)


def _as_json(told: Any) -> str:
    return json.dumps(dict(told), default=lambda value: np.asarray(value).tolist(), sort_keys=True)
