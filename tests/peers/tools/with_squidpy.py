"""Run by a Python that has squidpy, and not us: draw a prediction over the H&E, and find which genes are spatial."""

from __future__ import annotations

import json
import sys

import matplotlib.pyplot as plt
import numpy as np
import spatialdata
import squidpy
from anndata import read_h5ad


def main(h5ad: str, store: str, gene: str) -> None:
    """Print what squidpy made of an h5ad and of a store's table."""
    table = read_h5ad(h5ad)
    library = next(iter(table.uns["spatial"]))
    squidpy.pl.spatial_scatter(table, color=gene, shape="circle", library_id=library, img_res_key="hires")
    axes = plt.gcf().axes[0]
    patches = axes.collections[0].get_paths()
    factor = table.uns["spatial"][library]["scalefactors"]["tissue_hires_scalef"]
    centres = np.array([path.get_extents().get_points().mean(axis=0) for path in patches]) / factor
    drawn = {
        "off_px": float(np.linalg.norm(centres[:, None] - table.obsm["spatial"], axis=2).min(axis=0).max()),
        "diameter_px": float(np.ptp(patches[0].vertices[:, 0]) / factor),
        "images": len(axes.images),
        "bars": len(plt.gcf().axes) - 1,
    }
    stored = next(t for t in spatialdata.read_zarr(store).tables.values() if "hyperst" in t.uns)
    moran = {}
    for name, one in {"h5ad": table, "store": stored}.items():
        squidpy.gr.spatial_neighbors(one, coord_type="generic", n_neighs=4)
        squidpy.gr.spatial_autocorr(one, mode="moran", n_perms=None, n_jobs=1)
        moran[name] = one.uns["moranI"]["I"].to_dict()
    weights = table.obsp["spatial_connectivities"].toarray().tolist()
    print(json.dumps({"version": squidpy.__version__, "drawn": drawn, "moran": moran, "weights": weights}))


if __name__ == "__main__":
    main(*sys.argv[1:])
