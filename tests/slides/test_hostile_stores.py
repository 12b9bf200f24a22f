"""Stores and h5ad files as somebody who means harm would send them: refused before a library opens them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import anndata
import h5py
import numpy as np
import pytest
import small_slides
from small_slides import H5, H5AD, METADATA

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.readers import spatialdata_zarr

Harm = Callable[[Path], object]
#: Arrays of the store: one that is read by the chunk, and one that is read as a whole.
IMAGE, COUNTS = "images/he/s0", "tables/table/X/data"
BIG = 2**40


@pytest.fixture(scope="module")
def whole(crop: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a whole slide of each format that is tried, to be copied."""
    made, reduced = {}, small_slides.small(crop)
    for name in ("store", "hest", "visium"):
        made[name] = tmp_path_factory.mktemp("whole") / "slide"
        made[name].mkdir()
        small_slides.WRITERS[name](reduced, made[name])
    return made


@pytest.fixture
def store(whole: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole["store"] / "slide.zarr", tmp_path / "slide.zarr"))


def refuse(*args: object, **options: object) -> NoReturn:
    raise AssertionError("this was not to be called")


def node(place: str, change: Callable[[dict[str, Any]], object]) -> Harm:
    """Change what a node of the store says of itself."""

    def harm(store: Path) -> None:
        path = store / place / "zarr.json"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return harm


def array(place: str, shape: list[Any], chunks: list[Any] | None = None) -> Harm:
    def change(said: dict[str, Any]) -> None:
        said["shape"] = shape
        if chunks is not None:
            said["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": chunks}}

    return node(place, change)


ENTRY = {
    "node_type": "array", "zarr_format": 3, "shape": [BIG], "data_type": "float32", "fill_value": 0, "attributes": {},
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**20]}}, "codecs": [{"name": "bytes"}],
}  # fmt: skip


def consolidated(key: str = COUNTS, **said: Any) -> Harm:
    """Tell one thing in an array's own metadata, and another in those that zarr believes."""
    told = {"kind": "inline", "metadata": {key: ENTRY | said}}
    return node("", lambda root: root.update(consolidated_metadata=told))


def added(**said: Any) -> Harm:
    """Add an array that no reader of slides asks for, but anndata reads."""

    def harm(store: Path) -> None:
        (store / "tables/table/uns/big").mkdir()
        (store / "tables/table/uns/big/zarr.json").write_text(json.dumps(ENTRY | said))

    return harm


def typed(dtype: dict[str, Any]) -> Harm:
    return node(COUNTS, lambda said: said.update(data_type=dtype))


def packed(name: str, **configuration: Any) -> Harm:
    return node(COUNTS, lambda said: said.update(codecs=[{"name": name, "configuration": configuration}]))


def v2(place: str, **said: Any) -> Harm:
    def harm(store: Path) -> None:
        (store / place).mkdir(parents=True)
        whole = {"zarr_format": 2, "shape": [3], "chunks": [3], "dtype": "|O", "order": "C", "fill_value": None}
        (store / place / ".zarray").write_text(json.dumps(whole | {"filters": None, "compressor": None} | said))

    return harm


def put(place: str, make: Callable[[Path], object]) -> Harm:
    def harm(store: Path) -> None:
        path = store / place
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return harm


def a_chunk(make: Callable[[Path], object]) -> Harm:
    def harm(store: Path) -> None:
        chunk = next(path for path in sorted((store / IMAGE / "c").rglob("*")) if path.is_file())
        chunk.unlink()
        make(chunk)

    return harm


def hint(**said: Any) -> Harm:
    return node("", lambda root: root["attributes"].update(hyperst=said))


