"""The functions that ``napari.yaml`` names: readers, sample data, writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hyperst.errors import StoreError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.formats import format_of, is_large_picture

if TYPE_CHECKING:
    LayerData = tuple[Any, ...]

#: What a reader answers that adds no layers: they come when the slide is open.
_LATER: list[LayerData] = [(None,)]


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a reader of slides if that is what the path is; looks at names and headers only, and never raises.

    A picture in a general format is claimed where it is large and RGB, as a whole-slide image is; the workbench opens
    any.

    Parameters
    ----------
    path
        A file or folder, or several.
    """
    try:
        paths = _paths(path)
        return read if paths and all(map(_is_slide, paths)) else None
    except (TypeError, ValueError):
        return None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Open slides: in the current viewer, where they appear when they are there; without one, as layers.

    Parameters
    ----------
    path
        Folders or stores of slides.
    """
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is None:
        return [layer for one in _paths(path) for layer in _layers(one)]
    from napari_hyperst.viewer.session import session_of

    for one in _paths(path):
        session_of(viewer).open(SlideRef(path=one))
    return _LATER


def open_sample() -> list[LayerData]:
    """Return the layers of the packaged section C2; a viewer's session takes the slide in."""
    from napari import current_viewer

    from napari_hyperst.slides.sample import sample_folder

    viewer = current_viewer()
    if viewer is None:
        return _layers(sample_folder())
    from napari_hyperst.slides import open_slide
    from napari_hyperst.viewer.session import session_of

    session = session_of(viewer)
    entry, layers = session.register(open_slide(sample_folder()))
    session.activate(entry.key)
    return [*layers]


def write(path: str, layers: list[LayerData]) -> list[str]:
    """Write the slide that some of our layers belong to, with its prediction, as a SpatialData Zarr.

    A slide without a prediction has its spots laid by the mask of the tissue as it is shown; a prediction is written
    with the spots that it was made at.

    Parameters
    ----------
    path
        The store to write.
    layers
        Layers as data, settings and type; those of other plugins are passed over.

    Returns
    -------
    list
        The store.

    Raises
    ------
    HyperSTError
        If the layers are of no slide or of several, or the store cannot be written.
    """
    from napari_hyperst.viewer.contract import OURS

    said = [settings.get("metadata", {}).get(OURS) for _, settings, _ in layers]
    keys = {one["slide"] for one in said if isinstance(one, dict)}
    if not keys:
        raise StoreError(
            "none of these layers is of a slide", where=path, do="save them with another extension than .zarr"
        )
    if len(keys) > 1:
        raise StoreError(f"a store holds one slide, not {len(keys)}", where=path, do="save the layers of one slide")
    from napari_hyperst.slides.convert import convert
    from napari_hyperst.slides.export import write_table
    from napari_hyperst.viewer.session import session_with

    key = keys.pop()
    session = session_with(key)
    if session is None:
        raise StoreError("the slide of these layers is closed", where=path, do="open it again")
    entry = session.entries[key]
    if entry.table is None or entry.predicted is None:
        session.settle(entry)  # what was painted into the mask is saved too
        return [str(convert(entry.slide, path))]
    return [str(write_table(entry.predicted, entry.table, path, table=entry.table_name))]


def _is_slide(path: Path) -> bool:
    found = format_of(path)
    return is_large_picture(path) if found == "whole_slide" else found is not None


def _layers(path: Path) -> list[LayerData]:
    from napari_hyperst.slides import open_slide
    from napari_hyperst.viewer.layers import slide_layers

    slide = open_slide(path)
    return [*slide_layers(slide, slide.name)]


def _paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]
