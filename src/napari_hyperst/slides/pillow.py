"""Pictures through Pillow: within a bound of our own, whole, or from afar in a moment."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.errors import SlideError

#: Image files that cannot be read in parts are decoded whole, up to this many px (3 GB of memory).
MAX_DECODED_PX = 1_000_000_000
#: A coarse picture is at most this many px long.
COARSE_PX = 1536
#: libjpeg decodes a picture to an eighth by taking the mean of each of its blocks, without the rest.
_LEAST = 8
#: A png has no such short cut; of so many px it is decoded in a fraction of a second.
_QUICK_PX = 2**24
_8_BIT = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_LIMIT = threading.Lock()


@dataclass(frozen=True)
class CoarsePicture:
    """A picture seen from afar.

    Attributes
    ----------
    pixels
        (h, w, 3) uint8, RGB; they span the picture.
    shape_px
        (height, width) of the picture itself.
    """

    pixels: NDArray[np.uint8]
    shape_px: tuple[int, int]


def open_picture(path: Path) -> Image.Image:
    """Open an image file with Pillow, whatever size it claims: our own bound takes the place of Pillow's.

    Raises
    ------
    Exception
        What Pillow's plugins raise on broken files.
    """
    with _LIMIT:  # which all threads share; it is looked at when a file is opened, not when it is decoded
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def decode(path: Path) -> NDArray[Any]:
    """Return the pixels of an image file as Pillow reads them.

    Returns
    -------
    NDArray
        (y, x, c); palettes and other colour spaces are converted to RGB, or RGBA where they are transparent.

    Raises
    ------
    SlideError
        If the file is no image, is broken, or is too large.
    """
    try:
        with open_picture(path) as opened:
            check_size(*opened.size, path)
            image: Image.Image = opened
            if image.mode in ("P", "CMYK", "LA", "PA", "YCbCr", "LAB", "HSV", "1"):
                image = image.convert("RGBA" if "transparency" in image.info or image.mode in ("LA", "PA") else "RGB")
            elif image.mode in ("I", "I;16B"):
                image = image.convert("I;16")
            pixels = np.asarray(image)
    except SlideError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like on broken files
        raise SlideError(
            f"is no image that can be read ({error})", where=path, do="give an 8-bit RGB jpg, png or tif"
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def check_size(width: int, height: int, path: Path) -> None:
    """Refuse a picture that is too large to be decoded whole.

    Raises
    ------
    SlideError
        If it is.
    """
    if width * height > MAX_DECODED_PX:
        raise SlideError(
            f"claims {width} x {height} px, over the {MAX_DECODED_PX:,} px that are decoded whole",
            where=path,
            do="convert it to a tiled TIFF, which is read in parts",
        )


def jpg_or_png_from_afar(path: Path) -> CoarsePicture | None:
    """Look at a jpg or png from afar: at a jpg of any size, at a png that is decoded whole in a moment.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    CoarsePicture
        None where that would take long, or a px has more than 8 bits.

    Raises
    ------
    Exception
        What Pillow's plugins raise on broken files.
    """
    with open_picture(path) as image:
        width, height = image.size
        if width * height > (MAX_DECODED_PX if image.format == "JPEG" else _QUICK_PX) or image.mode not in _8_BIT:
            return None
        image.draft(None, (width // _LEAST, height // _LEAST))
        image.thumbnail((COARSE_PX, COARSE_PX), Image.Resampling.BOX, reducing_gap=None)
        return CoarsePicture(np.asarray(image.convert("RGB")), (height, width))


def pixels_from_afar(pixels: NDArray[Any], shape_px: tuple[int, int]) -> CoarsePicture | None:
    """Look at pixels from afar.

    Parameters
    ----------
    pixels
        (c, y, x), of the whole picture at any resolution.
    shape_px
        (height, width) of the picture at its finest.

    Returns
    -------
    CoarsePicture
        None for what is not grey or RGB of 8 bits.
    """
    channels, *sides = pixels.shape
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4):
        return None
    factor = max(1.0, max(sides) / COARSE_PX)
    rows, columns = (((np.arange(max(1, round(n / factor))) + 0.5) * n / max(1, round(n / factor))).astype(int)
                     for n in sides)  # fmt: skip
    coarse = np.moveaxis(pixels[:3, rows[:, None], columns], 0, -1)
    return CoarsePicture(np.repeat(coarse, 3, axis=-1) if channels == 1 else coarse, shape_px)
