"""napari, started from a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

WORKBENCH, DOCK = "napari-hyperst.workbench", "Workbench (HyperST)"


def has_display() -> bool:
    """Tell whether there is a screen to open a window on, and a Qt binding to do it with."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    # In a process of its own: Qt aborts where the display that DISPLAY names is not there, as after an ssh session.
    ask = "from qtpy.QtGui import QGuiApplication; QGuiApplication([])"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False).returncode == 0


def open_demo(device: str) -> None:
    """Open napari on the packaged slide, with the workbench at work on it; return when the window is closed."""
    import napari
    from npe2 import PluginManager

    viewer = napari.Viewer(title="HyperST")
    viewer.window.resize(1366, 800)
    workbench = PluginManager.instance().commands.get(WORKBENCH)(viewer)
    viewer.window.add_dock_widget(workbench, name=DOCK)  # as the menu calls it, which then finds it
    workbench.predict_panel.device.value = device
    workbench.open_sample(then_predict=True)
    napari.run()
