"""The maps of a prediction that are no gene's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError
from napari_hyperst.widgets.map_list import MapList
from napari_hyperst.widgets.panel import Panel, show_error

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work


class MapsPanel(Panel):
    """A list of norms and violations, one of which is shown.

    Parameters
    ----------
    session, work
        As for every panel.
    """

    title = "Hierarchy"
    grows = True

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__(session, work)
        self.maps = MapList()
        self.maps.setToolTip("Norms and violations of the hierarchy; what needs counts is grey where there are none")
        self.maps.setMinimumHeight(110)
        self.column.addWidget(self.maps)
        self.maps.chosen.connect(self._on_chosen)
        for signal in (session.slides_changed, session.prediction_changed):
            self.listen(signal, self._on_prediction)
        self.listen(session.shown_changed, self._on_shown)
        self._on_prediction()

    def _on_prediction(self, *_: object) -> None:
        entry = self.session.active
        self.maps.set_maps(() if entry is None else [found for found in entry.maps if not found.of_gene])
        self.maps.setEnabled(self.maps.count() > 0)
        self._on_shown()

    def _on_shown(self, *_: object) -> None:
        entry = self.session.active
        if entry is None or entry.table is None:
            self.say_state("Predict genes first")
            return
        shown = entry.map(self.session.map)
        self.maps.select(self.session.map)
        hierarchical = shown is not None and not shown.of_gene
        self.say_state(shown.title if shown is not None and hierarchical else "Choose a map")

    def _on_chosen(self, key: str) -> None:
        try:
            self.session.show(key)
        except HyperSTError as error:
            show_error(str(error))
