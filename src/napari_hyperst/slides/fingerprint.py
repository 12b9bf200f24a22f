"""What an H&E is known by, whatever its file is called and wherever spots are laid over it."""

from __future__ import annotations

import hashlib
import itertools

from napari_hyperst.slides.image import Pyramid

#: Side of the blocks of px that are looked at, and how many there are along a side.
_BLOCK_PX = 64
_BLOCKS = 3


def picture_fingerprint(image: Pyramid) -> str | None:
    """Hash nine blocks of the finest level's px: the same for copies of a picture with the same px.

    The blocks lie at multiples of the greatest power of two that is at most a quarter of a side, so that a few px more
    at the right or at the bottom, as some pyramids have, change nothing. A picture that was scaled, cropped, or packed
    again with loss has another hash.

    Parameters
    ----------
    image
        The H&E.

    Returns
    -------
    str or None
        None where no block shows anything, or there are fewer than four px a side: then the hash would tell nothing.

    Raises
    ------
    SlideError
        If pixels cannot be read.
    """
    step_y, step_x = (1 << (max(side // (_BLOCKS + 1), 1).bit_length() - 1) for side in image.shape_px)
    if min(image.shape_px) <= _BLOCKS:
        return None
    digest, shows = hashlib.sha256(), False
    for row, column in itertools.product(range(1, _BLOCKS + 1), repeat=2):
        top, left = row * step_y, column * step_x
        rows, columns = slice(top, top + min(step_y, _BLOCK_PX)), slice(left, left + min(step_x, _BLOCK_PX))
        block = image.read(0, rows, columns)
        shows |= bool(block.max() != block.min())
        digest.update(block.tobytes())
    return digest.hexdigest()[:16] if shows else None
