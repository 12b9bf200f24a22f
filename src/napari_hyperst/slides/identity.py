"""Which slide it was: hashes that tell one H&E and one table of counts from others, whatever the format."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from scipy import sparse

from napari_hyperst.slides.slide import Slide

#: An H&E is told from another by its size and this many squares of its pixels along each side, each this many px long.
_PROBES, _PROBE_PX = 4, 64
#: Rows of counts that are hashed at a time, so that memory does not grow with them.
_ROWS = 4096


def image_sha256(slide: Slide) -> str:
    """Return a hash of the H&E: of its size, and of pixels spread over level 0 as 8-bit RGB.

    Raises
    ------
    SlideError
        If pixels cannot be read.
    """
    height, width = slide.image.shape_px
    digest = hashlib.sha256(f"{height} {width}\n".encode())
    for top in np.linspace(0, max(0, height - _PROBE_PX), _PROBES).astype(int).tolist():
        for left in np.linspace(0, max(0, width - _PROBE_PX), _PROBES).astype(int).tolist():
            square = slide.image.read(0, slice(top, top + _PROBE_PX), slice(left, left + _PROBE_PX))
            digest.update(np.ascontiguousarray(square).tobytes())
    return digest.hexdigest()


def counts_sha256(slide: Slide) -> str:
    """Return a hash of the counts, of the names of spots and genes and their order; empty where there are none.

    The same numbers have the same hash, dense or sparse and of whatever type.
    """
    if slide.counts is None:
        return ""
    counts: Any = slide.counts
    digest = hashlib.sha256()
    for names in (counts.obs_names, counts.var_names):
        digest.update("\n".join(names.astype(str)).encode() + b"\n\n")
    for start in range(0, counts.n_obs, _ROWS):
        block = sparse.csr_matrix(counts.X[start : start + _ROWS], dtype=np.float64, copy=True)
        block.sum_duplicates()
        block.eliminate_zeros()
        for part, dtype in ((block.indptr, np.int64), (block.indices, np.int64), (block.data, np.float64)):
            digest.update(np.ascontiguousarray(part, dtype=dtype).tobytes())
    return digest.hexdigest()
