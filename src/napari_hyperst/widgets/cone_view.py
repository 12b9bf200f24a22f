"""The cone of the spot that is selected: parent, child, the angle against the aperture, and its two tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_hyperst.viewer.filling import WAIT
from napari_hyperst.viewer.hierarchy import Hierarchy, SpotCone, disk_radius, from_disk, title_of
from napari_hyperst.viewer.maps import EMBEDDING_TITLES, NO_COUNTS
from napari_hyperst.viewer.tile_reader import SpotTiles, Told, read_in_thread
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.plot import FONT_PT, Plot
from napari_hyperst.widgets.theme import Colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_hyperst.viewer.session import Session

_TILE_PX = 72
#: Lines that describe a cone, of which the last wraps.
_LINES = 5
#: Points of a line that is curved on the disk.
_STEPS = 120
#: A line that has come this far goes on beyond any picture.
_FAR = 0.99999


class ConePlot(Plot):
    """The plane through origin, parent and child, with the parent's cone.

    In hyperbolic space the plane is drawn as a Poincaré disk, which keeps angles as they are.

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
        self.cone: SpotCone | None = None
        self.hierarchy: Hierarchy | None = None
        self.reason = ""
        self.setMinimumHeight(96)
        self.setToolTip("The plane through origin, parent and child; angles are true")

    def show_cone(self, cone: SpotCone | None, hierarchy: Hierarchy | None, reason: str) -> None:
        """Draw a cone, or say why there is none."""
        self.cone, self.hierarchy, self.reason = cone, hierarchy, reason
        self.draw_soon()

    def missing(self) -> str:
        """Return why there is nothing to draw."""
        return self.reason

    def paint(self, axes: Axes, colours: Colours) -> None:
        """Draw the cone, the way from the parent to the child, and both angles."""
        assert self.cone is not None
        assert self.hierarchy is not None
        cone, hyperbolic = self.cone, self.hierarchy.geometry == "hyperbolic"
        parent, child = places(cone, self.hierarchy)
        half = _frame(axes, parent, child)
        edges = [_ray(parent, sign * np.radians(cone.threshold), hyperbolic, half) for sign in (1, -1)]
        outline = np.concatenate([edges[0], edges[1][::-1]])
        axes.fill(outline.real, outline.imag, color=colours.points, alpha=0.22, linewidth=0)
        for edge in edges:
            axes.plot(edge.real, edge.imag, color=colours.points, linewidth=1.2)
        axis = _ray(parent, 0.0, hyperbolic, half)
        axes.plot([0, *axis.real], [0, *axis.imag], ":", color=colours.text, linewidth=1, alpha=0.7)
        out = colours.warning if cone.violation > 0 else colours.selected
        way = way_between(parent, child, hyperbolic)
        axes.plot(way.real, way.imag, color=out, linewidth=1.6, gid="way")
        side = 1.0 if child.real >= 0 else -1.0
        _arc(axes, parent, side * cone.exterior, 0.34 * half, out)
        _arc(axes, parent, -side * cone.threshold, 0.46 * half, colours.points)
        if hyperbolic:
            from matplotlib.patches import Circle

            axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=colours.grid, linewidth=1))
        _mark(axes, 0j, "origin", -11, colours.text, "+", colours)
        _mark(axes, parent, EMBEDDING_TITLES[cone.relation.parent], -11, colours.points, "o", colours)
        _mark(axes, child, EMBEDDING_TITLES[cone.relation.child], 10, out, "o", colours)


