"""Files of encoder states: found again by key, checked, never seen half-written, and within a bound all together.

A file is an array in NumPy's format, memory-mapped for reading, with a checksum for each of its rows after it. It is
written under a temporary name and renamed when it is whole. Who reads or writes a file holds a lock on it, which ends
with the process: so the files that may go are told from those in use, and what a dead writer left from what a living
one is about to finish. Which file was used last is kept as its time of modification.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import ConfigError
from napari_hyperst.slides.decoded import CACHE_VARIABLE

_WHOLE, _PART, _LOCK = ".npy", ".part", ".lock"
_TYPE, _CHECK = np.dtype("<f2"), np.dtype("<u4")
#: Where a file system knows no locks, what nobody wrote to for this long has no living writer.
_DEAD_SECONDS = 3600.0


def file_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of the file of an array of half-precision numbers."""
    return len(_header(shape)) + _TYPE.itemsize * math.prod(shape) + _CHECK.itemsize * shape[0]


@dataclass(frozen=True)
class StateFolder:
    """A folder of files of states, shared by all runs.

    Attributes
    ----------
    path
        The folder; it is there.
    limit_gib
        The most that all files may take together, in GiB.
    """

    path: Path
    limit_gib: float

    def find(self, key: str, shape: tuple[int, ...]) -> NDArray[np.float16] | None:
        """Map a file into memory, for reading; it stays in use for as long as the array lives.

        Parameters
        ----------
        key
            Of its content.
        shape
            Of the array.

        Returns
        -------
        NDArray or None
            None where there is no such file, or it is not whole.
        """
        try:
            with self._file(key).open("rb") as file:
                _lock(file, exclusive=False)
                if os.fstat(file.fileno()).st_size != file_bytes(shape):
                    return None
                header = _header(shape)
                if file.read(len(header)) != header:
                    return None
                states = np.memmap(file, _TYPE, "r", len(header), shape)
                file.seek(-_CHECK.itemsize * shape[0], os.SEEK_END)
                checks = np.frombuffer(file.read(), _CHECK)
        except OSError:  # none, or one that is not for us to read
            return None
        if any(zlib.crc32(row) != check for row, check in zip(states, checks, strict=True)):
            return None
        with contextlib.suppress(OSError):
            os.utime(self._file(key))
        return states

    def reserve(
        self, wanted: Mapping[str, tuple[int, ...]], missing: Collection[str], keys: Sequence[str]
    ) -> list[StateWriter]:
        """Make room for a run's files, at the cost of those that other runs have not used for longest, and begin some.

        Parameters
        ----------
        wanted
            Key and shape of all of the run's files, whether they are there or not.
        missing
            Those that this process is to write, sooner or later.
        keys
            Those of them to begin.

        Raises
        ------
        ConfigError
            If they do not fit beside the files in use, or on the disk; or if the folder cannot be written.
        """
        with self._explained(), self._alone():
            self._sweep()
            sizes = {key: file_bytes(shape) for key, shape in wanted.items()}
            self._make_room(sizes)
            self._check_disk(sum(sizes[key] for key in missing))
            begun: list[StateWriter] = []
            try:
                for key in keys:
                    begun.append(StateWriter(self, key, wanted[key]))
            except OSError:
                for writer in begun:
                    writer.close()
                raise
            return begun

    def _file(self, key: str) -> Path:
        return self.path / f"{key}{_WHOLE}"

    def _make_room(self, wanted: Mapping[str, int]) -> None:
        present = {key: size for key, size in self._sizes().items() if key not in wanted}
        over = sum(wanted.values()) + sum(present.values()) - self.limit_gib * 2**30
        for key in self._longest_unused(present):
            if over <= 0:
                break
            if _remove_unused(self._file(key)):
                over -= present.pop(key)
        if over > 0:
            raise ConfigError(
                f"the encoder states take {sum(wanted.values()) / 2**30:.3g} GiB, and others in use "
                f"{sum(present.values()) / 2**30:.3g}, over the {self.limit_gib:g} of cache_gib",
                where=self.path,
                do="wait for the other run, or set fewer symmetries, a larger cache_gib, or cache=off",
            )

    def _check_disk(self, size: int) -> None:
        if size > shutil.disk_usage(self.path).free:
            raise ConfigError(
                f"{size / 2**30:.3g} GiB of encoder states do not fit on the disk",
                where=self.path,
                do=f"free some space, name another folder in {CACHE_VARIABLE}, or set fewer symmetries or cache=off",
            )

    def _sizes(self) -> dict[str, int]:
        """Return the bytes by key, of whole files and of those being written."""
        sizes = {}
        for file in self.path.iterdir():
            if file.suffix in (_WHOLE, _PART):
                with contextlib.suppress(FileNotFoundError):
                    sizes[file.name.strip(".").partition(".")[0]] = file.stat().st_size
        return sizes

    def _longest_unused(self, keys: Mapping[str, int]) -> list[str]:
        used = {}
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                used[key] = self._file(key).stat().st_mtime_ns
        return sorted(used, key=used.__getitem__)

    def _sweep(self) -> None:
        """Remove what dead writers left."""
        for file in self.path.glob(f".*{_PART}"):
            _remove_unused(file, unless_younger=_DEAD_SECONDS)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.path / _LOCK).open("wb") as file:
            _lock(file, exclusive=True)
            yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"encoder states cannot be written ({error.strerror})",
                where=self.path,
                do=f"free some space, name another folder in {CACHE_VARIABLE}, or set cache=memory or cache=off",
            ) from error


