"""A slide and its maps as napari layers, all in µm and in register.

Pixel i of a SpatialData image spans i to i + 1, in napari it is centred on i: so the H&E is moved by half a pixel, and
the points carry the coordinates that every other tool gives them. What scales, turns or moves the image in its
coordinate system becomes the affine of each layer, in µm.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.viewer.bins import Grid, grid_of
from napari_hyperst.viewer.contract import OURS, ours
from napari_hyperst.viewer.hover import Describe
from napari_hyperst.viewer.maps import Values

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel
    from napari.layers import Image, Points

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.map_layers import BinMap, SpotMap

    #: The layer of a map.
    MapLayer = SpotMap | BinMap

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
    levels = [_rgb(level, slide.image.full_scale) for level in slide.image.levels]
    tissue = [] if slide.source.tissue is None else [mask_layer(slide, key)]
    return [(levels, {**image, **where}, "image"), *tissue, spots_layer(slide, key)]


def spots_layer(slide: Slide, key: str) -> LayerData:
    """Return the spots of a slide as rings, or the outline of bins that lie side by side: data, settings, type.

    Parameters
    ----------
    slide
        The slide.
    key
        What the session calls it.
    """
    where = placement(slide)
    system = slide.coordinate_system
    said = {"slide": key, "element": slide.name, "kind": "spots", "enlargement": _enlargement(where["affine"])}
    settings = {
        "name": slide.name,
        "metadata": {**spot_metadata(slide), "_active_in_cs": {system}, "_current_cs": system, OURS: said},
    }
    grid = grid_of(slide)
    if grid is None:
        rings = {"size": size_px(slide, where), **spot_style(), "features": {"spot": slide.spots.ids}}
        return slide.spots.centres_px[:, ::-1], {**settings, **rings, **where}, "points"
    placed = grid.placement(where)
    said["to_px"] = np.linalg.inv(placed["affine"]) @ where["affine"]
    outline = {"colormap": ["transparent", _SPOT_COLOUR], "contrast_limits": (0, 1), "interpolation2d": "nearest"}
    return grid.outline(grid.places(slide.spots.centres_px)), {**settings, **outline, **placed}, "image"


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
    cell = np.asarray(viewer.canvas.size) / viewer.canvas.grid.actual_shape(viewer.layers)
    viewer.scene.camera.zoom = float(np.min(cell / size))


def add_map(
    viewer: ViewerModel,
    slide: Slide,
    table: AnnData,
    values: Values,
    limits: tuple[float, float],
    name: str,
    metadata: dict[str, Any],
    describe: Describe,
    *,
    visible: bool,
    bar: bool,
) -> MapLayer:
    """Add a map over its slide's spots: points, or an image where they are bins side by side.

    Parameters
    ----------
    viewer, slide
        Where to, and over what.
    table
        The prediction's table, whose rows are the spots.
    values, limits
        (n,) numbers, and between which they are coloured.
    name, metadata
        Of the layer, and what its ``metadata["hyperst"]`` is to hold, the colormap among it.
    describe
        What the status bar says of a row of the table.
    visible, bar
        Whether it is to be seen, and its colour bar.
    """
    from napari_hyperst.viewer.map_layers import BinMap, SpotMap

    where, grid = placement(slide), grid_of(slide)
    said: dict[str, Any] = {
        "name": name,
        "metadata": {OURS: metadata},
        "describe": describe,
        "visible": visible,
    }
    layer: MapLayer
    if grid is None:
        layer = SpotMap(
            np.asarray(table.obsm["spatial"])[:, ::-1],
            size=size_px(slide, where),
            border_width=0.0,
            features=_features(values, table),
            face_color=VALUE,
            face_colormap=metadata["colormap"],
            face_contrast_limits=limits,
            **where,
            **said,
        )
    else:
        index = bin_rows(grid, table)
        metadata["grid"] = grid
        layer = BinMap(
            spread(index, values),
            index=index,
            colormap=metadata["colormap"],
            contrast_limits=limits,
            interpolation2d="nearest",
            **grid.placement(where),
            **said,
        )
    if bar:
        show_bar(layer)
    viewer.add_layer(layer)
    return layer


def is_image(layer: Any) -> bool:
    """Tell whether spots are shown as an image, as bins side by side are."""
    return not hasattr(layer, "face_color")


def show_bar(layer: MapLayer) -> None:
    """Show napari's colour bar of a map."""
    (layer.colorbar if is_image(layer) else layer.face_colorbar).visible = True


def limits_shown(layer: MapLayer) -> tuple[float, float] | None:
    """Return the values between which a map's layer is coloured; None where a user took them away."""
    limits = layer.contrast_limits if is_image(layer) else layer.face_contrast_limits
    return None if limits is None else (float(limits[0]), float(limits[1]))


def limits_event(layer: MapLayer) -> Any:
    """Return napari's event of other limits of a map's colours; that of points themselves never tells."""
    return (layer if is_image(layer) else layer._face).events.contrast_limits


