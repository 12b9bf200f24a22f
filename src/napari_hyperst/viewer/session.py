"""What a viewer knows of slides: one state a viewer, that tells when it changes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_hyperst.errors import HyperSTError, ScaleError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.viewer.contract import OURS, ours
from napari_hyperst.viewer.entry import Entry, annotates, first_gene, unlike
from napari_hyperst.viewer.footprints import add_footprints, footprint_layer, place_footprints
from napari_hyperst.viewer.layers import (
    LayerData,
    add_map,
    follow,
    look_at_spots,
    recolour,
    resize,
    slide_layers,
    spot_metadata,
)
from napari_hyperst.viewer.maps import Map, limits_of, maps_of, values_of
from napari_hyperst.viewer.opening import open_in_thread
from napari_hyperst.viewer.preferences import colormap, events, percentiles
from napari_hyperst.viewer.regions import region_layer
from napari_hyperst.viewer.rows import Rows
from napari_hyperst.viewer.selection import Selection
from napari_hyperst.viewer.tissue import lay, settle, watch

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel
    from napari.layers import Points

    from napari_hyperst.slides.slide import Slide


class Session:
    """The slides of a viewer, which of them is active, and what is shown of it.

    Parameters
    ----------
    viewer
        The viewer.
    """

    #: A slide was opened or closed, or another one is active.
    slides_changed = Signal()
    #: The active slide was predicted, or had its prediction in its store.
    prediction_changed = Signal()
    #: Another gene or another map is shown.
    shown_changed = Signal()
    #: Other spots are selected.
    selection_changed = Signal()
    #: How many slides are being opened.
    opening_changed = Signal(int)
    #: A slide could not be opened as nothing tells its scale: with µm/px in its ref it can.
    scale_asked = Signal(SlideRef)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self.entries: dict[str, Entry] = {}
        self._active: str | None = None
        self.gene: str | None = None
        self.map = "predicted"
        self._opening = 0
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.inserted.connect(self._on_inserted)
        events("colours").connect(self.refresh)
        self._selected = Selection(self)

    @property
    def viewer(self) -> ViewerModel:
        """The viewer."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer has been closed")
        return viewer

    @property
    def active(self) -> Entry | None:
        """The slide that is worked on."""
        return None if self._active is None else self.entries[self._active]

    @property
    def opening(self) -> int:
        """How many slides are being opened."""
        return self._opening

    @property
    def selection(self) -> Rows:
        """(k,) rows of the active prediction's table that are selected, in order."""
        return self._selected.rows

    def select(self, rows: Iterable[int]) -> None:
        """Select other rows of the active prediction's table, here and in the layers of the active slide."""
        self._selected.set(rows)

    def open(self, ref: SlideRef) -> None:
        """Open a slide in a thread, and show it when it is there; what goes wrong is told as a notification."""
        self._count_opening(1)
        open_in_thread(ref, self._opened, self._not_opened)

    def open_sample(self) -> Path:
        """Open the packaged slide, and return where it is."""
        from napari_hyperst.slides.sample import sample_folder

        self.open(SlideRef(path=sample_folder()))
        return sample_folder()

    def add(self, slide: Slide) -> Entry:
        """Show a slide that is open already."""
        from napari.layers import Layer

        entry, layers = self.register(slide)
        try:
            for layer in [Layer.create(*layer) for layer in layers]:
                self.viewer.add_layer(layer)
        except Exception:
            del self.entries[entry.key]
            raise
        self.activate(entry.key)
        for name, table in slide.sdata.tables.items():
            if annotates(table, slide.source.spots):
                try:
                    self.set_prediction(entry.key, table, name)
                except (ValueError, KeyError) as error:  # a table of another version, or changed by hand
                    _warn(f"{slide.path}: the prediction {name!r} cannot be shown ({error})")
        return entry

    def register(self, slide: Slide) -> tuple[Entry, list[LayerData]]:
        """Take a slide in, and return its layers for somebody else to add."""
        key = unlike(slide.name)
        entry = Entry(key, slide, maps=maps_of(None))
        self.entries[key] = entry
        self.viewer.canvas.overlays.scale_bar.visible = True
        return entry, slide_layers(slide, key)

    def activate(self, key: str | None) -> None:
        """Work on another slide."""
        if key == self._active:
            return
        self._active = key
        self._keep_shown_possible()
        entry = self.active
        for layer in self.viewer.layers:  # slides lie on each other: one is seen at a time
            said = ours(layer)
            if said and (said["slide"] != key or said["kind"] in _BASE):
                layer.visible = said["slide"] == key
        if entry is not None:
            look_at_spots(self.viewer, entry.slide)
            self.show()
        self._caption()
        self.slides_changed.emit()
        self.prediction_changed.emit()

    def lay(self, pitch_um: float | None = None) -> None:
        """Lay the spots of the active H&E-only slide anew, by its mask and this pitch.

        Raises
        ------
        SlideError
            If no spot fits in the tissue; the spots are as before.
        """
        entry = self.active
        if entry is not None and lay(self, entry, pitch_um):
            self.slides_changed.emit()

    def settle(self, entry: Entry) -> SlideRef:
        """Return how another process opens a slide as it is now, with the mask as it was edited.

        Raises
        ------
        SlideError
            If no spot fits in the tissue that is left.
        """
        if settle(self, entry):
            self.slides_changed.emit()
        return entry.ref

    def set_prediction(
        self, key: str, table: AnnData, name: str, result: Path | None = None, slide: Slide | None = None
    ) -> None:
        """Take a prediction in, and show it.

        Parameters
        ----------
        key
            Of the slide; one that has been closed meanwhile is passed over.
        table, name
            The table, and what it is called in the store.
        result
            The file that it was read from.
        slide
            The slide as it was when it was predicted; as it is now if not told.
        """
        entry = self.entries.get(key)
        if entry is None:
            return
        entry.maps = maps_of(table)
        entry.table, entry.table_name, entry.result = table, name, result
        entry.predicted = slide or entry.slide
        sdata = entry.predicted.sdata
        if result is not None and (name not in sdata or (name in sdata.tables and OURS in sdata.tables[name].uns)):
            tables = sdata.tables
            tables.pop(name, None)  # spatialdata warns of a table that takes the place of another
            tables[name] = table
        self._refresh_spots(entry)
        if key != self._active:
            self.activate(key)
        self._keep_shown_possible()
        for layer in self._overlays(entry):
            if entry.map(ours(layer)["kind"]) is None:
                self.viewer.layers.remove(layer)
            else:
                self._recolour(entry, layer)
        for also in ("measured", "predicted"):
            if entry.map(also) is not None and self.layer_of(entry, also) is None:
                self._add(entry, entry.map(also), visible=False)  # type: ignore[arg-type]
        self.outline_anew(entry)  # this model may look at other tiles
        self.prediction_changed.emit()
        self.show(self.map, self.gene)

    def show(self, map_key: str | None = None, gene: str | None = None) -> None:
        """Show a map, or another gene, of the active slide; the other maps are hidden.

        Parameters
        ----------
        map_key, gene
            What to show; by default as before.
        """
        entry = self.active
        if entry is None or entry.table is None:
            return
        if gene is not None and gene not in entry.table.var_names:
            raise HyperSTError(f"{gene} is not predicted by this checkpoint", do="choose one of the list")
        self.gene, self.map = gene or self.gene, map_key or self.map
        chosen = entry.map(self.map)
        if chosen is None:
            raise HyperSTError(f"there is no map {self.map!r}", do="choose one of the list")
        for layer in self._overlays(entry):
            if ours(layer)["kind"] != self.map:
                layer.visible = False
        layer = self.layer_of(entry, self.map)
        if layer is None:
            layer = self._add(entry, chosen, visible=True)
        else:
            layer.visible = True
        for overlay in self._overlays(entry):
            self._recolour(entry, overlay)
        self.viewer.layers.selection.active = layer  # whose value the status bar tells
        self._caption()
        self.shown_changed.emit()

    def layer_of(self, entry: Entry, kind: str) -> Points | None:
        """Return the layer of a map of a slide, if it is in the viewer."""
        return next((layer for layer in self._overlays(entry) if ours(layer)["kind"] == kind), None)

    @property
    def footprints(self) -> bool:
        """Whether the tiles of the active slide are outlined."""
        return self._active is not None and footprint_layer(self.viewer, self._active) is not None

    def show_footprints(self, shown: bool) -> None:
        """Outline the spot and niche tiles of the active slide at their true size, or no longer."""
        entry = self.active
        if entry is None or shown == self.footprints:
            return
        layer = footprint_layer(self.viewer, entry.key)
        if layer is not None:
            self.viewer.layers.remove(layer)
            return
        self._outline(entry)
        self.slides_changed.emit()

    def outline_anew(self, entry: Entry) -> None:
        """Let the outlines of a slide's tiles, where they are shown, follow its spots and its prediction."""
        layer = footprint_layer(self.viewer, entry.key)
        if layer is not None:
            self.viewer.layers.remove(layer)
            self._outline(entry)

    def refresh(self, *_: object) -> None:
        """Colour what is visible anew, if the preferences ask for other colours."""
        for entry in self.entries.values():
            for layer in self._overlays(entry):
                self._recolour(entry, layer)

    # -- within

    def _outline(self, entry: Entry) -> None:
        selected = self.viewer.layers.selection.active
        add_footprints(self.viewer, entry, self._spots(entry))
        self.viewer.layers.selection.active = selected  # whose value the status bar tells

    def _opened(self, slide: Slide) -> None:
        try:
            if self._viewer() is not None:
                self.add(slide)
        finally:
            self._count_opening(-1)

    def _not_opened(self, ref: SlideRef, error: HyperSTError) -> None:
        from napari.utils.notifications import show_error

        self._count_opening(-1)
        if isinstance(error, ScaleError) and len(self.scale_asked):
            self.scale_asked.emit(ref)
        else:
            show_error(f"{error}; the workbench asks for it" if isinstance(error, ScaleError) else str(error))

    def _count_opening(self, change: int) -> None:
        self._opening += change
        self.opening_changed.emit(self._opening)

    def _overlays(self, entry: Entry) -> list[Points]:
        return [
            layer
            for layer in self.viewer.layers
            if ours(layer).get("slide") == entry.key and ours(layer).get("kind") not in _BASE
        ]

    def _wanted(self, entry: Entry, shown: Map) -> dict[str, Any]:
        """Return what a map's layer should show now."""
        return {
            "table": entry.table_name,
            "job": None if entry.result is None else str(entry.result.parent),
            "gene": self.gene if shown.of_gene else None,
            "colormap": shown.colormap or colormap(),
            "percentiles": percentiles(),
        }

    def _add(self, entry: Entry, shown: Map, visible: bool) -> Points:
        assert entry.table is not None
        slide = entry.predicted or entry.slide
        said = {
            "slide": entry.key,
            "element": slide.name,
            "kind": shown.key,
            "name": self._name(entry, shown),
            **self._wanted(entry, shown),
        }
        layer = add_map(
            self.viewer,
            slide,
            entry.table,
            shown,
            values_of(entry.table, shown.key, self.gene),
            limits_of(entry.table, shown.key, self.gene, percentiles()),
            said,
        )
        layer.visible = visible
        layer.events.visible.connect(self._on_visible)
        return layer

    def _on_visible(self, event: Any) -> None:
        """Colour a map that was hidden while another gene was chosen."""
        layer = event.source
        said = ours(layer)
        entry = self.entries.get(said.get("slide", ""))
        if layer.visible and entry is not None and entry.table is not None:
            self._recolour(entry, layer)
        self._caption()

    def _recolour(self, entry: Entry, layer: Points) -> None:
        """Bring a layer up to the gene and the prediction that are shown, if it is visible and is not so yet."""
        said = ours(layer)
        shown = entry.map(said["kind"])
        if shown is None or entry.table is None or not layer.visible:
            return
        if shown.of_gene and self.gene not in entry.table.var_names:  # another slide's, of another checkpoint
            return
        wanted = self._wanted(entry, shown)
        if {key: said[key] for key in wanted} == wanted:
            return
        values = values_of(entry.table, shown.key, self.gene)
        limits = limits_of(entry.table, shown.key, self.gene, percentiles())
        recolour(layer, shown, values, limits, wanted["colormap"], entry.table)
        if layer.name == said["name"]:  # the user has not renamed it
            layer.name = self._name(entry, shown)
            wanted["name"] = layer.name
        layer.metadata[OURS] = {**said, **wanted}  # not changed in place: a copy of the layer has the same

    def _name(self, entry: Entry, shown: Map) -> str:
        return (
            f"{entry.key} {self.gene} {shown.title.lower()}" if shown.of_gene else f"{entry.key} {shown.title.lower()}"
        )

    def _caption(self) -> None:
        """Say on the canvas what is seen, between which values, and that it is for research use only."""
        text, entry = self.viewer.canvas.overlays.text, self.active
        shown = None if entry is None else entry.map(self.map)
        layer = None if entry is None else self.layer_of(entry, self.map)
        if entry is None or shown is None or layer is None or not layer.visible:
            text.visible = False
            return
        title = " ".join(word for word in (self.gene if shown.of_gene else "", shown.title.lower()) if word)
        low, high = layer.face_contrast_limits
        text.text = f"{entry.key} · {title}\n{low:.3g} to {high:.3g} {shown.unit}\nFor research use only"
        text.position, text.box, text.font_size = "top_left", True, 9
        text.visible = True

    def _keep_shown_possible(self) -> None:
        """Choose gene and map anew where the active slide does not have them."""
        entry = self.active
        if entry is None or entry.table is None:
            return
        if self.gene not in entry.table.var_names:
            self.gene = first_gene(entry.table)
        if entry.map(self.map) is None:
            self.map = "predicted"

    def _spots(self, entry: Entry) -> Points | None:
        of_entry = (layer for layer in self.viewer.layers if ours(layer).get("slide") == entry.key)
        return next((layer for layer in of_entry if ours(layer)["kind"] == "spots"), None)

    def _refresh_spots(self, entry: Entry) -> None:
        spots = self._spots(entry)
        if spots is not None:
            spots.metadata.update(spot_metadata(entry.slide))

    def _on_inserted(self, event: Any) -> None:
        """Have the maps follow the spots of their slide, which other tools may put elsewhere."""
        layer = event.value
        if ours(layer).get("kind") == "tissue":
            watch(self, layer)
        if ours(layer).get("kind") == "spots":
            entry = self.entries.get(ours(layer).get("slide", ""))
            if entry is not None:
                look_at_spots(self.viewer, entry.slide)
            for placed in (layer.events.affine, layer.events.scale, layer.events.translate):
                placed.connect(self._on_placed)

    def _on_placed(self, event: Any) -> None:
        spots = event.source
        entry = self.entries.get(ours(spots).get("slide", ""))
        if entry is not None:
            resize(spots, entry.slide.spots.diameter_um)
            for layer in self._overlays(entry):
                follow(layer, spots)
            for found in (footprint_layer(self.viewer, entry.key), region_layer(self.viewer, entry.key)):
                if found is not None:
                    place_footprints(found, spots)

    def _on_removed(self, event: Any) -> None:
        """Forget a slide when the last of its layers is taken away."""
        self._caption()
        key = ours(event.value).get("slide")
        if key not in self.entries:
            return
        if any(ours(layer).get("slide") == key for layer in self.viewer.layers):
            if ours(event.value)["kind"] == "footprints":
                self.slides_changed.emit()
            return
        del self.entries[key]
        if self._active == key:
            self._active = None
            self.activate(next(iter(self.entries), None))
        self.slides_changed.emit()
        self.prediction_changed.emit()


#: The layers of a slide that are not maps.
_BASE = ("image", "tissue", "spots", "footprints", "regions")
_SESSIONS: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()


def session_of(viewer: ViewerModel) -> Session:
    """Return the state of a viewer, made when it is first asked for."""
    # What napari hands to widgets is a proxy of the viewer, which cannot be a key.
    model = getattr(viewer, "__wrapped__", viewer)
    if model not in _SESSIONS:
        _SESSIONS[model] = Session(model)
    return _SESSIONS[model]


def show_slide(viewer: ViewerModel, slide: Slide) -> Entry:
    """Show a slide in a viewer: H&E, spots, and the prediction that its store may hold.

    Parameters
    ----------
    viewer
        A napari viewer.
    slide
        From ``open_slide``.

    Returns
    -------
    Entry
        The slide as the viewer's session knows it.
    """
    return session_of(viewer).add(slide)


def entry_of(key: str) -> Entry | None:
    """Return a slide that is open in any viewer."""
    return next((session.entries[key] for session in _SESSIONS.values() if key in session.entries), None)


def _warn(message: str) -> None:
    from napari.utils.notifications import show_warning

    show_warning(message)
