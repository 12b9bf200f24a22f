"""A prediction laid out as a table: what stands where is in the design's section on the store."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel

from napari_hyperst.nouns.metrics import error_by_gene, pearson_by_gene
from napari_hyperst.nouns.prediction import Prediction
from napari_hyperst.nouns.provenance import Provenance, Run
from napari_hyperst.slides.commit import OURS
from napari_hyperst.slides.identity import counts_sha256, image_sha256
from napari_hyperst.slides.slide import Slide

_SUFFIX = "_hyperst"
#: The packages whose versions a table tells.
_PACKAGES = ("napari-hyperst", "torch", "timm", "anndata", "spatialdata", "numpy")


def prediction_table(prediction: Prediction[Slide], command: str = "") -> AnnData:
    """Lay a prediction out as a table.

    Parameters
    ----------
    prediction
        From ``predict``.
    command
        What made it, for the record.

    Returns
    -------
    AnnData
        Parsed by SpatialData's ``TableModel``, annotating the slide's spots.

    Raises
    ------
    SlideError
        If the H&E, of which a hash is taken, cannot be read.
    """
    slide = prediction.slide
    index = slide.spots.index[prediction.spots]
    obs = pd.DataFrame(
        {"region": pd.Categorical([slide.name] * len(index)), "spot_id": index},
        index=slide.spots.ids[prediction.spots].astype(str),
    )
    for embedding, norms in prediction.norms.items():
        obs[f"norm_{embedding}"] = norms.astype(np.float32)
    for cones in prediction.cones:
        obs[f"violation_{cones.relation.name}"] = cones.violation.astype(np.float32)
        obs[f"exterior_angle_{cones.relation.name}"] = cones.exterior_angle.astype(np.float32)
        obs[f"half_aperture_{cones.relation.name}"] = cones.half_aperture.astype(np.float32)
    obs["complete_niche"] = prediction.complete_niche
    obs["inside_image"] = prediction.inside_image
    obs["in_training"] = prediction.in_training
    var = pd.DataFrame(index=list(prediction.panel.genes))
    layers = {}
    if prediction.measured is not None:
        layers["measured"] = prediction.measured
        var["pcc"] = pearson_by_gene(prediction.expression, prediction.measured)
        var["mse"] = error_by_gene(prediction.expression, prediction.measured)
    obsm: dict[str, Any] = {"spatial": slide.spots.centres_px[prediction.spots]}
    obsm |= {f"hyperst_{name}": points for name, points in prediction.embeddings.items()}
    obsm |= {f"hyperst_disk_{name}": points for name, points in prediction.disk.items()}
    uns = {OURS: provenance_of(prediction, command).to_uns()}
    adata = AnnData(prediction.expression, obs=obs, var=var, layers=layers, obsm=obsm, uns=uns)
    return TableModel.parse(adata, region=slide.name, region_key="region", instance_key="spot_id")


def provenance_of(prediction: Prediction[Slide], command: str = "") -> Provenance:
    """Return how a prediction was made.

    Parameters
    ----------
    prediction, command
        As for ``prediction_table``.

    Returns
    -------
    Provenance
        Its ``run`` says when it was asked for.
    """
    slide, run, relations = prediction.slide, prediction.run, [cones.relation for cones in prediction.cones]
    return Provenance(
        card=prediction.card,
        checkpoint=prediction.card.name,
        checkpoint_sha256=prediction.checkpoint_hash,
        curvature=prediction.curvature,
        min_radius=prediction.card.method.alignment.min_radius,
        eta={relation.name: relation.eta for relation in relations},
        parent={relation.name: relation.parent for relation in relations},
        transform=prediction.panel.transform,
        mpp=slide.mpp,
        spot_um=float(run["spot_um"]),
        niche_um=float(run["niche_um"]),
        slide_fingerprint=slide.fingerprint,
        image_sha256=image_sha256(slide),
        counts_sha256=counts_sha256(slide),
        measured_table=slide.source.table or "",
        versions={**{package: version(package) for package in _PACKAGES}, "python": platform.python_version()},
        command=command,
        run=Run(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            device=str(run["device"]),
            precision=str(run["precision"]),
            seconds=float(run["seconds"]),
        ),
    )


def table_name(slide: Slide) -> str:
    """Return the name that the table of a slide's prediction has unless told otherwise."""
    measured = slide.source.table
    return "hyperst" if measured is None else f"{measured}{_SUFFIX}"
