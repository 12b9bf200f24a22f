"""Run by a Python that has scanpy: draw a prediction over the H&E, and run the usual first steps on it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import scanpy


def main(h5ad: str, gene: str) -> None:
    """Print what scanpy made of an h5ad."""
    table = scanpy.read_h5ad(h5ad)
    scanpy.pl.spatial(table, color=gene, show=False)
    axes = plt.gcf().axes[0]
    patches = axes.collections[0].get_paths()
    library = next(iter(table.uns["spatial"]))
    factor = table.uns["spatial"][library]["scalefactors"]["tissue_hires_scalef"]
    centres = np.array([path.get_extents().get_points().mean(axis=0) for path in patches]) / factor
    diameter = float(np.ptp(patches[0].vertices[:, 0]) / factor)
    scanpy.pp.pca(table, n_comps=3)
    told = {
        "version": version("scanpy"),
        "off_px": float(np.linalg.norm(centres[:, None] - table.obsm["spatial"], axis=2).min(axis=0).max()),
        "diameter_px": diameter,
        "images": len(axes.images),
        "pca": list(table.obsm["X_pca"].shape),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
