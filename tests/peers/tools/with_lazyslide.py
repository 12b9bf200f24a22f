"""Run by a Python that has LazySlide: open a store of ours as a slide, find its tissue and lay tiles over it."""

from __future__ import annotations

import json
import sys

import lazyslide
import numpy as np
import spatialdata
from wsidata import open_wsi


def main(store: str, image: str, table: str) -> None:
    """Print what LazySlide made of a store."""
    sdata = spatialdata.read_zarr(store)
    slide = open_wsi(sdata, image_key=image)
    lazyslide.pp.find_tissues(slide)
    lazyslide.pp.tile_tissues(slide, 256)
    finest = next(iter(sdata.images[image]["scale0"].data_vars.values()))
    pixels = np.asarray(slide.read_region(300, 200, 64, 48))[..., :3]
    told = {
        "version": lazyslide.__version__,
        "same_pixels": bool((pixels == finest[:, 200:248, 300:364].transpose("y", "x", "c").to_numpy()).all()),
        "tissues": len(slide.shapes["tissues"]),
        "tiles": len(slide.shapes["tiles"]),
        "genes": slide.tables[table].n_vars,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
