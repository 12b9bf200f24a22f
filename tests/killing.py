"""A process that is killed, or that the file system fails, at the n-th change of the latter."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import dask

from napari_hyperst import files
from napari_hyperst.errors import HyperSTError
from napari_hyperst.slides import commit

#: What Python tells before it changes the file system, but for opening files to write.
_CHANGES = {
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "hyperst.exchange",
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_KILLED, _TOLD, _FAILED = 9, 8, 1


def killed_at(change: int, work: Callable[[], object]) -> bool:
    """Do some work in a child that ends, without a word, at its n-th change of the file system.

    Parameters
    ----------
    change
        Which, from 0: it is not made, but that a file that would be written then is there and empty.
    work
        What to do.

    Returns
    -------
    bool
        Whether it was killed; else it came to its end.
    """
    status = _in_child(work, _killer(change))
    assert status in (0, _KILLED), "the work failed before it was killed"
    return status == _KILLED


def refused(change: int, work: Callable[[], object], number: int) -> bool:
    """Do some work in a child whom the file system refuses from its n-th new file or folder on.

    Parameters
    ----------
    change
        Which, from 0.
    work
        What to do.
    number
        The number of the error.

    Returns
    -------
    bool
        Whether that was told as a ``HyperSTError``; else it came to its end.
    """
    done = 0

    def refuse(event: str, told: tuple[object, ...]) -> None:
        nonlocal done
        if event in ("open", "os.mkdir"):
            done += 1
            if done > change:
                raise OSError(number, os.strerror(number))

    status = _in_child(work, refuse)
    assert status in (0, _TOLD), "it was not told as it should be"
    return status == _TOLD


def _in_child(work: Callable[[], object], before: Callable[[str, tuple[object, ...]], None]) -> int:
    """Do some work in a child, with a function that is called before each change; return how it ended."""
    child = os.fork()
    if child == 0:
        status = _FAILED
        try:
            dask.config.set(scheduler="synchronous")  # its threads have stayed with the parent
            arm(before)
            work()
            status = 0
        except HyperSTError:
            status = _TOLD
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _killer(change: int) -> Callable[[str, tuple[object, ...]], None]:
    done = 0

    def kill(event: str, told: tuple[object, ...]) -> None:
        nonlocal done
        done += 1
        if done != change + 1:
            return
        if event == "open" and isinstance(told[0], str | bytes | Path):
            os.close(os.open(told[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        os._exit(_KILLED)

    return kill


def arm(before: Callable[[str, tuple[object, ...]], None]) -> None:
    """Have a function called before each change of the file system from now on; there is no way back."""

    def hear(event: str, told: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(told[2], int) and bool(told[2] & _WRITES)
        if writes or event in _CHANGES:
            before(event, told)

    exchange = files.exchange_at_once

    def told(new: Path, old: Path) -> bool:
        sys.audit("hyperst.exchange")
        return exchange(new, old)

    if commit.exchange_at_once is exchange:  # else a test has taken it away
        commit.exchange_at_once = told
    sys.addaudithook(hear)
