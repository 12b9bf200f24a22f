"""Reading of safetensors files that somebody else may have made: nothing is allocated before all of it is checked."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from napari_hyperst.errors import CheckpointError
from napari_hyperst.received import open_received, parse_json

_METADATA, _LENGTH_BYTES = "__metadata__", 8
#: The header of a thousand tensors takes some 120 KiB.
_MOST_HEADER = 2**20
_MOST_DIMENSIONS = 8
#: Bytes of a number, by the format's name of its type, of the types that a model can have.
_TYPES = {"F32": (torch.float32, 4), "F16": (torch.float16, 2), "BF16": (torch.bfloat16, 2), "I64": (torch.int64, 8)}


@dataclass(frozen=True)
class TensorEntry:
    """What a file's header says of one tensor.

    Attributes
    ----------
    dtype
        Its type.
    shape
        Its shape.
    begin, end
        Where its bytes are, counted from the end of the header.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: Path, wanted: Mapping[str, Tensor], within: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file that must hold these tensors and no others.

    The header is compared with what is wanted, and with the size of the file, before a tensor is made; the file is
    opened once.

    Parameters
    ----------
    path
        The file.
    wanted
        Tensors of the shapes and types that it must hold, by name; may be on the meta device.
    within
        The folder that must hold the file, where it is a link; its own if not told.

    Returns
    -------
    tuple
        The tensors, all finite, and the sha256 of the file.

    Raises
    ------
    CheckpointError
        If the file is broken, or holds anything else.
    """
    try:
        with open_received(path, within) as file:
            _compare(read_header(file), wanted, path)
            file.seek(0)
            content = file.read()
        tensors = load(content)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"is no whole safetensors file ({error})", where=path, do="copy it again") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError("holds weights that are no finite numbers", where=path, do="train it again")
    return tensors, hashlib.sha256(content).hexdigest()


def read_header(file: IO[bytes]) -> dict[str, TensorEntry]:
    """Read and check the header of an open safetensors file.

    Raises
    ------
    ValueError
        If it is longer than it may be, no JSON, or not of this file: tensors must fill it, without a gap or overlap.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MOST_HEADER):
        raise ValueError(f"its header claims {length:,} bytes")
    said = parse_json(file.read(length))
    if not isinstance(said, dict):
        raise ValueError("its header is no object")
    said.pop(_METADATA, None)
    entries = {name: _entry(name, one) for name, one in said.items()}
    ordered = sorted(entries.values(), key=lambda entry: (entry.begin, entry.end))
    edges = [0, *(edge for entry in ordered for edge in (entry.begin, entry.end)), size - _LENGTH_BYTES - length]
    if any(end != begin for end, begin in list(pairwise(edges))[::2]):
        raise ValueError("its tensors overlap, leave gaps or lie outside the file")
    return entries


def _entry(name: str, said: Any) -> TensorEntry:
    what = f"of {name[:100]!r} it says"
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} not type, shape and place alone")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(f"{what} the type {str(dtype)[:20]!r}, and there are {', '.join(_TYPES)}")
    if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{what} no shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{what} no place")
    kind, itemsize = _TYPES[dtype]
    if offsets[1] - offsets[0] != math.prod(shape) * itemsize:
        raise ValueError(f"{what} a shape that does not fill its place")
    return TensorEntry(kind, tuple(shape), *offsets)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _compare(found: Mapping[str, TensorEntry], wanted: Mapping[str, Tensor], path: Path) -> None:
    wrong = sorted(wanted.keys() ^ found.keys()) or sorted(
        name for name, tensor in wanted.items() if found[name].shape != tuple(tensor.shape)
    )
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors are missing, unknown or of another shape, {wrong[0][:100]} for one",
            where=path,
            do="keep card, genes and weights of one training run together",
        )
    for name, tensor in wanted.items():
        if found[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{name} is of the type {found[name].dtype}, not {tensor.dtype}".replace("torch.", ""),
                where=path,
                do="save it as napari-hyperst does",
            )
