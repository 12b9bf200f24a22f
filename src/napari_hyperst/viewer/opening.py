"""Slides are opened in a thread: reading them imports spatialdata, and may decode an image."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError, SlideError
from napari_hyperst.nouns.tasks import SlideRef

if TYPE_CHECKING:
    from napari_hyperst.slides.pillow import CoarsePicture
    from napari_hyperst.slides.slide import Slide


def open_in_thread(
    ref: SlideRef,
    seen: Callable[[CoarsePicture], None],
    opened: Callable[[Slide], None],
    failed: Callable[[SlideRef, HyperSTError], None],
) -> None:
    """Open a slide in a thread; the functions are called in the main thread, one of the last two when that is over.

    Parameters
    ----------
    ref
        The slide.
    seen
        Called with its H&E from afar: at once, where that can be had quickly, else when it is decoded, if it must be.
    opened
        Called with it.
    failed
        Called with what was asked for, and what the user is to be told.
    """
    from napari.qt.threading import create_worker

    def tell(found: tuple[Slide | None, HyperSTError | None]) -> None:
        slide, error = found
        if slide is not None:
            opened(slide)
        elif error is not None:
            failed(ref, error)

    def decoded(picture: CoarsePicture) -> None:
        worker.yielded.emit(picture)  # from the worker's thread

    worker = create_worker(_open, ref, decoded)
    worker.yielded.connect(seen)
    worker.returned.connect(tell)
    worker.start()


def _open(
    ref: SlideRef, decoded: Callable[[CoarsePicture], None]
) -> Generator[CoarsePicture, None, tuple[Slide | None, HyperSTError | None]]:
    """Open a slide, or say what went wrong: of an error alone the worker would print a traceback."""
    from napari_hyperst.slides.pillow import coarse_picture

    picture = coarse_picture(ref)
    if picture is not None:
        yield picture
    from napari_hyperst.slides import open_slide  # takes seconds to import
    from napari_hyperst.slides.decoded import seen_from_afar

    try:
        with seen_from_afar(decoded if picture is None else lambda _: None):
            return open_slide(ref.path, **ref.options), None
    except HyperSTError as error:
        return None, error
    except Exception as error:  # a library failed as no reader foresaw
        return None, SlideError(f"cannot be opened ({type(error).__name__}: {error})", where=ref.path)
