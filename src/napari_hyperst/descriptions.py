"""Slides and predictions in plain values, for a terminal or a script to read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.nouns.provenance import read_provenance
from napari_hyperst.nouns.tiles import TileSpec

if TYPE_CHECKING:
    from napari_hyperst.nouns.prediction import Prediction
    from napari_hyperst.slides.slide import Slide


def describe_prediction(prediction: Prediction[Slide], written: Path) -> dict[str, Any]:
    """Tell what a prediction is and how it agrees with what was measured, as plain values by name."""
    from napari_hyperst.nouns.metrics import summarise

    seconds = float(prediction.run["seconds"])
    content: dict[str, Any] = {
        "written": str(written),
        "slide": str(prediction.slide.path),
        "checkpoint": prediction.card.name,
        "device": prediction.run["device"],
        "spots": len(prediction.spots),
        "genes": len(prediction.panel),
        "mpp": prediction.slide.mpp,
        "seconds": seconds,
        "tiles_per_second": 2 * len(prediction.spots) / seconds,
        "in_training": bool(prediction.in_training.any()),
        "violating": {
            cones.relation.name: float((cones.violation[cones.violation >= 0] > 0).mean()) for cones in prediction.cones
        },
    }
    if prediction.measured is not None:
        content |= summarise(prediction.expression, prediction.measured)
    return content


def describe_slide(slide: Slide) -> dict[str, Any]:
    """Tell what a slide holds and at what scale, as plain values by name."""
    from napari_hyperst.slides.tiles import complete_niches

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
        "complete_niches": int(complete_niches(slide, TileSpec()).sum()),
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
            told[name] = [f"{table.n_obs} spots x {table.n_vars} genes", *made.sentences()]
        else:
            told[name] = {**size, **json.loads(made.model_dump_json())}  # where NaN is null
    return told
