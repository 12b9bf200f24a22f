"""A live Poincaré disk of the embeddings, linked with the viewer by selection."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_hyperst.nouns.hierarchy import EMBEDDINGS, Embedding
from napari_hyperst.viewer.colouring import NORM, Coloured, coloured, colourings
from napari_hyperst.viewer.filling import WAIT
from napari_hyperst.viewer.hierarchy import Hierarchy, disk_embeddings, disk_radius
from napari_hyperst.viewer.maps import EMBEDDING_TITLES, NO_COUNTS, robust_limits
from napari_hyperst.viewer.preferences import percentiles
from napari_hyperst.viewer.statistics import Grid
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.plot import FONT_PT
from napari_hyperst.widgets.spot_plot import BrushTools, SpotPlot, thinned
from napari_hyperst.widgets.theme import Colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_hyperst.viewer.session import Session

#: No more points than this are drawn one by one: each in a colour of its own, they take longer than in one.
MANY = 10_000
#: What the points of an embedding look like: to matplotlib, and to the user.
_MARKS = {"spot_image": ("o", "●"), "niche_image": ("s", "■"), "spot_gene": ("^", "▲"), "niche_gene": ("D", "◆")}
_FIRST: tuple[Embedding, ...] = ("spot_image", "spot_gene")
#: A step of the mouse wheel.
_ZOOM = 1.25
_WHOLE = 1.04
#: A line of the colour bar's label has so many letters, which fit a plot that is as low as can be.
_LABEL_LETTERS = 24


class DiskPlot(SpotPlot):
    """The unit disk with rings of equal depth, and the embeddings that are chosen on it.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(session, parent)
        self.embeddings: tuple[Embedding, ...] = _FIRST
        self.colouring = NORM
        self.whole = False
        self._view: tuple[float, float, float] | None = None
        self._reach = 1.0
        self.setMinimumHeight(170)
        self.setToolTip(
            "Embeddings on the Poincaré disk: general in the middle, fine-grained at the rim.\n"
            "Brush points to select spots; the mouse wheel zooms, a double click undoes that"
        )

    @property
    def seen(self) -> tuple[Embedding, ...]:
        """The embeddings that are chosen and there."""
        entry = self.entry
        there = () if entry is None or entry.table is None else disk_embeddings(entry.table)
        return tuple(name for name in there if name in self.embeddings)

    def missing(self) -> str:
        """Return why there is nothing to draw."""
        entry = self.entry
        if entry is None or entry.table is None:
            return "Predict the genes of a slide to see its embeddings on the Poincaré disk."
        if entry.filling:
            return WAIT
        if not disk_embeddings(entry.table):
            kind = Hierarchy.of(entry.table).geometry
            if kind != "hyperbolic":
                return f"The embeddings of this checkpoint are not hyperbolic but {kind}: there is no Poincaré disk."
            return "The method of this checkpoint has no embeddings."
        return "" if self.seen else "Choose an embedding above."

    def paint(self, axes: Axes, colours: Colours) -> None:
        """Draw rings, points or, where they are many, their means, and what is selected."""
        entry = self.entry
        assert entry is not None
        assert entry.table is not None
        table = entry.table
        points = [np.asarray(table.obsm[f"hyperst_disk_{name}"], dtype=np.float64) for name in self.seen]
        genes, title = self.session.genes, self.session.title or ""
        told = [coloured(entry, self.colouring, genes, title, name) for name in self.seen]
        depth = max(float(np.nanmax(table.obs[f"norm_{name}"], initial=0.0)) for name in self.seen)
        _rings(axes, depth, Hierarchy.of(table).curvature, colours)
        scale = _Scale.of(told)
        if sum(map(len, points)) > MANY:
            grid = Grid((-1.0, -1.0), (1.0, 1.0), bins=250)
            xy, values = np.concatenate(points), np.concatenate([one.values for one in told])
            seen = grid.mean(xy[:, 0], xy[:, 1], values)
            drawn: Any = axes.imshow(
                seen,
                origin="lower",
                extent=grid.extent,
                interpolation="nearest",
                gid="density",
                zorder=2,
                **scale.style,
            )
        else:
            for name, xy, one in zip(self.seen, points, told, strict=True):
                blank = ~np.isfinite(one.values)
                axes.plot(*xy[blank].T, ".", markersize=3, color=colours.grid, zorder=1.5)
                drawn = axes.scatter(
                    xy[~blank, 0], xy[~blank, 1], c=one.values[~blank], s=15, marker=_MARKS[name][0], linewidths=0,
                    alpha=0.85, zorder=2, gid=name, **scale.style,
                )  # fmt: skip
        chosen = thinned(self.session.selection)
        for name, xy in zip(self.seen, points, strict=True):
            axes.plot(
                *xy[chosen].T, _MARKS[name][0], markersize=6.5, markerfacecolor="none", color=colours.selected,
                markeredgewidth=1.2, zorder=3, gid=f"selected {name}",
            )  # fmt: skip
        scale.explain(axes, drawn, colours)
        self._reach = max(float(np.hypot(*xy[np.isfinite(xy).all(axis=1)].T).max(initial=0.0)) for xy in points)
        self._frame(axes)
        rows = np.tile(np.arange(table.n_obs), len(points))
        self.watch(axes, colours.selected, np.concatenate(points), rows)

    def show_whole(self, whole: bool) -> None:
        """Show the whole disk, or as much of it as the points take."""
        self.whole, self._view = whole, None
        self._look()

    def _home(self) -> tuple[float, float, float]:
        """Return the middle of what is seen, and half its side, before anybody zooms."""
        return 0.0, 0.0, _WHOLE if self.whole else min(_WHOLE, 1.15 * self._reach + 1e-3)

    def _frame(self, axes: Axes) -> None:
        x, y, half = self._view or self._home()
        axes.set_xlim(x - half, x + half)
        axes.set_ylim(y - half, y + half)
        axes.set_aspect("equal")
        axes.set_axis_off()

    def _make_canvas(self) -> None:
        super()._make_canvas()
        self.canvas.mpl_connect("scroll_event", self._on_scroll)
        self.canvas.mpl_connect("button_press_event", self._on_press)

    def _on_scroll(self, event: Any) -> None:
        """Zoom, with the point under the mouse where it is."""
        if event.xdata is None:
            return
        x, y, half = self._view or self._home()
        closer = min(_WHOLE, max(1e-3, half * _ZOOM**-event.step))
        part = closer / half
        self._view = (event.xdata + (x - event.xdata) * part, event.ydata + (y - event.ydata) * part, closer)
        if closer == _WHOLE:
            self._view = (0.0, 0.0, _WHOLE)
        self._look()

    def _on_press(self, event: Any) -> None:
        if event.dblclick:
            self._view = None
            self._look()

    def _look(self) -> None:
        if self.axes is not None:
            self._frame(self.axes)
            self.canvas.draw_idle()


