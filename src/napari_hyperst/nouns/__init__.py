"""What the project speaks of: frozen dataclasses and configs, light enough for napari's process."""