def dataset(said: dict[str, Any], path: str) -> None:
    said["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = path


STORES: dict[str, tuple[Harm, str]] = {
    "an image of 10^15 px in one chunk": (array(IMAGE, [3, 10**15, 1], [3, 10**15, 1]), "claims chunks of"),
    "an image of 2^40 px a side": (array(IMAGE, [3, BIG, BIG]), "claims a shape of over 10,000,000 chunks"),
    "an image without chunks": (array(IMAGE, [3, 100, 100], [3, 0, 100]), "no shape"),
    "an image of negative size": (array(IMAGE, [3, -5, 100]), "no shape"),
    "an image of text for sizes": (array(IMAGE, ["3", "5", "7"]), "no shape"),
    "an image whose chunks have other axes": (array(IMAGE, [3, 100, 100], [100]), "another number of dimensions"),
    "chunks of another kind": (node(IMAGE, lambda said: said["chunk_grid"].update(name="evil")), "of the kind 'evil'"),
    "a table of 10^15 counts": (array(COUNTS, [10**15], [2**20]), "claims a shape of over"),
    "a table of 1 TiB": (array(COUNTS, [BIG // 4], [2**28]), "of tables/table, it claims 1,024 GiB"),
    "a giant among what is not looked at": (added(shape=[2**32]), "tables/table, it claims 16 GiB"),
    "another size in the metadata that count": (consolidated(shape=[2**32]), "tables/table, it claims 16 GiB"),
    "another codec in the metadata that count": (consolidated(codecs=[{"name": "numcodecs.pickle"}]), "pickle"),
    "a name out of the store": (consolidated("../../other"), "outside the store"),
    "a value of 1 TiB": (
        typed({"name": "null_terminated_bytes", "configuration": {"length_bytes": BIG}}), "claims chunks of",
    ),
    "pickled text": (v2("tables/table/obsm/x", filters=[{"id": "pickle"}]), "'pickle', which is no known codec"),
    "pickled chunks": (v2("tables/table/obsm/x", compressor={"id": "pickle", "protocol": 5}), "'pickle', which is no"),
    "an unknown codec": (packed("exec"), "'exec', which is no known codec"),
    "a codec within shards": (packed("sharding_indexed", codecs=[{"name": "pickle"}]), "'pickle', which is no"),
    "a level elsewhere": (node("images/he", lambda said: dataset(said, "../../../../etc")), "outside the store"),
    "a level at the root": (node("images/he", lambda said: dataset(said, "/etc")), "outside the store"),
    "a level on a share": (node("images/he", lambda said: dataset(said, "\\\\evil\\share")), "outside the store"),
    "a level of an address": (node("images/he", lambda said: dataset(said, "http://evil")), "outside the store"),
    "metadata that are no JSON": (put("tables/zarr.json", lambda path: path.write_text("{")), "no SpatialData store"),
    "metadata that are a list": (put("tables/zarr.json", lambda path: path.write_text("[]")), "no JSON object"),
    "metadata nested deep": (put("tables/zarr.json", lambda path: path.write_text('{"a":' * 10**5)), "nested too deep"),
    "metadata of 1 TiB": (lambda store: os.truncate(store / "zarr.json", BIG), "64 at most are read"),
    "metadata of other words": (node(COUNTS, lambda said: said.pop("data_type")), "none of Zarr's"),
    "a chunk that is a link": (a_chunk(lambda path: path.symlink_to("/etc/passwd")), "is a link out of the store"),
    "a chunk that is a device": (a_chunk(lambda path: path.symlink_to("/dev/zero")), "is a link out of the store"),
    "a table that is a link": (put("tables/table", lambda path: path.symlink_to("/etc")), "is a link out of the store"),
    "a folder that holds itself": (put("tables/loop", lambda path: path.symlink_to(path.parent)), "link to a folder"),
    "a link that leads to itself": (put("tables/loop", lambda path: path.symlink_to(path)), "symbolic links"),
    "folders without end": (lambda store: (store / "/".join("a" * 200)).mkdir(parents=True), "folders 64 deep"),
    "a scale that is text": (hint(mpp="1; rm"), "says that mpp is 1; rm"),
    "a scale below zero": (hint(mpp=-1.0), "says that mpp is -1"),
    "a pitch that is a list": (hint(pitch_um=[1] * 1000), "says that pitch_um is"),
}  # fmt: skip
if hasattr(os, "mkfifo"):
    STORES["a chunk that is a pipe"] = (a_chunk(os.mkfifo), "is neither a file nor a folder")


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_means_harm(store: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32" and any(word in name for word in ("link", "device", "itself")):
        pytest.skip("links and devices are those of Unix")
    harm, told = STORES[name]
    harm(store)
    if "says that" not in told:  # what a store says of its scale is looked at when it is open
        monkeypatch.setattr(spatialdata_zarr, "read_zarr", refuse)
    check(store, store, told)


def check(path: Path, file: Path, told: str, **options: Any) -> None:
    with pytest.raises(SlideError) as caught:
        open_slide(path, **options)
    line = str(caught.value)
    assert told in line
    assert str(file) in line
    assert caught.value.do
    assert len(line) < 1000


def test_a_pickle_in_a_store_is_not_run(store: Path, tmp_path: Path) -> None:
    """The real thing: zarr would unpickle this chunk, and it would write a file."""
    from numcodecs import Pickle

    place = store / "tables/table/uns/evil"
    v2("tables/table/uns/evil", shape=[1], chunks=[1], filters=[Pickle().get_config()])(store)
    (place / ".zattrs").write_text(json.dumps({"encoding-type": "array", "encoding-version": "0.2.0"}))
    command = f"cos\nsystem\n(S'touch {tmp_path / 'ran'}'\ntR."
    (place / "0").write_bytes(command.encode())
    with pytest.raises(SlideError, match="could run code"):
        open_slide(store)
    assert not (tmp_path / "ran").exists()


def test_a_whole_store_is_opened(store: Path) -> None:
    """Also as a link, and with links within it."""
    data = next(path for path in sorted((store / COUNTS / "c").rglob("*")) if path.is_file())
    data.rename(data.with_name("real"))
    data.symlink_to("real")
    link = store.with_name("link.zarr")
    link.symlink_to(store)
    assert len(open_slide(link).spots) == 49


def outside(folder: Path) -> Path:
    path = folder.parent / "outside.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(10)
    return path


def link_out(file: h5py.File, folder: Path) -> None:
    file["uns/evil"] = h5py.ExternalLink(str(outside(folder)), "/x")


def link_in(file: h5py.File, folder: Path) -> None:
    file["uns/evil"] = h5py.SoftLink("/obs")


def another_name(file: h5py.File, folder: Path) -> None:
    file["uns/evil"] = file["obs"]


def itself(file: h5py.File, folder: Path) -> None:
    file["uns/evil"] = file["uns"]


def other_files(file: h5py.File, folder: Path) -> None:
    file.create_dataset("uns/evil", (10,), np.uint8, external=[("/etc/passwd", 0, 10)])


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((10,), np.int64)
    layout[:] = h5py.VirtualSource(outside(folder), "x", (10,))
    file.create_virtual_dataset("uns/evil", layout)


def giant(file: h5py.File, folder: Path) -> None:
    file.create_dataset("uns/evil", (BIG,), np.float64, chunks=(2**20,))


def many(file: h5py.File, folder: Path) -> None:
    for number in range(40):
        file.create_dataset(f"uns/evil{number}", (2**24,), np.float64, chunks=(2**20,))


H5ADS: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "a link to another file": (link_out, "/uns/evil is a link"),
    "a link within": (link_in, "/uns/evil is a link"),
    "one thing under two names": (another_name, "is another name of what is there"),
    "a group that holds itself": (itself, "is another name of what is there"),
    "data in passwd": (other_files, "/uns/evil has its data in other files"),
    "data of another file": (virtual, "/uns/evil has its data in other files"),
    "8 TiB of zeros": (giant, "claims 8,192 GiB"),
    "many zeros": (many, "claims 5 GiB"),
}


@pytest.mark.parametrize("name", H5ADS)
def test_an_h5ad_file_that_means_harm(
    whole: dict[str, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(whole["hest"], tmp_path / "slide"))
    harm, told = H5ADS[name]
    with h5py.File(folder / H5AD, "r+") as file:
        harm(file, folder)
    monkeypatch.setattr(anndata, "read_h5ad", refuse)
    check(folder, folder / H5AD, told)


def test_a_matrix_of_10x_whose_counts_are_elsewhere(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole["visium"], tmp_path / "slide"))
    with h5py.File(folder / H5, "r+") as file:
        del file["matrix/data"]
        file["matrix/data"] = h5py.ExternalLink(str(outside(folder)), "/x")
    check(folder, folder / H5, "/matrix/data is a link")


def test_metadata_of_a_sample_without_end(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole["hest"], tmp_path / "slide"))
    os.truncate(folder / METADATA, BIG)
    check(folder, folder / METADATA, "16 at most are read")
