"""The verbs in a terminal. Progress goes to standard error; ``--json`` prints one object on standard output."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_hyperst.descriptions import describe_prediction, describe_predictions, describe_slide
from napari_hyperst.desktop import has_display, open_demo
from napari_hyperst.errors import ConfigError, HyperSTError, HyperSTWarning, StoreError
from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT, bundled_checkpoints, is_checkpoint
from napari_hyperst.nouns.tasks import ConvertTask, SlideRef
from napari_hyperst.options import (
    AsJson,
    Assignments,
    ConfigFile,
    Device,
    Gene,
    ImageOption,
    Measured,
    Mpp,
    Overwrite,
    Pitch,
    Spot,
    TableOption,
    TissueOption,
)
from napari_hyperst.slides.outputs.formats import STORE, OutputRequest, output_format
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.terminal import say, show_events, show_progress, show_warning

app = typer.Typer(
    help="Predict gene expression from H&E, with hyperbolic image-gene models. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def predict(
    slides: Annotated[
        list[Path], typer.Argument(help="Space Ranger folders, SpatialData Zarrs, ST folders or H&E image files.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="The SpatialData Zarr to write, or what else export writes, by its ending; with several slides, a "
            "folder of Zarrs."
        ),
    ],
    checkpoint: Annotated[str, typer.Option(help="A folder, a bundled name, or hf://owner/repo.")] = DEFAULT_CHECKPOINT,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Spots at a time.")] = 32,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    mpp: Mpp = None,
    image: ImageOption = None,
    table: TableOption = None,
    pitch: Pitch = None,
    spot: Spot = None,
    tissue: TissueOption = None,
    gene: Gene = None,
    measured: Measured = False,
    overwrite: Overwrite = False,
    name: Annotated[str | None, typer.Option(help="What to call the new table.")] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Write a copy of the slide's own store, with all it has.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict the expression of a checkpoint's genes, and write it as SpatialData Zarr, or as export does."""
    from napari_hyperst.files import check_place
    from napari_hyperst.models.checkpoint_files import find_checkpoint, read_card, read_panel
    from napari_hyperst.slides.inspection import inspect_slide

    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"there is no precision {precision!r}", do="use auto, float32 or bfloat16")
    _check_lengths(mpp, pitch, spot)
    requests = [OutputRequest(target, gene, measured, name, overwrite, copy) for target in _targets(slides, out)]
    laying = any(given is not None for given in (pitch, spot, tissue))
    for path, request in zip(slides, requests, strict=True):
        slide_format = inspect_slide(path.expanduser(), image=image is not None, table=table is not None, laying=laying)
        request.check()
        into_own = slide_format == "spatialdata" and request.path.resolve() == path.expanduser().resolve()
        if request.format is STORE and not into_own and (len(slides) == 1 or out.is_dir()):
            check_place(request.path, do="name a new store, or the one the slide was opened from")
    files = find_checkpoint(checkpoint)
    if gene is not None and gene not in read_panel(files, read_card(files)).genes:
        raise ConfigError(f"{checkpoint} does not predict {gene!r}", where="--gene", do="name a gene of its panel")

    from napari_hyperst.slides import open_slide
    from napari_hyperst.slides.export import prediction_table
    from napari_hyperst.slides.outputs import check_output, write_output

    def opened() -> Iterator[tuple[Any, OutputRequest]]:
        for path, request in zip(slides, requests, strict=True):
            slide = open_slide(
                path,
                mpp,
                image=image,
                table=table,
                pitch_um=pitch,
                spot_um=spot,
                tissue=tissue,
                progress=show_progress(f"{path.name}: decoding the image"),
            )
            if len(slides) > 1:  # not before one of them opens
                _make_folder(out)
            check_output(slide, request)
            yield slide, request

    rest = opened()
    first = next(rest)  # before torch and the checkpoint are loaded, which takes longer than to open a slide
    from napari_hyperst.models.checkpoint import load_checkpoint
    from napari_hyperst.prediction import predict as run

    loaded = load_checkpoint(checkpoint)
    results = []
    for slide, request in itertools.chain([first], rest):
        prediction = run(
            slide,
            loaded,
            device,
            show_progress(f"{slide.name}: spots"),
            batch_size=batch_size,
            precision=precision,  # type: ignore[arg-type]
        )
        written = write_output(slide, prediction_table(prediction, _command()), request)
        results.append(describe_prediction(prediction, written))
        if not as_json:  # while the next slide is predicted
            say(results[-1], as_json)
    if as_json:
        say(results[0] if len(results) == 1 else {"slides": results}, as_json)


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="A SpatialData Zarr with a prediction.")],
    out: Annotated[Path, typer.Argument(help="What to write; its ending names the format.")],
    gene: Gene = None,
    name: Annotated[str | None, typer.Option(help="The prediction's table, where the store holds several.")] = None,
    measured: Measured = False,
    overwrite: Overwrite = False,
    image: ImageOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a store's prediction as another format, told by the ending; no model is needed.

    .h5ad for scanpy and squidpy; .csv, .csv.gz and .parquet, spots x genes; .ome.zarr and .ome.tif, a map of one gene
    that lies over the H&E; .png and .pdf, a figure of one gene; .geojson for QuPath; .zarr, another store.
    """
    from napari_hyperst.slides.outputs import open_prediction, write_output
    from napari_hyperst.slides.outputs.selection import gene_values

    slide, name = open_prediction(store, name, image=image)
    table = slide.sdata.tables[name]
    request = OutputRequest(out, gene, measured, name, overwrite)
    told = {"written": str(write_output(slide, table, request)), "store": str(store), "table": name}
    shown = gene_values(table, gene).name if request.format.gene == "best" else gene
    say({**told, **({"gene": shown} if shown else {})}, as_json)


@app.command()
def convert(
    slide: Annotated[Path, typer.Argument(help="A Space Ranger folder, ST folder or H&E image file.")],
    out: Annotated[Path, typer.Option(help="The SpatialData Zarr to write.")],
    mpp: Mpp = None,
    image: ImageOption = None,
    table: TableOption = None,
    pitch: Pitch = None,
    spot: Spot = None,
    tissue: TissueOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a slide as a SpatialData Zarr with a chunked multiscale image.

    What is stopped by Ctrl-C, killed, or ended by a full disk goes on where it stood when the same is asked again.
    """
    from napari_hyperst.jobs.foreground import convert_here

    started = time.perf_counter()
    _check_lengths(mpp, pitch, spot)
    ref = SlideRef(
        path=slide.expanduser().absolute(), mpp=mpp, image=image, table=table, pitch_um=pitch, spot_um=spot,
        tissue=None if tissue is None else tissue.expanduser().absolute(),
    )  # fmt: skip
    task = ConvertTask(slide=ref, out=out.expanduser().absolute())
    ending = convert_here(task, show_events())
    if ending.kind == "stopped":
        say({"stopped": str(task.out), "resume": task.command}, as_json)
        raise typer.Exit(130)
    say({**ending.content, "seconds": time.perf_counter() - started}, as_json)


