from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import napari_hyperst

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "peft",
    "transformers",
    "accelerate",
    "spatialdata",
    "anndata",
    "pandas",
    "scanpy",
)
LIST = "import sys; print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"


def heavy_after(statement: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LIST}", *HEAVY], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_package_its_nouns_and_its_terminal_import_nothing_heavy() -> None:
    assert heavy_after("import napari_hyperst, napari_hyperst.cli") == "[]"
    nouns = (
        "checkpoint",
        "encoders",
        "hierarchy",
        "methods",
        "metrics",
        "panel",
        "prediction",
        "provenance",
        "tiles",
        "training",
    )
    assert heavy_after("; ".join(f"import napari_hyperst.nouns.{noun}" for noun in nouns)) == "[]"
    assert heavy_after("import napari_hyperst.widgets.finetune_dock, napari_hyperst.nouns.snapshot") == "[]"


def test_slides_open_without_torch() -> None:
    found = heavy_after("import napari_hyperst.slides, napari_hyperst.slides.export, napari_hyperst.slides.expression")
    assert not {"torch", "timm", "peft", "transformers"} & set(eval(found))


def test_bad_input_is_told_before_torch_and_a_slide_without_it(tiny_section: Path, tmp_path: Path) -> None:
    """One process: what is wrong with slide, place or checkpoint, then what a slide is; no torch."""
    taken = tmp_path / "taken.zarr"
    taken.mkdir()
    (tmp_path / "new").mkdir()
    before = [
        ["predict", str(tmp_path / "no"), "--out", str(tmp_path / "o.zarr")],
        ["predict", str(tmp_path / "new"), "--out", str(tmp_path / "o.zarr")],
        ["predict", str(tiny_section), "--out", str(taken)],
        ["predict", str(tiny_section), "--out", str(tmp_path / "none" / "o.zarr")],
        ["predict", str(tiny_section), "--out", str(tmp_path / "o.zarr"), "--checkpoint", "none"],
        ["predict", str(tiny_section), "--out", str(tmp_path / "o.zarr"), "--pitch", "50"],
        ["predict", str(tiny_section), "--out", str(tmp_path / "o.zarr"), "--mpp", "0"],
    ]
    opening = [["info", str(tiny_section)], ["predict", str(tiny_section), "--out", str(tiny_section)]]
    code = f"""
import sys
from napari_hyperst.cli import main
for words in {before!r} + [None] + {opening!r}:
    if words is None:
        print(sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r})), file=sys.stderr)
        continue
    try:
        main(words)
    except SystemExit as left:
        print(left.code, file=sys.stderr)
print("torch" in sys.modules, "timm" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    told = [line for line in lines if line.startswith("error: ")]
    assert [line.rpartition(": ")[2].partition(";")[0] for line in told[3:]] == [
        "there is no such folder",
        "there is no such checkpoint",
        "has spots of its own, so none are laid over it",
        "0.0 is no scale in µm/px",
        "is there already",
    ]
    assert [line for line in lines if line not in told] == [*["2"] * 7, "[]", "0", "2", "False False"]


def test_napari_and_the_workbench_import_nothing_heavy_and_a_slide_no_torch(tiny_section: Path) -> None:
    code = f"""
import sys, time
import napari
from qtpy.QtWidgets import QApplication
def found(): return sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))
viewer = napari.Viewer(show=False)
_, bench = viewer.window.add_plugin_dock_widget("napari-hyperst", "Workbench")
print(found())
viewer.open({str(tiny_section)!r}, plugin="napari-hyperst")
until = time.monotonic() + 60
while bench.session.active is None and time.monotonic() < until:
    QApplication.processEvents()
assert bench.session.active is not None
print(found())
viewer.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.strip().splitlines()
    assert before == "[]"
    assert after == "['anndata', 'pandas', 'spatialdata']"


def test_units_are_read_before_a_thread_opens_a_slide(tiny_section: Path) -> None:
    code = f"""
import napari.qt.threading, pint
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.viewer import opening
class Stop(Exception): pass
def begun(*_):
    raise Stop(type(pint.get_application_registry().get()).__name__)
napari.qt.threading.create_worker = begun
print(type(pint.get_application_registry().get()).__name__)
try:
    opening.open_in_thread(SlideRef(path={str(tiny_section)!r}), print, print, print, print)
except Stop as told:
    print(told)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LazyRegistry", "UnitRegistry"]  # the former two threads would break for good


def test_public_names_are_there() -> None:
    for name in napari_hyperst.__all__:
        assert getattr(napari_hyperst, name) is not None
        assert getattr(napari_hyperst, name).__doc__
    assert set(napari_hyperst.__all__) <= set(dir(napari_hyperst))