def follow(layer: MapLayer, base: Points | Image) -> None:
    """Put a map where the spots it belongs to have been put, in their size."""
    layer.scale, layer.translate, layer.affine = base.scale, base.translate, base.affine
    if not is_image(layer):
        layer.size = float(base.size[0])


def resize(spots: Points | Image, diameter_um: float) -> None:
    """Give spots their size anew after they were put elsewhere: napari does not scale points by an affine."""
    if is_image(spots):
        return
    factor = _enlargement(np.asarray(spots.affine.affine_matrix)) / float(ours(spots)["enlargement"])
    spots.size = diameter_um / float(spots.scale[-1]) * factor


def _enlargement(affine: NDArray[np.float64]) -> float:
    """Return how many times longer an affine makes lengths, on average."""
    return float(np.sqrt(abs(np.linalg.det(affine[-3:-1, -3:-1]))))


def recolour(layer: MapLayer, values: Values, limits: tuple[float, float], colormap: str, table: AnnData) -> None:
    """Give a map's layer other values, limits and colours; the layer stays."""
    put = _recolour_bins if is_image(layer) else _recolour_points
    put(layer, values, limits, colormap, table)


def catch_up(layer: MapLayer) -> None:
    """Have napari draw a map's small picture anew, and its table of features: each has the list of layers drawn."""
    if not is_image(layer):
        layer.refresh(data_displayed=False, highlight=False, extent=False)
    tell_features(layer)


def tell_features(layer: MapLayer) -> None:
    """Have napari's table of features show those of a map of spots, which are written in place."""
    if not is_image(layer):
        layer.events.features()


def _recolour_points(layer: Any, values: Values, limits: tuple[float, float], colormap: str, table: AnnData) -> None:
    positions = np.asarray(table.obsm["spatial"])[:, ::-1]
    anew = layer.face_color_mode != "colormap"  # chosen by hand: the values are kept for when it is one again
    if layer.data.shape != positions.shape or not np.array_equal(layer.data, positions):
        layer.data = positions  # other spots than before, or one was moved or deleted by hand
        layer.size, layer.border_width, layer.shown = float(layer.size[0]), 0.0, True
        anew = True
    told = layer._face.events  # of which each would have napari upload all points again
    with told.colors.blocker(), told.color_properties.blocker():
        if anew:
            layer.features = _features(values, table)
        else:  # in place, of which the list of layers, and so the whole window, is not drawn again
            layer.features[VALUE] = np.asarray(values, dtype=np.float32)
            layer.refresh_colors()
            layer.refresh_text()
        layer.face_contrast_limits = limits
        if layer.face_colormap.name != colormap:
            layer.face_colormap = colormap
    told.colors(value=layer.face_color)


def _recolour_bins(layer: Any, values: Values, limits: tuple[float, float], colormap: str, table: AnnData) -> None:
    index = getattr(layer, "index", None)  # a copy that was made by hand has none
    if index is None or (index >= 0).sum() != len(values):
        index = bin_rows(ours(layer)["grid"], table)
        if hasattr(layer, "index"):
            layer.index = index
    pixels = spread(index, values)
    with layer.events.extent.blocker() if layer.data.shape == pixels.shape else nullcontext():
        layer.data = pixels  # else napari works out anew where each of its layers lies
    if tuple(layer.contrast_limits) != limits or tuple(layer.contrast_limits_range) != limits:
        with layer.events.contrast_limits.blocker():  # which the next line also tells, and each time costs a colour bar
            layer.contrast_limits_range = limits
        layer.contrast_limits = limits
    if layer.colormap.name != colormap:
        layer.colormap = colormap


def spread(index: NDArray[np.int32], values: Values) -> Values:
    """Return the values of bins as an image, NaN where there is none; ``index`` has each bin's row."""
    return np.append(np.asarray(values, dtype=np.float32), np.float32(np.nan))[index]


def bin_rows(grid: Grid, table: AnnData) -> NDArray[np.int32]:
    """Return (rows, columns) the row of each bin in a prediction's table; -1 where there is no bin."""
    rows = np.arange(table.n_obs, dtype=np.int32)
    return grid.fill(grid.places(np.asarray(table.obsm["spatial"])), rows, -1)


def _features(values: Values, table: AnnData) -> dict[str, NDArray[Any]]:
    """Lay out what points are coloured by: float32, as a few distinct integers would turn categorical."""
    return {"spot": table.obs_names.to_numpy(), VALUE: np.asarray(values, dtype=np.float32)}


def _rgb(level: Any, full_scale: float) -> Any:
    """Turn a (c, y, x) level into (y, x, 3 or 4) 8-bit pixels, lazily."""
    import dask.array as da

    pixels = da.moveaxis(level, 0, -1)
    if pixels.dtype != np.uint8:
        pixels = da.clip(da.rint(da.nan_to_num(pixels) * (255.0 / full_scale)), 0, 255).astype(np.uint8)
    return da.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
