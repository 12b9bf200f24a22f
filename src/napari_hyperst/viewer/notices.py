"""What is told as napari tells things, whatever is in it taken for plain text."""

from __future__ import annotations

from napari_hyperst.errors import unmarked


def show_error(message: str) -> None:
    """Tell of an error as napari does."""
    from napari.utils.notifications import show_error

    show_error(unmarked(message))


def show_info(message: str) -> None:
    """Tell of something good as napari does."""
    from napari.utils.notifications import show_info

    show_info(unmarked(message))


def show_warning(message: str) -> None:
    """Warn as napari does."""
    from napari.utils.notifications import show_warning

    show_warning(unmarked(message))
