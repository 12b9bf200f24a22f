"""What a viewer knows of slides: one state a viewer, that tells when it changes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_hyperst.errors import HyperSTError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.viewer.contract import BASE, OF_OTHERS, layers_of, ours
from napari_hyperst.viewer.entry import Entry, fill, hold, let_go, unlike
from napari_hyperst.viewer.filling import is_filling
from napari_hyperst.viewer.footprints import footprint_layer
from napari_hyperst.viewer.layers import LayerData, look_at_spots, slide_layers
from napari_hyperst.viewer.maps import maps_of
from napari_hyperst.viewer.markers import MarkerSet
from napari_hyperst.viewer.opening import Openings
from napari_hyperst.viewer.overlays import PREPARED, Overlays
from napari_hyperst.viewer.preferences import events
from napari_hyperst.viewer.rows import Rows
from napari_hyperst.viewer.selection import Selection
from napari_hyperst.viewer.stored import show_last_stored, show_stored
from napari_hyperst.viewer.tissue import lay, settle

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.genes import Genes
    from napari_hyperst.viewer.layers import MapLayer


class Session:
    """The slides of a viewer, which of them is active, and what is shown of it.

    Parameters
    ----------
    viewer
        The viewer.

    Attributes
    ----------
    entries
        The slides, by what they are called.
    gene
        The gene that is chosen.
    markers
        The marker set that is shown instead, if any.
    genes
        Whose values the maps of genes show: the gene, or those of the marker set that are predicted.
    map
        The key of the map that is shown.
    side_by_side
        Whether all maps of genes are shown beside each other.
    viewer_ref
        The viewer, or nothing when it has been closed.
    """

    #: A slide was opened or closed, or another one is active.
    slides_changed = Signal()
    #: The active slide was predicted, or had its prediction in its store.
    prediction_changed = Signal()
    #: Another gene or another map is shown.
    shown_changed = Signal()
    #: The layer of the map that is shown was hidden, taken away or brought back by hand.
    seen_changed = Signal()
    #: Other spots are selected.
    selection_changed = Signal()
    #: How many slides are being opened.
    opening_changed = Signal(int)
    #: A model was fine-tuned: the folder of its checkpoint.
    checkpoint_made = Signal(Path)
    #: A slide could not be opened as nothing tells its scale: with µm/px in its ref it can.
    scale_asked = Signal(SlideRef)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer_ref = weakref.ref(viewer)
        self.entries: dict[str, Entry] = {}
        self._keys: set[str] = set()  # given once, so that nothing late is taken for another's
        self._active: str | None = None
        self.gene: str | None = None
        self.markers: MarkerSet | None = None
        self.genes: tuple[str, ...] = ()
        self.map = "predicted"
        self.side_by_side = False
        self._openings = Openings(self)
        self.overlays = Overlays(self)
        viewer.layers.events.removing.connect(self.overlays.on_removing)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.inserted.connect(self.overlays.on_inserted)
        viewer.layers.selection.events.active.connect(self.overlays.keep_up)
        events("colours").connect(self.refresh)
        self._selected = Selection(self)

    @property
    def viewer(self) -> ViewerModel:
        """The viewer."""
        viewer = self.viewer_ref()
        if viewer is None:
            raise RuntimeError("the viewer has been closed")
        return viewer

    @property
    def active(self) -> Entry | None:
        """The slide that is worked on."""
        return None if self._active is None else self.entries[self._active]

    @property
    def seen(self) -> str | None:
        """The map of the active slide that is shown; None where its layer was hidden or taken away by hand."""
        layer = None if self.active is None else self.overlays.layer(self.active, self.map)
        return self.map if layer is not None and layer.visible else None

    @property
    def opening(self) -> int:
        """How many slides are being opened."""
        return len(self._openings)

    @property
    def selection(self) -> Rows:
        """(k,) rows of the active prediction's table that are selected, in order."""
        return self._selected.rows

    def select(self, rows: Iterable[int]) -> None:
        """Select other rows of the active prediction's table, here and in the layers of the active slide."""
        self._selected.set(rows)

    def open(self, ref: SlideRef) -> None:
        """Open a slide in a thread, and show it when it is there; what goes wrong is told as a notification.

        Meanwhile its H&E is shown from afar, where that can be had quickly.
        """
        self._openings.open(ref)

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
        show_last_stored(self, entry)
        return entry

    def show_stored(self, entry: Entry, name: str) -> None:
        """Show another of the predictions that a slide's store holds, as ``stored.show_stored`` does."""
        show_stored(self, entry, name)

    def register(self, slide: Slide) -> tuple[Entry, list[LayerData]]:
        """Take a slide in, and return its layers for somebody else to add."""
        key = unlike(slide.name, self._keys)
        self._keys.add(key)
        entry = Entry(key, slide, maps=maps_of(None))
        self.entries[key] = entry
        self.viewer.canvas.overlays.scale_bar.visible = True
        return entry, slide_layers(slide, key)

    def activate(self, key: str | None) -> None:
        """Work on another slide."""
        if key == self._active:
            return
        self.overlays.end_side_by_side()
        self._active = key
        self._keep_shown_possible()
        entry = self.active
        for layer in self.viewer.layers:  # slides lie on each other: one is seen at a time
            said = ours(layer)
            if said and (said["slide"] != key or said["kind"] in BASE):
                layer.visible = said["slide"] == key
        if entry is not None:
            look_at_spots(self.viewer, entry.slide)
            self.overlays.select_spots(entry)
            self.overlays.take_in(entry)  # it may have been predicted meanwhile
            for of_gene in PREPARED:
                self.overlays.prepare(entry, of_gene)
            self.show()
        self.overlays.keep_up()
        self.slides_changed.emit()
        self.prediction_changed.emit()

    @property
    def title(self) -> str | None:
        """What is shown by the maps of genes: a gene's name or a marker set's."""
        return self.gene if self.markers is None else self.markers.name

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
        self,
        key: str,
        table: AnnData,
        name: str,
        result: Path | None = None,
        slide: Slide | None = None,
        genes: Genes | None = None,
    ) -> None:
        """Take a prediction in, and show it where its slide is looked at: else when that is chosen.

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
        genes
            What is known of its genes, where that was found out in a thread.
        """
        for _ in self.setting_prediction(key, table, name, result, slide, genes):
            pass

    def setting_prediction(
        self,
        key: str,
        table: AnnData,
        name: str,
        result: Path | None = None,
        slide: Slide | None = None,
        genes: Genes | None = None,
    ) -> Generator[None]:
        """Do what ``set_prediction`` does in steps, between which a window can be drawn; the arguments are the same.

        It ends where the slide is closed between them, or holds another prediction. Of one that is being made, and
        shown already, only the values are another's.
        """
        entry = self.entries.get(key)
        if entry is None:
            return
        if entry.filling and is_filling(table) and entry.genes.names == tuple(table.var_names):
            hold(entry, table, name, result, slide, entry.genes)
            return
        if key == self._active and entry.filling and self.gene == entry.genes.first:
            self.gene = None  # nobody chose it
        hold(entry, table, name, result, slide, genes)
        if key == self._active:
            self._keep_shown_possible()
        steps: tuple[Callable[[], object], ...] = (
            partial(self.overlays.take_in, entry),
            *(partial(self.overlays.prepare, entry, of_gene) for of_gene in PREPARED),
            partial(self.outline_anew, entry),  # this model may look at other tiles
            self.prediction_changed.emit,
            partial(self._show_of, entry),
        )
        for step in steps:
            yield
            if self.entries.get(key) is not entry or entry.table is not table:
                return
            step()

    def fill(self, key: str, spots: int) -> None:
        """Show what is there of a prediction that is being made, now that so many spots are done."""
        entry = self.entries.get(key)
        if entry is not None and entry.filling:
            fill(entry, spots)
            self.overlays.refresh(entry)
            self.overlays.keep_up()

    def forget_prediction(self, key: str) -> None:
        """Take away the prediction of a slide, as one that was stopped before it was done."""
        entry = self.entries.get(key)
        if entry is None:
            return
        let_go(entry)
        self.overlays.take_in(entry)
        if entry is self.active and self.viewer.layers.selection.active is None:
            self.overlays.select_spots(entry)
        self.overlays.keep_up()
        self.prediction_changed.emit()

    def show(self, map_key: str | None = None, gene: str | None = None, markers: MarkerSet | None = None) -> None:
        """Show a map, another gene or a set of them, of the active slide; the other maps are hidden.

        Parameters
        ----------
        map_key, gene, markers
            What to show; by default as before. Of a marker set it is the mean of those genes that are predicted.

        Raises
        ------
        HyperSTError
            If there is no such map, or no such gene.
        """
        entry = self.active
        if entry is None or entry.table is None:
            return
        if gene is not None and gene not in entry.table.var_names:
            raise HyperSTError(f"{gene} is not predicted by this checkpoint", do="choose one of the list")
        if markers is not None and not entry.genes.find(markers.genes)[0]:
            raise HyperSTError(f"none of the genes of {markers.name} is predicted", do="choose another marker set")
        self.map = map_key or self.map
        if gene is not None:
            self.gene, self.markers = gene, None
        self.markers = markers or self.markers
        self._find_genes(entry)
        self.overlays.show(entry)
        self.shown_changed.emit()

    def show_side_by_side(self, together: bool) -> None:
        """Show all maps of genes beside each other over the H&E, or one at a time."""
        self.side_by_side = together
        entry = self.active
        if entry is None or entry.table is None:
            return
        chosen = entry.map(self.map)
        self.show("predicted" if together and chosen is not None and not chosen.of_gene else None)

    def layer_of(self, entry: Entry, kind: str) -> MapLayer | None:
        """Return the layer of a map of a slide, if it is in the viewer."""
        return self.overlays.layer(entry, kind)

    @property
    def footprints(self) -> bool:
        """Whether the tiles of the active slide are outlined."""
        return self._active is not None and footprint_layer(self.viewer, self._active) is not None

    def show_footprints(self, shown: bool) -> None:
        """Outline the spot and niche tiles of the active slide at their true size, or no longer."""
        if self.active is not None and shown != self.footprints:
            self.overlays.outline(self.active, shown)
            if shown:  # a layer that is taken away tells of itself
                self.slides_changed.emit()

    def outline_anew(self, entry: Entry) -> None:
        """Let the outlines of a slide's tiles, where they are shown, follow its spots and its prediction."""
        self.overlays.outline(entry, footprint_layer(self.viewer, entry.key) is not None)

    def refresh(self, *_: object) -> None:
        """Colour what is visible anew, if the preferences ask for other colours."""
        for entry in self.entries.values():
            self.overlays.refresh(entry)
        self.overlays.keep_up()

    # -- within

    def _show_of(self, entry: Entry) -> None:
        """Show the map of a slide if it is the one that is looked at."""
        if entry is self.active:
            self.show()

    def _keep_shown_possible(self) -> None:
        """Choose gene and map anew where the active slide does not have them."""
        entry = self.active
        if entry is None or entry.table is None:
            return
        if self.gene not in entry.table.var_names:
            self.gene = entry.genes.first
        self._find_genes(entry)
        if entry.map(self.map) is None:
            self.map = "predicted"

    def _find_genes(self, entry: Entry) -> None:
        """Find whose values are shown; a marker set of which the slide has none is left."""
        found = () if self.markers is None else entry.genes.find(self.markers.genes)[0]
        if not found:
            self.markers = None
        self.genes = found or (() if self.gene is None else (self.gene,))

    def _on_removed(self, event: Any) -> None:
        """Forget a slide when the last of its layers is taken away."""
        self.overlays.keep_up()
        key = ours(event.value).get("slide")
        if key not in self.entries:
            return
        left = layers_of(self.viewer, key)
        if any(ours(layer)["kind"] not in OF_OTHERS for layer in left):
            if ours(event.value)["kind"] == "footprints":
                self.slides_changed.emit()
            self.overlays.follow(self.entries[key], event.value)
            return
        was_active = self._active == key
        if was_active:
            self._active = None
        del self.entries[key]
        for layer in left:
            if layer in self.viewer.layers:  # its own removal may have taken others along
                self.viewer.layers.remove(layer)
        if was_active:
            self.activate(next(iter(self.entries), None))
        self.overlays.keep_up()
        self.slides_changed.emit()
        self.prediction_changed.emit()


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


def session_with(key: str) -> Session | None:
    """Return the session of the viewer, whichever it is, in which a slide is open."""
    return next((session for session in _SESSIONS.values() if key in session.entries), None)
