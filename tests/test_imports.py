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
    nouns = ("checkpoint", "encoders", "hierarchy", "methods", "metrics", "panel", "prediction", "tiles", "training")
    assert heavy_after("; ".join(f"import napari_hyperst.nouns.{noun}" for noun in nouns)) == "[]"
    assert heavy_after("import napari_hyperst.widgets.finetune_dock, napari_hyperst.nouns.snapshot") == "[]"


def test_slides_open_without_torch() -> None:
    found = heavy_after("import napari_hyperst.slides, napari_hyperst.slides.export, napari_hyperst.slides.expression")
    assert not {"torch", "timm", "peft", "transformers"} & set(eval(found))


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


def test_public_names_are_there() -> None:
    for name in napari_hyperst.__all__:
        assert getattr(napari_hyperst, name) is not None
        assert getattr(napari_hyperst, name).__doc__
    assert set(napari_hyperst.__all__) <= set(dir(napari_hyperst))
