"""Files and folders that are replaced whole, so that a crash leaves the old one or the new, never a mix."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from napari_hyperst.errors import StoreError

#: What is held of a folder.
LOCK = ".lock"
_LINUX_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_MACOS_SWAP = 2  # RENAME_SWAP of renamex_np(2)
_AT_FDCWD = -100


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that nobody reads half of it."""
    staged = path.with_name(f".{path.name}-{os.getpid()}")
    staged.write_text(text, encoding="utf-8")
    os.replace(staged, path)


def check_place(
    path: Path,
    may_replace: Callable[[Path], bool] = lambda path: False,
    taken: str = "is there already",
    do: str = "name a new one",
) -> None:
    """Check that a file or folder may be written, before the work that makes it.

    Parameters
    ----------
    path
        What is to be written.
    may_replace
        Tells whether what is there may be replaced, or added to; nothing may unless told.
    taken, do
        What to say, and to do, where something is there that may not.

    Raises
    ------
    StoreError
        If there is, or the folder that it is to be in is none or may not be written.
    """
    folder = path.absolute().parent
    try:
        free = not (path.exists() or path.is_symlink()) or may_replace(path)
        there, writable = folder.is_dir(), os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=path, do="choose another place") from error
    if not free:
        raise StoreError(taken, where=path, do=do)
    if not there:
        raise StoreError("there is no such folder", where=folder, do="make it first")
    if not writable:
        raise StoreError("may not be written", where=folder, do="choose another folder")


def hold_folder(path: Path) -> BaseFileLock:
    """Keep a folder for this thread, which may hold it more than once, until the lock is released or the process ends.

    Raises
    ------
    StoreError
        If another process, or thread, holds it.
    OSError
        If it cannot be written.
    """
    lock = FileLock(path / LOCK, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError("is at work in another process", where=path, do="wait for it, or ask it to stop") from error
    return lock


def replace_folder(staged: Path, target: Path) -> None:
    """Put a folder in the place of another, which is deleted, or of none.

    Parameters
    ----------
    staged
        The new folder, beside the old one; gone afterwards.
    target
        The old folder.

    Raises
    ------
    OSError
        If it cannot be put there; the old one is still whole.
    """
    to_disk(staged)
    recover(target)
    if target.exists():
        exchange(staged, target)
        shutil.rmtree(staged, ignore_errors=True)
    else:
        staged.rename(target)


def to_disk(folder: Path) -> None:
    """Have all of a folder on the disk before anything refers to it, so that a power cut cannot leave it empty.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    for path in (*folder.rglob("*"), folder):
        if path.is_dir() and sys.platform == "win32":
            continue  # which opens no folders
        descriptor = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def exchange(new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``old``, and ``old`` in the place of ``new``.

    In one system call on Linux and macOS. Elsewhere, and on file systems without it, in two renames between
    which ``old`` bears the name that ``backup_of`` gives; ``recover`` brings it back after a crash in between.

    Raises
    ------
    OSError
        If the folders cannot be renamed.
    """
    if exchange_at_once(new, old):
        return
    backup = backup_of(old)
    old.rename(backup)
    try:
        new.rename(old)
    except OSError:
        backup.rename(old)
        raise
    backup.rename(new)


def backup_of(path: Path) -> Path:
    """Name that a folder bears between the two renames."""
    return path.with_name(f".{path.name}.hyperst-backup")


def recover(path: Path) -> None:
    """Bring a folder back that a crash between two renames left under its backup's name."""
    if not path.exists() and backup_of(path).exists():
        backup_of(path).rename(path)


def exchange_at_once(new: Path, old: Path) -> bool:
    """Put two folders in each other's place by one system call.

    Returns
    -------
    bool
        False where the platform or the file system has no such call; nothing is changed then.

    Raises
    ------
    OSError
        If the folders cannot be renamed.
    """
    if sys.platform not in ("linux", "darwin"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _LINUX_EXCHANGE)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(os.fsencode(new), os.fsencode(old), _MACOS_SWAP)
    else:
        return False
    if failed:
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            return False
        raise OSError(code, os.strerror(code), str(old))
    return True