@app.command()
def info(
    what: Annotated[str, typer.Argument(help="A slide, a store of ours, or a checkpoint.")],
    mpp: Mpp = None,
    image: ImageOption = None,
    table: TableOption = None,
    pitch: Pitch = None,
    spot: Spot = None,
    tissue: TissueOption = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a slide holds and at what scale, what a table was made with, or what a checkpoint is."""
    if is_checkpoint(what):
        from napari_hyperst.models.checkpoint import load_checkpoint

        loaded = load_checkpoint(what)
        card = loaded.card.model_dump(mode="json")
        say({"checkpoint": what, "genes": len(loaded.panel), "sha256": loaded.sha256, **card}, as_json)
        return
    from napari_hyperst.slides import open_slide

    _check_lengths(mpp, pitch, spot)
    slide = open_slide(what, mpp, image=image, table=table, pitch_um=pitch, spot_um=spot, tissue=tissue)
    told = describe_slide(slide)
    predictions = describe_predictions(slide, in_words=not as_json)
    say({**told, **({"predictions": predictions} if predictions else {})}, as_json)


@app.command()
def train(
    slides: Annotated[list[Path] | None, typer.Option(help="Training slides: --slides A B …")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder, as it was set up.")] = None,
    val: Annotated[list[Path] | None, typer.Option(help="Validation slides, to choose the epoch on: --val C …")] = None,
    config: ConfigFile = None,
    settings: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Train HyperST, one of its ablations (method.ablation=NAME) or DELST (method.kind=delst) on some slides.

    The first Ctrl-C stops the run so that it can be resumed. Several processes, started by torchrun or accelerate
    launch, train together.
    """
    from napari_hyperst.jobs.foreground import train_beside, train_here
    from napari_hyperst.training.settings import read_config

    if resume is not None and any((slides, out, val, config, settings)):
        raise ConfigError("a run is resumed with the settings it has", where="--resume", do="leave other options out")
    asked = None if resume is not None else read_config(slides or [], val or [], out, config, settings or [])
    folder = resume if asked is None else asked.out
    assert folder is not None
    started = time.perf_counter()
    if int(os.environ.get("RANK", "0")) > 0:  # the first process writes and tells
        train_beside(asked, folder)
        return
    ending = train_here(asked, folder, show_events())
    told = {key: value for key, value in ending.content.items() if key not in ("epoch", "checkpoint")}
    seconds = time.perf_counter() - started
    if ending.kind == "stopped":
        say(
            {"stopped": str(folder), "resume": shlex.join(["napari-hyperst", "train", "--resume", str(folder)])},
            as_json,
        )
        raise typer.Exit(130)
    checkpoint = str(folder / str(ending.content["checkpoint"]))
    say({"checkpoint": checkpoint, "seconds": seconds, **({"validation": told} if told else {})}, as_json)


@app.command(name="settings")
def print_settings(config: ConfigFile = None, settings: Assignments = None, as_json: AsJson = False) -> None:
    """Print all settings of train, with what they are, as YAML for its --config; with --json, without."""
    from napari_hyperst.training.settings import settings_text
    from napari_hyperst.training.settings_file import read_value

    text = settings_text(config, settings or [])
    print(json.dumps(read_value(text), allow_nan=False, indent=2) if as_json else text.removesuffix("\n"))


@app.command()
def probe(
    test: Annotated[Path, typer.Argument(help="The held-out slide.")],
    slides: Annotated[list[Path], typer.Option(help="The checkpoint's training slides: --slides A B …")],
    checkpoint: Annotated[str, typer.Option(help="A folder, a bundled name, or hf://owner/repo.")] = DEFAULT_CHECKPOINT,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare a checkpoint with ridge probes: same genes, same training slides, features of the same encoder."""
    from napari_hyperst.evaluation.probe import compare_with_ridge
    from napari_hyperst.models.checkpoint import load_checkpoint
    from napari_hyperst.slides import open_slide

    loaded = load_checkpoint(checkpoint)
    result = compare_with_ridge(loaded, [open_slide(path) for path in slides], open_slide(test), device)
    say(result, as_json)


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Write a store and a picture into this folder, and open no window.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Open napari on the packaged slide, predicted; without a display write a store and a picture."""
    if out is None and not as_json and has_display():
        open_demo(device)
        return
    from napari_hyperst.evaluation.figure import draw_prediction
    from napari_hyperst.models.checkpoint import load_checkpoint
    from napari_hyperst.prediction import predict as run
    from napari_hyperst.slides import open_slide
    from napari_hyperst.slides.outputs import export

    out = _free_folder(out or Path("hyperst-demo"))
    prediction = run(
        open_slide(sample_folder()), load_checkpoint(DEFAULT_CHECKPOINT), device, show_progress("predicting: spots")
    )
    _make_folder(out)
    store = export(prediction, out / "C2.zarr", command=_command())
    picture = draw_prediction(prediction, out / "C2.png")
    say({**describe_prediction(prediction, store), "picture": str(picture)}, as_json)


@app.command()
def doctor(
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help="Delete decoded images and kept masks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what is installed, what there is to compute on, and where decoded images are kept."""
    import torch

    from napari_hyperst.models.checkpoint import package_versions
    from napari_hyperst.models.device import choose_device, choose_dtype
    from napari_hyperst.slides.decoded import cache_folder
    from napari_hyperst.slides.decoded import clear_cache as clear

    if clear_cache:
        clear()
    cache = cache_folder()
    device = choose_device()
    say(
        {
            "python": platform.python_version(),
            **package_versions(),
            "napari": version("napari"),
            "device": device.type,
            "precision": str(choose_dtype("auto", device)).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
            "checkpoints": list(bundled_checkpoints()),
            "cache": str(cache),
            "cache_mib": round(sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 2**20, 1),
        },
        as_json,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends with one line and exit status 2."""
    words = _spread_lists(list(sys.argv[1:] if arguments is None else arguments))
    warnings.showwarning = show_warning
    warnings.simplefilter("always", category=HyperSTWarning)
    try:
        app(args=words, prog_name="napari-hyperst", standalone_mode=True)
    except HyperSTError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _spread_lists(words: list[str]) -> list[str]:
    """Let ``--slides A B`` and ``--val C D`` stand for the option repeated."""
    spread: list[str] = []
    option = None
    for word in words:
        if word in ("--slides", "--val"):
            option = word
        elif word.startswith("-"):
            option = None
            spread.append(word)
        elif option is not None:
            spread += [option, word]
        else:
            spread.append(word)
    return spread


def _check_lengths(mpp: float | None, pitch: float | None, spot: float | None) -> None:
    lengths = (("--mpp", mpp, "scale in µm/px"), ("--pitch", pitch, "length in µm"), ("--spot", spot, "length in µm"))
    for option, number, what in lengths:
        if number is not None and not 0 < number < float("inf"):
            raise ConfigError(f"{number} is no {what}", where=option, do="state a positive number")


def _targets(slides: list[Path], out: Path) -> list[Path]:
    """Return one store for each slide: ``out`` itself for one, ``out/<name>.zarr`` for several."""
    if len(slides) == 1:
        return [out]
    if output_format(out) is not STORE:
        raise StoreError("holds one slide, not several", where=out, do="name a folder, and export from its stores")
    wholes = [slide.resolve().parent if slide.name == "outs" else slide.resolve() for slide in slides]
    names = [slide.stem if slide.suffix == ".zarr" or slide.is_file() else slide.name for slide in wholes]
    targets = [out / f"{name}.zarr" for name in names]
    twice = sorted({target.name for target in targets if targets.count(target) > 1})
    if twice:
        raise StoreError(f"several slides would be written to {twice[0]}", where=out, do="predict them one by one")
    return targets


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot be made ({error.strerror})", where=out, do="name another folder") from error


def _free_folder(out: Path) -> Path:
    """Return the folder, or the first of its name with a number where nothing is yet."""
    candidates = (out if i == 1 else out.with_name(f"{out.name}-{i}") for i in range(1, 1000))
    return next(folder for folder in candidates if not folder.exists())


def _command() -> str:
    return shlex.join(["napari-hyperst", *sys.argv[1:]])


if __name__ == "__main__":
    main()
