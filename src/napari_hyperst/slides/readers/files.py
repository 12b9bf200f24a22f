"""What the readers of folders share: looking for files, and names that SpatialData accepts."""

from __future__ import annotations

import re
from pathlib import Path

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import IMAGE_SUFFIXES


def element_name(text: str) -> str:
    """Turn a folder's name into one that SpatialData accepts for an element."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or "slide"


def image_file(image: str | Path, folder: Path) -> Path:
    """Return the image file that the user named, looked for as given and within the slide's folder.

    Raises
    ------
    SlideError
        If there is no such file, or its format is not read.
    """
    named = Path(image).expanduser()
    path = next((p for p in (named, folder / named) if p.is_file()), None)
    if path is None:
        raise SlideError("there is no such image file", where=named, do="check the path of the H&E")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise SlideError(
            f"images of type {path.suffix or '(none)'} are not read", where=path, do=f"give {', '.join(IMAGE_SUFFIXES)}"
        )
    return path
