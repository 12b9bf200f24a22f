"""Counts as the readers share them: 10x matrices, tables of text, and names of genes that can be relied on."""

from __future__ import annotations

import csv
import gzip
import warnings
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from numpy.typing import NDArray
from scipy import sparse
from scipy.io import mmread

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.formats import MATRICES, matrices
from napari_hyperst.slides.readers.h5_file import check_h5

#: The kind of feature that is kept of a 10x matrix; proteins and guides are left out.
_GENES = "Gene Expression"
_GZIP_SIGNATURE = b"\x1f\x8b"
#: Rows of a table of text that are in memory at a time before they are made sparse.
_ROWS_AT_A_TIME = 256
#: Deflate, which h5 files are packed with, packs at most so many bytes into one.
_MOST_DEFLATED = 1032
#: An entry of an mtx file takes at least so many bytes: three numbers, each with what ends it.
_LEAST_ENTRY = 6
_LONGEST_LINE, _BYTES_AT_A_TIME = 10_000, 2**20
Names = NDArray[np.object_]
_COPY = "copy it again from Space Ranger's folder"


def find_matrix(folder: Path) -> Path:
    """Return a folder's best matrix of counts: filtered before raw, h5 before mtx.

    Raises
    ------
    SlideError
        If there is none, or several of the same kind.
    """
    found = matrices(folder)
    if not found:
        probes = sorted(folder.glob("*raw_probe_bc_matrix.h5"))
        raise SlideError(
            f"no matrix of counts ({', '.join(MATRICES[::2])}, or a folder of that name with matrix.mtx)"
            + (f"; {probes[0].name} counts probes, not genes" if probes else ""),
            where=folder,
            do="add the one that Space Ranger wrote",
        )
    best = found[0]
    kind = next(name for name in MATRICES if best.name.endswith(name))
    alike = [path for path in found if path.name.endswith(kind)]
    if best.name != kind and len(alike) > 1:
        raise SlideError(
            f"{len(alike)} matrices of counts: {', '.join(path.name for path in alike)}",
            where=folder,
            do="keep one sample a folder",
        )
    return best


def read_matrix(path: Path) -> AnnData:
    """Read a 10x matrix, an h5 file or a folder with an mtx file, plain or gzipped whatever its name says.

    Returns
    -------
    AnnData
        (barcodes, genes) with float32 CSR counts; ``var`` is named by symbol and has ``gene_ids``. Names that come
        again are made unique, with a warning.

    Raises
    ------
    SlideError
        If a file is missing, broken, or not what its name says.
    """
    try:
        counts = _read_h5(path) if path.suffix == ".h5" else _read_mtx(path)
    except SlideError:
        raise
    except Exception as error:  # h5py, gzip, scipy and pandas raise errors of many kinds on broken files
        what = "whole h5 file" if path.suffix == ".h5" else "folder with a whole matrix"
        raise SlideError(f"is no {what} ({error})", where=path, do=_COPY) from error
    if counts.obs_names.has_duplicates:
        twice = counts.obs_names[counts.obs_names.duplicated()][0]
        raise SlideError(f"barcode {twice} is there twice", where=path, do=_COPY)
    values = _stored(counts)
    if not np.isfinite(values).all() or (values < 0).any():
        raise SlideError("holds counts that are negative or no numbers", where=path, do=_COPY)
    return counts


def unique_names(names: pd.Index, where: Path) -> pd.Index:
    """Make names of genes unique, with a warning where some were not.

    Parameters
    ----------
    names
        The names; where one comes again, ``-1``, ``-2``, … is put behind it, as anndata does.
    where
        The file, for the warning.
    """
    again = names[names.duplicated()]
    if len(again):
        warnings.warn(
            f"{where}: {len(again)} genes bear the name of another ({', '.join(map(str, again.unique()[:3]))}"
            f"{', …' if again.nunique() > 3 else ''}); they are told apart by -1, -2, … behind it",
            HyperSTWarning,
            stacklevel=5,
        )
    return make_index_unique(names) if len(again) else names


def read_count_table(path: Path, separator: str) -> AnnData:
    """Read a table of spots x genes, some rows at a time, so that it never lies in memory as text or dense.

    Parameters
    ----------
    path
        The file, plain or gzipped; names of genes in the first line, of spots in the first column.
    separator
        What is between the columns.

    Returns
    -------
    AnnData
        (spots, genes) with float32 CSR counts. Names of genes that come again are made unique, with a warning.

    Raises
    ------
    SlideError
        If it is no such table, or counts are negative or missing, or a spot is there twice.
    """
    try:
        with _open_text(path) as file:
            header = next(csv.reader(file, delimiter=separator), [])
        with pd.read_csv(
            path,
            sep=separator,
            header=None,
            skiprows=1,
            index_col=0,
            chunksize=_ROWS_AT_A_TIME,
            compression="gzip" if _is_gzipped(path) else None,
        ) as parts:
            read = [(part.index.astype(str), sparse.csr_matrix(part.to_numpy(np.float32))) for part in parts]
    except Exception as error:  # gzip, csv, pandas and NumPy raise errors of many kinds on broken files
        raise SlideError(f"cannot be read ({error})", where=path, do="give a table of spots x genes") from error
    index = pd.Index(np.concatenate([names.to_numpy(object) for names, _ in read]) if read else [])
    values = sparse.vstack([values for _, values in read], format="csr") if read else sparse.csr_matrix((0, 0))
    # R leaves out the name of the first column, others leave it empty.
    genes = header if len(header) == values.shape[1] else header[1:]
    if len(genes) != values.shape[1]:
        raise SlideError(
            f"names {len(genes)} genes over {values.shape[1]} columns", where=path, do="give a table of spots x genes"
        )
    if 0 in values.shape or not np.isfinite(values.data).all() or (values.data < 0).any():
        raise SlideError("holds no table of counts (negative, missing or no numbers)", where=path, do="give raw counts")
    if index.has_duplicates:
        raise SlideError(f"spot {index[index.duplicated()][0]} is named twice", where=path, do="keep one row a spot")
    var = pd.DataFrame(index=unique_names(pd.Index(genes, dtype=object), path))
    return AnnData(sparse.csr_matrix(values), obs=pd.DataFrame(index=index), var=var)