class StateWriter:
    """A file of states that is being written. Made by ``StateFolder.reserve``.

    Parameters
    ----------
    folder
        Where to.
    key
        Of the content.
    shape
        Of the array: (n, ...) rows.
    """

    def __init__(self, folder: StateFolder, key: str, shape: tuple[int, ...]) -> None:
        self._folder, self._key, self._shape = folder, key, shape
        handle, name = tempfile.mkstemp(prefix=f".{key}.", suffix=_PART, dir=folder.path)
        self._part, self._file = Path(name), os.fdopen(handle, "r+b")
        try:
            _lock(self._file, exclusive=True)
            header = _header(shape)
            self._file.write(header)
            self._file.truncate(file_bytes(shape))  # so that others see how much it will take
            self._start, self._row_bytes = len(header), _TYPE.itemsize * math.prod(shape[1:])
            self._checks = np.zeros(shape[0], _CHECK)
        except OSError:
            self.close()
            raise

    def write(self, rows: NDArray[np.intp], states: NDArray[np.float16]) -> None:
        """Write some rows of the array.

        Raises
        ------
        ConfigError
            If the disk is full.
        """
        with self._folder._explained():
            for row, values in zip(rows.tolist(), np.ascontiguousarray(states, _TYPE), strict=True):
                self._file.seek(self._start + row * self._row_bytes)
                self._file.write(values)
                self._checks[row] = zlib.crc32(values)

    def finish(self) -> NDArray[np.float16]:
        """Give the file its name, in the place of one that was not whole, and map it into memory.

        Raises
        ------
        ConfigError
            If the disk is full, or does not give back what was written.
        """
        with self._folder._explained():
            self._file.seek(-self._checks.nbytes, os.SEEK_END)
            self._file.write(self._checks.tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())
            with self._folder._alone():  # for a moment nothing is locked, and nobody may take it for unused
                self._file.close()
                os.chmod(self._part, 0o644)  # as other files; a temporary one is its owner's alone
                with contextlib.suppress(PermissionError):  # Windows, where another process reads the same
                    self._part.replace(self._folder._file(self._key))
                states = self._folder.find(self._key, self._shape)
        if states is None:
            raise ConfigError(
                "encoder states were not read back as they were written",
                where=self._folder.path,
                do=f"check the disk, or name a folder on another one in {CACHE_VARIABLE}",
            )
        return states

    def close(self) -> None:
        """Remove what was not finished."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


def _header(shape: tuple[int, ...]) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"descr": _TYPE.str, "fortran_order": False, "shape": shape})
    return written.getvalue()


def _remove_unused(file: Path, unless_younger: float = 0.0) -> bool:
    """Remove a file that nobody has a lock on; tell whether it is gone."""
    try:
        with file.open("rb") as opened:
            free = _lock(opened, exclusive=True, wait=False)
            if free is None:
                free = time.time() - os.fstat(opened.fileno()).st_mtime >= unless_younger
            if free and sys.platform != "win32":
                file.unlink()
        if free and sys.platform == "win32":
            file.unlink()  # fails where another process has it open, which stands for a lock there
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return free


if sys.platform == "win32":

    def _lock(file: IO[bytes], *, exclusive: bool, wait: bool = True) -> bool | None:
        return True

else:
    import fcntl

    def _lock(file: IO[bytes], *, exclusive: bool, wait: bool = True) -> bool | None:
        """Lock an open file for as long as it, or a mapping of it, lives; None where the file system has no locks."""
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True
