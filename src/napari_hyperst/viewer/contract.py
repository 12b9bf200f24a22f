"""How our layers are told from others: by what their metadata say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

#: Key of a layer's metadata that says it is ours: slide, element, table, gene, kind, job.
OURS = "hyperst"
#: The kinds of a slide's layers that are not maps.
BASE = ("image", "backdrop", "tissue", "spots", "footprints", "regions", "selection")

#: Those that show something of other layers, and go with the last of them.
OF_OTHERS = ("backdrop", "footprints", "selection")


def ours(layer: Layer) -> dict[str, Any]:
    """Return what a layer says of itself, empty where it is not ours."""
    found = layer.metadata.get(OURS)
    return found if isinstance(found, dict) else {}


def layers_of(viewer: ViewerModel, slide: str, kind: str | None = None) -> list[Any]:
    """Return the layers of a slide, of one kind if told, from the bottom of the list up."""
    said = ((layer, ours(layer)) for layer in viewer.layers)
    return [layer for layer, its in said if its.get("slide") == slide and kind in (None, its.get("kind"))]


def layer_of(viewer: ViewerModel, slide: str, kind: str) -> Any:
    """Return the layer of a slide that is of a kind; None where it is not in the viewer."""
    return next(iter(layers_of(viewer, slide, kind)), None)
