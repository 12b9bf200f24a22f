"""A picture of a prediction: H&E, measured, predicted, depth and violation, with colour bars and a scale bar."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.metrics import pearson_by_gene
from napari_hyperst.nouns.prediction import Prediction
from napari_hyperst.slides.slide import Slide

#: Longest side, in px, of the H&E level that is drawn.
_DRAWN_PX = 1400
_RESEARCH_USE = "For research use only."


def draw_prediction(prediction: Prediction[Slide], path: str | Path, gene: str | None = None) -> Path:
    """Draw one gene of a prediction and its place in the hierarchy.

    Parameters
    ----------
    prediction
        From ``predict``.
    path
        A png or pdf file to write.
    gene
        Which gene; by default the one predicted best where counts exist, else the one that varies most.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If the checkpoint does not predict the gene.
    """
    slide = prediction.slide
    column = _gene_column(prediction, gene)
    name = prediction.panel.genes[column]
    expression = prediction.expression[:, column]
    panels: list[tuple[str, str, NDArray[np.floating] | None, str, tuple[float, float] | None]] = [
        ("H&E", "", None, "", None)
    ]
    limits = _limits(expression)
    if prediction.measured is not None:
        measured = prediction.measured[:, column]
        limits = _limits(np.concatenate([expression, measured]))
        panels.append((f"{name} measured", "log2(count + 1)", measured, "viridis", limits))
    title = f"{name} predicted"
    if prediction.measured is not None:
        pcc = pearson_by_gene(expression[:, None], prediction.measured[:, [column]])[0]
        title += f" (PCC {pcc:.2f})" if np.isfinite(pcc) else " (no PCC: constant)"
    panels.append((title, "log2(count + 1)", expression, "viridis", limits))
    if "spot_image" in prediction.norms:
        panels.append(
            ("Hyperbolic norm, spot image", "distance from the origin", prediction.norms["spot_image"], "magma", None)
        )
    if prediction.cones:
        cones = prediction.cones[0]
        parent, child = (part.replace("_", " ") for part in (cones.relation.parent, cones.relation.child))
        panels.append((f"Violation: {parent} entails {child}", "degrees", np.degrees(cones.violation), "inferno", None))
    columns = math.ceil((len(panels) + bool(prediction.disk)) / 2)
    figure = Figure(figsize=(5.4 * columns, 9.6), layout="constrained")
    places = iter(figure.subplots(2, columns).flat)
    thumbnail, extent = _thumbnail(slide)
    for heading, unit, values, colormap, shown in panels:
        axes = next(places)
        axes.imshow(thumbnail, extent=extent, alpha=1.0 if values is None else 0.35)
        if values is not None:
            _draw_spots(axes, prediction, values, colormap, shown or _limits(values), unit)
        _tidy(axes, heading, prediction)
        _draw_scale_bar(axes)
    if prediction.disk:
        _draw_disk(next(places), prediction)
    for axes in places:
        axes.set_axis_off()
    figure.suptitle(f"{slide.name}: {len(prediction.spots)} spots, checkpoint {prediction.card.name}. {_RESEARCH_USE}")
    figure.savefig(path, dpi=100)
    return Path(path)


def _gene_column(prediction: Prediction[Slide], gene: str | None) -> int:
    if gene is not None:
        if gene not in prediction.panel.genes:
            raise ConfigError(f"the checkpoint does not predict {gene!r}", do="name a gene of its panel")
        return prediction.panel.genes.index(gene)
    if prediction.measured is not None:
        return int(np.nan_to_num(pearson_by_gene(prediction.expression, prediction.measured), nan=-2.0).argmax())
    return int(prediction.expression.std(axis=0).argmax())


def _limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return percentile limits that are finite and not equal, whatever the values."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _thumbnail(slide: Slide) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Return the finest level within the drawn size, thinned if need be, and its extent in µm."""
    height, width = slide.image.shape_px
    level = slide.image.level_for(max(height, width) / _DRAWN_PX)
    rows, columns = slide.image.levels[level].shape[1:]
    step = max(1, round(max(rows, columns) / _DRAWN_PX))
    pixels = slide.image.read(level, slice(0, rows), slice(0, columns))[::step, ::step]
    return pixels, (0.0, width * slide.mpp, height * slide.mpp, 0.0)


def _draw_spots(
    axes: Axes,
    prediction: Prediction[Slide],
    values: NDArray[np.floating],
    colormap: str,
    limits: tuple[float, float],
    unit: str,
) -> None:
    slide = prediction.slide
    centres_um = slide.spots.centres_px[prediction.spots] * slide.mpp
    circles = PatchCollection([Circle(tuple(centre), slide.spots.diameter_um / 2) for centre in centres_um], lw=0)
    circles.set_array(np.ma.masked_invalid(values))
    circles.set_cmap(colormap)
    circles.set_clim(*limits)
    axes.add_collection(circles)
    axes.figure.colorbar(circles, ax=axes, label=unit, shrink=0.8, pad=0.02)


def _draw_disk(axes: Axes, prediction: Prediction[Slide]) -> None:
    """Draw the embeddings on the Poincaré disk, out to the farthest."""
    farthest = 0.0
    for name, xy in prediction.disk.items():
        axes.scatter(xy[:, 0], xy[:, 1], s=9, label=name.replace("_", " "), alpha=0.8, lw=0)
        farthest = max(farthest, float(np.nanmax(np.linalg.norm(xy, axis=1))))
    axes.plot(0, 0, "k+", ms=10)
    reach = 1.1 * farthest
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.set_title("Embeddings on the Poincaré disk, + its centre", fontsize=11)
    axes.legend(fontsize=9, loc="upper right", frameon=False)


def _tidy(axes: Axes, heading: str, prediction: Prediction[Slide]) -> None:
    """Show the tissue under the spots, without ticks."""
    slide = prediction.slide
    centres_um = slide.spots.centres_px[prediction.spots] * slide.mpp
    margin = 2 * max(slide.spots.diameter_um, 0.02 * np.ptp(centres_um, axis=0).max())
    (left, top), (right, bottom) = centres_um.min(axis=0) - margin, centres_um.max(axis=0) + margin
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    axes.set_title(heading, fontsize=11)


def _draw_scale_bar(axes: Axes) -> None:
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width = right - left
    length = max(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if step <= max(0.3 * width, 10))
    x, y = left + 0.05 * width, bottom + 0.05 * (top - bottom)
    axes.plot([x, x + length], [y, y], color="black", lw=3, solid_capstyle="butt")
    label = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    axes.text(x + length / 2, y + 0.015 * (top - bottom), label, ha="center", va="bottom", fontsize=9)
