"""Which gene is shown, and what of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QCheckBox

from napari_hyperst.errors import HyperSTError
from napari_hyperst.viewer.genes import Genes
from napari_hyperst.viewer.markers import MarkerSet
from napari_hyperst.viewer.notices import show_error
from napari_hyperst.widgets.gene_list import GeneList
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.map_buttons import MapButtons
from napari_hyperst.widgets.marker_picker import MarkerPicker
from napari_hyperst.widgets.panel import Panel
from napari_hyperst.widgets.plots import GeneScatterPanel
from napari_hyperst.widgets.tabs import Tabs

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work

_LIST = "The genes that the checkpoint predicts; in the canvas N shows the next and Shift+N the one before"
_SCATTER = "The gene as measured and as predicted, a point a spot"


class GenesPanel(Panel):
    """The genes of a prediction, sets of them, and what is shown of the one that is chosen.

    Parameters
    ----------
    session, work
        As for every panel.
    """

    title = "Genes"
    grows = True

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__(session, work)
        self._listed: Genes | None = None
        self._keys: tuple[str, ...] = ()
        self._before_difference = "predicted"
        self.maps = MapButtons()
        self.together = QCheckBox("Side by side")
        self.markers = MarkerPicker()
        self.genes = GeneList()
        self.genes.view.setToolTip(_LIST)
        self.scatter = GeneScatterPanel(session)
        self.views = Tabs()
        for title, view, told in (("List", self.genes, _LIST), ("Scatter", self.scatter, _SCATTER)):
            self.views.setTabToolTip(self.views.addTab(view, title), told)
        for widget in (self.maps, self.together, self.markers, self.views):
            self.column.addWidget(widget, 1 if widget is self.views else 0)
        self.genes.chosen.connect(lambda gene: self._show(gene=gene))
        self.maps.chosen.connect(lambda key: self._show(map_key=key))
        self.markers.chosen.connect(self._on_markers)
        self.together.clicked.connect(session.show_side_by_side)
        hear(
            self,
            (session.slides_changed, self._on_prediction),
            (session.prediction_changed, self._on_prediction),
            (session.shown_changed, self._on_shown),
            (session.seen_changed, self._on_shown),
        )
        self._bind_keys()
        self._on_prediction()

    def swap(self) -> None:
        """Change from predicted to measured, and from whatever else to predicted."""
        self._show_possible("measured" if self.session.seen == "predicted" else "predicted")

    def toggle_difference(self) -> None:
        """Change to the difference, and back."""
        if self.session.seen == "difference":
            self._show_possible(self._before_difference)
            return
        if self.session.map != "difference":  # else its layer was hidden by hand
            self._before_difference = self.session.map
        self._show_possible("difference")

    def let_go(self) -> None:
        """Leave the viewer's keys as they were."""
        with contextlib.suppress(RuntimeError):  # the viewer has been closed
            for key in self._keys:
                self.session.viewer.bind_key(key, None, overwrite=True)
        self._keys = ()

    # -- within

    def _bind_keys(self) -> None:
        """Bind the keys that napari leaves free; one that is taken stays what it is."""
        bound = []
        actions: dict[str, Callable[[], None]] = {
            "N": lambda: self.genes.step(1),
            "Shift-N": lambda: self.genes.step(-1),
            "T": self.swap,
            "D": self.toggle_difference,
        }
        for key, act in actions.items():
            try:
                self.session.viewer.bind_key(key, _called(act), overwrite=False)
            except ValueError:
                continue
            bound.append(key)
        self._keys = tuple(bound)

    def _on_prediction(self, *_: object) -> None:
        entry = self.session.active
        there = entry is not None and entry.table is not None
        genes = Genes() if entry is None else entry.genes
        if genes is not self._listed:
            self._listed = genes
            self.genes.set_genes(genes)
            self.markers.set_genes(genes)
        self.maps.set_maps(() if entry is None else entry.maps)
        compared = self.maps.buttons["difference"].isEnabled()
        reason = "" if compared else "needs measured counts" if there else "Predict genes first"
        self.together.setEnabled(compared)
        self.together.setToolTip(
            reason or "Show predicted, measured and difference beside each other, under one camera"
        )
        for view in (self.genes, self.markers):
            view.setEnabled(there)
        self._on_shown()

    def _on_shown(self, *_: object) -> None:
        session, entry = self.session, self.session.active
        self.maps.select(session.seen)
        if entry is None or entry.table is None:
            self.say_state("Predict genes first")
            return
        self.together.setChecked(session.side_by_side)
        self.genes.select(session.gene)
        self.markers.select(session.markers)
        self.say_state(self._describe(entry.genes))

    def _describe(self, genes: Genes) -> str:
        session = self.session
        shown = None if session.active is None else session.active.map(session.map)
        said = [str(session.title)]
        if shown is not None and shown.of_gene:
            said.append(shown.title.lower() if session.seen else "not shown")
        if session.markers is None and session.gene in genes.names:
            pcc = genes.pcc[genes.names.index(session.gene)]
            said += [f"PCC {pcc:.2f}"] if np.isfinite(pcc) else []
        return " · ".join(said)

    def _on_markers(self, markers: MarkerSet | None) -> None:
        if markers is None:
            self._show(gene=self.session.gene)
        else:
            self._show(markers=markers)
        self.markers.select(self.session.markers)

    def _show_possible(self, key: str) -> None:
        entry = self.session.active
        if entry is not None and entry.map(key) is not None:
            self._show(map_key=key)

    def _show(self, gene: str | None = None, map_key: str | None = None, markers: MarkerSet | None = None) -> None:
        chosen = None if self.session.active is None else self.session.active.map(self.session.map)
        if map_key is None and chosen is not None and not chosen.of_gene:
            map_key = "predicted"  # a gene was asked for, and what is shown is none's
        try:
            self.session.show(map_key, gene, markers)
        except HyperSTError as error:
            show_error(str(error))


def _called(act: Callable[[], None]) -> Callable[[object], None]:
    """Return what napari calls with the viewer."""

    def call(_viewer: object) -> None:
        act()

    return call
