"""The hierarchy: how deep spots lie, which relations they violate, where they are on the disk, and one spot's cone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from napari_hyperst.errors import HyperSTError
from napari_hyperst.viewer.filling import WAIT
from napari_hyperst.viewer.hierarchy import Angles, Hierarchy, title_of
from napari_hyperst.viewer.maps import NO_COUNTS, Map
from napari_hyperst.viewer.notices import show_error
from napari_hyperst.widgets.cone_view import ConeView
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import Status
from napari_hyperst.widgets.plots import HierarchyHistogram
from napari_hyperst.widgets.poincare_disk import PoincareDisk
from napari_hyperst.widgets.tabs import Tabs

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.viewer.session import Session

_KEY = Qt.ItemDataRole.UserRole
_PREFIXES = ("norm_", "violation_")
_LEAST_ROWS = 3
_NOTHING = "Predict the genes of a slide first: then each spot has a place in the checkpoint's hierarchy."
_CHOOSE = "Choose a norm or a relation to lay it over the slide; click a spot to see its own cone."


class HierarchyPanel(QWidget):
    """Norms and relations, and three views of the one that is shown: histogram, disk, and one spot.

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
        self.status = Status()
        self.list = HierarchyList()
        self.histogram = HierarchyHistogram(session)
        self.disk = PoincareDisk(session)
        self.cone = ConeView(session)
        self.tabs = Tabs()
        for title, view, tip in (
            ("Histogram", self.histogram, "How the number that is shown is distributed over the spots"),
            ("Disk", self.disk, "The embeddings on the Poincaré disk"),
            ("Spot", self.cone, "The cone and the tiles of the spot that is selected"),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(view, title), tip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.status)
        layout.addWidget(self.list)
        layout.addWidget(self.tabs, 1)
        self.list.chosen.connect(self._on_chosen)
        shown = (session.shown_changed, session.seen_changed)
        hear(self, (session.prediction_changed, self.show_state), *((signal, self._on_shown) for signal in shown))
        self.show_state()

    def show_state(self) -> None:
        """List the norms and relations of the active slide."""
        entry = self.session.active
        table = None if entry is None else entry.table
        waiting = entry is None or table is None or entry.filling
        self.status.setVisible(waiting)  # else the views say what to do, on a laptop's height
        self.status.setText(_NOTHING if table is None else WAIT if waiting else _CHOOSE)
        if entry is None or table is None:
            self.list.set_maps((), None)
        else:
            self.list.set_maps([shown for shown in entry.maps if shown.key.startswith(_PREFIXES)], table)
        self.list.setEnabled(table is not None)
        self._on_shown()

    def _on_shown(self) -> None:
        self.list.select(self.session.seen)
        entry = self.session.active
        shown = None if entry is None else entry.map(self.session.map)
        if shown is not None and entry is not None and entry.table is not None and not entry.filling:
            self.status.setText(shown.title if shown.key.startswith(_PREFIXES) else _CHOOSE)

    def _on_chosen(self, key: str) -> None:
        try:
            self.session.show(key)
        except HyperSTError as error:
            show_error(str(error))


class HierarchyList(QTreeWidget):
    """Norms and relations with their mean depth, or the share of spots that violate them.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose a map, by its key.
    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip("Norms and violations of the hierarchy; what needs counts is grey where there are none")
        self.setColumnCount(2)
        self.setHeaderLabels(["Norm, or parent → child", "At the spots"])
        self.headerItem().setToolTip(0, "Norm: distance from the origin. Relation: the child should lie in a cone")
        self.headerItem().setToolTip(1, "Mean norm, or the share of spots whose child lies outside its parent's cone")
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.currentItemChanged.connect(self._on_current)
        self.itemClicked.connect(self._on_current)  # also the one that is marked: its layer may have been hidden

    def set_maps(self, maps: list[Map] | tuple[()], table: AnnData | None) -> None:
        """List other maps.

        Parameters
        ----------
        maps
            Norms and violations.
        table
            The prediction's table.
        """
        self.blockSignals(True)
        self.clear()
        hierarchy = None if table is None else Hierarchy.of(table)
        for shown in maps:
            item = QTreeWidgetItem(self)
            item.setSizeHint(0, QSize(0, self._row))
            item.setData(0, _KEY, shown.key)
            relation = None if hierarchy is None else hierarchy.relation(shown.key.removeprefix("violation_"))
            item.setText(0, shown.title if relation is None else title_of(relation))
            if shown.reason or table is None:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
                item.setText(1, "needs counts" if shown.reason == NO_COUNTS else "none")
                tip = f"{shown.title}: {shown.reason}"
            elif relation is None:
                norms = np.asarray(table.obs[shown.key], dtype=float)
                item.setText(1, f"mean {np.nanmean(norms):.2f}" if np.isfinite(norms).any() else "no spot")
                tip = f"{shown.title}: mean distance from the origin over the spots; click to lay it over the slide"
            else:
                tip = self._tell_share(item, Angles.of(table, relation), relation.eta)
            item.setToolTip(0, tip)
            item.setToolTip(1, tip)
        self.blockSignals(False)
        rows = max(_LEAST_ROWS, self.topLevelItemCount())
        self.setFixedHeight(self.header().sizeHint().height() + self._row * rows + 2 * self.frameWidth() + 2)

    @property
    def _row(self) -> int:
        """Height of a row in px."""
        return int(self.fontMetrics().height()) + 2

    def select(self, key: str | None) -> None:
        """Mark a map, or none where none is shown or it is not listed, without telling."""
        self.blockSignals(True)
        self.setCurrentItem(self.item_of(key))
        self.blockSignals(False)

    def item_of(self, key: str | None) -> QTreeWidgetItem | None:
        """Return the item of a map."""
        items = (self.topLevelItem(row) for row in range(self.topLevelItemCount()))
        return next((item for item in items if item.data(0, _KEY) == key), None)

    @staticmethod
    def _tell_share(item: QTreeWidgetItem, angles: Angles, eta: float) -> str:
        """Write the share of spots that violate a relation, and return it as a sentence."""
        if not len(angles.violates):
            item.setText(1, "no spot")
            return "No spot was counted, so none has a value"
        item.setText(1, f"{100 * angles.share:.0f} % outside")
        edge = "half-aperture" if eta == 1 else f"{eta:g} times the half-aperture"
        return (
            f"{int(angles.violates.sum()):,} of {len(angles.violates):,} spots violate it: the exterior angle of the "
            f"child is larger than {edge} of the parent's cone. Click to lay it over the slide, in degrees"
        )

    def _on_current(self, item: QTreeWidgetItem | None, _before: object = None) -> None:
        if item is not None and item.data(0, _KEY) is not None and item.flags() & Qt.ItemFlag.ItemIsEnabled:
            self.chosen.emit(item.data(0, _KEY))
