"""napari, started from a terminal."""

from __future__ import annotations

import os
import sys

PLUGIN = "napari-hyperst"


def has_display() -> bool:
    """Tell whether there is a screen to open a window on, and a Qt binding to do it with."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        import qtpy.QtWidgets  # noqa: F401
    except ImportError:
        return False
    return True


def open_demo() -> None:
    """Open napari on the packaged slide, with the workbench at work on it; return when the window is closed."""
    import napari

    viewer = napari.Viewer(title="HyperST")
    _, workbench = viewer.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    workbench.open_sample(then_predict=True)
    napari.run()
