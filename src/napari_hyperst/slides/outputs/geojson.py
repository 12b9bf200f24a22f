"""Spots and regions as GeoJSON, the way QuPath imports objects."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from shapely import Geometry
from shapely.affinity import affine_transform
from shapely.geometry import mapping
from spatialdata.transformations import get_transformation

from napari_hyperst.slides.outputs.selection import are_squares, centres_px, genes_of, provenance
from napari_hyperst.slides.outputs.staging import staged_file
from napari_hyperst.slides.slide import Slide

#: Corners of the polygon that stands for a round spot: its area is that of the circle within 2 %.
_CORNERS = 24
#: Digits after the point, of px and of values.
_PX_DIGITS, _DIGITS = 2, 4
_SPOT_COLOUR = [0, 169, 224]
#: Names of objects are made under this one: the same export gives the same.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "napari-hyperst")


def write_geojson(slide: Slide, table: AnnData, path: Path, gene: str | None, measured: bool) -> None:
    """Write the spots as detections with measurements, and the slide's other polygons as annotations.

    Coordinates are level-0 px of the H&E, as QuPath has them. Measurements are ``<gene> predicted`` and, where asked
    for, ``<gene> measured``, in log2(count + 1), and the table's norms and violations.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.
    path
        The file to write.
    gene
        One gene; all if not told.
    measured
        Whether measured values are to stand beside the predicted ones.

    Raises
    ------
    ConfigError
        If the gene is not predicted, or nothing was measured.
    StoreError
        If it cannot be written.
    """
    values = genes_of(table, gene, measured)
    names = list(table.var_names) if gene is None else [gene]
    titles = [f"{name} {kind}" for kind in values for name in names]
    hierarchy = [name for name in table.obs.columns if name.startswith(("norm_", "violation_"))]
    numbers = np.hstack([*values.values(), *(np.asarray(table.obs[name], np.float32)[:, None] for name in hierarchy)])
    with staged_file(path) as staged, staged.open("w", encoding="utf-8") as file:
        said = json.dumps(provenance(table), ensure_ascii=False)
        file.write(f'{{"type": "FeatureCollection", "hyperst": {said}, "features": [')
        between = "\n"
        for feature in _features(slide, table, [*titles, *hierarchy], numbers):
            file.write(between + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            between = ",\n"
        file.write("\n]}\n")


def _features(
    slide: Slide, table: AnnData, titles: list[str], numbers: NDArray[np.float32]
) -> Iterator[dict[str, Any]]:
    for element, name, geometry in _regions(slide):
        yield _feature("annotation", f"{element}/{name}", geometry, {"name": name, "classification": {"name": element}})
    corners = _corners(slide)
    for spot, centre, row in zip(table.obs_names.astype(str), centres_px(table), numbers, strict=True):
        ring = np.round(centre + corners, _PX_DIGITS).tolist()
        told = {
            title: round(float(value), _DIGITS) for title, value in zip(titles, row, strict=True) if np.isfinite(value)
        }
        properties = {
            "name": spot,
            "classification": {"name": "Spot", "color": _SPOT_COLOUR},
            "measurements": told,
        }
        yield _feature(
            "detection", f"{slide.name}/{spot}", {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, properties
        )


def _feature(kind: str, name: str, geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, name)),
        "geometry": geometry,
        "properties": {"objectType": kind, **properties},
    }


def _corners(slide: Slide) -> NDArray[np.float64]:
    """Return (k, 2) corners of a spot around its centre, (x, y) in level-0 px."""
    radius = slide.spots.diameter_um / slide.mpp / 2
    if are_squares(slide):
        return radius * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float)
    angles = np.arange(_CORNERS) * 2 * np.pi / _CORNERS
    return radius * np.column_stack([np.cos(angles), np.sin(angles)])


def _regions(slide: Slide) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give element, name and geometry of each polygon of the slide that is no spot, in level-0 px of the H&E."""
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    system = slide.coordinate_system
    image = get_transformation(slide.sdata.images[slide.source.image], system).to_affine_matrix(**axes)
    for element, shapes in slide.sdata.shapes.items():
        to_system = get_transformation(shapes, get_all=True).get(system)
        if element == slide.name or "radius" in shapes.columns or to_system is None:
            continue
        (a, b, x), (c, d, y) = (np.linalg.inv(image) @ to_system.to_affine_matrix(**axes))[:2].tolist()
        for name, geometry in zip(shapes.index.astype(str), shapes.geometry, strict=True):
            yield element, name, _rounded(affine_transform(geometry, (a, b, c, d, x, y)))


def _rounded(geometry: Geometry) -> dict[str, Any]:
    """Return a geometry as GeoJSON, its coordinates to a hundredth of a px."""

    def lists(part: Any) -> Any:
        return [lists(inner) for inner in part] if isinstance(part, list | tuple) else round(part, _PX_DIGITS)

    said = mapping(geometry)
    return {"type": said["type"], "coordinates": lists(said["coordinates"])}
