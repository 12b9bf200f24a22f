"""Which gene is shown, and what of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError
from napari_hyperst.widgets.gene_list import GeneList
from napari_hyperst.widgets.map_list import MapList
from napari_hyperst.widgets.panel import Panel, show_error

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work


class GenesPanel(Panel):
    """The genes of a prediction, and what is shown of the one that is chosen.

    Parameters
    ----------
    session, work
        As for every panel.
    """

    title = "Genes"
    grows = True

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__(session, work)
        self.genes = GeneList()
        self.maps = MapList()
        self.maps.setMaximumHeight(80)
        self.maps.setToolTip("What is shown of the gene")
        self.column.addWidget(self.maps)
        self.column.addWidget(self.genes)
        self.genes.chosen.connect(lambda gene: self._show(gene=gene))
        self.maps.chosen.connect(lambda key: self._show(map_key=key))
        for signal in (session.slides_changed, session.prediction_changed):
            self.listen(signal, self._on_prediction)
        self.listen(session.shown_changed, self._on_shown)
        self._on_prediction()

    def _on_prediction(self, *_: object) -> None:
        entry = self.session.active
        table = None if entry is None else entry.table
        self.genes.set_genes([] if table is None else list(table.var_names))
        self.maps.set_maps(() if entry is None else [found for found in entry.maps if found.of_gene])
        for view in (self.genes, self.maps):
            view.setEnabled(table is not None)
        self._on_shown()

    def _on_shown(self, *_: object) -> None:
        entry = self.session.active
        if entry is None or entry.table is None:
            self.say_state("Predict genes first")
            return
        self.genes.select(self.session.gene)
        self.maps.select(self.session.map)
        self.say_state(str(self.session.gene))

    def _show(self, gene: str | None = None, map_key: str | None = None) -> None:
        try:
            self.session.show(map_key, gene)
        except HyperSTError as error:
            show_error(str(error))
