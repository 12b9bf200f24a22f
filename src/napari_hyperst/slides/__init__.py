"""A slide becomes tiles and counts, and results become a slide again."""

from napari_hyperst.slides.readers import open_slide
from napari_hyperst.slides.slide import Slide, Spots

__all__ = ["Slide", "Spots", "open_slide"]
