"""A prediction becomes a table of a SpatialData Zarr store: all of it, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData, read_zarr
from spatialdata.models import TableModel

from napari_hyperst.errors import HyperSTError, StoreError
from napari_hyperst.files import exchange
from napari_hyperst.nouns.metrics import error_by_gene, pearson_by_gene
from napari_hyperst.nouns.prediction import Prediction
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.readers.spatialdata_zarr import ATTRS_KEY
from napari_hyperst.slides.slide import Slide

_SUFFIX = "_hyperst"


def export(prediction: Prediction[Slide], path: str | Path, *, table: str | None = None, command: str = "") -> Path:
    """Write a prediction as a table that annotates the slide's spots.

    Into the store that the slide was opened from, when that is ``path``; else into a new store with the slide's
    image, spots and counts. A table of ours with the same name is replaced as a whole; no other element is
    touched.

    Parameters
    ----------
    prediction
        From ``predict``.
    path
        The store to write.
    table
        Name of the new table; ``<measured table>_hyperst``, or ``hyperst`` where nothing was measured.
    command
        What made the prediction, for the record.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreError
        If the name is taken by something else, or the store cannot be written. Nothing is left behind.
    """
    return write_table(prediction.slide, prediction_table(prediction, command), path, table=table)


def write_table(
    slide: Slide,
    annotation: AnnData,
    path: str | Path,
    *,
    table: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the table of a prediction, as ``export`` does.

    Parameters
    ----------
    slide
        The slide that the table annotates.
    annotation
        From ``prediction_table``.
    path, table
        As for ``export``.
    progress
        As for ``convert``, which makes a new store.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreError
        As ``export``.
    """
    path = Path(path).expanduser().resolve()
    check_target(slide, path, table)
    name = table or table_name(slide)
    if path.exists():
        with _staged(path) as staged:
            _link_store(path, staged)
            store = read_zarr(staged)
            _check_name(store, name, path)
            if name in store.tables:
                store.delete_element_from_disk(name)
                del store.tables[name]
            store.tables[name] = annotation
            store.write_element(name)
            _verify(staged, name, annotation)
            exchange(staged, path)
    else:
        convert(slide, path, progress, tables={name: annotation})
    return path


def check_target(slide: Slide, path: str | Path, table: str | None = None) -> None:
    """Check that ``export`` may write there, before the work of predicting is done.

    Raises
    ------
    StoreError
        If something else is there, or the table's name is taken by an element that is not ours.
    """
    path, sdata = Path(path).expanduser(), slide.sdata
    name = table or table_name(slide)
    _check_name(sdata, name, path)
    own = sdata.path is not None and Path(sdata.path).resolve() == path.resolve()
    if path.exists() and not own and slide.source.laid and slide.path.resolve() == path.resolve():
        raise StoreError("holds other spots than were laid now", where=path, do="name a new store for these")
    if path.exists() and not own:
        raise StoreError("is there already", where=path, do="name a new store, or the one the slide was opened from")
    if not path.absolute().parent.is_dir():
        raise StoreError("there is no such folder", where=path.absolute().parent, do="make it first")


def _check_name(sdata: SpatialData, name: str, path: Path) -> None:
    """Refuse a name that an element has which is no prediction of ours."""
    if name in sdata and not (name in sdata.tables and ATTRS_KEY in sdata.tables[name].uns):
        raise StoreError(
            f"has an element {name!r} that is not ours", where=path, do="name the table otherwise (table=)"
        )


def prediction_table(prediction: Prediction[Slide], command: str = "") -> AnnData:
    """Lay a prediction out as a table: what stands where is in the design's section on the store.

    Returns
    -------
    AnnData
        Parsed by SpatialData's ``TableModel``, annotating the slide's spots.
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
    alignment = prediction.card.method.alignment
    uns = {
        "card": prediction.card.model_dump_json(),
        "checkpoint": prediction.card.name,
        "checkpoint_sha256": prediction.checkpoint_hash,
        "curvature": prediction.curvature,
        "min_radius": alignment.min_radius,
        "eta": {cones.relation.name: cones.relation.eta for cones in prediction.cones},
        "parent": {cones.relation.name: cones.relation.parent for cones in prediction.cones},
        "transform": prediction.panel.transform,
        "mpp": slide.mpp,
        "slide_fingerprint": slide.fingerprint,
        "measured_table": slide.source.table or "",
        "versions": {package: version(package) for package in ("napari-hyperst", "spatialdata", "anndata")},
        "command": command,
        **prediction.run,
    }
    adata = AnnData(prediction.expression, obs=obs, var=var, layers=layers, obsm=obsm, uns={ATTRS_KEY: uns})
    return TableModel.parse(adata, region=slide.name, region_key="region", instance_key="spot_id")


def table_name(slide: Slide) -> str:
    """Return the name that the table of a slide's prediction has unless told otherwise."""
    measured = slide.source.table
    return "hyperst" if measured is None else f"{measured}{_SUFFIX}"


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path`` to write to; whatever goes wrong, it is gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})", where=path, do="choose a folder that is there and may be written"
        ) from error
    try:
        yield folder / path.name
    except HyperSTError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"could not be written ({error})", where=path, do="check disk space and rights") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link_store(store: Path, copy: Path) -> None:
    """Copy a store by hard links, but the metadata that writing a table changes by content."""

    def link(source: str, target: str) -> None:
        if Path(source).name == "zarr.json" and Path(source).parent in (store, store / "tables"):
            shutil.copy2(source, target)
            return
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target)

    shutil.copytree(store, copy, copy_function=link)


def _verify(store: Path, name: str, written: AnnData) -> None:
    """Read the table back before the store takes its place."""
    back = read_zarr(store).tables.get(name)
    if (
        back is None
        or back.shape != written.shape
        or not np.array_equal(np.asarray(back.X), np.asarray(written.X), equal_nan=True)
    ):
        raise StoreError("did not read back as written", where=store.name, do="check the disk, and try again")
    json.loads(back.uns[ATTRS_KEY]["card"])
