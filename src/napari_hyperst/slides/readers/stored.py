"""What a Zarr store may hold that somebody else made: plain arrays, of its own folder, of sizes that can be opened.

Neither zarr nor spatialdata asks: a store may name a codec that runs code, refer out of its folder, or claim more than
any machine can hold, all in a few lines of JSON. Those lines are read here before any library does.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_hyperst.received import parse_json, read_received
from napari_hyperst.slides.readers.h5_file import BELIEVED_BYTES, check_claim

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_MOST_JSON, _MOST_ENTRIES, _MOST_CHUNKS, _DEEPEST = 64 * 2**20, 5_000_000, 10_000_000, 64
#: Images and labels are read by the chunk, the rest as a whole.
_BY_CHUNK = ("images", "labels")
#: Codecs of data, none of which can run code; ``pickle`` is the one that can.
_CODECS = (
    "adler32", "astype", "bitround", "blosc", "bytes", "bz2", "cast_value", "crc32", "crc32c", "delta", "endian",
    "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "pcodec", "quantize",
    "scale_offset", "sharding_indexed", "shuffle", "transpose", "vlen-array", "vlen-bytes", "vlen-utf8", "zfpy",
    "zlib", "zstd",
)  # fmt: skip
#: Bytes of a number by its type's name in Zarr 3; what is not here has as many as it says, or those of text.
_WIDTHS = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
_TEXT_WIDTH = 64
_V2_TYPE = re.compile(r"[<>|=]?([a-zA-Z])(\d*)(?:\[.*\])?")


def check_store(path: Path) -> None:
    """Refuse a store that reaches out of its folder, could run code, or cannot be opened in bounded memory.

    Parameters
    ----------
    path
        The folder of the store.

    Raises
    ------
    ValueError
        If there is a link out of the store, a pipe or a device in it; metadata that are no JSON or too large; a name or
        path that leads out of it; a codec that is not known; or sizes far beyond what is stored.
    OSError
        If it cannot be read.
    """
    # Of each element that is read as a whole: what it claims, by what is believed to say so, and what is stored.
    claimed: dict[tuple[str, ...], int] = {}
    stored: dict[tuple[str, ...], int] = {}
    for folder, metadata, size in _folders(path):
        inside = folder.relative_to(path).parts
        stored[inside[:2]] = stored.get(inside[:2], 0) + size
        for name in metadata:
            said = parse_json(read_received(folder / name, _MOST_JSON, path))
            for where, node in _nodes(name, said, inside):
                try:
                    size = _check_node(node, lazily=bool(where) and where[0] in _BY_CHUNK)
                except (TypeError, KeyError, AttributeError, IndexError) as error:
                    raise ValueError(f"{'/'.join(where) or name} has metadata that are none of Zarr's") from error
                except ValueError as error:
                    raise ValueError(f"{'/'.join(where) or name} {error}") from error
                source = "" if where == inside else "/".join((*inside, name))  # consolidated metadata are a second say
                claimed[*where[:2], source] = claimed.get((*where[:2], source), 0) + size
    for (*element, _), size in claimed.items():
        try:
            check_claim(size, stored.get(tuple(element), 0))
        except ValueError as error:
            raise ValueError(f"of {'/'.join(element)}, {error}") from error


def read_multiscale(image: Path) -> tuple[str, list[tuple[Path, list[int]]]]:
    """Read what a store says of an image, of which nothing else is read.

    Parameters
    ----------
    image
        The folder of the image.

    Returns
    -------
    tuple
        Names of the axes in one word, and the folder and the shape of each level, the finest first.

    Raises
    ------
    ValueError, LookupError, TypeError
        If there is no image, or a level lies outside its folder.
    OSError
        If it cannot be read.
    """
    attributes = _read_node(image, "zarr.json", ".zattrs")
    attributes = attributes.get("attributes", attributes)
    scales = attributes.get("ome", attributes)["multiscales"][0]
    levels = []
    for dataset in scales["datasets"]:
        _check_path(dataset["path"])
        folder = image / dataset["path"]
        if not folder.resolve().is_relative_to(image.resolve()):
            raise ValueError(f"{dataset['path']} is a link out of the image")
        levels.append((folder, _sizes(_read_node(folder, "zarr.json", ".zarray")["shape"])))
    return "".join(axis["name"] for axis in scales["axes"]), levels


def _read_node(folder: Path, *names: str) -> dict[str, Any]:
    """Read the first of some files of metadata that a folder has."""
    name = next((name for name in names if (folder / name).is_file()), names[0])
    return parse_json(read_received(folder / name, _MOST_JSON, folder))


def _folders(store: Path) -> Iterator[tuple[Path, list[str], int]]:
    """Walk a store; of each folder, the files of metadata in it and the bytes of its other files."""
    root, entries = os.path.realpath(store), 0
    waiting = [(store, 0)]
    while waiting:
        folder, depth = waiting.pop()
        metadata, size = [], 0
        with os.scandir(folder) as found:
            for entry in found:
                entries += 1
                if entries > _MOST_ENTRIES or depth > _DEEPEST:
                    raise ValueError(f"has over {_MOST_ENTRIES:,} files, or folders {_DEEPEST} deep")
                inside = Path(entry.path).relative_to(store)
                if entry.is_symlink():
                    if not Path(os.path.realpath(entry.path)).is_relative_to(root):
                        raise ValueError(f"{inside} is a link out of the store")
                    if entry.is_dir():
                        raise ValueError(f"{inside} is a link to a folder")
                if entry.is_dir():
                    waiting.append((Path(entry.path), depth + 1))
                elif entry.is_file():
                    if entry.name in _METADATA:
                        metadata.append(entry.name)
                    elif inside.parts[0] not in _BY_CHUNK:  # whose chunks are many, and read one at a time
                        size += entry.stat().st_size
                elif entry.is_symlink() or not stat.S_ISREG(entry.stat().st_mode):
                    raise ValueError(f"{inside} is neither a file nor a folder")
        yield folder, metadata, size


def _nodes(name: str, said: Any, inside: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what a file of metadata says of its own node and, where it is consolidated, of those within."""
    if not isinstance(said, dict):
        raise ValueError(f"{'/'.join((*inside, name))} is no JSON object")
    if name != ".zmetadata":
        yield inside, said if name != ".zattrs" else {"attributes": said}
    within = said if name == ".zmetadata" else said.get("consolidated_metadata") or {}
    metadata = within.get("metadata", {}) if isinstance(within, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError(f"{'/'.join((*inside, name))} has consolidated metadata that are none")
    for key, node in metadata.items():
        _check_path(key)
        parts = key.split("/")
        if name == ".zmetadata":
            node = {"attributes": node} if parts[-1] == ".zattrs" else node
            parts = parts[:-1]
        yield (*inside, *parts), node


def _check_node(node: dict[str, Any], lazily: bool) -> int:
    """Check a group or an array; return the bytes that reading it takes, of one that is read as a whole."""
    _check_attributes(node.get("attributes") or {})
    if "shape" not in node:
        return 0
    shape = _sizes(node["shape"], least=0)
    if "chunk_grid" in node:
        grid = node["chunk_grid"]
        if grid["name"] != "regular":
            raise ValueError(f"has chunks of the kind {str(grid['name'])[:50]!r}")
        chunks, width = _sizes(grid["configuration"]["chunk_shape"]), _width(node["data_type"])
        _check_codecs(node.get("codecs") or [])
    else:
        chunks, width = _sizes(node["chunks"]), _width(node["dtype"])
        _check_codecs([*(node.get("filters") or []), *([node["compressor"]] if node.get("compressor") else [])])
    if len(chunks) != len(shape):
        raise ValueError("has chunks of another number of dimensions")
    if math.prod(-(-side // chunk) for side, chunk in zip(shape, chunks, strict=True)) > _MOST_CHUNKS:
        raise ValueError(f"claims a shape of over {_MOST_CHUNKS:,} chunks: {str(shape)[:100]}")
    if math.prod(chunks) * width > BELIEVED_BYTES:
        raise ValueError(f"claims chunks of {math.prod(chunks) * width / 2**30:,.4g} GiB: {str(chunks)[:100]}")
    return 0 if lazily else math.prod(shape) * width


def _sizes(values: Any, least: int = 1) -> list[int]:
    if not isinstance(values, list) or any(type(value) is not int or value < least for value in values):
        raise ValueError(f"has no shape: {str(values)[:100]}")
    return values


def _width(dtype: Any) -> int:
    """Return the bytes of one value."""
    if isinstance(dtype, dict):
        said = dtype.get("configuration") or {}
        width = said.get("length_bytes", said.get("length_bits", _TEXT_WIDTH))
    elif isinstance(dtype, list):  # fields of a record
        return sum(_width(field[1]) * math.prod(field[2] if len(field) > 2 else ()) for field in dtype)
    else:
        found = _V2_TYPE.fullmatch(dtype)
        known = found is not None and found[2] and dtype not in _WIDTHS
        width = (
            int(found[2]) * (4 if found[1] == "U" else 1)
            if found is not None and known
            else _WIDTHS.get(dtype, _TEXT_WIDTH)
        )
    if type(width) is not int or width < 0:
        raise ValueError(f"has no type: {str(dtype)[:100]}")
    return width


def _check_codecs(codecs: list[Any]) -> None:
    for codec in codecs:
        name = codec if isinstance(codec, str) else codec.get("name", codec.get("id"))
        if not isinstance(name, str) or name.removeprefix("numcodecs.") not in _CODECS:
            raise ValueError(f"is packed with {str(name)[:50]!r}, which is no known codec and could run code")
        inner = codec.get("configuration") if isinstance(codec, dict) else None
        for key in ("codecs", "index_codecs"):
            _check_codecs((inner or {}).get(key) or [])


def _check_attributes(attributes: dict[str, Any]) -> None:
    """Refuse levels of an image that are somewhere else; spatialdata opens what is named there."""
    said = [attributes, attributes.get("ome") or {}]
    for one in said:
        for scales in one.get("multiscales") or ():
            for dataset in scales.get("datasets") or ():
                _check_path(dataset["path"])
        for label in one.get("labels") or ():
            _check_path(label)


def _check_path(path: Any) -> None:
    if not isinstance(path, str) or ".." in path.split("/") or path.startswith("/") or re.search(r"[\\:\0]", path):
        raise ValueError(f"names what lies outside the store: {str(path)[:100]!r}")