class PoincareDisk(QWidget):
    """The disk, with what is on it and what it is coloured by.

    Parameters
    ----------
    session
        The session.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.plot = DiskPlot(session)
        self.tools = BrushTools(session)
        self.colouring = QComboBox()
        self.colouring.setToolTip("What the points are coloured by; grey points have no value")
        self.colouring.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.whole = QCheckBox("Whole disk")
        self.whole.setToolTip("Show the disk to its rim, or only as far as the points go")
        self.whole.toggled.connect(self.plot.show_whole)
        self.boxes = {name: QCheckBox(f"{_MARKS[name][1]} {EMBEDDING_TITLES[name]}") for name in EMBEDDINGS}
        shown = QGridLayout()
        for place, (name, box) in enumerate(self.boxes.items()):
            box.setChecked(name in _FIRST)
            box.clicked.connect(self._on_boxes)
            shown.addWidget(box, place // 2, place % 2)
        row = QHBoxLayout()
        row.addWidget(QLabel("Colour by"))
        row.addWidget(self.colouring, 1)
        row.addWidget(self.whole)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(shown)
        layout.addLayout(row)
        layout.addWidget(self.tools)
        layout.addWidget(self.plot, 1)
        self.tools.shape_chosen.connect(self.plot.set_shape)
        self.colouring.activated.connect(self._on_colouring)
        hear(self, (session.prediction_changed, self.show_state))
        self.show_state()

    def show_state(self) -> None:
        """List what there is of the active slide."""
        entry = self.plot.entry
        there = () if entry is None or entry.table is None else disk_embeddings(entry.table)
        for name, box in self.boxes.items():
            box.setEnabled(name in there)
            title = EMBEDDING_TITLES[name]
            reason = "predict genes first" if entry is None else "this checkpoint has none on the disk"
            if there and name.endswith("gene"):
                reason = NO_COUNTS
            box.setToolTip(
                f"Show the embedding of each {title}" if name in there else f"{title.capitalize()}: {reason}"
            )
        with QSignalBlocker(self.colouring):
            self.colouring.clear()
            for found in () if entry is None else colourings(entry):
                self.colouring.addItem(found.title, found.key)
            kept = self.colouring.findData(self.plot.colouring)
            self.colouring.setCurrentIndex(kept if kept >= 0 else self.colouring.findData(NORM))
        self.colouring.setEnabled(bool(there))
        self.whole.setEnabled(bool(there))
        if self.colouring.count():
            self.plot.colouring = str(self.colouring.currentData())

    def _on_boxes(self) -> None:
        self.plot.embeddings = tuple(name for name, box in self.boxes.items() if box.isChecked())
        self.plot.draw_soon()

    def _on_colouring(self, _row: int) -> None:
        self.plot.colouring = str(self.colouring.currentData())
        self.plot.draw_soon()


class _Scale:
    """The colours of numbers or of categories, one scale for all embeddings."""

    def __init__(self, label: str, categories: tuple[str, ...], limits: tuple[float, float]) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap

        self.label, self.categories = label, categories
        if categories:
            many = colormaps["tab10" if len(categories) <= 10 else "tab20"]
            limits = (-0.5, len(categories) - 0.5)
            self.style: dict[str, Any] = {"cmap": ListedColormap([many(i) for i in range(len(categories))])}
        else:
            self.style = {"cmap": "viridis"}
        self.style |= {"vmin": limits[0], "vmax": limits[1]}

    @classmethod
    def of(cls, told: list[Coloured]) -> _Scale:
        """Return the scale that all of these share."""
        values = np.concatenate([one.values for one in told])
        return cls(told[0].label, told[0].categories, robust_limits(values, percentiles()))

    def explain(self, axes: Axes, drawn: Any, colours: Colours) -> None:
        """Draw a colour bar, or name the categories."""
        if not self.categories:
            assert axes.figure is not None
            bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02)  # height is what there is little of
            bar.set_label(fill(self.label, _LABEL_LETTERS), color=colours.text, fontsize=FONT_PT)
            bar.ax.tick_params(colors=colours.text, labelsize=FONT_PT)
            bar.outline.set_edgecolor(colours.grid)
            return
        for place, name in enumerate(self.categories):
            axes.plot([], [], "o", markersize=5, color=self.style["cmap"](place), label=name)
        axes.legend(
            title=self.label, title_fontsize=FONT_PT, fontsize=FONT_PT - 0.5, labelcolor=colours.text, frameon=False,
            loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, handletextpad=0.1, columnspacing=0.8,
        ).get_title().set_color(colours.text)  # fmt: skip


def _rings(axes: Axes, depth: float, c: float, colours: Colours) -> None:
    """Draw the rim, and rings at equal depths with their depth in numbers."""
    from matplotlib.patches import Circle
    from matplotlib.ticker import MaxNLocator

    axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=colours.text, linewidth=1.2, gid="rim"))
    depths = [float(d) for d in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, max(depth, 1e-3)) if d > 0]
    for d in depths:
        radius = float(disk_radius(d, c))
        ring = Circle((0, 0), radius, fill=False, edgecolor=colours.grid, linewidth=0.9, linestyle="--", gid="ring")
        axes.add_patch(ring)
        axes.text(
            0, radius, f"{d:g}", color=colours.text, fontsize=FONT_PT - 1, ha="center", va="center", zorder=4,
            bbox={"facecolor": colours.background, "edgecolor": "none", "pad": 0.8, "alpha": 0.8}, clip_on=True,
        )  # fmt: skip
    axes.plot(0, 0, "+", color=colours.text, markersize=6, alpha=0.7)
