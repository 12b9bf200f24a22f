from importlib.metadata import version as installed

project = "napari-hyperst"
author = "napari-hyperst developers"
copyright = f"2026, {author}"
version = release = installed("napari-hyperst")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2  # for links to a section
napoleon_google_docstring = False
autodoc_typehints = "none"
html_theme = "furo"
html_title = "napari-hyperst"
exclude_patterns = ["_build"]
napoleon_attr_annotations = False
