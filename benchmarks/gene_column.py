"""A gene's counts at 500,000 bins, over the plain slice of a column of counts kept by row.

The counts are drawn with as many of zero as bins of Visium HD have; the same genes are asked for, in turn, by both.
``ratio`` is the slice's median time over ours: below 1 ours would be the worse. ``median_ms`` and ``worst_ms`` are of
ours, by name of the gene; ``first_s`` is what the first gene takes besides, which copies the counts by column, and
``copy_mib`` what the copy holds.

Usage: python benchmarks/gene_column.py [--bins 500000] [--genes 2000] [--density 0.02] [--asked 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from napari_hyperst.slides.genes import GeneColumns

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bins", type=int, default=500_000)
parser.add_argument("--genes", type=int, default=2000)
parser.add_argument("--density", type=float, default=0.02)
parser.add_argument("--asked", type=int, default=30)
parser.add_argument("--json", action="store_true")
words = parser.parse_args()
if min(words.bins, words.genes, words.asked) < 1 or not 0 < words.density <= 1:
    parser.error("--bins, --genes and --asked are whole numbers from 1, --density a share")


def draw(rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw (bins, genes) counts by row, each bin with about as many genes as another."""
    found = rng.binomial(words.genes, words.density, words.bins)
    indptr = np.concatenate([[0], np.cumsum(found)])
    indices = rng.integers(0, words.genes, indptr[-1], dtype=np.int32)
    values = rng.geometric(0.6, indptr[-1]).astype(np.float32)
    drawn = sparse.csr_matrix((values, indices, indptr), shape=(words.bins, words.genes))
    drawn.sum_duplicates()
    return drawn


def seconds(ask: Callable[[str], NDArray[np.float32]], gene: str) -> tuple[float, NDArray[np.float32]]:
    """Time how long a gene's counts take."""
    started = time.perf_counter()
    column = ask(gene)
    return time.perf_counter() - started, column


rng = np.random.default_rng(0)
counts = draw(rng)
names = [f"GENE{i}" for i in range(words.genes)]
columns = GeneColumns(AnnData(counts, var=pd.DataFrame(index=names)))
places = {name: i for i, name in enumerate(names)}
asked = [names[i] for i in rng.integers(0, words.genes, words.asked)]


def ours(gene: str) -> NDArray[np.float32]:
    """Return a gene's counts as the package does."""
    return columns.block(columns.find([gene]))[:, 0]


def sliced(gene: str) -> NDArray[np.float32]:
    """Return a gene's counts by a slice of the counts by row."""
    return counts[:, places[gene]].toarray().ravel()


first, _ = seconds(ours, asked[0])
times: dict[str, list[float]] = {"ours": [], "sliced": []}
for gene in asked:
    ours_s, ours_counts = seconds(ours, gene)
    sliced_s, sliced_counts = seconds(sliced, gene)
    if not np.array_equal(ours_counts, sliced_counts):
        raise SystemExit(f"{gene}: the two differ")
    times["ours"].append(ours_s)
    times["sliced"].append(sliced_s)

median = statistics.median(times["ours"])
said = {
    "ratio": statistics.median(times["sliced"]) / median,
    "median_ms": 1e3 * median,
    "worst_ms": 1e3 * max(times["ours"]),
    "sliced_ms": 1e3 * statistics.median(times["sliced"]),
    "first_s": first - median,
    "copy_mib": (counts.data.nbytes + counts.indices.nbytes + 4 * (words.genes + 1)) / 2**20,
    "bins": words.bins,
    "genes": words.genes,
    "stored": int(counts.nnz),
}
if words.json:
    print(json.dumps(said))
else:
    print(
        f"A gene at {words.bins:,} bins: {said['median_ms']:.2f} ms (worst {said['worst_ms']:.2f}), sliced by row "
        f"{said['sliced_ms']:.1f} ms: {said['ratio']:.1f} x as fast; the first takes {said['first_s']:.1f} s more and "
        f"{said['copy_mib']:.0f} MiB"
    )
