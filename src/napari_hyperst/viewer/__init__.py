"""Results become napari layers: the only room that touches layers."""

from napari_hyperst.viewer.session import Session, session_of, show_slide

__all__ = ["Session", "session_of", "show_slide"]
