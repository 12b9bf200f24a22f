"""How long a slide takes to be seen in a napari that has just been started, and a job to end when it is cancelled.

The first picture is the first one drawn with an image layer in it; the slide is there when its spots are drawn. The
workbench has been open for some seconds, as it is when a folder has been chosen in it; with ``--at-once`` the slide is
opened in the moment the workbench is there, which leaves napari no time to import what it draws an image with. Then the
slide is predicted four times, and each time cancelled a little later. ``ratio`` is the least of the targets, 2 s and
1 s, over what was measured: below 1 one is missed. Needs a display (scripts/with-display).

Usage: python benchmarks/open_and_cancel.py [--slide FOLDER] [--at-once] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from event_loop_turns import run, wait

from napari_hyperst.slides.sample import sample_folder

FIRST_S, CANCEL_S = 2.0, 1.0
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--slide", type=Path, default=sample_folder())
parser.add_argument("--at-once", action="store_true")
parser.add_argument("--json", action="store_true")
words = parser.parse_args()


def drawn_with(kind: str) -> Callable[[], bool]:
    """Return what tells whether a layer of a kind has been drawn."""
    return lambda: any(kind in kinds for _at, kinds in drawn)


def since(began: float, kind: str) -> float:
    """Return the seconds until a layer of a kind was drawn."""
    return next(at for at, kinds in drawn if kind in kinds) - began


viewer = napari.Viewer()
viewer.window.resize(1366, 768)
_, bench = viewer.window.add_plugin_dock_widget("napari-hyperst", "Workbench")
drawn: list[tuple[float, list[str]]] = []
viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(
    lambda _event: drawn.append((time.monotonic(), [type(layer).__name__ for layer in viewer.layers])), position="last"
)
if not words.at_once:
    run(lambda: bench.child.devices is not None)
began = time.monotonic()
bench.open(words.slide)
run(drawn_with("Image"))
run(lambda: bench.session.active is not None and bench.child.devices is not None)
run(drawn_with("Points"))
seconds = {"the first picture": since(began, "Image"), "the slide": since(began, "Points")}
ended: list[float] = []
told: list[Any] = []
bench.child.ended.connect(lambda _job, _event: ended.append(time.monotonic()))
bench.child.told.connect(lambda _job, event: told.append(event))
cancelled = []
for later in range(4):
    ended.clear()
    told.clear()
    bench.predict()
    run(
        lambda: bool(ended) or any(event.content.get("what") == "spots" and event.content.get("done") for event in told)
    )
    wait(0.3 * later)
    if ended:
        raise SystemExit("the prediction was over, or failed, before it was cancelled")
    began = time.monotonic()
    bench.work.stop()
    run(lambda: bool(ended))
    cancelled.append(ended[0] - began)
    run(lambda: bench.child.devices is not None)
viewer.close()
seconds["a cancelled job, at most"] = max(cancelled)
targets = {"the first picture": FIRST_S, "a cancelled job, at most": CANCEL_S}
ratios = {name: target / seconds[name] for name, target in targets.items()}
result = {"ratio": min(ratios.values()), "ratios": ratios, "seconds": seconds, "targets_s": targets}
if words.json:
    print(json.dumps(result))
else:
    for name, took in seconds.items():
        told_of = f", {ratios[name]:.1f} x within {targets[name]:g} s" if name in ratios else ""
        print(f"{name}: {took:.2f} s{told_of}")
