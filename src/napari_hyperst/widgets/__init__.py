"""The verbs in napari: the only room that touches Qt."""
