"""A slide and its maps as napari layers, all in µm and in register.

Pixel i of a SpatialData image spans i to i + 1, in napari it is centred on i: so the H&E is moved by half a pixel, and
the points carry the coordinates that every other tool gives them. What scales, turns or moves the image in its
coordinate system becomes the affine of each layer, in µm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.viewer.contract import OURS, ours
from napari_hyperst.viewer.maps import Map, Values

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel
    from napari.layers import Points

    from napari_hyperst.slides.slide import Slide

UNITS = ("um", "um")
#: How much more than the spots a fresh view shows.
_MARGIN = 1.25
#: Colour of the outline of the tissue.
_TISSUE_COLOUR = "#ffb000"
LayerData = tuple[Any, dict[str, Any], str]
#: Name of the one feature that a map's points are coloured by, with its unit.
VALUE = "value"
#: Spots without a map are rings of this colour, this wide relative to the spot.
_SPOT_COLOUR, _SPOT_BORDER = "#00a9e0", 0.1


def placement(slide: Slide) -> dict[str, Any]:
    """Return scale, affine and units that put level-0 px of a slide's H&E, (y, x), into the viewer's µm.

    A coordinate system that is k times finer than the image's px is shown k times smaller, so that a µm stays a µm.
    """
    from spatialdata.transformations import get_transformation

    image = slide.sdata.images[slide.source.image]
    axes = {"input_axes": ("y", "x"), "output_axes": ("y", "x")}
    matrix = get_transformation(image, slide.coordinate_system).to_affine_matrix(**axes)
    factor = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    scale = slide.mpp / factor
    affine = matrix.copy()
    affine[:2, 2] *= scale
    return {"scale": (scale, scale), "affine": affine, "units": UNITS}


def slide_layers(slide: Slide, key: str) -> list[LayerData]:
    """Return the layers of a slide, H&E and spots, as a reader does: data, settings, type.

    Between them is the mask of the tissue, where the spots were laid over one.

    Parameters
    ----------
    slide
        The slide.
    key
        What the session calls it.
    """
    where = placement(slide)
    half = where["scale"][0] / 2
    system = slide.coordinate_system
    image = {
        "name": slide.source.image,
        "multiscale": True,
        "rgb": True,
        "translate": (half, half),
        "metadata": {
            "sdata": slide.sdata,
            "name": slide.source.image,
            "_active_in_cs": {system},
            "_current_cs": system,
            OURS: {"slide": key, "element": slide.source.image, "kind": "image"},
        },
    }
    spots = {
        "name": slide.name,
        "size": size_px(slide, where),
        **spot_style(),
        "features": {"spot": slide.spots.ids},
        "metadata": {
            **spot_metadata(slide),
            "_active_in_cs": {system},
            "_current_cs": system,
            OURS: {
                "slide": key,
                "element": slide.name,
                "kind": "spots",
                "enlargement": _enlargement(where["affine"]),
            },
        },
    }
    levels = [_rgb(level, slide.image.full_scale) for level in slide.image.levels]
    tissue = [] if slide.source.tissue is None else [mask_layer(slide, key)]
    points = (slide.spots.centres_px[:, ::-1], {**spots, **where}, "points")
    return [(levels, {**image, **where}, "image"), *tissue, points]


def mask_layer(slide: Slide, key: str) -> LayerData:
    """Return the mask of a slide's tissue as an editable Labels layer: data, settings, type.

    Parameters
    ----------
    slide
        A slide without transcriptomics.
    key
        What the session calls it.
    """
    from napari.utils.colormaps import DirectLabelColormap

    name = str(slide.source.tissue)
    where = placement(slide)
    mask = (np.asarray(slide.sdata.labels[name].data) != 0).astype(np.uint8)
    # Both span the image; px 0 of the mask is centred half a px of its own from the corner.
    scale = tuple(
        whole * size / part for whole, size, part in zip(where["scale"], slide.image.shape_px, mask.shape, strict=True)
    )
    system = slide.coordinate_system
    settings = {
        **where,
        "name": name,
        "scale": scale,
        "translate": tuple(side / 2 for side in scale),
        "colormap": DirectLabelColormap(color_dict={0: "transparent", 1: _TISSUE_COLOUR, None: _TISSUE_COLOUR}),
        "opacity": 0.8,
        "metadata": {
            "sdata": slide.sdata,
            "name": name,
            "_active_in_cs": {system},
            "_current_cs": system,
            OURS: {"slide": key, "element": name, "kind": "tissue"},
        },
    }
    return mask, settings, "labels"


def spot_style() -> dict[str, Any]:
    """Return how spots without a map look: rings."""
    return {"face_color": "transparent", "border_color": _SPOT_COLOUR, "border_width": _SPOT_BORDER}


def spot_metadata(slide: Slide) -> dict[str, Any]:
    """Return what napari-spatialdata looks for on a layer of spots, so that its widgets list our tables."""
    from spatialdata import get_element_annotators

    shapes = slide.sdata.shapes[slide.name]
    tables = sorted(get_element_annotators(slide.sdata, slide.name))
    # Without counts a prediction: its widgets list tables only where there is one.
    adata = slide.counts if slide.counts is not None or not tables else slide.sdata.tables[tables[0]]
    attrs = {} if adata is None else adata.uns["spatialdata_attrs"]
    columns = shapes.drop(columns=["geometry", "radius"])
    return {
        "sdata": slide.sdata,
        "name": slide.name,
        "adata": adata,
        "region_key": attrs.get("region_key"),
        "instance_key": attrs.get("instance_key"),
        "table_names": tables or None,
        "indices": shapes.index.to_list(),
        "_n_indices": len(shapes),
        "_columns_df": columns if columns.shape[1] else None,
    }


def size_px(slide: Slide, where: dict[str, Any]) -> float:
    """Return the diameter of a spot in its layer's px: napari scales it by the layer's scale, not by its affine."""
    return slide.spots.diameter_um / float(where["scale"][-1])


def look_at_spots(viewer: ViewerModel, slide: Slide) -> None:
    """Fit the view to the spots of a slide, as glass around the tissue may be most of its image."""
    where = placement(slide)
    yx = np.column_stack([slide.spots.centres_px[:, ::-1], np.ones(len(slide.spots))])
    yx[:, :2] *= where["scale"]
    world = (yx @ where["affine"].T)[:, :2]
    low, high = world.min(axis=0), world.max(axis=0)
    size = np.maximum(high - low, slide.spots.diameter_um) * _MARGIN
    viewer.reset_view()
    viewer.scene.camera.center = (0.0, *((low + high) / 2))
    viewer.scene.camera.zoom = float(np.min(np.asarray(viewer.canvas.size) / size))


def add_map(
    viewer: ViewerModel,
    slide: Slide,
    table: AnnData,
    shown: Map,
    values: Values,
    limits: tuple[float, float],
    metadata: dict[str, Any],
) -> Points:
    """Add a map over its slide's spots.

    Parameters
    ----------
    viewer, slide
        Where to, and over what.
    table
        The prediction's table, whose rows are the spots.
    shown
        The map.
    values, limits
        (n,) numbers, and between which they are coloured.
    metadata
        What ``metadata["hyperst"]`` is to hold, the layer's name and colormap among it.
    """
    where = placement(slide)
    layer: Points = viewer.add_points(
        np.asarray(table.obsm["spatial"])[:, ::-1],
        name=str(metadata["name"]),
        size=size_px(slide, where),
        border_width=0.0,
        features=_features(shown, values, table),
        face_color=VALUE,
        face_colormap=metadata["colormap"],
        face_contrast_limits=limits,
        metadata={OURS: metadata},
        **where,
    )
    layer.face_colorbar.visible = True
    return layer


def follow(layer: Points, base: Points) -> None:
    """Put a map where the spots it belongs to have been put, in their size."""
    layer.scale, layer.translate, layer.affine = base.scale, base.translate, base.affine
    layer.size = float(base.size[0])


def resize(spots: Points, diameter_um: float) -> None:
    """Give spots their size anew after they were put elsewhere: napari does not scale points by an affine."""
    factor = _enlargement(np.asarray(spots.affine.affine_matrix)) / float(ours(spots)["enlargement"])
    spots.size = diameter_um / float(spots.scale[-1]) * factor


def _enlargement(affine: NDArray[np.float64]) -> float:
    """Return how many times longer an affine makes lengths, on average."""
    return float(np.sqrt(abs(np.linalg.det(affine[-3:-1, -3:-1]))))


def recolour(
    layer: Points, shown: Map, values: Values, limits: tuple[float, float], colormap: str, table: AnnData
) -> None:
    """Give a map's layer other values, limits and colours; the layer stays."""
    positions = np.asarray(table.obsm["spatial"])[:, ::-1]
    if layer.data.shape != positions.shape or not np.array_equal(layer.data, positions):
        layer.data = positions  # other spots than before, or one was moved or deleted by hand
        layer.size, layer.border_width, layer.shown = float(layer.size[0]), 0.0, True
    layer.features = _features(shown, values, table)
    layer.face_contrast_limits = limits
    if layer.face_colormap.name != colormap:
        layer.face_colormap = colormap


def _features(shown: Map, values: Values, table: AnnData) -> dict[str, NDArray[Any]]:
    """Lay out what the status bar shows of a spot: float32, as a few distinct integers would turn categorical."""
    return {
        "spot": table.obs_names.to_numpy().astype(str),
        VALUE: np.asarray(values, dtype=np.float32),
        "unit": np.full(len(values), shown.unit),
    }


def _rgb(level: Any, full_scale: float) -> Any:
    """Turn a (c, y, x) level into (y, x, 3 or 4) 8-bit pixels, lazily."""
    import dask.array as da

    pixels = da.moveaxis(level, 0, -1)
    if pixels.dtype != np.uint8:
        pixels = da.clip(da.rint(da.nan_to_num(pixels) * (255.0 / full_scale)), 0, 255).astype(np.uint8)
    return da.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
