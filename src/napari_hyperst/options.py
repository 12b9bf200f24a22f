"""Options that several verbs in a terminal share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on standard output.")]
Mpp = Annotated[
    float | None, typer.Option(help="µm per px of the H&E; by default from the spots' lattice, or the image file.")
]
ImageOption = Annotated[
    str | None, typer.Option("--image", help="The full-resolution H&E file, or the name of a store's image.")
]
TableOption = Annotated[
    str | None, typer.Option("--table", help="A store's table of counts or spots, or the bins of Visium HD.")
]
Pitch = Annotated[
    float | None, typer.Option("--pitch", help="H&E image file: µm between the spots laid over it; 100 if not told.")
]
Spot = Annotated[float | None, typer.Option("--spot", help="H&E image file: diameter of a spot in µm; 55 if not told.")]
TissueOption = Annotated[
    Path | None, typer.Option("--tissue", help="H&E image file: a mask of the tissue, black where there is none.")
]
Gene = Annotated[str | None, typer.Option("--gene", help="A gene: for a map, a figure or a table of one.")]
Measured = Annotated[
    bool, typer.Option("--measured", help="Measured values too, in CSV, Parquet and GeoJSON; the rest has them anyway.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file of the same format; a store is never replaced.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings as YAML, as the command settings prints them; or JSON.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting over those of --config: key=value, method.dim=64. Repeat as needed."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
