"""The spots that were laid over an H&E follow the mask of its tissue, which is a layer that can be edited."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import SlideError
from napari_hyperst.viewer.contract import layers_of, ours
from napari_hyperst.viewer.layers import resize, spot_metadata, spot_style

if TYPE_CHECKING:
    from napari.layers import Labels, Points

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session

#: The outline of the tissue is a px of the mask wide for each so many px that the mask is long.
_OUTLINE_OF = 300
#: A brush to begin with, in µm.
_BRUSH_UM = 200.0
#: While a stroke is drawn, laying spots anew takes no more than about this share of the time.
_SHARE = 0.25
#: More spots than these do not follow the mask at once, but when they are predicted.
MAX_LIVE = 20_000


def watch(session: Session, layer: Labels) -> None:
    """Have the spots of a slide follow its mask from now on, and draw the mask as an outline."""
    layer.contour = max(1, round(max(layer.data.shape) / _OUTLINE_OF))
    layer.brush_size = max(1, round(_BRUSH_UM / float(layer.scale[-1])))
    until = 0.0

    def follow(event: Any) -> None:
        nonlocal until
        entry = session.entries.get(ours(layer).get("slide", ""))
        ended = event.type == "paint"  # a stroke; what is drawn again may be amid one, or undone
        if entry is None or len(entry.slide.spots) > MAX_LIVE or not (ended or time.monotonic() > until):
            return
        began = time.thread_time()
        with contextlib.suppress(SlideError):  # no tissue is left: told when it is to be predicted
            if lay(session, entry):
                until = time.monotonic() + (time.thread_time() - began) / _SHARE
                session.slides_changed.emit()

    # A fill tells that it is a stroke before it changes a px, so what follows is looked at too.
    for told in (layer.events.paint, layer.events.set_data, layer.events.labels_update):
        told.connect(follow)


def lay(session: Session, entry: Entry, pitch_um: float | None = None) -> bool:
    """Lay the spots of a slide anew, by its mask as it is shown, and by another pitch if told.

    What was predicted stays where it was predicted.

    Returns
    -------
    bool
        Whether mask or pitch were others than before.

    Raises
    ------
    SlideError
        If no spot fits in the tissue, or the spots were measured; they are as before.
    """
    from napari_hyperst.slides.readers.whole_slide import lay_again

    mask = _edited(session, entry)
    if mask is None and pitch_um in (None, entry.slide.source.pitch_um):
        return False
    entry.slide = lay_again(entry.slide, mask, pitch_um)
    entry.mask_kept = entry.mask_kept and mask is None
    for layer in layers_of(session.viewer, entry.key, "spots"):
        _move(layer, entry.slide)
    session.outline_anew(entry)
    session.overlays.keep_up()  # what was predicted colours these spots no longer
    return True


def settle(session: Session, entry: Entry) -> bool:
    """Lay the spots of a slide by its mask as it is shown, and keep that in a file, so that ``ref`` opens the same.

    Returns
    -------
    bool
        Whether the spots are others than before.

    Raises
    ------
    SlideError
        If no spot fits in the tissue.
    """
    from napari_hyperst.slides.tissue import keep_mask

    if not entry.slide.source.laid:
        return False
    changed = lay(session, entry)
    if not entry.mask_kept:
        file = keep_mask(_mask(entry.slide))
        entry.slide = replace(entry.slide, ref=entry.slide.ref.model_copy(update={"tissue": file}))
        entry.mask_kept = True
    return changed


def _edited(session: Session, entry: Entry) -> NDArray[np.bool_] | None:
    """Return the mask that is shown, where it is not the one that the spots were laid by."""
    shown = layers_of(session.viewer, entry.key, "tissue")
    if not shown:  # its layer was taken away: the mask is as it was
        return None
    mask = np.asarray(shown[0].data) != 0
    return None if np.array_equal(mask, _mask(entry.slide)) else mask


def _mask(slide: Slide) -> NDArray[np.bool_]:
    return np.asarray(slide.sdata.labels[str(slide.source.tissue)].data) != 0


def _move(layer: Points, slide: Slide) -> None:
    """Show other spots in the layer that there is."""
    layer.data = slide.spots.centres_px[:, ::-1]
    layer.set_view_slice()  # which napari leaves out where they are hidden, and then fails on other styles
    layer.features = {"spot": slide.spots.ids}
    for name, value in spot_style().items():
        setattr(layer, name, value)
    layer.shown = True
    resize(layer, slide.spots.diameter_um)
    layer.metadata = {**layer.metadata, **spot_metadata(slide)}
