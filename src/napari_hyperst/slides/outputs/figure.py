"""A figure of one gene: H&E, measured and predicted side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from anndata import AnnData
from matplotlib.figure import Figure

from napari_hyperst.slides.outputs.drawing import Canvas, finite_limits
from napari_hyperst.slides.outputs.selection import RESEARCH_USE, UNIT, GeneValues, centres_px, gene_values, provenance
from napari_hyperst.slides.outputs.staging import staged_file
from napari_hyperst.slides.slide import Slide

#: Inches: the longer side of a panel, its least width, and what is above and below.
_PANEL_IN, _LEAST_IN, _AROUND_IN = 4.8, 2.4, 0.95
#: Characters of 9 points to an inch.
_PER_INCH = 13


def draw_gene(slide: Slide, table: AnnData, path: Path, gene: str | None = None) -> str:
    """Draw a gene over the H&E, measured and predicted on one colour scale, with scale bars in µm.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.
    path
        The png or pdf to write.
    gene
        Which gene; the best predicted if not told.

    Returns
    -------
    str
        The gene.

    Raises
    ------
    ConfigError
        If the gene is not predicted.
    StoreError
        If it cannot be written.
    """
    values = gene_values(table, gene)
    with staged_file(path) as staged, mpl.rc_context({"pdf.fonttype": 42}):
        figure = gene_figure(slide, table, values)
        said = "; ".join(f"{key}: {value}" for key, value in provenance(table).items())
        named = {"Title": f"{slide.name}: {values.name}"}
        if path.suffix.lower() == ".pdf":
            metadata: dict[str, Any] = {**named, "Subject": said, "CreationDate": None}  # the same again is the same
        else:
            metadata = {**named, "Description": said}
        figure.savefig(staged, dpi=150, metadata=metadata)
    return values.name


def gene_figure(slide: Slide, table: AnnData, gene: GeneValues) -> Figure:
    """Lay the figure of a gene out.

    Parameters
    ----------
    slide, table
        The slide, and the table of its prediction.
    gene
        From ``gene_values``.
    """
    canvas = Canvas(slide, centres_px(table))
    left, right, bottom, top = canvas.bounds_um
    width, height = abs(right - left), abs(bottom - top)
    inches = _PANEL_IN / max(width, height)
    panel = max(width * inches, _LEAST_IN)
    maps = dict(reversed(gene.maps.items()))  # measured first
    figure = Figure(figsize=(panel * (1 + len(maps)) + 1.1, height * inches + _AROUND_IN), layout="constrained")
    places = list(figure.subplots(1, 1 + len(maps), squeeze=False).flat)
    canvas.draw_tissue(places[0], "H&E")
    limits = finite_limits(np.concatenate(list(maps.values())))
    drawn = [
        canvas.draw_map(axes, name.capitalize(), values, limits=limits)
        for axes, (name, values) in zip(places[1:], maps.items(), strict=True)
    ]
    figure.colorbar(drawn[-1], ax=places, label=UNIT, shrink=0.85, pad=0.02, aspect=25)
    characters = int(figure.get_figwidth() * _PER_INCH)
    figure.suptitle(
        "\n".join(textwrap.wrap(_title(slide, gene), int(characters * 0.75))), fontsize=12, parse_math=False
    )
    figure.supxlabel("\n".join(textwrap.wrap(_notice(table), characters)), fontsize=9, parse_math=False)
    return figure


def _title(slide: Slide, gene: GeneValues) -> str:
    if gene.measured is None:
        return f"{gene.name} in {slide.name}: predicted at {len(gene.predicted):,} spots, not measured"
    agreement = f"PCC {gene.pcc:.2f}" if np.isfinite(gene.pcc) else "no PCC, as one of them is constant"
    return f"{gene.name} in {slide.name}: {agreement} over {int(np.isfinite(gene.measured).sum()):,} spots"


def _notice(table: AnnData) -> str:
    seen = "in_training" in table.obs and np.asarray(table.obs["in_training"]).any()
    trained = " It was trained on this section." if seen else ""
    return f"Checkpoint {provenance(table)['checkpoint']}.{trained} {RESEARCH_USE}"
