"""What of a prediction's table is written: which genes, where the spots are, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from napari_hyperst.errors import ConfigError, StoreError
from napari_hyperst.slides.commit import OURS
from napari_hyperst.slides.export.checks import check_prediction
from napari_hyperst.slides.formats import bin_size_um
from napari_hyperst.slides.slide import Slide

#: What is predicted and measured.
UNIT = "log2(count + 1)"
#: What is said where measured values are asked for and there are none, and what to do.
NOT_MEASURED = "nothing was measured, or not as raw counts"
LEAVE_OUT = "leave that out (--measured, or measured=)"
RESEARCH_USE = "For research use only."
#: What of ``uns["hyperst"]`` goes into formats that hold a line of text.
_TOLD = ("checkpoint", "checkpoint_sha256", "slide_fingerprint", "command")


@dataclass(frozen=True)
class GeneValues:
    """One gene of a prediction.

    Attributes
    ----------
    name
        The gene.
    predicted
        (n,) log2(count + 1).
    measured
        (n,) log2(count + 1), NaN where not measured; None where there are no raw counts.
    pcc
        Correlation of the two; NaN where there is none.
    """

    name: str
    predicted: NDArray[np.float32]
    measured: NDArray[np.float32] | None
    pcc: float

    @property
    def maps(self) -> dict[str, NDArray[np.float32]]:
        """``predicted`` and, where there are counts, ``measured``."""
        return {"predicted": self.predicted} | ({} if self.measured is None else {"measured": self.measured})


def check_gene(table: AnnData, gene: str | None) -> None:
    """Check that a gene, where one is named, is predicted.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if gene is not None and gene not in table.var_names:
        near = get_close_matches(gene.upper(), [str(name) for name in table.var_names], n=3)
        told = f"; the nearest are {', '.join(near)}" if near else f" ({', '.join(table.var_names[:3])}, …)"
        raise ConfigError(f"{gene!r} is not among the {table.n_vars} genes{told}", do="name one of them")


def gene_values(table: AnnData, gene: str | None) -> GeneValues:
    """Take one gene out of a prediction's table; by default the best predicted, or else the one that varies most.

    Raises
    ------
    ConfigError
        If the gene is not predicted.
    """
    check_gene(table, gene)
    pcc = np.asarray(table.var["pcc"], np.float64) if "pcc" in table.var else np.full(table.n_vars, np.nan)
    if gene is not None:
        column = list(table.var_names).index(gene)
    elif np.isfinite(pcc).any():
        column = int(np.nanargmax(pcc))
    else:
        column = int(np.asarray(table.X).std(axis=0).argmax())
    measured = np.asarray(table.layers["measured"]) if "measured" in table.layers else None
    return GeneValues(
        str(table.var_names[column]),
        np.asarray(table.X)[:, column].astype(np.float32),
        None if measured is None else measured[:, column].astype(np.float32),
        float(pcc[column]),
    )


def genes_of(table: AnnData, gene: str | None, measured: bool) -> dict[str, NDArray[np.float32]]:
    """Return (n, G) ``predicted`` and, where asked for, ``measured`` values, of all genes or of one.

    Raises
    ------
    ConfigError
        If the gene is not predicted, or there are no measured values.
    """
    check_gene(table, gene)
    if measured and "measured" not in table.layers:
        raise ConfigError(NOT_MEASURED, do=LEAVE_OUT)
    values = {"predicted": table.X} | ({"measured": table.layers["measured"]} if measured else {})
    column = None if gene is None else list(table.var_names).index(gene)
    within = slice(None) if column is None else slice(column, column + 1)
    return {name: np.asarray(matrix)[:, within].astype(np.float32) for name, matrix in values.items()}


def centres_px(table: AnnData) -> NDArray[np.float64]:
    """Return (n, 2) centres of the spots, (x, y) in px of level 0 of the H&E, where px i spans i to i + 1."""
    return np.asarray(table.obsm["spatial"], dtype=np.float64)


def are_squares(slide: Slide) -> bool:
    """Whether the spots of a slide are square bins, that leave no gap."""
    return bin_size_um(slide.name) is not None or "radius" not in slide.sdata.shapes[slide.name].columns


def check_table(slide: Slide, table: AnnData, where: str | Path) -> None:
    """Check that a table is a prediction of a slide's spots.

    Raises
    ------
    StoreError
        If it is none, or of others.
    SlideError
        If it does not hold what ours do.
    """
    region = table.uns.get("spatialdata_attrs", {}).get("region")
    regions = [region] if isinstance(region, str) else [] if region is None else list(region)
    if OURS not in table.uns or "spatial" not in table.obsm or regions != [slide.name]:
        raise StoreError(
            f"the table is no prediction of the spots {slide.name!r}", where=where, do="predict the slide anew"
        )
    check_prediction(table, where)


def provenance(table: AnnData) -> dict[str, str]:
    """Return in a few words how a prediction was made."""
    said = table.uns[OURS]
    return {"unit": UNIT, "notice": RESEARCH_USE} | {key: str(said[key]) for key in _TOLD if said.get(key)}
