"""The maps of a viewer's slides as layers: which are shown, of which gene, and what the canvas says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_hyperst.errors import HyperSTError
from napari_hyperst.viewer.contract import BASE, OURS, ours
from napari_hyperst.viewer.footprints import footprint_layer, place_footprints
from napari_hyperst.viewer.layers import add_map, follow, look_at_spots, recolour, resize
from napari_hyperst.viewer.maps import Map, limits_of, values_of
from napari_hyperst.viewer.preferences import colormap, percentiles
from napari_hyperst.viewer.tissue import watch

if TYPE_CHECKING:
    from napari.layers import Points

    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session


class Overlays:
    """The layers of maps, kept in step with what a session shows.

    Parameters
    ----------
    session
        The session, whose ``gene`` and ``map`` say what is to be seen.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def of(self, entry: Entry) -> list[Points]:
        """Return the layers of a slide's maps."""
        return [
            layer
            for layer in self._session.viewer.layers
            if ours(layer).get("slide") == entry.key and ours(layer).get("kind") not in BASE
        ]

    def layer(self, entry: Entry, kind: str) -> Points | None:
        """Return the layer of a map, if it is in the viewer."""
        return next((layer for layer in self.of(entry) if ours(layer)["kind"] == kind), None)

    def show(self, entry: Entry) -> None:
        """Show the session's map of a slide, and hide the others.

        Raises
        ------
        HyperSTError
            If the slide has no such map.
        """
        key = self._session.map
        chosen = entry.map(key)
        if chosen is None:
            raise HyperSTError(f"there is no map {key!r}", do="choose one of the list")
        for layer in self.of(entry):
            if ours(layer)["kind"] != key:
                layer.visible = False
        shown = self.layer(entry, key)
        if shown is None:
            shown = self.add(entry, chosen, visible=True)
        else:
            shown.visible = True
        self.refresh(entry)
        self._session.viewer.layers.selection.active = shown  # whose value the status bar tells
        self.caption()

    def take_in(self, entry: Entry) -> None:
        """Let the layers follow another prediction: take away those of maps that are no more, recolour the others."""
        for layer in self.of(entry):
            if entry.map(ours(layer)["kind"]) is None:
                self._session.viewer.layers.remove(layer)
            else:
                self._recolour(entry, layer)
        for also in ("measured", "predicted"):
            found = entry.map(also)
            if found is not None and self.layer(entry, also) is None:
                self.add(entry, found, visible=False)

    def refresh(self, entry: Entry) -> None:
        """Colour what is visible of a slide as it should be now."""
        for layer in self.of(entry):
            self._recolour(entry, layer)

    def add(self, entry: Entry, shown: Map, visible: bool) -> Points:
        """Add the layer of a map."""
        assert entry.table is not None
        gene = self._session.gene
        slide = entry.predicted or entry.slide
        said = {
            "slide": entry.key,
            "element": slide.name,
            "kind": shown.key,
            "name": self._name(entry, shown),
            **self._wanted(entry, shown),
        }
        layer = add_map(
            self._session.viewer,
            slide,
            entry.table,
            shown,
            values_of(entry.table, shown.key, gene),
            limits_of(entry.table, shown.key, gene, percentiles()),
            said,
        )
        layer.visible = visible
        layer.events.visible.connect(self._on_visible)
        return layer

    def caption(self) -> None:
        """Say on the canvas what is seen, between which values, and that it is for research use only."""
        session = self._session
        text, entry = session.viewer.canvas.overlays.text, session.active
        shown = None if entry is None else entry.map(session.map)
        layer = None if entry is None else self.layer(entry, session.map)
        if entry is None or shown is None or layer is None or not layer.visible:
            text.visible = False
            return
        title = " ".join(word for word in (session.gene if shown.of_gene else "", shown.title.lower()) if word)
        low, high = layer.face_contrast_limits
        text.text = f"{entry.key} · {title}\n{low:.3g} to {high:.3g} {shown.unit}\nFor research use only"
        text.position, text.box, text.font_size = "top_left", True, 9
        text.visible = True

    def on_inserted(self, event: Any) -> None:
        """Have the maps follow the spots of their slide, which other tools may put elsewhere."""
        layer = event.value
        if ours(layer).get("kind") == "tissue":
            watch(self._session, layer)
        if ours(layer).get("kind") == "spots":
            entry = self._session.entries.get(ours(layer).get("slide", ""))
            if entry is not None:
                look_at_spots(self._session.viewer, entry.slide)
            for placed in (layer.events.affine, layer.events.scale, layer.events.translate):
                placed.connect(self._on_placed)

    # -- within

    def _wanted(self, entry: Entry, shown: Map) -> dict[str, Any]:
        """Return what a map's layer should show now."""
        return {
            "table": entry.table_name,
            "job": None if entry.result is None else str(entry.result.parent),
            "gene": self._session.gene if shown.of_gene else None,
            "colormap": shown.colormap or colormap(),
            "percentiles": percentiles(),
        }

    def _name(self, entry: Entry, shown: Map) -> str:
        words = [entry.key, self._session.gene if shown.of_gene else None, shown.title.lower()]
        return " ".join(word for word in words if word is not None)

    def _recolour(self, entry: Entry, layer: Points) -> None:
        """Bring a layer up to the gene and the prediction that are shown, if it is visible and is not so yet."""
        said, gene = ours(layer), self._session.gene
        shown = entry.map(said["kind"])
        if shown is None or entry.table is None or not layer.visible:
            return
        if shown.of_gene and gene not in entry.table.var_names:  # another slide's, of another checkpoint
            return
        wanted = self._wanted(entry, shown)
        if {key: said[key] for key in wanted} == wanted:
            return
        values = values_of(entry.table, shown.key, gene)
        limits = limits_of(entry.table, shown.key, gene, percentiles())
        recolour(layer, shown, values, limits, wanted["colormap"], entry.table)
        if layer.name == said["name"]:  # the user has not renamed it
            layer.name = self._name(entry, shown)
            wanted["name"] = layer.name
        layer.metadata[OURS] = {**said, **wanted}  # not changed in place: a copy of the layer has the same

    def _on_visible(self, event: Any) -> None:
        """Colour a map that was hidden while another gene was chosen."""
        layer = event.source
        entry = self._session.entries.get(ours(layer).get("slide", ""))
        if layer.visible and entry is not None and entry.table is not None:
            self._recolour(entry, layer)
        self.caption()

    def _on_placed(self, event: Any) -> None:
        spots = event.source
        entry = self._session.entries.get(ours(spots).get("slide", ""))
        if entry is not None:
            resize(spots, entry.slide.spots.diameter_um)
            for layer in self.of(entry):
                follow(layer, spots)
            outlined = footprint_layer(self._session.viewer, entry.key)
            if outlined is not None:
                place_footprints(outlined, spots)
