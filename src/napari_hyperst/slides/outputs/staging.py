"""Files and folders that take their name when they are whole, so that nobody ever sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_hyperst.errors import HyperSTError, StoreError
from napari_hyperst.files import replace_folder


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give a path in a folder of its own beside ``path``; the file written there takes the name when all went well.

    Whatever goes wrong, nothing of it is left, and what was at ``path`` is as it was.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    with _staging(path) as staged:
        yield staged
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(staged, path)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Do for a folder what ``staged_file`` does for a file.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    with _staging(path) as staged:
        yield staged
        replace_folder(staged, path)


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})", where=path, do="choose a folder that is there and may be written"
        ) from error
    try:
        yield folder / path.name
    except HyperSTError:
        raise
    except OSError as error:
        raise StoreError(
            f"could not be written ({error.strerror or error})", where=path, do="check disk space and rights"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
