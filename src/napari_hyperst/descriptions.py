"""Slides and predictions in plain values, for a terminal or a script to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_hyperst.nouns.tiles import TileSpec


def describe_prediction(prediction: Any, store: Path) -> dict[str, Any]:
    """Tell what a prediction is and how it agrees with what was measured, as plain values by name."""
    from napari_hyperst.nouns.metrics import summarise

    seconds = float(prediction.run["seconds"])
    content: dict[str, Any] = {
        "store": str(store),
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


def describe_slide(slide: Any) -> dict[str, Any]:
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
    predictions = {
        name: {key: value for key, value in table.uns["hyperst"].items() if isinstance(value, str | float | int)}
        for name, table in slide.sdata.tables.items()
        if "hyperst" in table.uns
    }
    if predictions:
        content["predictions"] = predictions
    return content
