"""The whole H&E of a slide in few pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.slides.image import Pyramid

#: Pixels of a level that are read at a time.
_STRIP_PX = 2**25


def thumbnail(image: Pyramid, longest_px: int) -> tuple[NDArray[np.uint8], float]:
    """Shrink an image by means over squares of whole pixels, so that it is nowhere moved.

    Parameters
    ----------
    image
        The H&E.
    longest_px
        The result is at most this many px long and wide.

    Returns
    -------
    tuple
        (height, width, 3) RGB, and how many px of it a level-0 px of the image is long: at most 1.
    """
    level = image.level_for(max(1.0, max(image.shape_px) / longest_px))
    rows, columns = image.levels[level].shape[1:]
    step = math.ceil(max(rows, columns) / longest_px)
    strip = max(1, _STRIP_PX // (columns * step)) * step
    parts = []
    for top in range(0, rows, strip):
        pixels = image.read(level, slice(top, min(top + strip, rows)), slice(0, columns))
        parts.append(np.asarray(Image.fromarray(pixels).reduce(step)))
    factor = step * float(np.mean(image.factors[level]))
    return np.concatenate(parts), 1 / factor
