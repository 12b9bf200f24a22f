"""A process of its own for a job that outlives the window it was started from."""

from __future__ import annotations

import subprocess
import sys

from napari_hyperst.jobs.job import LOG, Job

#: Windows' CREATE_NEW_PROCESS_GROUP and DETACHED_PROCESS.
_DETACHED = 0x200 | 0x8


def start_detached(job: Job) -> subprocess.Popen[bytes]:
    """Start a job in a process session of its own, with its output in the job's ``log``.

    Returns
    -------
    subprocess.Popen
        The process. It needs no parent: closing napari, or the terminal, leaves it at work.
    """
    job.take_back()
    windows = sys.platform == "win32"
    with (job.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "napari_hyperst.jobs", str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=not windows,
            creationflags=_DETACHED if windows else 0,
        )