class ConeView(QWidget):
    """One spot: its cone in the relation that is shown, in words and as a picture, and its tiles.

    Parameters
    ----------
    session
        The session; its selection says which spot.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self._row: int | None = None
        self._read: tuple[object, int] | None = None
        self.words = QLabel()
        self.words.setTextFormat(Qt.TextFormat.PlainText)
        self.words.setWordWrap(True)
        self.words.setMinimumHeight(_LINES * self.words.fontMetrics().lineSpacing())  # wrapped, it would be squeezed
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.words.setToolTip("A child outside the cone of its parent violates the relation")
        self.plot = ConePlot(session)
        self.tiles = {name: _tile() for name in ("spot", "niche")}
        self.captions = {name: _caption() for name in self.tiles}
        column = QVBoxLayout()
        column.setSpacing(2)
        for name, tile in self.tiles.items():
            column.addWidget(tile)
            column.addWidget(self.captions[name])
        column.addStretch(1)
        row = QHBoxLayout()
        row.addWidget(self.plot, 1)
        row.addLayout(column)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.words)
        layout.addLayout(row, 1)
        hear(
            self,
            (session.prediction_changed, self.show_state),
            (session.shown_changed, self.show_state),
            (session.selection_changed, self.show_state),
        )
        self.show_state()

    def show_state(self) -> None:
        """Show the cone of the first spot that is selected."""
        entry, selected = self.session.active, self.session.selection
        table = None if entry is None else entry.table
        if entry is None or table is None or not len(selected):
            do = (
                "Predict the genes of a slide first." if table is None else "Click a spot on the slide to see its cone."
            )
            self._show(None, None, do, "")
            self._show_tiles(None)
            return
        row = int(selected[0])
        if entry.filling:
            self._show(None, None, WAIT, "")
            self._show_tiles(None)
            return
        hierarchy = Hierarchy.of(table)
        relation = hierarchy.relation(self.session.map.removeprefix("violation_"))
        if relation is None:
            there = [one for one in hierarchy.relations if f"violation_{one.name}" in table.obs]
            relation = next(iter([*there, *hierarchy.relations]), None)
        name = f"Spot {table.obs_names[row]}" + (f" (first of {len(selected):,} selected)" if len(selected) > 1 else "")
        cone = None if relation is None else SpotCone.of(table, row, relation)
        if relation is None:
            self._show(None, None, "The method of this checkpoint has no relations, and so no cones.", name)
        elif cone is None:
            told = f"{title_of(relation)}: this spot has no cone, as it {NO_COUNTS}."
            if "measured" in table.layers:
                told = f"{title_of(relation)}: this spot has no cone, as it was not counted."
            self._show(None, None, told, name)
        else:
            self._show(cone, hierarchy, "", f"{name}\n{describe(cone)}")
        self._ask_for_tiles(row)

    # -- within

    def _show(self, cone: SpotCone | None, hierarchy: Hierarchy | None, reason: str, words: str) -> None:
        self.words.setText(words)
        self.words.setVisible(bool(words))
        self.plot.show_cone(cone, hierarchy, reason)

    def showEvent(self, event: object) -> None:
        """Read the tiles of what was selected meanwhile."""
        super().showEvent(event)
        if self._row is not None:
            self._ask_for_tiles(self._row)

    def _ask_for_tiles(self, row: int) -> None:
        """Read tiles when they are seen and others than those that are shown, or being read."""
        entry = self.session.active
        self._row = row
        if entry is None or not self.isVisible() or self._asked_for(entry.table, row):
            return
        self._read = (entry.table, row)
        for name, caption in self.captions.items():
            caption.setText(f"Reading {name} tile…")
            caption.show()
        read_in_thread(entry, row, self._on_tiles)

    def _asked_for(self, table: object, row: int) -> bool:
        """Whether the tiles that were asked for last are those of this spot."""
        return self._read is not None and self._read[0] is table and self._read[1] == row

    def _on_tiles(self, told: Told) -> None:
        table, row, found = told
        if not self._asked_for(table, row):  # another was selected meanwhile
            return
        if isinstance(found, SpotTiles):
            self._show_tiles(found)
            return
        self._show_tiles(None)
        self.captions["spot"].setWordWrap(True)
        self.captions["spot"].setText(str(found))
        self.captions["spot"].show()

    def _show_tiles(self, told: SpotTiles | None) -> None:
        if told is None:
            self._read = self._row = None
        for name, pixels, side in (
            ("spot", None if told is None else told.spot, 0.0 if told is None else told.spot_um),
            ("niche", None if told is None else told.niche, 0.0 if told is None else told.niche_um),
        ):
            self.tiles[name].setVisible(pixels is not None)
            self.captions[name].setVisible(pixels is not None)
            self.captions[name].setWordWrap(False)  # whose height Qt takes from the tiles where there is little
            self.captions[name].setText("" if pixels is None else f"{name.capitalize()} tile, {side:.4g} µm")
            if pixels is not None:
                self.tiles[name].setPixmap(_pixmap(pixels))


def describe(cone: SpotCone) -> str:
    """Say in words where the child of a spot is."""
    eta = "" if cone.relation.eta == 1 else f"{cone.relation.eta:g} × "
    edge = f"{eta}{cone.half_aperture:.1f}°" + ("" if not eta else f" = {cone.threshold:.1f}°")
    where = f"outside the cone by {cone.violation:.1f}°" if cone.violation > 0 else "inside the cone"
    parent, child = (EMBEDDING_TITLES[name] for name in (cone.relation.parent, cone.relation.child))
    return (
        f"Parent: {parent}, {cone.parent_depth:.2f} from the origin\n"
        f"Child: {child}, {cone.child_depth:.2f} from the origin\n"
        f"Exterior angle {cone.exterior:.1f}° against {edge}: {where}"
    )


def places(cone: SpotCone, hierarchy: Hierarchy) -> tuple[complex, complex]:
    """Return where parent and child are in the plane through them and the origin, the parent straight up.

    Parameters
    ----------
    cone
        The cone.
    hierarchy
        In which space it is: on the Poincaré disk where that is hyperbolic.
    """
    parent, child = cone.parent_depth, cone.child_depth
    if hierarchy.geometry == "hyperbolic":
        parent, child = (float(disk_radius(depth, hierarchy.curvature)) for depth in (parent, child))
    return parent * 1j, child * np.exp(1j * (np.pi / 2 - np.radians(cone.between)))


def way_between(start: complex, end: complex, hyperbolic: bool) -> NDArray[np.complex128]:
    """Return the shortest way between two points: on the Poincaré disk an arc of a circle, else a straight line."""
    steps = np.linspace(0, 1, _STEPS)
    if not hyperbolic:
        return np.asarray(start + steps * (end - start), dtype=np.complex128)
    ahead = from_disk(np.array([end], dtype=np.complex128), -start)
    return from_disk(np.asarray(steps * ahead, dtype=np.complex128), start)


def _ray(start: complex, angle: float, hyperbolic: bool, half: float) -> NDArray[np.complex128]:
    """Return the way from a point on, at an angle (clockwise) from straight up, out of the picture."""
    direction = np.exp(1j * (np.pi / 2 - angle))
    if not hyperbolic:
        return np.asarray(start + np.linspace(0, 8 * half, _STEPS) * direction, dtype=np.complex128)
    steps = np.tanh(np.linspace(0, np.arctanh(_FAR), _STEPS)) * direction
    return from_disk(np.asarray(steps, dtype=np.complex128), start)


def _arc(axes: Axes, at: complex, degrees: float, radius: float, colour: str) -> None:
    """Draw an angle from straight up, clockwise, with its size."""
    turn = np.pi / 2 - np.radians(np.linspace(0, degrees, 40))
    axes.plot(at.real + radius * np.cos(turn), at.imag + radius * np.sin(turn), color=colour, linewidth=1)
    x, y = at.real + 1.45 * radius * np.cos(turn[26]), at.imag + 1.45 * radius * np.sin(turn[26])
    axes.text(x, y, f"{abs(degrees):.0f}°", color=colour, fontsize=FONT_PT, ha="center", va="center")


def _mark(axes: Axes, at: complex, word: str, above: int, colour: str, marker: str, colours: Colours) -> None:
    """Mark a point, with a word so many points above it."""
    axes.plot(at.real, at.imag, marker, color=colour, markersize=7, gid=word)
    axes.annotate(
        word, (at.real, at.imag), xytext=(0, above), textcoords="offset points", color=colours.text,
        fontsize=FONT_PT, ha="center", va="center",
        bbox={"facecolor": colours.background, "edgecolor": "none", "pad": 0.5, "alpha": 0.6},
    )  # fmt: skip


def _frame(axes: Axes, parent: complex, child: complex) -> float:
    """Look at origin, parent, child and what is beyond the parent; return half the height of what is seen."""
    top = max(parent.imag, child.imag, 0.0) + 0.75 * max(abs(parent), abs(child), 1e-6)
    bottom = min(0.0, child.imag)
    half = max(top - bottom, 1.25 * abs(child.real)) / 2
    middle = (top + bottom) / 2
    axes.set_xlim(child.real / 2 - 1.5 * half, child.real / 2 + 1.5 * half)
    axes.set_ylim(middle - 1.25 * half, middle + 1.05 * half)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return half


def _tile() -> QLabel:
    tile = QLabel()
    tile.setFixedSize(_TILE_PX, _TILE_PX)
    tile.setScaledContents(True)
    tile.setToolTip("What the model saw of the slide at this spot, before any normalisation of stains")
    tile.hide()
    return tile


def _caption() -> QLabel:
    words = QLabel()
    words.setTextFormat(Qt.TextFormat.PlainText)
    words.setMinimumHeight(words.fontMetrics().lineSpacing() + 2)
    words.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
    words.setFixedWidth(words.fontMetrics().horizontalAdvance("Niche tile, 1,000 µm") + 8)
    words.hide()
    return words


def _pixmap(pixels: NDArray[np.uint8]) -> QPixmap:
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels)
    return QPixmap.fromImage(QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
