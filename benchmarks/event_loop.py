"""How long the window's event loop is held up while a prediction runs, beside the same window at rest.

A timer ticks every 10 ms; the longest time between two ticks is what a user feels. ``ratio`` is that at rest over
that while a prediction is at work in its child process: 1 would mean that nothing is felt. Needs a display
(scripts/with-display).

Usage: python benchmarks/event_loop.py [--seconds 10] [--json]
"""

from __future__ import annotations

import argparse
import json
import time

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_hyperst.slides.sample import sample_folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seconds", type=float, default=10.0)
parser.add_argument("--json", action="store_true")
words = parser.parse_args()


def longest_gap(done: object) -> float:
    """Return the longest time between two ticks, in ms, until ``done`` is so."""
    ticks = [time.perf_counter()]
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(10)
    while not done():  # type: ignore[operator]
        QApplication.processEvents()
        time.sleep(0.001)
    timer.stop()
    return 1000 * max(after - before for before, after in zip(ticks, ticks[1:], strict=False))


viewer = napari.Viewer()
_, bench = viewer.window.add_plugin_dock_widget("napari-hyperst", "Workbench")
bench.open(sample_folder())
until = time.monotonic() + 120
while (bench.session.active is None or bench.child.devices is None) and time.monotonic() < until:
    QApplication.processEvents()
end = time.monotonic() + words.seconds
rest = longest_gap(lambda: time.monotonic() > end)
bench.predict()
job = bench.child.job
working = longest_gap(lambda: job.ending() is not None or bench.child.job is None)
viewer.close()
result = {"ratio": rest / working, "longest_gap_at_rest_ms": rest, "longest_gap_at_work_ms": working, "target_ms": 100}
if words.json:
    print(json.dumps(result))
else:
    print("\n".join(f"{name}: {value:.3g}" for name, value in result.items()))
