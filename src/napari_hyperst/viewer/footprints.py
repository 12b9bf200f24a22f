"""What tissue a model looks at: the outlines of spot and niche tiles, at their true size on the slide.

They are a Vectors layer, four edges a square: it turns with an affine, as squares of a Points layer do not, and 5,000
spots are there in a fifth of a second, which takes a Shapes layer two, and twenty the first time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.viewer.contract import OURS, layer_of, ours
from napari_hyperst.viewer.entry import Entry
from napari_hyperst.viewer.layers import placement

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points, Vectors

    from napari_hyperst.slides.slide import Slide

KIND = "footprints"
#: Colours of the outlines, unlike those of the spots and of H&E.
_COLOURS = {"spot": "#ffd000", "niche": "#00b050"}
#: How wide a line is, relative to the spot tile's side.
_WIDTH = 0.05
#: No more spots than about this many have their tiles outlined.
_MOST = 10_000


def sides_um(entry: Entry) -> dict[str, float]:
    """Return the side of each kind of tile in µm; without a lattice there may be no niche.

    They are those that the slide was predicted from or, before that, those that models look at by default.
    """
    from napari_hyperst.errors import SlideError
    from napari_hyperst.slides.tiles import niche_um

    if entry.table is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a table of another version
            told = entry.table.uns[OURS]
            return {"spot": float(told["spot_um"]), "niche": float(told["niche_um"])}
    spec = TileSpec()
    sides = {"spot": float(spec.spot_um)}
    with contextlib.suppress(SlideError):  # a niche that goes by the lattice, and the spots lie on none
        sides["niche"] = float(niche_um(entry.slide, spec))
    return sides


def describe_footprints(entry: Entry) -> str:
    """Say what is outlined, and how large it is."""
    step = step_of(entry.slide)
    told = ", ".join(f"{tile} {side:.4g} µm" for tile, side in sides_um(entry).items())
    return f"Tile footprints: {told}" + (f" (of one spot in {step})" if step > 1 else "")


def step_of(slide: Slide) -> int:
    """Return of how many spots one has its tiles outlined: of too many, nobody could tell them apart."""
    return -(-len(slide.spots) // _MOST)


def outlines_px(slide: Slide, side_um: float) -> NDArray[np.float64]:
    """Return the edges of the squares around spots as napari's vectors.

    Parameters
    ----------
    slide
        The slide.
    side_um
        Side of the squares in µm.

    Returns
    -------
    NDArray
        (4n, 2, 2): each edge's start and its extent, (y, x) in level-0 px; the four of a square follow one another.
        Of the n spots, those that ``step_of`` tells.
    """
    left, top, right, bottom = slide.boxes_px(side_um)[:: step_of(slide)].T
    corners = np.stack([[top, left], [top, right], [bottom, right], [bottom, left]]).transpose(2, 0, 1)
    return np.stack([corners, np.roll(corners, -1, axis=1) - corners], axis=2).reshape(-1, 2, 2)


def footprint_layer(viewer: ViewerModel, key: str) -> Layer | None:
    """Return the layer with the outlines of a slide's tiles, if it is in the viewer."""
    found: Layer | None = layer_of(viewer, key, KIND)
    return found


def add_footprints(viewer: ViewerModel, entry: Entry, base: Points | Image | None) -> Vectors:
    """Outline the tiles of a slide.

    Parameters
    ----------
    viewer, entry
        Where to, and of what.
    base
        The layer of its spots, which may have been put elsewhere.
    """
    sides = sides_um(entry)
    told, where = describe_footprints(entry), placement(entry.slide)
    outlines = [outlines_px(entry.slide, side) for side in sides.values()]
    layer: Vectors = viewer.add_vectors(
        np.concatenate(outlines),
        name=f"{entry.key} {told[:1].lower()}{told[1:]}",
        features={"tile": np.repeat(list(sides), [len(edges) for edges in outlines])},
        edge_color="tile",
        edge_color_cycle=[_COLOURS[tile] for tile in sides],
        edge_width=_WIDTH * sides["spot"] / where["scale"][0],
        vector_style="line",
        metadata={OURS: {"slide": entry.key, "element": entry.slide.name, "kind": KIND, "sides_um": sides}},
        **where,
    )
    if base is not None:
        place_footprints(layer, base)
    return layer


def place_footprints(layer: Layer, base: Points | Image) -> None:
    """Put the outlines where the spots they belong to have been put."""
    to_px = ours(base).get("to_px")  # bins are placed by rows and columns, the outlines by px
    if to_px is None:
        layer.scale, layer.translate, layer.affine = base.scale, base.translate, base.affine
    else:
        layer.affine = base.affine.affine_matrix @ to_px
