"""Measured against predicted expression of a gene, and how a number of the hierarchy is distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_hyperst.viewer.filling import WAIT
from napari_hyperst.viewer.hierarchy import Angles, Hierarchy, title_of
from napari_hyperst.viewer.maps import NO_COUNTS, values_of
from napari_hyperst.viewer.statistics import Grid, Line
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.plot import FONT_PT, Plot
from napari_hyperst.widgets.spot_plot import MANY, BrushTools, SpotPlot, thinned
from napari_hyperst.widgets.theme import Colours

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from napari_hyperst.viewer.session import Session

_BINS = 40
#: The axis of a histogram goes so many times as high as its bars.
_HEADROOM = 1.5


class GeneScatter(SpotPlot):
    """Measured against predicted expression of the gene that is shown, with the fitted line.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(session, parent)
        self._read: tuple[AnnData, tuple[str, ...], NDArray[np.float32], Line] | None = None
        self.setToolTip("Each point is a spot; brush points to select spots, and the other way round")

    def missing(self) -> str:
        """Return why there is nothing to draw."""
        if self.entry is None:
            return "Predict the genes of a slide with counts to compare them with what was measured."
        if self.entry.filling:
            return WAIT
        if self.entry.map("measured") is None:
            return f"There is nothing to compare with: it {NO_COUNTS}."
        if not self.session.genes:
            return "Choose a gene to compare what was predicted with what was measured."
        line = self._values()[1]
        return "" if line.n else f"{self.session.title} was measured on no spot of this slide."

    def paint(self, axes: Axes, colours: Colours) -> None:
        """Draw points or, where they are many, their density; then lines, and what is selected."""
        points, line = self._values()
        x, y = points.T
        low, high = np.nanmin(points, axis=0).astype(float), np.nanmax(points, axis=0).astype(float)
        margin = np.maximum(0.04 * (high - low), 0.02)
        low, high = low - margin, high + margin
        if len(points) > MANY:
            _density(axes, Grid(tuple(low), tuple(high)), x, y)
        else:
            axes.plot(x, y, "o", markersize=3.5, markeredgewidth=0, alpha=0.55, color=colours.points, gid="spots")
        chosen = thinned(self.session.selection)
        axes.plot(x[chosen], y[chosen], "o", markersize=4.5, markeredgewidth=0, color=colours.selected, gid="selected")
        ends = np.array([low[0], high[0]])
        axes.plot(ends, ends, "--", color=colours.text, linewidth=1, alpha=0.6, label="predicted = measured")
        if np.isfinite(line.slope):
            fitted = line.intercept + line.slope * ends
            axes.plot(ends, fitted, "-", color=colours.warning, linewidth=1.5, label="fitted", gid="fitted")
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(low[1], high[1])
        axes.set_title(f"n = {line.n:,}   PCC {_number(line.pcc)}   slope {_number(line.slope)}", fontsize=FONT_PT)
        axes.set_xlabel(f"Measured {self.session.title}, log2(count + 1)")
        axes.set_ylabel("Predicted, log2(count + 1)")
        legend(axes, colours)
        assert self.entry is not None
        self.watch(axes, colours.selected, points, np.arange(len(points)))

    def _values(self) -> tuple[NDArray[np.float32], Line]:
        """Return (n, 2) measured and predicted, and the line."""
        assert self.entry is not None
        table, genes = self.entry.table, self.session.genes
        assert table is not None
        if self._read is None or self._read[0] is not table or self._read[1] != genes:
            x, y = values_of(table, "measured", genes), values_of(table, "predicted", genes)
            self._read = (table, genes, np.column_stack([x, y]), Line.fit(x, y))
        return self._read[2], self._read[3]


