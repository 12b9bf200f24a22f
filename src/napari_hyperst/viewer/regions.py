"""Regions drawn on a slide, and the genes whose prediction differs most inside against outside of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import RegionError
from napari_hyperst.viewer.contract import OURS, layer_of
from napari_hyperst.viewer.layers import placement
from napari_hyperst.viewer.places import to_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from napari.components import ViewerModel
    from napari.layers import Shapes
    from shapely.geometry.base import BaseGeometry

    from napari_hyperst.viewer.entry import Entry

KIND = "regions"
_COLOUR = "#ffd000"
#: Width of the outlines in µm.
_WIDTH_UM = 15.0
#: An ellipse is a polygon with so many corners.
_CORNERS = 96
#: So many values are ranked at a time.
_VALUES = 4_000_000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RegionGenes:
    """How the prediction of each gene differs inside against outside of a region; the most different gene comes first.

    Attributes
    ----------
    genes
        (G,) names.
    inside, outside
        (G,) mean log2(count + 1).
    effect
        (G,) rank-biserial correlation, ``2 U / (n m) - 1``: the chance that a spot inside is higher than one outside,
        less the chance that it is lower; 1 where all inside are higher, -1 where all are lower.
    p_value, adjusted
        (G,) of the two-sided Mann-Whitney U test, and adjusted by Benjamini and Hochberg over the genes.
    n_inside, n_outside
        How many spots there are on each side.
    left_out
        How many spots have no prediction.
    """

    genes: NDArray[np.str_]
    inside: FloatArray
    outside: FloatArray
    effect: FloatArray
    p_value: FloatArray
    adjusted: FloatArray
    n_inside: int
    n_outside: int
    left_out: int

    @property
    def difference(self) -> FloatArray:
        """(G,) mean inside less mean outside."""
        return self.inside - self.outside


def region_layer(viewer: ViewerModel, key: str) -> Shapes | None:
    """Return the layer with the regions of a slide, if it is in the viewer."""
    found: Shapes | None = layer_of(viewer, key, KIND)
    return found


def add_region_layer(viewer: ViewerModel, entry: Entry) -> Shapes:
    """Return the layer with the regions of a slide, made if there is none, ready for a polygon to be drawn."""
    layer = region_layer(viewer, entry.key)
    if layer is None:
        where = placement(entry.slide)
        layer = viewer.add_shapes(
            name=f"{entry.key} regions",
            ndim=2,
            face_color="transparent",
            opacity=1.0,
            edge_color=_COLOUR,
            edge_width=_WIDTH_UM / float(where["scale"][0]),
            metadata={OURS: {"slide": entry.key, "element": entry.slide.name, "kind": KIND}},
            **where,
        )
    layer.visible = True
    viewer.layers.selection.active = layer
    layer.mode = "add_polygon"
    return layer


def region_of(viewer: ViewerModel, entry: Entry, layer: Shapes) -> BaseGeometry:
    """Return what all shapes of a layer cover together, in level-0 px of the H&E, (x, y).

    Parameters
    ----------
    viewer, entry
        The viewer, and the slide.
    layer
        Its polygons, rectangles and ellipses, wherever layer and slide have been put.

    Raises
    ------
    RegionError
        If there is no shape, one has no area, or one crosses itself.
    """
    import shapely

    if not len(layer.data):
        raise RegionError("there is no region", do="draw a polygon around what to compare")
    parts = []
    for number, (corners, kind) in enumerate(zip(layer.data, layer.shape_type, strict=True), start=1):
        outline = _outline(np.asarray(corners, dtype=float), str(kind), number)
        world = np.array([layer.data_to_world(corner) for corner in outline])[:, -2:]
        part = shapely.Polygon(to_pixels(viewer, entry, world)[:, ::-1])
        if not part.is_valid:
            raise RegionError(f"region {number} crosses itself", do="delete it and draw it anew, or move its corners")
        if part.area == 0:
            raise RegionError(f"region {number} has no area", do="delete it and draw it anew")
        parts.append(part)
    return shapely.union_all(parts)


def spots_inside(table: AnnData, region: BaseGeometry) -> NDArray[np.bool_]:
    """Return (n,) whether the centre of each spot of a prediction's table lies in a region.

    Parameters
    ----------
    table
        A prediction's table.
    region
        From ``region_of``.
    """
    import shapely

    shapely.prepare(region)
    return np.asarray(shapely.contains_xy(region, np.asarray(table.obsm["spatial"], dtype=float)))


def compare(
    table: AnnData, inside: NDArray[np.bool_], cancelled: Callable[[], bool] = lambda: False
) -> RegionGenes | None:
    """Compare the predictions of all genes inside and outside of a region.

    Parameters
    ----------
    table
        A prediction's table.
    inside
        (n,) whether each spot lies in the region.
    cancelled
        Asked now and then whether nobody wants the result any more.

    Returns
    -------
    RegionGenes
        Sorted by the size of the effect; None if it was cancelled.

    Raises
    ------
    RegionError
        If a side has fewer than two spots with a prediction.
    """
    from scipy.stats import false_discovery_control, mannwhitneyu

    there = np.concatenate([np.isfinite(part).all(axis=1) for part in _parts(table.X, axis=0)])
    rows = (np.flatnonzero(there & inside), np.flatnonzero(there & ~inside))
    for chosen, side in zip(rows, ("inside", "outside"), strict=True):
        if len(chosen) < 2:
            found = "no spot lies" if len(chosen) == 0 else "only one spot lies"
            raise RegionError(f"{found} {side} the region", do="draw it so that there are spots inside and outside")
    means: list[list[FloatArray]] = [[], []]
    effects, p_values = [], []
    for part in _parts(table.X, axis=1):
        if cancelled():
            return None
        within, without = (part[chosen].astype(np.float64) for chosen in rows)
        tested = mannwhitneyu(within, without, axis=0, method="asymptotic", use_continuity=False)
        effects.append(2 * tested.statistic / (len(rows[0]) * len(rows[1])) - 1)
        p_values.append(np.nan_to_num(tested.pvalue, nan=1.0))  # a gene that is the same everywhere
        for mean, values in zip(means, (within, without), strict=True):
            mean.append(values.mean(axis=0))
    effect, p_value = np.concatenate(effects), np.clip(np.concatenate(p_values), 0.0, 1.0)
    order = np.argsort(-np.abs(effect), kind="stable")
    return RegionGenes(
        genes=table.var_names.to_numpy().astype(str)[order],
        inside=np.concatenate(means[0])[order],
        outside=np.concatenate(means[1])[order],
        effect=effect[order],
        p_value=p_value[order],
        adjusted=false_discovery_control(p_value)[order],
        n_inside=len(rows[0]),
        n_outside=len(rows[1]),
        left_out=int((~there).sum()),
    )


def write_csv(found: RegionGenes, path: Path) -> None:
    """Write a comparison as a table with a line for each gene, all of it or nothing.

    Parameters
    ----------
    found
        The comparison.
    path
        The file.

    Raises
    ------
    RegionError
        If it cannot be written.
    """
    from napari_hyperst.files import write_whole

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    mean = "mean log2(count + 1) {} ({} spots)"
    writer.writerow(
        ["gene", "rank-biserial effect", "difference of means", mean.format("inside", found.n_inside),
         mean.format("outside", found.n_outside), "Mann-Whitney p", "Benjamini-Hochberg adjusted p"]
    )  # fmt: skip
    columns = (found.effect, found.difference, found.inside, found.outside, found.p_value, found.adjusted)
    for gene, *numbers in zip(found.genes, *columns, strict=True):
        writer.writerow([gene, *(f"{number:.6g}" for number in numbers)])
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise RegionError(
            f"cannot be written ({error.strerror})", where=path, do="choose a folder that is there and may be written"
        ) from error


def _outline(corners: FloatArray, kind: str, number: int) -> FloatArray:
    """Return the corners of a shape as a polygon, (y, x) in its layer."""
    if kind in ("line", "path"):
        raise RegionError(f"region {number} is a {kind}, which has no inside", do="draw a polygon instead")
    if kind != "ellipse":
        if len(corners) < 3:
            raise RegionError(f"region {number} has fewer than three corners", do="delete it and draw it anew")
        return corners
    turn = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)[:, None]
    middle = corners.mean(axis=0)  # napari keeps the corners of the box around an ellipse
    return middle + np.cos(turn) * (corners[1] - corners[0]) / 2 + np.sin(turn) * (corners[3] - corners[0]) / 2


def _parts(matrix: Any, axis: int) -> Iterator[NDArray[Any]]:
    """Yield a matrix some rows, or some columns, at a time."""
    step = max(1, _VALUES // max(1, matrix.shape[1 - axis]))
    for start in range(0, matrix.shape[axis], step):
        part = matrix[start : start + step] if axis == 0 else matrix[:, start : start + step]
        yield np.asarray(part.toarray() if hasattr(part, "toarray") else part)
