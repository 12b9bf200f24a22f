"""Slides are opened in a thread: reading them imports spatialdata, and may decode an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError, SlideError
from napari_hyperst.nouns.tasks import SlideRef

if TYPE_CHECKING:
    from napari_hyperst.slides.slide import Slide


def open_in_thread(
    ref: SlideRef, opened: Callable[[Slide], None], failed: Callable[[SlideRef, HyperSTError], None]
) -> None:
    """Open a slide in a thread; one of the two functions is called in the main thread when that is over.

    Parameters
    ----------
    ref
        The slide.
    opened
        Called with it.
    failed
        Called with what was asked for, and what the user is to be told.
    """
    from napari.qt.threading import create_worker

    worker = create_worker(_open, ref)
    worker.returned.connect(lambda found: failed(ref, found) if isinstance(found, HyperSTError) else opened(found))
    worker.start()


def _open(ref: SlideRef) -> Slide | HyperSTError:
    """Open a slide, or say what went wrong: the worker would print a traceback of what the user can mend."""
    from napari_hyperst.slides import open_slide

    try:
        return open_slide(ref.path, **ref.options)
    except HyperSTError as error:
        return error
    except Exception as error:  # a library failed as no reader foresaw
        return SlideError(f"cannot be opened ({type(error).__name__}: {error})", where=ref.path)
