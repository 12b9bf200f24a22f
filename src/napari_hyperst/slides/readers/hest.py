"""HEST samples: an h5ad of counts, the H&E as a pyramidal TIFF, and a JSON file that tells their scale."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.transformations import Identity

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.formats import HEST_COUNTS, HEST_METADATA, IMAGE_SUFFIXES, hest_picture, hest_samples
from napari_hyperst.slides.image import image_element
from napari_hyperst.slides.readers.counts import unique_names
from napari_hyperst.slides.readers.elements import counted_spots
from napari_hyperst.slides.readers.files import element_name, image_file, read_json
from napari_hyperst.slides.readers.h5_file import check_h5
from napari_hyperst.slides.scan import recorded_mpp
from napari_hyperst.slides.slide import Source

#: (pitch, diameter) in µm by technology, where the metadata leave them out.
_GEOMETRY = {"visium": (100.0, 55.0), "spatial transcriptomics": (200.0, 100.0)}
#: Where array coordinates put the spots further off than this, in pitches, they number something else.
_OFF_PITCHES = 0.5


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read a sample.

    Parameters
    ----------
    path
        A download's folder with one sample in ``st``, the h5ad file of one among several, or a sample's folder as
        HEST's library writes it. With the H&E named, any h5ad file with centres in ``obsm["spatial"]``.
    image
        The H&E, where it is not in ``wsis`` under the sample's name.
    table
        Not used: a sample has one table of counts.

    Raises
    ------
    SlideError
        If there are several samples, or a file is missing or broken.
    """
    del table
    file = _sample(path)
    alone = file.name == HEST_COUNTS
    folder = file.parent if alone else file.parent.parent
    name = element_name(file.parent.resolve().name if alone else file.stem)
    metadata = _metadata(file.parent / HEST_METADATA if alone else folder / "metadata" / f"{file.stem}.json")
    if image is not None:
        picture = image_file(image, file.parent if (file.parent / image).is_file() else folder)
    else:
        picture = _picture(file)
    counts, centres, array = _counts(file)
    technology = str(metadata.get("st_technology", "")).lower()
    pitch_um, spot_um = _GEOMETRY.get(technology, (None, None))
    pitch_um = _positive(metadata, "inter_spot_dist") or pitch_um
    spot_um = _positive(metadata, "spot_diameter") or spot_um
    mpp = _positive(metadata, "pixel_size_um_estimated") or _positive(metadata, "pixel_size_um_embedded")
    mpp = mpp or recorded_mpp(picture)
    radius_px = spot_um / mpp / 2 if spot_um and mpp else 1.0
    systems = {name: Identity()}
    circles, annotating = counted_spots(
        counts, centres, name=name, radius_px=radius_px, transformations=systems, array=array
    )
    sdata = SpatialData(
        images={f"{name}_full_image": image_element(picture, systems)},
        shapes={name: circles},
        tables={"table": annotating},
    )
    return Source(
        sdata, path, image=f"{name}_full_image", spots=name, table="table", pitch_um=pitch_um, spot_um=spot_um, mpp=mpp
    )


def _sample(path: Path) -> Path:
    if path.is_file():
        return path
    found = hest_samples(path)
    if len(found) > 1:
        named = ", ".join(file.stem for file in found[:5]) + (", …" if len(found) > 5 else "")
        raise SlideError(f"{len(found)} samples: {named}", where=path, do=f"open one, such as st/{found[0].name}")
    return found[0]


def _metadata(path: Path) -> dict[str, Any]:
    """Read a sample's metadata; without them the lattice has to tell the scale."""
    if path.is_file():
        return read_json(path)
    return {}


def _positive(metadata: dict[str, Any], key: str) -> float | None:
    """Return a number of the metadata, which may be missing, null, NaN or text there."""
    try:
        value = float(metadata.get(key) or math.nan)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _picture(file: Path) -> Path:
    home, stem = hest_picture(file)
    found = sorted(p for p in home.glob("*") if p.stem == stem and p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise SlideError(f"no {stem}.tif with the H&E", where=home, do="add it, or name the H&E (--image, or image=)")
    return found[0]


def _counts(file: Path) -> tuple[AnnData, NDArray[np.float64], NDArray[np.intp] | None]:
    """Read counts, centres in px and, where they number the lattice, array coordinates."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are not unique, and of older versions of the format
            check_h5(file)
            read = anndata.read_h5ad(file)
    except Exception as error:  # h5py and anndata raise errors of many kinds on broken files
        raise SlideError(f"is no h5ad file that can be read ({error})", where=file, do="download it again") from error
    if "spatial" not in read.obsm:
        raise SlideError('has no centres of spots (obsm["spatial"])', where=file, do="give an h5ad file of HEST")
    if read.X is None or 0 in read.shape:
        raise SlideError("holds no counts", where=file, do="give an h5ad file of HEST")
    if read.obs_names.has_duplicates:
        twice = read.obs_names[read.obs_names.duplicated()][0]
        raise SlideError(f"spot {twice} is there twice", where=file, do="download it again")
    obs, var = read.obs.copy(), read.var.copy()
    assert isinstance(obs, pd.DataFrame)  # both are read whole, not lazily
    assert isinstance(var, pd.DataFrame)
    try:
        centres = np.asarray(read.obsm["spatial"], dtype=float)
    except (TypeError, ValueError) as error:
        raise SlideError('obsm["spatial"] holds no numbers', where=file, do="download it again") from error
    stored: Any = read.X
    values = sparse.csr_matrix(stored, dtype=np.float32)
    if "in_tissue" in obs:
        inside = pd.to_numeric(obs["in_tissue"].astype(object), errors="coerce").fillna(1).to_numpy() == 1
        if not inside.any():
            raise SlideError("no spot is in tissue", where=file, do="check obs['in_tissue']")
        obs, centres, values = obs[inside], centres[inside], values[np.flatnonzero(inside)]
    if not np.isfinite(values.data).all():
        raise SlideError("holds counts that are no numbers", where=file, do="download it again")
    if centres.ndim != 2 or centres.shape[1] < 2 or not np.isfinite(centres[:, :2]).all():
        raise SlideError('obsm["spatial"] holds no centres (x, y) of all spots', where=file, do="download it again")
    kept = [
        column for column in var if not pd.api.types.is_numeric_dtype(var[column])
    ]  # ids and symbols, no statistics
    names = unique_names(pd.Index(var.index.astype(str)), file)
    genes = var[kept].astype(str).set_axis(names, axis="index")
    counts = AnnData(values, obs=pd.DataFrame(index=obs.index.astype(str)), var=genes)
    return counts, centres[:, :2], _array(obs, centres[:, :2])


def _array(obs: pd.DataFrame, centres: NDArray[np.float64]) -> NDArray[np.intp] | None:
    """Return array coordinates where they are there, of one spot each, and place the spots where they lie."""
    columns = ["array_row", "array_col"]
    if not set(columns) <= set(obs.columns):
        return None
    array = obs[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not np.isfinite(array).all() or (array != np.rint(array)).any() or len(np.unique(array, axis=0)) < len(array):
        return None
    design = np.column_stack([array, np.ones(len(array))])
    fit, *_ = np.linalg.lstsq(design, centres, rcond=None)
    step = min(np.linalg.norm(fit[0]), np.linalg.norm(fit[1]))
    off = np.linalg.norm(design @ fit - centres, axis=1)
    if np.median(off) > _OFF_PITCHES * step:
        warnings.warn(
            "array_row and array_col do not number the spots' lattice, and are left out",
            HyperSTWarning,
            stacklevel=6,
        )
        return None
    return array.astype(np.intp)