def _read_h5(path: Path) -> AnnData:
    check_h5(path)
    with h5py.File(path) as file:
        if "matrix/barcodes" not in file:
            other = "an AnnData file" if "X" in file else "another h5 file"
            raise SlideError(
                f"is no 10x matrix of counts but {other}", where=path, do="give Space Ranger's own h5 file"
            )
        matrix, features = file["matrix"], file["matrix/features"]
        if "gene_name" in features:
            raise SlideError("counts probes, not genes", where=path, do="give filtered_feature_bc_matrix.h5")
        genes, barcodes = (int(size) for size in _checked(matrix["shape"])[:])
        # 10x writes genes x barcodes by column, which is barcodes x genes by row.
        data, indices, indptr = (_checked(matrix[name])[:] for name in ("data", "indices", "indptr"))
        parts = (data.astype(np.float32), indices, indptr)
        values = sparse.csr_matrix(parts, shape=(barcodes, genes))
        values.check_format(full_check=True)
        names, ids = _strings(features["name"]), _strings(features["id"])
        kinds = (
            _strings(features["feature_type"])
            if "feature_type" in features
            else np.full(len(ids), _GENES, dtype=object)
        )
        barcodes_there = _strings(matrix["barcodes"])
    return _table(values, barcodes_there, ids, names, kinds, path)


def _stored(counts: AnnData) -> NDArray[np.float32]:
    values: sparse.csr_matrix = counts.X  # type: ignore[assignment]
    return values.data


def _checked(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return a dataset, unless it claims more than what is stored of it can hold: reading it would fill the memory."""
    if dataset.nbytes > _MOST_DEFLATED * dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} claims {dataset.size:,} values that are not there")
    return dataset


def _strings(dataset: h5py.Dataset) -> Names:
    return _checked(dataset).asstr()[:].astype(object)


def _read_mtx(folder: Path) -> AnnData:
    path = _one_of(folder, "matrix.mtx")
    _check_mtx(path)
    with _open_bytes(path) as file:
        values = sparse.coo_array(mmread(file, spmatrix=False)).T
    barcodes = _read_columns(_one_of(folder, "barcodes.tsv"))[0].to_numpy(object)
    features = _read_columns(_one_of(folder, "features.tsv", "genes.tsv"))
    ids = features[0].to_numpy(object)
    names = features[1].to_numpy(object) if 1 in features else ids
    kinds = features[2].to_numpy(object) if 2 in features else np.full(len(ids), _GENES, dtype=object)
    if values.shape != (len(barcodes), len(ids)):
        raise SlideError(
            f"matrix.mtx is of {values.shape[1]} genes x {values.shape[0]} barcodes, beside names of {len(ids)} genes "
            f"and {len(barcodes)} barcodes",
            where=folder,
            do=_COPY,
        )
    return _table(sparse.csr_matrix(values.astype(np.float32)), barcodes, ids, names, kinds, folder)


def _check_mtx(path: Path) -> None:
    """Read through an mtx file that SciPy's reader would end the process over, or fill the memory with.

    That knows no way out of a gzipped file that is cut off, and makes room for as many counts as the header claims.
    """
    with _open_bytes(path) as file:
        line = file.readline(_LONGEST_LINE)
        while line.startswith(b"%"):
            line = file.readline(_LONGEST_LINE)
        claimed, there = int(line.split()[2]), 0
        while part := file.read(_BYTES_AT_A_TIME):
            there += len(part)
    if claimed * _LEAST_ENTRY > there + 1:  # the last line may end without a break
        raise ValueError(f"{path.name} claims {claimed:,} counts that are not there")


def _table(values: sparse.csr_matrix, barcodes: Names, ids: Names, names: Names, kinds: Names, where: Path) -> AnnData:
    genes = kinds == _GENES
    if genes.any() and not genes.all():
        values, ids, names, kinds = values[:, genes], ids[genes], names[genes], kinds[genes]
    values.sort_indices()
    var = pd.DataFrame({"gene_ids": ids, "feature_types": kinds}, index=unique_names(pd.Index(names), where))
    return AnnData(values, obs=pd.DataFrame(index=pd.Index(barcodes)), var=var)


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    raise SlideError(f"no {' or '.join(names)}, plain or gzipped", where=folder, do=_COPY)


def _read_columns(path: Path) -> pd.DataFrame:
    with _open_text(path) as file:
        return pd.read_csv(file, sep="\t", header=None, dtype=object, keep_default_na=False)


def _is_gzipped(path: Path) -> bool:
    """Tell a gzipped file by its first bytes, since names do not always."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP_SIGNATURE


def _open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _is_gzipped(path) else path.open("rb")  # type: ignore[return-value]


def _open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if _is_gzipped(path) else path.open(encoding="utf-8", newline="")
