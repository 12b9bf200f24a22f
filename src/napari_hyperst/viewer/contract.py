"""How our layers are told from others: by what their metadata say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Layer

#: Key of a layer's metadata that says it is ours: slide, element, table, gene, kind, job.
OURS = "hyperst"
#: The kinds of a slide's layers that are not maps.
BASE = ("image", "backdrop", "tissue", "spots", "footprints", "regions", "selection")


def ours(layer: Layer) -> dict[str, Any]:
    """Return what a layer says of itself, empty where it is not ours."""
    found = layer.metadata.get(OURS)
    return found if isinstance(found, dict) else {}
