"""What an HDF5 file may hold that somebody else made: its own data, and no more than a machine can take."""

from __future__ import annotations

from pathlib import Path

import h5py

from napari_hyperst.received import open_received

#: Claims up to here are believed; beyond, up to so many times what is stored, which counts never reach.
BELIEVED_BYTES, MOST_PACKED = 4 * 2**30, 100
_MOST_OBJECTS = 100_000


def check_h5(path: Path) -> None:
    """Refuse an HDF5 file that refers to others, or whose data would fill the memory.

    Only links and headers are read.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If it has links or data outside itself, an object under two names, more objects than any slide, or claims far
        more data than it stores.
    OSError
        If it is no HDF5 file, or cannot be read.
    """
    open_received(path, path.resolve().parent).close()
    seen: set[int] = set()
    claimed = stored = 0
    with h5py.File(path, "r") as file:
        groups: list[h5py.Group] = [file]
        while groups:
            group = groups.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{where[:200]} is a link")
                one = group[name]
                address = h5py.h5o.get_info(one.id).addr
                if address in seen:
                    raise ValueError(f"{where[:200]} is another name of what is there already")
                seen.add(address)
                if len(seen) > _MOST_OBJECTS:
                    raise ValueError(f"it holds more than {_MOST_OBJECTS:,} objects")
                if isinstance(one, h5py.Group):
                    groups.append(one)
                elif isinstance(one, h5py.Dataset):
                    if one.external or one.is_virtual:
                        raise ValueError(f"{where[:200]} has its data in other files")
                    claimed += 0 if one.shape is None else one.size * one.dtype.itemsize
                    stored += one.id.get_storage_size()
    check_claim(claimed, stored)


def check_claim(claimed: int, stored: int) -> None:
    """Refuse data that claim to be far more than what is stored of them.

    Raises
    ------
    ValueError
        If reading them would fill the memory.
    """
    if claimed > max(BELIEVED_BYTES, MOST_PACKED * stored):
        raise ValueError(f"it claims {claimed / 2**30:,.4g} GiB of data, and {stored / 2**30:,.2g} are stored")
