"""The manifest, and what it names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import painted
import pytest
from anndata import AnnData
from napari.utils.notifications import notification_manager
from npe2 import PluginManager, PluginManifest
from PIL import Image
from spatialdata import read_zarr

import napari_hyperst
from napari_hyperst._napari import get_reader, read, write
from napari_hyperst.errors import StoreError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.formats import IMAGE_SUFFIXES
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.viewer.session import session_of

Make = Callable[..., Any]
MANIFEST = Path(napari_hyperst.__file__).with_name("napari.yaml")


def test_the_manifest_is_valid_and_what_it_names_is_there() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "napari-hyperst"
    commands = {command.id: command.title for command in manifest.contributions.commands or ()}
    used = {menu.command for items in (manifest.contributions.menus or {}).values() for menu in items}
    assert used <= set(commands)
    assert all(title[0].isupper() and not title.endswith(".") for title in commands.values())
    assert (Path(__file__).parents[1] / "napari.yaml").resolve() == MANIFEST.resolve()


#: Files that name one slide among several in a folder.
FILES = (
    ".h5ad",
    *(f"{end}{zipped}" for end in ("_selection.tsv", "_coord.csv", "_count.csv") for zipped in ("", ".gz")),
)


def test_napari_asks_for_stores_and_for_files_that_name_a_slide_or_show_one() -> None:
    readers = PluginManifest.from_file(MANIFEST).contributions.readers or []
    wanted = {
        "*.zarr",
        *(f"*{file}" for file in (*FILES, *IMAGE_SUFFIXES)),
        "*alignment_table_*.tsv",
        "*alignment_table_*.tsv.gz",
    }
    assert [set(reader.filename_patterns) for reader in readers] == [wanted]
    assert all(reader.accepts_directories for reader in readers)


def test_npe2_finds_the_plugin() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "napari-hyperst"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_preferences_have_the_defaults_of_the_manifest() -> None:
    from napari_hyperst.viewer import preferences

    PluginManager.instance().discover()
    assert preferences.device() == "auto"
    assert preferences.batch_size() == 32
    assert preferences.percentiles() == (1.0, 99.0)
    assert preferences.colormap() == "viridis"


@pytest.fixture(scope="module")
def store(tiny_section: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(open_slide(tiny_section), tmp_path_factory.mktemp("stores") / "corner.zarr")


def test_slides_are_claimed_by_what_is_in_them(tiny_section: Path, store: Path, tmp_path: Path) -> None:
    assert get_reader(str(tiny_section)) is read
    assert get_reader(str(store)) is read
    assert get_reader([str(tiny_section), str(store)]) is read
    assert get_reader(str(tiny_section / "corner_selection.tsv")) is read
    assert get_reader(str(tiny_section / "corner.tsv")) is None
    (tmp_path / "outs" / "spatial").mkdir(parents=True)
    (tmp_path / "outs" / "spatial" / "tissue_positions.csv").touch()
    assert get_reader(str(tmp_path)) is read
    assert get_reader(str(tmp_path / "outs")) is read


def test_pictures_are_claimed_where_they_are_whole_slide_images(tmp_path: Path) -> None:
    he = painted.paint()
    for name in ("a.svs", "a.NDPI", "a.mrxs"):
        (tmp_path / name).touch()
    blank = np.zeros((5000, 5001, 3), np.uint8)
    Image.fromarray(blank).save(tmp_path / "large.png")
    Image.fromarray(blank).save(tmp_path / "large.jpg")
    painted.write_tif(tmp_path / "levels.tif", he, levels=3)
    ours = ("a.svs", "a.NDPI", "a.mrxs", "large.png", "large.jpg", "levels.tif")
    Image.fromarray(he).save(tmp_path / "photograph.jpg")
    Image.fromarray(blank[..., 0]).save(tmp_path / "grey.png")
    painted.write_tif(tmp_path / "small.tif", he)
    painted.write_tif(tmp_path / "fluorescence.tif", he[..., 0], levels=3, photometric="minisblack")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    theirs = ("photograph.jpg", "grey.png", "small.tif", "fluorescence.tif", "broken.png")
    assert [get_reader(str(tmp_path / name)) is read for name in ours] == [True] * len(ours)
    assert [get_reader(str(tmp_path / name)) for name in theirs] == [None] * len(theirs)


def test_an_image_file_gives_the_layers_of_a_slide_with_its_mask(tmp_path: Path) -> None:
    path = painted.write_tif(tmp_path / "he.tif", painted.paint(), levels=2)
    assert [kind for _, _, kind in read(str(path))] == ["image", "labels", "points"]


def others(tmp_path: Path) -> list[Any]:
    """Return paths that are not ours, and worse."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.tif").write_bytes(b"II*\0")
    (tmp_path / "array.zarr").mkdir()
    (tmp_path / "array.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    (tmp_path / "ome.zarr" / "labels").mkdir(parents=True)
    (tmp_path / "ome.zarr" / "zarr.json").write_text('{"zarr_format": 3, "attributes": {"ome": {}}}')
    (tmp_path / "photos" / "spatial").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file.zarr").write_text("no store")
    there = ["empty", "image.tif", "array.zarr", "ome.zarr", "photos", "loop", "file.zarr", "missing", "x" * 5000]
    return [*(str(tmp_path / name) for name in there), "", "\0", [], [str(tmp_path / "empty")], None, 3]


def test_what_is_not_ours_is_passed_over_and_nothing_is_raised(tmp_path: Path, tiny_section: Path) -> None:
    for path in others(tmp_path):
        assert get_reader(path) is None, path
    assert get_reader([str(tiny_section), str(tmp_path / "empty")]) is None


def test_claiming_a_path_imports_nothing_heavy(tiny_section: Path) -> None:
    code = (
        "import sys; from napari_hyperst._napari import get_reader; "
        f"assert get_reader({str(tiny_section)!r}); "
        "print(sorted({'torch', 'timm', 'peft', 'spatialdata', 'anndata', 'pandas', 'napari'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_without_a_viewer_a_reader_gives_layers(tiny_section: Path) -> None:
    (image, settings, kind), (points, _, other) = read(str(tiny_section))
    assert (kind, other) == ("image", "points")
    assert settings["rgb"]
    assert image[0].shape == (2200, 2200, 3)
    assert points.shape == (48, 2)


def test_a_dropped_folder_opens_in_the_viewer(qtbot: Any, make_napari_viewer_proxy: Make, section: Path) -> None:
    viewer = make_napari_viewer_proxy()
    assert viewer.open(str(section), plugin="napari-hyperst") == []
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    assert [entry.slide.name for entry in session_of(viewer).entries.values()] == ["corner"]


def test_a_broken_slide_is_told_without_the_workbench(
    qtbot: Any, make_napari_viewer_proxy: Make, section: Path
) -> None:
    viewer = make_napari_viewer_proxy()
    (section / "he.png").write_bytes(b"no picture")
    notification_manager.records.clear()
    viewer.open(str(section), plugin="napari-hyperst")
    qtbot.waitUntil(lambda: bool(notification_manager.records), timeout=30_000)
    assert "he.png" in str(notification_manager.records[-1].message)
    assert len(viewer.layers) == 0


def test_the_sample_opens(make_napari_viewer_proxy: Make) -> None:
    viewer = make_napari_viewer_proxy()
    layers = viewer.open_sample("napari-hyperst", "C2")
    assert [type(layer).__name__ for layer in layers] == ["Image", "Points"]
    entry = session_of(viewer).active
    assert entry is not None
    assert entry.ref.path == sample_folder()
    assert len(entry.slide.spots) == 187
    viewer.layers.clear()
    assert session_of(viewer).active is None


def test_save_as_writes_the_slide_and_its_prediction(
    make_napari_viewer_proxy: Make, section: Path, tmp_path: Path, tiny_table: AnnData
) -> None:
    viewer = make_napari_viewer_proxy()
    session = session_of(viewer)
    entry = session.add(open_slide(section))
    plain = tmp_path / "plain.zarr"
    assert viewer.layers.save(str(plain), plugin="napari-hyperst") == [str(plain)]
    assert list(read_zarr(plain).tables) == ["table"]
    session.set_prediction(entry.key, tiny_table.copy(), "table_hyperst", tmp_path / "job" / "prediction.h5ad")
    both = tmp_path / "both.zarr"
    assert viewer.layers.save(str(both), plugin="napari-hyperst") == [str(both)]
    np.testing.assert_array_equal(read_zarr(both).tables["table_hyperst"].X, tiny_table.X)
    with pytest.raises(StoreError, match="is there already"):
        viewer.layers.save(str(both), plugin="napari-hyperst")
    session.add(open_slide(section))
    with pytest.raises(StoreError, match="one slide, not 2"):
        viewer.layers.save(str(tmp_path / "two.zarr"), plugin="napari-hyperst")
    assert not (tmp_path / "two.zarr").exists()


def test_save_as_takes_the_slide_of_the_layers_whichever_viewer_is_in_front(
    make_napari_viewer_proxy: Make, section: Path, tmp_path: Path, tiny_table: AnnData
) -> None:
    behind, _front = viewers = [make_napari_viewer_proxy(), make_napari_viewer_proxy()]
    for i, viewer in enumerate(viewers):
        entry = session_of(viewer).add(open_slide(section))
        table = tiny_table.copy()
        table.X = table.X + i
        session_of(viewer).set_prediction(entry.key, table, "table_hyperst", tmp_path / str(i) / "prediction.h5ad")
    behind.layers.save(str(tmp_path / "out.zarr"), plugin="napari-hyperst")
    np.testing.assert_array_equal(read_zarr(tmp_path / "out.zarr").tables["table_hyperst"].X, tiny_table.X)


def test_layers_that_are_not_ours_are_not_written(make_napari_viewer_proxy: Make, tmp_path: Path) -> None:
    make_napari_viewer_proxy()
    with pytest.raises(StoreError, match="none of these layers is of a slide"):
        write(str(tmp_path / "x.zarr"), [(np.zeros((4, 4)), {"metadata": {}}, "image")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("live", [20_000, 1])
def test_save_as_writes_the_mask_as_it_is_painted(
    make_napari_viewer_proxy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: int
) -> None:
    from napari_hyperst.viewer import tissue

    monkeypatch.setattr(tissue, "MAX_LIVE", live)  # more spots follow the mask only when it is settled
    viewer = make_napari_viewer_proxy()
    session_of(viewer).add(open_slide(painted.write_tif(tmp_path / "he.tif", painted.paint(), levels=2)))
    mask = viewer.layers["he_tissue"]
    before = len(viewer.layers["he"].data)
    mask.data_setitem(np.nonzero(mask.data[:, : mask.data.shape[1] // 2]), 0)
    out = tmp_path / "out.zarr"
    viewer.layers.save(str(out), plugin="napari-hyperst")
    saved = open_slide(out)
    np.testing.assert_array_equal(np.asarray(saved.sdata.labels["he_tissue"]) != 0, np.asarray(mask.data) != 0)
    assert 0 < len(saved.spots) < before
    np.testing.assert_array_equal(saved.spots.centres_px[:, ::-1], viewer.layers["he"].data)
