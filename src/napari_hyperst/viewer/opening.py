"""Slides are opened in a thread: reading them imports spatialdata, and may decode an image."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError, ScaleError, SlideError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.viewer import ahead
from napari_hyperst.viewer.coarse import CoarseLayer
from napari_hyperst.viewer.notices import show_error

if TYPE_CHECKING:
    from napari_hyperst.slides.pillow import CoarsePicture
    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.session import Session


class Openings:
    """The slides of a viewer that are being opened; its length is how many.

    Parameters
    ----------
    session
        Of the viewer, which may be closed at any time; tells ``opening_changed``, and ``scale_asked``.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._coarse: set[CoarseLayer] = set()

    def __len__(self) -> int:
        return len(self._coarse)

    def open(self, ref: SlideRef) -> None:
        """Open a slide in a thread, and show it when it is there; what goes wrong is told as a notification."""
        coarse = CoarseLayer(self._session.viewer_ref, ref)

        def opened(slide: Slide) -> None:
            try:
                coarse.remove()
                if self._session.viewer_ref() is not None:
                    self._session.add(slide)
            finally:
                self._end(coarse)

        def failed(ref: SlideRef, error: HyperSTError) -> None:
            self._end(coarse)
            self._not_opened(ref, error)

        self._coarse.add(coarse)
        self._session.opening_changed.emit(len(self))
        open_in_thread(ref, coarse.show, opened, failed, lambda: self._end(coarse))

    # -- within

    def _not_opened(self, ref: SlideRef, error: HyperSTError) -> None:
        if isinstance(error, ScaleError) and len(self._session.scale_asked):
            self._session.scale_asked.emit(ref)
        else:
            show_error(f"{error}; the workbench asks for it" if isinstance(error, ScaleError) else str(error))

    def _end(self, coarse: CoarseLayer) -> None:
        """Take its picture away, and count one less, once, however the opening ended."""
        try:
            coarse.remove()
        finally:
            if coarse in self._coarse:
                self._coarse.remove(coarse)
                self._session.opening_changed.emit(len(self))


def open_in_thread(
    ref: SlideRef,
    seen: Callable[[CoarsePicture], None],
    opened: Callable[[Slide], None],
    failed: Callable[[SlideRef, HyperSTError], None],
    over: Callable[[], None],
) -> None:
    """Open a slide in a thread; the functions are called in the main thread.

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
    over
        Called last, also where neither of the two was: napari ends what is at work when it closes.
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

    ahead.read_units()
    worker = create_worker(_open, ref, decoded)
    worker.yielded.connect(seen)
    worker.returned.connect(tell)
    worker.finished.connect(over)
    worker.start()


def _open(
    ref: SlideRef, decoded: Callable[[CoarsePicture], None]
) -> Generator[CoarsePicture, None, tuple[Slide | None, HyperSTError | None]]:
    """Open a slide, or say what went wrong: of an error alone the worker would print a traceback."""
    from napari_hyperst.slides.afar import coarse_picture

    picture = coarse_picture(ref)
    ahead.wait()  # else the window would be held while napari imports it
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
