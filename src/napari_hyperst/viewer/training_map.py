"""The validation map of a run: what it predicts of a gene, beside what was measured, after every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hyperst.nouns.snapshot import ValidationSnapshot
from napari_hyperst.viewer.layers import placement, size_px
from napari_hyperst.viewer.maps import robust_limits
from napari_hyperst.viewer.preferences import colormap, percentiles

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points

    from napari_hyperst.nouns.slide_ref import SlideRef
    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session

#: Key of the metadata of our layers that hold a run's validation map.
TRAINING = "hyperst_training"
#: Between the slide's spots and the predicted ones, in diameters of a spot.
_GAP = 2.0
KINDS = ("measured", "predicted")
#: Colour of what says which is which, above the uppermost spot: it is read on glass, tissue and either theme.
_LABEL = "#E69F00"
#: How much more than the two a fresh view shows.
_MARGIN = 1.15


def show_validation(
    session: Session, snapshot: ValidationSnapshot, gene: str, run: Path, to_open: SlideRef | None = None
) -> bool:
    """Show a gene of a run's validation map: measured on its slide, predicted beside it, in the same colours.

    Parameters
    ----------
    session
        Of the viewer. Of the validation slides, the first that is open is shown. When
        the map is new its slide becomes the active one, whose H&E is seen beneath it.
    snapshot
        The map.
    gene
        One of its genes.
    run
        The folder of the run, by which its layers are known.
    to_open
        The slide to open where no validation slide is open; None for none.

    Returns
    -------
    bool
        Whether it is shown; if not, this is to be called again when another slide is open.
    """
    found = _open_slide(session, snapshot, to_open)
    if found is None:
        return False
    number, entry = found
    slide = entry.slide
    rows = np.flatnonzero(snapshot.slide == number)
    place = {name: i for i, name in enumerate(slide.spots.ids.tolist())}
    known = [(row, place[str(snapshot.ids[row])]) for row in rows if str(snapshot.ids[row]) in place]
    if not known:
        return True
    kept, spots = (np.array(part) for part in zip(*known, strict=True))
    yx = slide.spots.centres_px[spots][:, ::-1]
    beside = float(slide.spots.centres_px[:, 0].max() - yx[:, 1].min()) + _GAP * size_px(slide, placement(slide))
    values = {kind: snapshot.values(gene, kind)[kept] for kind in KINDS}
    limits = robust_limits(np.concatenate(list(values.values())), percentiles())
    if not any(layer.metadata.get(TRAINING, {}).get("run") == str(run) for layer in session.viewer.layers):
        session.activate(entry.key)
    shown = []
    for kind in KINDS:
        title = f"{gene} {kind}" + (f", epoch {snapshot.epoch}" if kind == "predicted" else "")
        shift = beside if kind == "predicted" else 0.0
        said = {"run": str(run), "kind": kind, "slide": entry.key}
        shown.append(_show(session.viewer, slide, yx + (0.0, shift), values[kind], limits, title, said))
    if None not in shown:
        _look_at(session.viewer, [layer for layer in shown if layer is not None])
    return True


def show_over_its_slide(session: Session) -> None:
    """Show validation maps while their slide is the active one, as slides lie on each other, and hide the others."""
    active = None if session.active is None else session.active.key
    for layer in session.viewer.layers:
        if said := layer.metadata.get(TRAINING):
            layer.visible = said["slide"] == active


def hide_validation(viewer: ViewerModel, run: Path | None = None) -> None:
    """Take the validation map of a run away, or that of any."""
    for layer in list(viewer.layers):
        said = layer.metadata.get(TRAINING)
        if said and (run is None or said["run"] == str(run)):
            viewer.layers.remove(layer)


def _open_slide(session: Session, snapshot: ValidationSnapshot, to_open: SlideRef | None) -> tuple[int, Entry] | None:
    numbers = {Path(path).absolute(): number for number, path in reversed(list(enumerate(snapshot.slides)))}
    for entry in session.entries.values():
        number = numbers.get(entry.ref.path.absolute())
        if number is not None:
            return number, entry
    if to_open is not None and session.opening == 0:
        session.open(to_open)
    return None


def _show(
    viewer: ViewerModel,
    slide: Slide,
    yx: Any,
    values: Any,
    limits: tuple[float, float],
    title: str,
    said: dict[str, str],
) -> Points | None:
    """Recolour a layer, or add it; return it where it is new."""
    layer = next((one for one in viewer.layers if one.metadata.get(TRAINING) == said), None)
    labels = np.full(len(yx), "", dtype=object)
    labels[int(np.argmin(yx[:, 0]))] = said["kind"]
    features = {"value": np.asarray(values, dtype=np.float32), "label": labels}
    if layer is not None and len(layer.data) == len(yx):
        layer.features = features
        layer.face_contrast_limits = limits
        layer.name = title
        return None
    if layer is not None:
        viewer.layers.remove(layer)
    where = placement(slide)
    selected = viewer.layers.selection.active
    points: Points = viewer.add_points(
        yx,
        name=title,
        size=size_px(slide, where),
        border_width=0.0,
        features=features,
        face_color="value",
        face_colormap=colormap(),
        face_contrast_limits=limits,
        text={"string": "{label}", "color": _LABEL, "size": 12, "translation": (-size_px(slide, where), 0.0)},
        metadata={TRAINING: said},
        **where,
    )
    points.face_colorbar.visible = said["kind"] == "predicted"
    if selected is not None:
        viewer.layers.selection.active = selected
    return points


def _look_at(viewer: ViewerModel, layers: list[Points]) -> None:
    """Fit the view to some layers, once, when they are new."""
    corners = np.concatenate([np.asarray(layer.extent.world)[:, -2:] for layer in layers])
    low, high = corners.min(axis=0), corners.max(axis=0)
    viewer.scene.camera.center = (0.0, *((low + high) / 2))
    viewer.scene.camera.zoom = float(np.min(np.asarray(viewer.canvas.size) / ((high - low) * _MARGIN)))