class GeneScatterPanel(QWidget):
    """The scatter plot of a gene with what to brush it with.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tools = BrushTools(session)
        self.plot = GeneScatter(session)
        self.tools.shape_chosen.connect(self.plot.set_shape)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.tools)
        layout.addWidget(self.plot, 1)


class HierarchyHistogram(Plot):
    """The angles of the relation that is shown, with the edge of the cone; or the norms that are shown.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(session.viewer, parent)
        self.session = session
        self.setToolTip("How the number that is shown is distributed over the spots")
        hear(self, (session.prediction_changed, self.draw_soon), (session.shown_changed, self.draw_soon))

    def missing(self) -> str:
        """Return why there is nothing to draw."""
        entry = self.session.active
        if entry is None or entry.table is None:
            return "Predict the genes of a slide to see how deep its spots lie in the hierarchy."
        if entry.filling:
            return WAIT
        if not self.session.map.startswith(("norm_", "violation_")) or entry.map(self.session.map) is None:
            return "Choose a norm or a relation in the list to see how it is distributed."
        there = np.isfinite(values_of(entry.table, self.session.map, ()))
        return "" if there.any() else "No spot has a value: it needs counts, and no spot was counted."

    def paint(self, axes: Axes, colours: Colours) -> None:
        """Draw angles, those outside the cone in another colour, or norms."""
        entry = self.session.active
        assert entry is not None
        assert entry.table is not None
        key = self.session.map
        relation = Hierarchy.of(entry.table).relation(key.removeprefix("violation_"))
        axes.set_ylabel("Spots")
        axes.locator_params(axis="y", integer=True, nbins=5)
        if relation is not None:
            axes.set_title(title_of(relation), fontsize=FONT_PT)
            _draw_angles(axes, Angles.of(entry.table, relation), relation.eta, colours)
            legend(axes, colours)
            return
        values = values_of(entry.table, key, ())
        values = values[np.isfinite(values)]
        shown = entry.map(key)
        axes.set_title(f"{'' if shown is None else shown.title}, {len(values):,} spots", fontsize=FONT_PT)
        axes.hist(values, bins=_edges(values).tolist(), color=colours.points)
        axes.set_xlabel("Distance from the origin")


def _draw_angles(axes: Axes, angles: Angles, eta: float, colours: Colours) -> None:
    edges = _edges(np.append(angles.exterior, angles.threshold))
    parts = [angles.exterior[~angles.violates], angles.exterior[angles.violates]]
    share = f"outside: {100 * angles.share:.3g} % of {len(angles.violates):,}"
    axes.hist(
        parts, bins=edges.tolist(), stacked=True, color=[colours.points, colours.warning], label=["in the cone", share]
    )
    middle = float(np.median(angles.threshold))
    low, high = float(angles.threshold.min()), float(angles.threshold.max())
    if high > low:
        axes.axvspan(low, high, color=colours.text, alpha=0.12, linewidth=0)
    edge = "half-aperture" if eta == 1 else f"{eta:g} × half-aperture"
    span = f", {low:.3g} to {high:.3g}°" if high > low else ""
    axes.axvline(middle, color=colours.text, linewidth=1.5, label=f"{edge}: {middle:.3g}°{span}", gid="threshold")
    axes.set_xlabel("Exterior angle of the child (°)")
    axes.set_ylim(top=_HEADROOM * axes.get_ylim()[1])  # for the legend


def _edges(values: NDArray[Any]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1.0, _BINS + 1)


def _density(axes: Axes, grid: Grid, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Draw how many points lie where, in logarithmic steps; nothing where there is none."""
    from matplotlib.colors import LogNorm

    counts = grid.count(x, y)
    seen = np.ma.masked_equal(counts, 0)
    norm = LogNorm(vmin=1, vmax=max(2.0, float(counts.max())))
    axes.imshow(seen, origin="lower", extent=grid.extent, aspect="auto", cmap="viridis", norm=norm, gid="density")


def legend(axes: Axes, colours: Colours) -> None:
    """Say what is what, where it is least in the way."""
    axes.legend(
        fontsize=FONT_PT - 0.5, labelcolor=colours.text, frameon=True, framealpha=0.85, facecolor=colours.background,
        edgecolor="none", borderpad=0.3, handlelength=1.4, loc="best",
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "none"
