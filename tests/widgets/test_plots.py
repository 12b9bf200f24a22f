"""Measured against predicted, and the histogram: what is drawn, and what is brushed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mouse import around, click, drag
from qtpy.QtCore import Qt, QTimer
from scipy.stats import linregress

from napari_hyperst.viewer.hierarchy import Angles, Hierarchy
from napari_hyperst.viewer.session import Session
from napari_hyperst.widgets import plots
from napari_hyperst.widgets.brush import inside
from napari_hyperst.widgets.plots import GeneScatterPanel, HierarchyHistogram


def seen(qtbot: Any, widget: Any, plot: Any = None) -> Any:
    """Show a widget until its plot is drawn."""
    plot = plot or widget
    qtbot.addWidget(widget)
    widget.resize(360, 420)
    with qtbot.waitExposed(widget):
        widget.show()
    qtbot.waitUntil(lambda: plot.axes is not None and not plot._stale, timeout=60_000)
    qtbot.wait(20)
    return plot


def drawn_again(qtbot: Any, plot: Any) -> None:
    qtbot.waitUntil(lambda: not plot._stale, timeout=10_000)
    plot.canvas.draw()


def artist(plot: Any, name: str) -> Any:
    return next((one for one in plot.axes.get_children() if one.get_gid() == name), None)


def selected(plot: Any) -> int:
    return len(artist(plot, "selected").get_xdata())


@pytest.fixture
def panel(qtbot: Any, session: Session) -> GeneScatterPanel:
    made = GeneScatterPanel(session)
    seen(qtbot, made, made.plot)
    return made


def pairs(session: Session) -> np.ndarray:
    assert session.active is not None
    column = session.active.table[:, session.gene]
    return np.column_stack([column.layers["measured"].ravel(), column.X.ravel()])


def test_another_size_is_drawn_by_the_plot_and_not_while_it_is_painted(
    qtbot: Any, panel: GeneScatterPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = panel.plot
    qtbot.waitUntil(lambda: not plot._painted, timeout=10_000)
    qtbot.wait(50)
    drawn: list[bool] = []
    draw, painting = plot.canvas.draw, plot.canvas.paintEvent
    inside: list[bool] = []

    def paint(event: Any) -> None:
        inside.append(True)
        painting(event)
        inside.pop()

    monkeypatch.setattr(plot.canvas, "paintEvent", paint)
    monkeypatch.setattr(plot.canvas, "draw", lambda: (drawn.append(bool(inside)), draw()))
    before = plot.canvas.grab().toImage()
    panel.resize(500, 460)
    stretched = plot.canvas.grab().toImage()  # painted at once, not drawn
    assert not drawn
    assert stretched.size() != before.size()
    middle = stretched.rect().center()
    assert stretched.pixelColor(2, middle.y()) == before.pixelColor(2, before.rect().center().y())  # not black
    qtbot.waitUntil(lambda: drawn == [False], timeout=10_000)
    assert (int(plot.canvas.renderer.width), int(plot.canvas.renderer.height)) == plot.canvas.get_width_height(
        physical=True
    )
    qtbot.wait(100)
    assert drawn == [False]  # once
    panel.hide()
    plot.canvas.draw_idle()
    qtbot.wait(50)
    assert drawn == [False]  # nobody sees it
    panel.show()
    qtbot.waitUntil(lambda: len(drawn) > 1, timeout=10_000)


def test_what_is_asked_for_without_a_pause_is_drawn_meanwhile(
    qtbot: Any, panel: GeneScatterPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], panel.plot._draw
    monkeypatch.setattr(panel.plot, "_draw", lambda: (drawn.append(True), draw()))
    asking = QTimer()
    asking.timeout.connect(panel.plot.draw_soon)
    asking.start(2)
    qtbot.waitUntil(lambda: len(drawn) >= 3, timeout=10_000)
    asking.stop()
    qtbot.waitUntil(lambda: not (panel.plot._stale or panel.plot._painted), timeout=10_000)


def test_a_plot_without_room_for_axes_is_drawn_in_silence(
    panel: GeneScatterPanel, recwarn: pytest.WarningsRecorder
) -> None:
    plot = panel.plot
    assert plot.figure is not None
    plot.figure.set_size_inches(0.4, 0.2)
    plot.canvas.draw()
    assert not [str(one.message) for one in recwarn if "constrained_layout" in str(one.message)]


def test_the_line_is_scipys(panel: GeneScatterPanel, session: Session) -> None:
    theirs = linregress(*pairs(session).astype(float).T)
    assert panel.plot.axes.get_title() == f"n = 47   PCC {theirs.rvalue:.2f}   slope {theirs.slope:.2f}"
    x, y = artist(panel.plot, "fitted").get_data()
    np.testing.assert_allclose(y, theirs.intercept + theirs.slope * x, rtol=1e-6)
    np.testing.assert_array_equal(np.column_stack(artist(panel.plot, "spots").get_data()), pairs(session))
    assert panel.plot.axes.get_xlabel() == f"Measured {session.gene}, log2(count + 1)"


def test_a_lasso_selects_spots_and_spots_are_highlighted(qtbot: Any, panel: GeneScatterPanel, session: Session) -> None:
    xy, plot = pairs(session), panel.plot
    way = around(xy[xy[:, 0] >= np.median(xy[:, 0])], 0.01 * np.ptp(xy, axis=0))
    drag(plot, way)
    np.testing.assert_array_equal(session.selection, np.flatnonzero(inside(way, xy)))
    assert 0 < len(session.selection) < 47
    assert panel.tools.count.text() == f"{len(session.selection)} selected"
    layer = session.layer_of(session.active, "predicted")
    assert layer.selected_data == set(session.selection.tolist())
    drawn_again(qtbot, plot)
    assert selected(plot) == len(session.selection)
    layer.selected_data = {3, 8}  # in the viewer
    drawn_again(qtbot, plot)
    np.testing.assert_array_equal(np.column_stack(artist(plot, "selected").get_data()), xy[[3, 8]])
    qtbot.mouseClick(panel.tools.clear, Qt.MouseButton.LeftButton)
    drawn_again(qtbot, plot)
    assert selected(plot) == 0
    assert not panel.tools.clear.isEnabled()


def emptiest(plot: Any, points: np.ndarray) -> np.ndarray:
    """Return the place in a plot that is farthest from all points, on the screen."""
    fractions = np.stack(np.meshgrid(*2 * [np.linspace(0.05, 0.95, 19)]), axis=-1).reshape(-1, 2)
    pixels, there = plot.axes.transAxes.transform(fractions), plot.axes.transData.transform(points)
    best = pixels[np.linalg.norm(pixels[:, None] - there[None], axis=-1).min(axis=1).argmax()]
    return plot.axes.transData.inverted().transform(best)


def test_a_rectangle_and_a_click(qtbot: Any, panel: GeneScatterPanel, session: Session) -> None:
    xy, plot = pairs(session), panel.plot
    qtbot.mouseClick(panel.tools.shapes["rectangle"], Qt.MouseButton.LeftButton)
    drawn_again(qtbot, plot)
    heights = np.sort(xy[:, 1])
    gap = int(np.diff(heights).argmax())
    cut, margin = heights[gap : gap + 2].mean(), 0.02 * np.ptp(xy, axis=0)
    drag(plot, [(xy[:, 0].min() - margin[0], cut), xy.max(axis=0) + margin])
    np.testing.assert_array_equal(session.selection, np.flatnonzero(xy[:, 1] > cut))
    drawn_again(qtbot, plot)
    alone = int(xy[:, 0].argmax())
    click(plot, xy[alone])
    np.testing.assert_allclose(xy[session.selection[0]], xy[alone])
    drawn_again(qtbot, plot)
    click(plot, emptiest(plot, xy))
    assert len(session.selection) == 0


def test_another_gene_and_another_theme_are_drawn(qtbot: Any, panel: GeneScatterPanel, session: Session) -> None:
    assert session.active is not None
    plot = panel.plot
    other = next(gene for gene in session.active.table.var_names if gene != session.gene)
    dark = plot.figure.get_facecolor()
    session.show(gene=other)
    drawn_again(qtbot, plot)
    assert other in plot.axes.get_xlabel()
    session.viewer.theme = "light"
    drawn_again(qtbot, plot)
    assert np.mean(plot.figure.get_facecolor()[:3]) > 0.6 > 0.4 > np.mean(dark[:3])


def test_many_points_are_drawn_as_their_density(qtbot: Any, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "MANY", 40)
    panel = GeneScatterPanel(session)
    plot = seen(qtbot, panel, panel.plot)
    assert artist(plot, "spots") is None
    assert artist(plot, "density").get_array().sum() == 47
    session.select([1, 2])
    drawn_again(qtbot, plot)
    assert selected(plot) == 2


def test_a_plot_says_what_to_do_first(qtbot: Any, empty_session: Session, session: Session) -> None:
    assert session is empty_session
    session.viewer.layers.clear()
    scatter, histogram = GeneScatterPanel(session), HierarchyHistogram(session)
    for widget, plot in ((scatter, scatter.plot), (histogram, histogram)):
        qtbot.addWidget(widget)
        widget.show()
        qtbot.waitUntil(lambda plot=plot: plot.hint.text().startswith("Predict the genes of a slide"))
        assert plot.hint.isVisible()
        widget.close()


def test_a_slide_without_counts_and_a_constant_gene_are_told(qtbot: Any, session: Session) -> None:
    assert session.active is not None
    table = session.active.table.copy()
    table.layers["measured"][:, :] = 1.0
    session.set_prediction(session.active.key, table, "table_hyperst")
    panel = GeneScatterPanel(session)
    plot = seen(qtbot, panel, panel.plot)
    assert plot.axes.get_title() == "n = 47   PCC none   slope none"
    table = table.copy()
    del table.layers["measured"]
    session.set_prediction(session.active.key, table, "table_hyperst")
    qtbot.waitUntil(lambda: "needs measured counts" in plot.hint.text())


def test_the_histogram_shows_angles_against_the_cone(qtbot: Any, session: Session) -> None:
    assert session.active is not None
    session.show("violation_spot_image__spot_gene")
    plot = seen(qtbot, HierarchyHistogram(session))
    relation = Hierarchy.of(session.active.table).relations[0]
    angles = Angles.of(session.active.table, relation)
    line = artist(plot, "threshold")
    np.testing.assert_allclose(line.get_xdata(), np.median(angles.threshold))
    words = [text.get_text() for text in plot.axes.get_legend().get_texts()]
    assert f"outside: {100 * angles.share:.3g} % of 47" in words
    low, high = angles.threshold.min(), angles.threshold.max()
    edge = f"0.7 × half-aperture: {np.median(angles.threshold):.3g}°, {low:.3g} to {high:.3g}°"
    assert edge in words
    heights = [sum(bar.get_height() for bar in bars) for bars in plot.axes.containers]
    assert heights == [(~angles.violates).sum(), angles.violates.sum()]
    highest = max(bar.get_y() + bar.get_height() for bars in plot.axes.containers for bar in bars)
    assert plot.axes.get_ylim()[1] > 1.4 * highest  # room for the legend
    assert plot.axes.get_xlabel().endswith("(°)")
    session.show("norm_spot_gene")
    drawn_again(qtbot, plot)
    assert plot.axes.get_xlabel() == "Distance from the origin"
    session.show("predicted")
    qtbot.waitUntil(lambda: "Choose a norm or a relation" in plot.hint.text())


def test_a_lasso_of_many_corners_and_points_that_are_not_there() -> None:
    turn = np.linspace(0, 2 * np.pi, 1000)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    points = np.array([(0, 0), (0.9, 0.1), (1.1, 0), (0.8, 0.8), (np.nan, 0)])
    np.testing.assert_array_equal(inside(circle, points), [True, True, False, False, False])
    assert not inside(circle[:2], points).any()
