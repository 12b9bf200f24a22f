"""A process that is killed at the n-th change of the file system, as tests of what must survive that need it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import dask

from napari_hyperst import files

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
_KILLED, _FAILED = 9, 1


def killed_at(change: int, work: Callable[[], object], *, torn: bool = False) -> bool:
    """Do some work in a child that ends, without a word, before its n-th change of the file system.

    Parameters
    ----------
    change
        Which, from 0.
    work
        What to do.
    torn
        Whether a file that would be opened to write then is left behind empty.

    Returns
    -------
    bool
        Whether it was killed; else it came to its end.
    """
    child = os.fork()
    if child == 0:
        status = _FAILED
        try:
            dask.config.set(scheduler="synchronous")  # its threads have stayed with the parent
            _arm(change, torn)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _KILLED), "the work failed before it was killed"
    return status == _KILLED


def _arm(change: int, torn: bool) -> None:
    done, over = 0, False

    def before(event: str, told: tuple[object, ...]) -> None:
        nonlocal done, over
        writes = event == "open" and isinstance(told[2], int) and bool(told[2] & _WRITES)
        if over or not (writes or event in _CHANGES):
            return
        if done == change:
            over = True
            if torn and writes and isinstance(told[0], str | bytes | Path):
                os.close(os.open(told[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            os._exit(_KILLED)
        done += 1

    exchange = files.exchange_at_once

    def told(new: Path, old: Path) -> bool:
        sys.audit("hyperst.exchange")
        return exchange(new, old)

    from napari_hyperst.slides import commit

    if commit.exchange_at_once is exchange:  # else a test has taken it away
        commit.exchange_at_once = told
    sys.addaudithook(before)
