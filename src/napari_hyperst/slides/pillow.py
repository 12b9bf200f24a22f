"""Pictures through Pillow: within a bound of our own, whole or, of a jpg, coarsely in a moment.

What is here imports no library of slides: a coarse picture is there before those are.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.tasks import SlideRef

#: Image files that cannot be read in parts are decoded whole, up to this many px (3 GB of memory).
MAX_DECODED_PX = 1_000_000_000
JPEG_SUFFIXES = (".jpg", ".jpeg")
#: A coarse picture is at most this many px long.
COARSE_PX = 1536
#: libjpeg decodes a picture to an eighth by taking the mean of each of its blocks, without the rest.
_LEAST = 8
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


def coarse_picture(ref: SlideRef) -> CoarsePicture | None:
    """Look at the H&E of a slide from afar, where that takes but a moment: where it is a jpg.

    Parameters
    ----------
    ref
        The slide.

    Returns
    -------
    CoarsePicture
        None where its H&E is no jpg, or cannot be read: opening the slide tells why.
    """
    try:
        path = _jpeg_of(ref)
        if path is None:
            return None
        with open_picture(path) as image:
            width, height = image.size
            if width * height > MAX_DECODED_PX:
                return None
            image.draft(None, (width // _LEAST, height // _LEAST))
            image.thumbnail((COARSE_PX, COARSE_PX), Image.Resampling.BOX, reducing_gap=None)
            return CoarsePicture(np.asarray(image.convert("RGB")), (height, width))
    except Exception:  # Pillow's plugins raise what they like on broken files
        return None


def _jpeg_of(ref: SlideRef) -> Path | None:
    """Return the one jpg that may be the H&E of a slide."""
    named = [] if ref.image is None else [Path(ref.image).expanduser(), ref.path / ref.image]
    if ref.image is None:
        named = [ref.path] if ref.path.is_file() else [p for p in ref.path.iterdir() if not p.name.startswith(".")]
    found = [path for path in named if path.suffix.lower() in JPEG_SUFFIXES and path.is_file()]
    return found[0] if len(found) == 1 or (found and ref.image is not None) else None
