"""A block of a section that is held out of training, with a margin around it, where there is but one section."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.slide import Slide

#: Fewer spots than this, on either side, are nothing to learn from or to measure on.
_LEAST = 4


def hold_out_block(
    slide: Slide, spots: NDArray[np.intp], share: float, margin_um: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide spots of a slide into a part to train on and a block at one end of the section to validate on.

    The cut is straight, across the axis of the image along which the section is longer. Spots nearer to the block
    than the margin are in neither part, so that with a margin of a niche no tile of one part shares a pixel with a
    tile of the other. Agreement on such a block is still optimistic: stain, depth and patient are those of training.

    Parameters
    ----------
    slide
        The slide.
    spots
        (n,) indices of the spots to divide.
    share
        Of these, how many the block holds, above 0 and at most a half; a whole row or column of spots more, where
        they lie in one line.
    margin_um
        Width of what is left out between the two, in µm.

    Returns
    -------
    tuple
        Indices of the spots to train on, and of those in the block, each in the order of ``spots``.

    Raises
    ------
    SlideError
        If too few spots are left on either side.
    """
    centres_um = slide.spots.centres_px[spots] * slide.mpp
    along = centres_um[:, int(np.argmax(np.ptp(centres_um, axis=0)))]
    count = max(1, round(share * len(spots)))
    cut = np.sort(along)[-count] - 1e-6
    block = along >= cut
    rest = along <= float(along[block].min()) - margin_um
    if min(int(rest.sum()), int(block.sum())) < _LEAST:
        raise SlideError(
            f"is too small for a held-out block: {int(rest.sum())} spots would be left to train on and "
            f"{int(block.sum())} to validate on, {margin_um:.0f} µm apart",
            where=slide.path,
            do="validate on another section, or set holdout=0 to train without validation",
        )
    return spots[rest], spots[block]
