"""While a job is at work, and when it is done, the window's event loop goes round."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import pytest
from qtpy.QtCore import Qt, QThreadPool, QTimer

from napari_hyperst.viewer import results
from napari_hyperst.widgets.cone_view import ConeView
from napari_hyperst.widgets.plot import Plot
from napari_hyperst.widgets.plots import GeneScatterPanel, HierarchyHistogram
from napari_hyperst.widgets.poincare_disk import PoincareDisk
from napari_hyperst.widgets.process import Child
from napari_hyperst.widgets.workbench import Workbench

Make = Callable[..., Any]
TICK_MS = 10


@pytest.fixture
def bench(qtbot: Any, make_napari_viewer_proxy: Make, child: Child, section: Path) -> Workbench:
    """Return a workbench on the tiny section."""
    viewer = make_napari_viewer_proxy(show=True)
    made = Workbench(viewer, child)
    viewer.window.add_dock_widget(made)
    made.open(section)
    qtbot.waitUntil(lambda: made.session.active is not None and child.devices is not None, timeout=60_000)
    return made


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return what a prediction waits for while it is read."""
    go, read = threading.Event(), anndata.read_h5ad

    def wait(*args: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        assert go.wait(60)
        return read(*args)

    monkeypatch.setattr(anndata, "read_h5ad", wait)
    yield go
    go.set()


def predict(bench: Workbench, scene: str = "ok") -> None:
    bench.predict_panel.add_checkpoint(Path(scene))
    bench.predict()


def test_a_prediction_is_read_while_the_window_goes_on(
    qtbot: Any, bench: Workbench, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[threading.Thread] = []
    genes_of = results.genes_of
    monkeypatch.setattr(results, "genes_of", lambda *of: (found.append(threading.current_thread()), genes_of(*of))[1])
    with qtbot.waitSignal(bench.child.ended, timeout=20_000):
        predict(bench)
    qtbot.wait(50)
    entry = bench.session.active
    assert entry is not None
    assert entry.table is None
    assert bench.work.busy
    assert not bench.predict_panel.button.isEnabled()
    with qtbot.waitSignal(bench.work.rested, timeout=20_000):
        held.set()
    assert entry.table is not None
    assert not bench.work.busy
    assert threading.main_thread() not in found
    assert found


def test_a_prediction_that_is_being_read_can_be_cancelled(qtbot: Any, bench: Workbench, held: threading.Event) -> None:
    with qtbot.waitSignal(bench.child.ended, timeout=20_000):
        predict(bench)
    with qtbot.waitSignal(bench.work.rested, timeout=1000):
        qtbot.mouseClick(bench.predict_panel.cancel, Qt.MouseButton.LeftButton)
    assert bench.predict_panel.status.text() == "Stopped."
    held.set()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=20_000)
    qtbot.wait(50)
    entry = bench.session.active
    assert entry is not None
    assert entry.table is None
    with qtbot.waitSignal(bench.work.rested, timeout=20_000):
        predict(bench)
    assert entry.table is not None


class Stillness:
    """The longest time that the main thread computes between two ticks of a timer on the event loop.

    It is told by the thread's own clock, so that a machine that is busy elsewhere fails nothing; what napari takes to
    add a layer and to draw is left out.
    """

    def __init__(self, viewer: Any) -> None:
        self.longest = self._left_out = 0.0
        self.turns = 0
        self._drawing: float | None = None
        self._add = viewer.add_layer
        object.__setattr__(viewer, "add_layer", self._add_layer)
        draw = viewer.window._qt_viewer.canvas._scene_canvas.events.draw
        draw.connect(self._before, position="first")
        draw.connect(self._after, position="last")
        self._last = time.thread_time()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)

    def stop(self) -> None:
        self._timer.stop()

    def _add_layer(self, layer: Any) -> Any:
        began = time.thread_time()
        try:
            return self._add(layer)
        finally:
            self._left_out += time.thread_time() - began

    def _before(self, _event: Any) -> None:
        self._drawing = time.thread_time()

    def _after(self, _event: Any) -> None:
        if self._drawing is not None:
            self._left_out += time.thread_time() - self._drawing
            self._drawing = None

    def _tick(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last - self._left_out)
        self._last, self._left_out = now, 0.0
        self.turns += 1


def drawing(plot: Plot) -> float:
    """Return the seconds of computing that drawing a plot takes."""
    began = time.thread_time()
    plot.canvas.draw()
    return time.thread_time() - began


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Return when plots begin and end steps, from now on."""
    found: list[tuple[float, float]] = []
    step = Plot._step

    def watched(plot: Plot, *told: object) -> None:
        began, free_at = time.monotonic(), Plot._free_at
        step(plot, *told)
        if Plot._free_at != free_at:  # else it waits
            found.append((began, time.monotonic()))

    monkeypatch.setattr(Plot, "_step", watched)
    return found


def test_the_window_is_never_still_while_a_job_runs_with_every_plot_open(
    qtbot: Any, steps: list[tuple[float, float]], bench: Workbench
) -> None:
    session, window = bench.session, bench.session.viewer.window
    views = [made(session) for made in (GeneScatterPanel, HierarchyHistogram, PoincareDisk, ConeView)]
    for view in views:
        window.add_dock_widget(view, area="bottom")
    plots: list[Plot] = [
        plot for view in views for plot in ([view] if isinstance(view, Plot) else view.findChildren(Plot))
    ]
    assert len(plots) == 4
    with qtbot.waitSignal(bench.work.rested, timeout=20_000):
        predict(bench)  # once, for matplotlib to be imported, and napari to compile what it draws with
    session.show("norm_spot_image")
    session.select([1])
    qtbot.waitUntil(lambda: all(plot.axes is not None and not plot._stale for plot in plots), timeout=60_000)
    qtbot.wait(500)
    alone = max(drawing(plot) for plot in plots)
    gc.collect()
    still = Stillness(session.viewer)
    for scene in ("slow", "ok"):
        with qtbot.waitSignal(bench.work.rested, timeout=30_000):
            predict(bench, scene)
        for act in (lambda: session.select([1, 2, 3]), lambda: session.show(gene=session.active.genes.names[1])):
            act()
            qtbot.waitUntil(lambda: not any(plot._stale or plot._painted for plot in plots), timeout=30_000)
    still.stop()
    assert still.turns > 20
    assert still.longest < 3 * alone  # four plots one upon the other take six times as long, and more
    free = [after[0] - before[1] for before, after in itertools.pairwise(steps)]
    assert len(steps) > 16  # each plot in two steps, time and again
    assert min(free) > 0.005
