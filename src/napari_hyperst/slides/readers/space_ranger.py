"""Space Ranger ``outs`` folders of Visium slides, through spatialdata-io."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import spatialdata_io
from spatialdata import SpatialData
from spatialdata.transformations import Identity, get_transformation

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.formats import MATRICES, outs_folder
from napari_hyperst.slides.image import image_element
from napari_hyperst.slides.readers.files import element_name, image_file
from napari_hyperst.slides.slide import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Source

_POSITIONS = ("tissue_positions_list.csv", "tissue_positions.csv")
_SCALES = ("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres")
_POSITION_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]


def read(path: Path, image: str | Path | None, table: str | None) -> Source:
    """Read an ``outs`` folder; only spots in tissue are kept.

    Without a full-resolution image the best of the images that Space Ranger keeps is used, with a warning.

    Raises
    ------
    SlideError
        If a file is missing or broken, or the counts join no spot.
    """
    del table  # there is one table of counts
    folder = outs_folder(path)
    matrix = _matrix(folder)
    _check_scalefactors(folder / "spatial" / "scalefactors_json.json")
    in_tissue = _check_positions(folder, matrix)
    name = element_name((path.parent if path.name == "outs" else path).resolve().name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are not unique, which the reader then makes unique
            sdata = spatialdata_io.visium(folder, dataset_id=name, counts_file=matrix.name)
    except Exception as error:  # a chain of readers, each with errors of its own
        raise SlideError(f"spatialdata-io cannot read it ({error})", where=folder, do="check the files") from error
    sdata = _keep_in_tissue(sdata, name, in_tissue, folder)
    if image is not None:
        file = image_file(image, folder)
        sdata.images[f"{name}_full_image"] = image_element(file, {name: Identity()})
    element = _best_image(sdata, name, folder)
    return Source(
        sdata, path, image=element, spots=name, table="table", pitch_um=VISIUM_PITCH_UM, spot_um=VISIUM_SPOT_UM
    )


def _matrix(folder: Path) -> Path:
    for name in MATRICES:
        if (folder / name).is_file():
            break
    else:
        raise SlideError(
            f"no matrix of counts ({' or '.join(MATRICES)})",
            where=folder,
            do="add the h5 file that Space Ranger wrote",
        )
    matrix = folder / name
    try:
        with h5py.File(matrix) as file:
            if "matrix/barcodes" not in file:
                raise SlideError("is no 10x matrix of counts", where=matrix, do="give Space Ranger's own h5 file")
    except OSError as error:
        raise SlideError(
            f"is no whole h5 file ({error})", where=matrix, do="copy it again from Space Ranger's folder"
        ) from error
    return matrix


def _check_scalefactors(path: Path) -> None:
    try:
        factors = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise SlideError("is missing", where=path, do="add it from Space Ranger's spatial folder") from error
    except (OSError, ValueError) as error:
        raise SlideError(f"cannot be read ({error})", where=path, do="copy it again") from error
    for key in _SCALES:
        value = factors.get(key) if isinstance(factors, dict) else None
        if not isinstance(value, int | float) or not np.isfinite(value) or value <= 0:
            raise SlideError(
                f"{key} is {value!r}, no positive number", where=path, do="copy it again from Space Ranger"
            )


def _check_positions(folder: Path, matrix: Path) -> pd.Series:
    """Return which barcodes of the matrix are in tissue, having checked that each has a position."""
    path = next((folder / "spatial" / name for name in _POSITIONS if (folder / "spatial" / name).exists()), None)
    if path is None:
        raise SlideError(f"no {' or '.join(_POSITIONS)}", where=folder / "spatial", do="add it from Space Ranger")
    try:
        first = path.read_text().partition("\n")[0]
        positions = pd.read_csv(path, header=0 if "in_tissue" in first else None)
        positions.columns = _POSITION_COLUMNS
        positions = positions.set_index("barcode").apply(pd.to_numeric)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise SlideError(
            f"is no table of positions ({error})", where=path, do="copy it again from Space Ranger"
        ) from error
    if positions.index.has_duplicates:
        twice = positions.index[positions.index.duplicated()][0]
        raise SlideError(f"barcode {twice} is named twice", where=path, do="keep one line a barcode")
    with h5py.File(matrix) as file:
        barcodes = pd.Index([barcode.decode() for barcode in file["matrix/barcodes"][:]])
    missing = ~barcodes.isin(positions.index)
    if missing.all():
        raise SlideError(
            f"none of the {len(barcodes)} barcodes of {matrix.name} has a position: the counts join no spot",
            where=path,
            do="give counts and positions of the same section",
        )
    if missing.any():
        raise SlideError(
            f"{int(missing.sum())} of {len(barcodes)} barcodes of {matrix.name} have no position, "
            f"{barcodes[missing][0]} for one",
            where=path,
            do="give counts and positions of the same run of Space Ranger",
        )
    mine = positions.loc[barcodes]
    if not np.isfinite(mine.to_numpy(float)).all():
        bad = mine.index[~np.isfinite(mine.to_numpy(float)).all(axis=1)][0]
        raise SlideError(f"barcode {bad} has no number for its place", where=path, do="mend that line")
    return mine["in_tissue"] == 1


def _keep_in_tissue(sdata: SpatialData, name: str, in_tissue: pd.Series, folder: Path) -> SpatialData:
    if not in_tissue.any():
        raise SlideError("no spot is in tissue", where=folder / "spatial", do="check the in_tissue column")
    if in_tissue.all():
        return sdata
    table, shapes = sdata.tables["table"], sdata.shapes[name]
    kept = table[in_tissue.to_numpy()].copy()
    instances = kept.obs[kept.uns["spatialdata_attrs"]["instance_key"]]
    sdata.tables["table"] = kept
    transformations = get_transformation(shapes, get_all=True)
    inside = shapes.loc[instances]
    inside.attrs["transform"] = transformations
    sdata.shapes[name] = inside
    return sdata


def _best_image(sdata: SpatialData, name: str, folder: Path) -> str:
    """Name the finest image there is, as a pyramid; warn unless it is the full-resolution one."""
    if f"{name}_full_image" in sdata.images:
        return f"{name}_full_image"
    for kind in ("hires", "lowres"):
        element = f"{name}_{kind}_image"
        if element in sdata.images:
            picture = folder / "spatial" / f"tissue_{kind}_image.png"
            sdata.images[element] = image_element(picture, get_transformation(sdata.images[element], get_all=True))
            break
    else:
        raise SlideError(
            "no image: neither tissue_hires_image.png nor tissue_lowres_image.png",
            where=folder / "spatial",
            do="add one, or name the full-resolution image (--image, or image=)",
        )
    factor = json.loads((folder / "spatial" / "scalefactors_json.json").read_text())[f"tissue_{kind}_scalef"]
    # The centres are in full-resolution px; the lattice's pitch in them gives the scale.
    from napari_hyperst.slides.lattice import lattice_from_array

    shapes, table = sdata.shapes[name], sdata.tables["table"]
    centres = np.column_stack([shapes.geometry.x, shapes.geometry.y])
    lattice = lattice_from_array(centres, table.obs[["array_row", "array_col"]].to_numpy(np.intp))
    scale = f" at {VISIUM_PITCH_UM / lattice.pitch_px / factor:.2f} µm/px" if lattice.kind != "none" else ""
    warnings.warn(
        f"{folder}: no full-resolution image; the {kind} image{scale} is used, coarser than models are trained on "
        "(name the full-resolution one with --image, or image=)",
        HyperSTWarning,
        stacklevel=4,
    )
    return element
