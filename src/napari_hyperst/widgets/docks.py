"""The plugin's docks, opened from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npe2 import PluginManager

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: What the menu calls a dock, and the command that makes it.
FINETUNE = ("Fine-tune (HyperST)", "napari-hyperst.finetune")
WORKBENCH = ("Workbench (HyperST)", "napari-hyperst.workbench")


def open_dock(viewer: ViewerModel, which: tuple[str, str]) -> None:
    """Open a dock of the plugin in a tab beside those that are open, or bring the one that there is to the front.

    Parameters
    ----------
    viewer
        Whose window it is to be in; nothing happens where it has none.
    which
        ``FINETUNE`` or ``WORKBENCH``.
    """
    window = getattr(viewer, "window", None)
    if window is None:
        return
    name, command = which
    if name not in window.dock_widgets:  # as the menu calls it, which then finds it too
        window.add_dock_widget(PluginManager.instance().commands.get(command)(viewer), name=name, tabify=True)
    dock = window.dock_widgets[name].parent()
    dock.show()
    dock.raise_()
