"""The maps of a viewer's slides as layers: which are shown, of which gene, and what the canvas says of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Points

from napari_hyperst.errors import HyperSTError
from napari_hyperst.viewer.contract import BASE, OURS, layer_of, layers_of, ours
from napari_hyperst.viewer.footprints import add_footprints, footprint_layer, place_footprints
from napari_hyperst.viewer.hover import describe_spot
from napari_hyperst.viewer.layers import (
    add_map,
    catch_up,
    follow,
    is_image,
    limits_event,
    limits_shown,
    look_at_spots,
    recolour,
    resize,
    show_bar,
    spot_metadata,
    tell_features,
)
from napari_hyperst.viewer.maps import Map
from napari_hyperst.viewer.preferences import colormap, percentiles
from napari_hyperst.viewer.regions import region_layer
from napari_hyperst.viewer.selected_bins import KIND as SELECTION
from napari_hyperst.viewer.side_by_side import SideBySide
from napari_hyperst.viewer.tissue import watch

if TYPE_CHECKING:
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.layers import MapLayer
    from napari_hyperst.viewer.session import Session

#: Maps whose layers are there before they are asked for.
PREPARED = ("measured", "predicted")


class Overlays:
    """The layers of maps, kept in step with what a session shows.

    Parameters
    ----------
    session
        The session, whose ``gene`` and ``map`` say what is to be seen.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._beside = SideBySide(session)

    def of(self, entry: Entry) -> list[MapLayer]:
        """Return the layers of a slide's maps."""
        return [layer for layer in layers_of(self._session.viewer, entry.key) if _is_map(layer)]

    def layer(self, entry: Entry, kind: str) -> MapLayer | None:
        """Return the layer of a map, if it is in the viewer."""
        found: MapLayer | None = layer_of(self._session.viewer, entry.key, kind)
        return found

    def show(self, entry: Entry) -> None:
        """Show the session's map of a slide, beside the others of its genes if asked to, and hide the rest.

        Raises
        ------
        HyperSTError
            If the slide has no such map.
        """
        session, chosen = self._session, entry.map(self._session.map)
        if chosen is None:
            raise HyperSTError(f"there is no map {session.map!r}", do="choose one of the list")
        together = session.side_by_side and chosen.of_gene
        wanted = [one for one in entry.maps if one.of_gene and not one.reason] if together else [chosen]
        if not together:
            self._beside.end()
        layers = []
        for one in wanted:
            layer = self.layer(entry, one.key) or self.add(entry, one, visible=True)
            if not layer.visible:  # napari draws anew also what is visible already
                layer.visible = True
            layers.append(layer)
        for layer in self.of(entry):
            if layer.visible and ours(layer)["kind"] not in [one.key for one in wanted]:
                layer.visible = False
        self.refresh(entry)
        if together:
            self._beside.begin(entry, layers)
        shown = self.layer(entry, session.map)
        if session.viewer.layers.selection.active is not shown:
            session.viewer.layers.selection.active = shown  # whose value the status bar tells
        else:
            self.keep_up()

    def end_side_by_side(self) -> None:
        """Lay the layers over each other again."""
        self._beside.end()

    def take_in(self, entry: Entry) -> None:
        """Let the layers follow another prediction: take away those of maps that are no more, recolour the others."""
        for layer in layers_of(self._session.viewer, entry.key, "spots"):
            layer.metadata.update(spot_metadata(entry.slide))
        for layer in self.of(entry):
            if entry.map(ours(layer)["kind"]) is None:
                self._session.viewer.layers.remove(layer)
            else:
                self._recolour(entry, layer)
        if entry.filling:
            self.keep_up()

    def prepare(self, entry: Entry, kind: str) -> None:
        """Add the layer of a map that is not there yet, hidden, where its slide is looked at."""
        found = entry.map(kind)
        if entry is self._session.active and found is not None and self.layer(entry, kind) is None:
            self.add(entry, found, visible=False)  # of another slide the gene that is shown may not be predicted

    def select_spots(self, entry: Entry) -> None:
        """Have the spots of a slide selected in the layer list, where no map of it is."""
        spots = self._spots(entry)
        if spots is not None:
            self._session.viewer.layers.selection.active = spots

    def refresh(self, entry: Entry) -> None:
        """Colour what is visible of a slide as it should be now."""
        for layer in self.of(entry):
            self._recolour(entry, layer)
        viewer = self._session.viewer
        if viewer.mouse_over_canvas:  # the status bar tells the values under it anew
            viewer.cursor.events.position(value=viewer.cursor.position)

    def catch_up(self, entry: Entry) -> None:
        """Have napari draw what else it shows of a slide's visible maps, which takes longer than to show them."""
        for layer in self.of(entry):
            if layer.visible:
                catch_up(layer)

    def add(self, entry: Entry, shown: Map, visible: bool) -> MapLayer:
        """Add the layer of a map."""
        assert entry.table is not None
        assert entry.values is not None
        genes = self._session.genes
        slide = entry.predicted or entry.slide
        bar = visible and not entry.filling
        said = {"slide": entry.key, "element": slide.name, "kind": shown.key, "bar": bar, **self._wanted(entry, shown)}
        values = entry.values.of(shown.key, genes)
        limits = entry.values.limits(shown.key, genes, percentiles())
        return add_map(
            self._session.viewer,
            slide,
            entry.table,
            values,
            limits,
            f"{entry.key} {shown.title.lower()}",
            said,
            partial(self._describe, entry.key, shown.key),
            visible=visible,
            bar=bar,
        )

    def outline(self, entry: Entry, shown: bool) -> None:
        """Outline the tiles of a slide, anew where they are outlined already, or no longer."""
        viewer = self._session.viewer
        there, selected = footprint_layer(viewer, entry.key), viewer.layers.selection.active
        if there is not None:
            viewer.layers.remove(there)
        if not shown:
            return
        outlines = add_footprints(viewer, entry, self._spots(entry))
        outlines.visible = there is None or there.visible
        viewer.layers.selection.active = selected  # whose value the status bar tells

    def keep_up(self) -> None:
        """Let what is around the maps follow them: the rings of spots, and what the canvas says."""
        if self._session.viewer_ref() is None:  # layers may live longer
            return
        if self._session.active is not None:
            self._ring(self._session.active)
        self._caption()

    def follow(self, entry: Entry, changed: Any) -> None:
        """Have what is chosen be what is seen, where a layer of a slide was shown, hidden or taken away by hand."""
        session, kind = self._session, ours(changed)["kind"]
        if entry is not session.active or entry.map(kind) is None:  # not of what is predicted now
            return
        if kind != session.map and session.seen is not None:
            return
        seen = {ours(layer)["kind"] for layer in self.of(entry) if layer.visible}
        if session.seen is None and len(seen) == 1 and entry.map(*seen) is not None and not session.side_by_side:
            session.show(*seen)
        else:
            session.seen_changed.emit()

    def on_removing(self, event: Any) -> None:
        """Take off a layer what napari-spatialdata knows it by; put on again should it come back.

        Its version 0.7 raises when a layer is removed that was renamed, or there before its widgets were.
        """
        layer = self._session.viewer.layers[event.index]
        if ours(layer):
            layer.metadata.pop("name", None)

    def on_inserted(self, event: Any) -> None:
        """Have the maps follow the spots of their slide, which other tools may put elsewhere."""
        layer = event.value
        if ours(layer).get("kind") in ("image", "tissue", "spots"):  # put back, of what was taken away
            layer.metadata.setdefault("name", ours(layer)["element"])
        if _is_map(layer):
            layer.events.visible.connect(self._on_visible)
            limits_event(layer).connect(self.keep_up)  # of those that are set by hand
        if ours(layer).get("kind") == "tissue":
            watch(self._session, layer)
        if ours(layer).get("kind") == "spots":
            entry = self._session.entries.get(ours(layer).get("slide", ""))
            if entry is not None:
                look_at_spots(self._session.viewer, entry.slide)
            for placed in (layer.events.affine, layer.events.scale, layer.events.translate):
                placed.connect(self._on_placed)
            layer.events.visible.connect(self._on_rings)

    # -- within

    def _spots(self, entry: Entry) -> Points | Image | None:
        """Return the layer of a slide's spots, if it is in the viewer."""
        found: Points | Image | None = layer_of(self._session.viewer, entry.key, "spots")
        return found

    def _ring(self, entry: Entry) -> None:
        """Hide the rings of spots beneath a map of them all, where they would take as long to draw as it does.

        Rings that are shown by hand stay so until that changes, and those that are hidden by hand stay hidden.
        """
        viewer, spots = self._session.viewer, self._spots(entry)
        if spots is None or is_image(spots) or viewer.canvas.grid.enabled:
            return
        rows = entry.rows
        of_all = rows is not None and bool((rows >= 0).all()) and not entry.filling
        seen = of_all and any(layer.visible for layer in self.of(entry))
        covered = seen and spots not in viewer.layers.selection
        if covered != entry.covered:
            entry.covered = covered
            with spots.events.visible.blocker(self._on_rings):
                spots.visible = entry.ringed and not covered

    def _caption(self) -> None:
        """Say on the canvas what is seen, between which values, and that it is for research use only."""
        session = self._session
        text, entry = session.viewer.canvas.overlays.text, session.active
        if entry is None:
            text.visible = False
            return
        maps = [(layer, entry.map(ours(layer)["kind"])) for layer in self.of(entry)]
        seen = [(layer, shown) for layer, shown in maps if layer.visible and shown is not None]
        coming = entry.map(session.map) if entry.filling and not entry.filled else None  # before it is shown first
        last = seen[-1][1] if seen else coming
        cells = [(cell, one) for cell, one in seen if cell in self._beside.maps]
        if cells:  # each says what it shows
            spans: dict[str, list[str]] = {}
            for cell, one in [] if entry.filling else cells:
                spans.setdefault(_span(cell), []).append(one.key)
            told = [span if len(keys) > 1 else f"{keys[0]}: {span}" for span, keys in spans.items() if span]
            said = [f"{entry.key} · {session.title}", *told]
        elif last is not None:
            title = " ".join(word for word in (session.title if last.of_gene else "", last.title.lower()) if word)
            span = _span(seen[-1][0]) if seen and not entry.filling else ""
            said = [f"{entry.key} · {title}", f"{span} {last.unit}".strip()]
        else:
            said = [f"{entry.key} · {len(entry.slide.spots):,} spots"]
            said += ["No genes predicted yet"] if entry.table is None else []
        text.text = "\n".join([*said, "For research use only"])
        if not text.visible:
            text.position, text.box, text.font_size, text.visible = "top_left", True, 9, True

    def _describe(self, key: str, kind: str, row: int) -> str:
        """Say what the status bar tells of a spot of a map; called in napari's thread for that."""
        entry = self._session.entries.get(key)
        if entry is None or entry.table is None or row >= entry.table.n_obs:
            return ""
        return describe_spot(entry.table, row, self._session.genes, self._session.title or "", entry.map(kind))

    def _wanted(self, entry: Entry, shown: Map) -> dict[str, Any]:
        """Return what a map's layer should show now."""
        return {
            "table": entry.table_name,
            "job": None if entry.result is None else str(entry.result.parent),
            "gene": self._session.title if shown.of_gene else None,
            "genes": self._session.genes if shown.of_gene else (),
            "colormap": shown.colormap or colormap(),
            "percentiles": percentiles(),
            "filled": entry.filled,
        }

    def _recolour(self, entry: Entry, layer: MapLayer) -> None:
        """Bring a layer up to the gene and the prediction that are shown, if it is visible and is not so yet."""
        said, genes = ours(layer), self._session.genes
        shown = entry.map(said["kind"])
        if shown is None or entry.table is None or entry.values is None or not layer.visible:
            return
        if shown.of_gene and not set(genes) <= set(entry.table.var_names):  # another slide's, of another checkpoint
            return
        wanted = self._wanted(entry, shown)
        if {key: said[key] for key in wanted} != wanted:
            values = entry.values.of(shown.key, genes)
            limits = entry.values.limits(shown.key, genes, percentiles())
            with limits_event(layer).blocker(self.keep_up):  # which is done when all is told
                recolour(layer, values, limits, wanted["colormap"], entry.table)
        barred = said["bar"] or not entry.filling  # whose limits change often: napari rebuilds its bar each time
        if barred and not said["bar"]:  # once: it may be hidden by hand from then on
            show_bar(layer)
        layer.metadata[OURS] = {**said, **wanted, "bar": barred}  # not in place: a copy of the layer has the same

    def _on_visible(self, event: Any) -> None:
        """Colour a map that was hidden while another gene was chosen."""
        layer = event.source
        entry = self._session.entries.get(ours(layer).get("slide", ""))
        if layer.visible and entry is not None and entry.table is not None:
            self._recolour(entry, layer)
            tell_features(layer)  # the list of layers draws it now in any case
        if entry is not None:
            self.follow(entry, layer)
        self.keep_up()

    def _on_rings(self, event: Any) -> None:
        """Take note of rings that are shown or hidden by hand."""
        entry = self._session.entries.get(ours(event.source).get("slide", ""))
        if entry is not None:
            entry.ringed = event.source.visible

    def _on_placed(self, event: Any) -> None:
        spots = event.source
        entry = self._session.entries.get(ours(spots).get("slide", ""))
        if entry is not None:
            resize(spots, entry.slide.spots.diameter_um)
            for layer in self.of(entry):
                follow(layer, spots)
            viewer = self._session.viewer
            for layer in layers_of(viewer, entry.key, SELECTION):
                follow(layer, spots)
            for found in (footprint_layer(viewer, entry.key), region_layer(viewer, entry.key)):
                if found is not None:
                    place_footprints(found, spots)


def _is_map(layer: Any) -> bool:
    """Tell whether a layer is a map, or a copy of one: what napari turns into labels keeps its metadata."""
    return isinstance(layer, Image | Points) and ours(layer).get("kind") not in (None, *BASE)


def _span(layer: MapLayer) -> str:
    """Say between which values a layer is coloured."""
    limits = limits_shown(layer)
    return "" if limits is None else "{:.3g} to {:.3g}".format(*limits)
