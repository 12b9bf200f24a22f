"""What ``napari-hyperst info`` tells of a slide and of the predictions in its store."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.nouns.provenance import read_provenance

if TYPE_CHECKING:
    from napari_hyperst.slides.slide import Slide


def describe_slide(slide: Slide) -> dict[str, Any]:
    """Return what a slide holds and at what scale, by name."""
    height, width = slide.image.shape_px
    content: dict[str, Any] = {
        "slide": str(slide.path),
        "name": slide.name,
        "image": slide.source.image,
        "width_px": width,
        "height_px": height,
        "levels": len(slide.image.levels),
        "mpp": slide.mpp,
        "spots": len(slide.spots),
        "spot_diameter_um": slide.spots.diameter_um,
        "lattice": slide.lattice.kind,
        "pitch_um": slide.pitch_um if slide.lattice.kind != "none" else None,
        "complete_niches": int(slide.lattice.complete.sum()),
    }
    if slide.counts is not None:
        content |= {
            "table": slide.source.table,
            "genes": slide.counts.n_vars,
            "counted_spots": int((slide.count_rows >= 0).sum()),
        }
    return content


def describe_predictions(slide: Slide, *, in_words: bool) -> dict[str, Any]:
    """Tell how each table of a prediction in a slide's store was made.

    Parameters
    ----------
    slide
        The slide.
    in_words
        Whether to tell it in sentences; else by name, as numbers and strings.

    Returns
    -------
    dict
        By the tables' names; one that does not say it as we do is warned of and left out.
    """
    from napari_hyperst.slides.commit import OURS

    told: dict[str, Any] = {}
    for name, table in slide.sdata.tables.items():
        if OURS not in table.uns:
            continue
        try:
            made = read_provenance(table.uns[OURS], f"{slide.path} ({name})")
        except SlideError as error:
            warnings.warn(str(error), HyperSTWarning, stacklevel=2)
            continue
        size = {"spots": table.n_obs, "genes": table.n_vars}
        if in_words:
            told[name] = "; ".join([f"{table.n_obs} spots x {table.n_vars} genes", *made.sentences()])
        else:
            told[name] = {**size, **json.loads(made.model_dump_json())}  # where NaN is null
    return told
