"""Ways to break a slide: each is made of a name within the slide's folder, and called with the folder."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import small_slides
import tifffile
from anndata import AnnData
from PIL import Image

Damage = Callable[[Path], object]


def several(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def write(name: str, said: bytes | str) -> Damage:
    return lambda folder: (folder / name).write_bytes(said.encode() if isinstance(said, str) else said)


def garbage(name: str) -> Damage:
    return write(name, np.random.default_rng(0).bytes(5000))


def cut(name: str, share: float = 0.5) -> Damage:
    def damage(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * share)])

    return damage


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def rename(name: str, other: str) -> Damage:
    return lambda folder: (folder / name).rename(folder / other)


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Put something that is no file where a file was."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def a_folder(name: str) -> Damage:
    return instead(name, Path.mkdir)


def a_loop(name: str) -> Damage:
    return instead(name, lambda path: path.symlink_to(path))


def a_pipe(name: str) -> Damage:
    return instead(name, lambda path: os.mkfifo(path))


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        zipped = path.suffix == ".gz"
        text = gzip.decompress(path.read_bytes()).decode() if zipped else path.read_text()
        changed = ("\n".join(change(text.splitlines())) + "\n").encode()
        path.write_bytes(gzip.compress(changed) if zipped else changed)

    return damage


def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    """Change a table of text or a parquet file."""
    separator = "\t" if ".tsv" in name else ","

    def damage(folder: Path) -> None:
        if name.endswith(".parquet"):
            change(pd.read_parquet(folder / name)).to_parquet(folder / name)
        else:
            change(pd.read_csv(folder / name, sep=separator)).to_csv(folder / name, sep=separator, index=False)

    return damage


def column(name: str, key: str, change: Callable[[pd.Series], Any]) -> Damage:
    return table(name, lambda t: t.assign(**{key: change(t[key])}))


def at(row: int, value: Any) -> Callable[[pd.Series], list[Any]]:
    """Return what puts another value into a row of a column."""
    return lambda values: [value if i == row else one for i, one in enumerate(values.tolist())]


def swapped(name: str, one: str, other: str) -> Damage:
    return table(name, lambda t: t.assign(**{one: t[other], other: t[one]}))


def said(name: str, **changes: Any) -> Damage:
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))


def h5(name: str, change: Callable[[h5py.File], object]) -> Damage:
    def damage(folder: Path) -> None:
        with h5py.File(folder / name, "r+") as file:
            change(file)

    return damage


def set_values(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    """Return what replaces a dataset of an h5 file by what is made of it."""

    def changed(file: h5py.File) -> None:
        values = change(file[key][:])
        del file[key]
        file[key] = values

    return changed


def h5ad(name: str, change: Callable[[AnnData], object]) -> Damage:
    def damage(folder: Path) -> None:
        counts = anndata.read_h5ad(folder / name)
        changed = change(counts)
        (changed if isinstance(changed, AnnData) else counts).write_h5ad(folder / name)

    return damage


def picture(name: str, change: Callable[[Image.Image], Image.Image], other: str | None = None) -> Damage:
    """Change an image, and save it under another name where one is told."""

    def damage(folder: Path) -> None:
        with Image.open(folder / name) as opened:
            changed = change(opened.convert("RGB"))
        (folder / name).unlink()
        changed.save(folder / (other or name))

    return damage


def pixels(name: str, change: Callable[[np.ndarray], np.ndarray], **options: Any) -> Damage:
    """Change the pixels of a TIFF."""

    def damage(folder: Path) -> None:
        tifffile.imwrite(folder / name, change(tifffile.imread(folder / name)), metadata=None, **options)

    return damage


def claim_png(name: str, width: int, height: int) -> Damage:
    """Let a PNG's header claim a size, over pixels that are none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return write(name, b"\x89PNG\r\n\x1a\n" + parts)


def claim_tiff(name: str, width: int, height: int) -> Damage:
    """Let a TIFF's header claim a size: in strips or tiles as it was, of which there are no more."""

    def damage(folder: Path) -> None:
        with tifffile.TiffFile(folder / name, mode="r+b") as tif:
            tags = tif.pages.first.tags
            tags["ImageWidth"].overwrite(width)
            tags["ImageLength"].overwrite(height)

    return damage


def damaged_gzip(name: str) -> Damage:
    """Flip bytes amid a gzipped file."""

    def damage(folder: Path) -> None:
        path = folder / name
        whole = bytearray(gzip.compress(path.read_bytes()) if not name.endswith(".gz") else path.read_bytes())
        middle = len(whole) // 2
        whole[middle : middle + 40] = bytes(255 - byte for byte in whole[middle : middle + 40])
        path.write_bytes(bytes(whole))

    return damage


def cut_gzip(name: str) -> Damage:
    def damage(folder: Path) -> None:
        whole = gzip.compress((folder / name).read_bytes())
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return damage


def elements(**changes: Any) -> Damage:
    """Write the store anew, of elements that contradict one another."""

    def damage(folder: Path) -> None:
        shutil.rmtree(folder / "slide.zarr")
        small_slides.store_elements(small_slides.CROP[0], **changes).write(folder / "slide.zarr")

    return damage


def no_folder(name: str) -> Damage:
    return lambda folder: shutil.rmtree(folder / name)


def radius(value: float) -> Damage:
    def damage(folder: Path) -> None:
        path = next((folder / "slide.zarr/shapes/places").glob("*.parquet"))
        shapes = pd.read_parquet(path)
        shapes.assign(radius=value).to_parquet(path)

    return damage


def without_first_row(file: h5py.File) -> None:
    """Take the counts of the first spot away, not the spot."""
    matrix = file["matrix"]
    first = int(matrix["indptr"][1])
    for key in ("data", "indices"):
        set_values(f"matrix/{key}", lambda values: values[first:])(file)
    set_values("matrix/indptr", lambda values: np.maximum(values - first, 0))(file)


def claim_counts(file: h5py.File) -> None:
    """Let the counts claim to be two billion, of which none is stored."""
    for key, kind in (("data", np.int32), ("indices", np.int64)):
        del file[f"matrix/{key}"]
        file.create_dataset(f"matrix/{key}", shape=(2_000_000_000,), dtype=kind, chunks=(1_000_000,))
    set_values("matrix/indptr", lambda values: np.r_[values[:-1], 2_000_000_000])(file)


def transparent(image: Image.Image) -> Image.Image:
    image.putalpha(255)
    return image


def flat(*colour: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.new("RGB", image.size, colour)


def deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """Refuse to open a file, as the system does to all but root."""
    import builtins
    import io

    def refuse(original: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, *args: Any, **options: Any) -> Any:
            if isinstance(file, str | Path) and Path(file).absolute() == denied.absolute():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return original(file, *args, **options)

        return opened

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", refuse(open))

    monkeypatch.setattr(os, "open", refuse(os.open))
    made = h5py.File.__init__
    monkeypatch.setattr(
        h5py.File, "__init__", lambda self, name, *a, **o: refuse(lambda n: made(self, n, *a, **o))(name)
    )
