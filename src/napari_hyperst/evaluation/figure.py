"""A picture of a prediction: H&E, measured, predicted, depth and violation, with colour bars and a scale bar."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.metrics import pearson_by_gene
from napari_hyperst.nouns.prediction import Prediction
from napari_hyperst.slides.outputs.drawing import Canvas, finite_limits
from napari_hyperst.slides.outputs.selection import RESEARCH_USE, UNIT
from napari_hyperst.slides.outputs.staging import staged_file
from napari_hyperst.slides.slide import Slide


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
    panels: list[tuple[str, str, NDArray[np.floating], str, tuple[float, float] | None]] = []
    limits = finite_limits(expression)
    if prediction.measured is not None:
        measured = prediction.measured[:, column]
        limits = finite_limits(np.concatenate([expression, measured]))
        panels.append((f"{name} measured", UNIT, measured, "viridis", limits))
    title = f"{name} predicted"
    if prediction.measured is not None:
        pcc = pearson_by_gene(expression[:, None], prediction.measured[:, [column]])[0]
        title += f" (PCC {pcc:.2f})" if np.isfinite(pcc) else " (no PCC: constant)"
    panels.append((title, UNIT, expression, "viridis", limits))
    if "spot_image" in prediction.norms:
        panels.append(
            ("Hyperbolic norm, spot image", "distance from the origin", prediction.norms["spot_image"], "magma", None)
        )
    if prediction.cones:
        cones = prediction.cones[0]
        parent, child = (part.replace("_", " ") for part in (cones.relation.parent, cones.relation.child))
        panels.append((f"Violation: {parent} entails {child}", "degrees", np.degrees(cones.violation), "inferno", None))
    columns = math.ceil((1 + len(panels) + bool(prediction.disk)) / 2)
    figure = Figure(figsize=(5.4 * columns, 9.6), layout="constrained")
    places = iter(figure.subplots(2, columns).flat)
    canvas = Canvas(slide, slide.spots.centres_px[prediction.spots])
    canvas.draw_tissue(next(places), "H&E")
    for heading, unit, values, colormap, shown in panels:
        axes = next(places)
        drawn = canvas.draw_map(axes, heading, values, colormap, shown)
        figure.colorbar(drawn, ax=axes, label=unit, shrink=0.8, pad=0.02)
    if prediction.disk:
        _draw_disk(next(places), prediction)
    for axes in places:
        axes.set_axis_off()
    figure.suptitle(f"{slide.name}: {len(prediction.spots)} spots, checkpoint {prediction.card.name}. {RESEARCH_USE}")
    with staged_file(Path(path).expanduser().absolute()) as staged:
        figure.savefig(staged, dpi=100)
    return Path(path)


def _gene_column(prediction: Prediction[Slide], gene: str | None) -> int:
    if gene is not None:
        if gene not in prediction.panel.genes:
            raise ConfigError(f"the checkpoint does not predict {gene!r}", do="name a gene of its panel")
        return prediction.panel.genes.index(gene)
    if prediction.measured is not None:
        return int(np.nan_to_num(pearson_by_gene(prediction.expression, prediction.measured), nan=-2.0).argmax())
    return int(prediction.expression.std(axis=0).argmax())


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
