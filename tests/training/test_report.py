"""The picture of a run: what is drawn is what was told, and what was not told has no panel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from napari_hyperst.errors import StoreError
from napari_hyperst.nouns.events import EventLog
from napari_hyperst.training.report import RunHistory, draw_history, draw_run, read_history

GENES = [f"GENE{i}" for i in range(12)]
RELATIONS = ("spot_image__spot_gene", "niche_image__niche_gene", "spot_image__niche_image", "spot_gene__niche_gene")
PAIRS = ("spot_image__spot_gene", "spot_gene__spot_image", "niche_image__spot_gene", "niche_gene__spot_image")
EMBEDDINGS = ("spot_image", "niche_image", "spot_gene", "niche_gene")
SCALARS = ("curvature", "temperature", "alpha_image", "alpha_gene")
LOSS = ("total", "prediction")
ALIGNED = (*LOSS, "hca", "hea", *(f"contrastive/{pair}" for pair in PAIRS))
ENTAILED = (*(f"entailment/{name}" for name in RELATIONS), *(f"satisfied/{name}" for name in RELATIONS))
NORMS = tuple(f"norm/{name}" for name in EMBEDDINGS)
VALIDATED = ("validation/pcc", "validation/pcc@10", "validation/mse", "validation/mae", "validation/constant_genes")
DELST = (
    *LOSS, "contrastive", "cross", "intra", "intra/gene", "intra/image", "contrastive/spot_image__spot_gene",
    "contrastive/spot_gene__spot_image", "entailment/spot_gene__spot_image", "satisfied/spot_gene__spot_image",
    "satisfied/low_gene__high_gene", "satisfied/low_image__high_image", "norm/spot_image", "norm/spot_gene", *SCALARS,
)  # fmt: skip
LOOP = ("grad_norm", "learning_rate", "waiting")

ALIGNMENT = ["Loss", "Alignment", "Contrastive terms, query → key"]
ENTAILMENT = ["Entailment terms, parent → child", "Entailment satisfied"]
VALIDATION = ["Validation error", "Validation PCC", "Validation PCC by gene"]
#: Of each method, what it tells, whether it was validated, and the panels that then are drawn.
METHODS: dict[str, tuple[tuple[str, ...], bool, list[str]]] = {
    "hyperst": (
        (*ALIGNED, *ENTAILED, *NORMS, *SCALARS, *VALIDATED, *LOOP), True,
        [*ALIGNMENT, *ENTAILMENT, "Norms", "Curvature", "Temperature", "Scales", *VALIDATION[:2], "Gradient",
         "Learning rate", "Waiting for data", VALIDATION[2]],
    ),
    "no validation": (
        (*ALIGNED, *ENTAILED, *NORMS, *SCALARS), False,
        [*ALIGNMENT, *ENTAILMENT, "Norms", "Curvature", "Temperature", "Scales"],
    ),
    "euclidean": (
        (*ALIGNED, *ENTAILED, *NORMS, *SCALARS[1:], *VALIDATED), True,
        [*ALIGNMENT, *ENTAILMENT, "Norms", "Temperature", "Scales", *VALIDATION],
    ),
    "clip": ((*ALIGNED, "temperature", *VALIDATED), True, [*ALIGNMENT, "Temperature", *VALIDATION]),
    "without-hha": ((*LOSS, *VALIDATED), True, ["Loss", *VALIDATION]),
    "delst": (
        (*DELST, *VALIDATED), True,
        [*ALIGNMENT, *ENTAILMENT, "Norms", "Curvature", "Temperature", "Scales", *VALIDATION],
    ),
}  # fmt: skip


def numbers(names: Iterable[str], epochs: int) -> dict[str, np.ndarray]:
    """Return a curve for each name that no other has."""
    return {name: np.linspace(2 + i, 1 + i / 2, epochs) for i, name in enumerate(names)}


def history(names: Iterable[str], epochs: int = 20, kept: int | None = None) -> RunHistory:
    return RunHistory(np.arange(1, epochs + 1), numbers(names, epochs), kept)


def write_events(path: Path, told: Iterable[tuple[str, Mapping[str, Any]]]) -> Path:
    log = EventLog(path)
    for kind, content in told:
        log.append(kind, dict(content))
    return path


def by_title(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def curves(axes: Axes) -> dict[str, np.ndarray]:
    """Return the curves of the legend by their label; there are no others but validation's."""
    return {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in axes.get_lines()}


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


@pytest.mark.parametrize("epochs", [1, 2, 40])
@pytest.mark.parametrize("name", METHODS)
def test_panels_are_those_with_something_to_show(name: str, epochs: int) -> None:
    told, validated, titles = METHODS[name]
    by_gene = np.linspace(-0.2, 0.9, len(GENES)) if validated else None
    figure = draw_history(history(told, epochs), by_gene, GENES)
    assert list(by_title(figure)) == titles
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.has_data()
        assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()


@pytest.mark.parametrize("name", METHODS)
def test_every_number_told_is_drawn_once_in_some_panel(name: str) -> None:
    told, _, _ = METHODS[name]
    run = history(told)
    drawn = [tuple(line.get_ydata()) for axes in draw_history(run, None, []).axes for line in axes.get_lines()]
    for number in told:
        if number != "validation/constant_genes" and not (name == "clip" and number == "hea"):
            times = (
                2 if number == "validation/mse" else 1
            )  # beside prediction, which it is the validation of, and alone
            assert drawn.count(tuple(run.values[number])) == times, number


def test_curves_have_their_names_and_validation_is_dashed_in_the_same_colour() -> None:
    told = (*ALIGNED, *ENTAILED, *NORMS, "validation/total", "validation/prediction", "validation/norm/spot_gene")
    run = history(told, kept=7)
    panels = by_title(draw_history(run, None, []))
    loss = panels["Loss"]
    assert legend(loss) == ["total", "prediction (squared error)", "validation", "epoch kept"]
    solid = {str(line.get_label()): line for line in loss.get_lines() if line.get_linestyle() == "-"}
    dashed = {str(line.get_color()): line for line in loss.get_lines() if line.get_linestyle() == "--"}
    for label, name in (("total", "total"), ("prediction (squared error)", "prediction")):
        np.testing.assert_array_equal(solid[label].get_ydata(), run.values[name])
        held_out = dashed[str(solid[label].get_color())]
        np.testing.assert_array_equal(held_out.get_ydata(), run.values[f"validation/{name}"])
    assert [tuple(line.get_xdata()) for line in loss.get_lines() if line.get_linestyle() == ":"] == [(7, 7)]
    contrastive = panels["Contrastive terms, query → key"]
    assert legend(contrastive) == [
        "spot image → spot gene", "spot gene → spot image", "niche image → spot gene", "niche gene → spot image",
    ]  # fmt: skip
    named = curves(contrastive)["niche gene → spot image"]
    np.testing.assert_array_equal(named, run.values["contrastive/niche_gene__spot_image"])
    assert legend(panels["Norms"]) == ["spot image", "niche image", "spot gene", "niche gene", "validation"]
    assert panels["Entailment satisfied"].get_ylim() == (-0.03, 1.03)


def test_a_relation_has_one_colour_in_both_panels_and_none_shares_it() -> None:
    for told in ((*ALIGNED, *ENTAILED), DELST):
        panels = by_title(draw_history(history(told), None, []))
        colours = [
            {str(line.get_label()): str(line.get_color()) for line in panels[title].get_lines()} for title in ENTAILMENT
        ]
        assert colours[0] == colours[1]
        assert len(set(colours[0].values())) == len(colours[0]) in (3, 4)


def test_no_two_curves_of_a_panel_look_alike() -> None:
    for told, _, _ in METHODS.values():
        for axes in draw_history(history(told), None, []).axes:
            looks = [(str(line.get_color()), line.get_linestyle()) for line in axes.get_lines()]
            assert len(set(looks)) == len(looks), axes.get_title(loc="left")


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_clipped_and_no_panel_reaches_into_another(name: str) -> None:
    """With all that is written at it: titles, numbers, labels and legends."""
    told, validated, _ = METHODS[name]
    genes = [f"{gene}-OF-A-LONG-NAME" for gene in GENES]
    by_gene = np.linspace(0.9, -0.2, 12) if validated else None
    figure = draw_history(history(told, kept=3), by_gene, genes, "odd name " * 9)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [text.get_window_extent() for text in figure.texts]
    assert len(boxes) == len(figure.axes) + 1
    for box in boxes:
        assert box is not None
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert [other for other in boxes if other is not box and box.overlaps(other)] == []


def test_the_best_and_the_worst_genes_are_named() -> None:
    by_gene = np.array([0.1, 0.9, np.nan, 0.5, -0.3, 0.7, 0.2, 0.3, 0.4, 0.6, 0.8, 0.0])
    names = [f"G{i}" for i in range(12)]
    names[1], names[4] = "A_$very$_long_name_of_a_gene", "HLA-DRB1"
    panel = by_title(draw_history(history(LOSS), by_gene, names))["Validation PCC by gene"]
    (curve,) = (line for line in panel.get_lines() if len(line.get_xdata()) == 11)
    np.testing.assert_array_equal(curve.get_ydata(), np.sort(by_gene[np.isfinite(by_gene)])[::-1])
    best, worst = (text.get_text().splitlines() for text in panel.texts)
    assert best == ["best", "A_$very$_long_nam…  0.90", "G10  0.80", "G5  0.70", "G9  0.60", "G3  0.50"]
    assert worst == ["worst", "G7  0.30", "G6  0.20", "G0  0.10", "G11  0.00", "HLA-DRB1  -0.30"]
    assert legend(panel) == [f"mean {np.nansum(by_gene) / 12:.3f}, with 0 for 1 without a PCC"]


@pytest.mark.parametrize("genes", [1, 2, 3, 200])
def test_panels_of_any_size_are_drawn(genes: int) -> None:
    names = [f"G{i}" for i in range(genes)]
    panel = by_title(draw_history(history(LOSS), np.linspace(0, 1, genes), names))["Validation PCC by gene"]
    told = [line.partition("  ")[0] for text in panel.texts for line in text.get_text().splitlines()[1:]]
    assert len(told) == len(set(told)) == {1: 1, 2: 2, 3: 2, 200: 10}[genes]
    assert draw_history(history(LOSS), np.full(3, np.nan), names[:3]).axes[-1].get_title(loc="left") == "Loss"


def test_pcc_at_k_of_a_panel_of_no_more_genes_is_drawn_once() -> None:
    told = numbers(("total", "validation/pcc", "validation/pcc@10"), 4)
    told["validation/pcc@200"] = told["validation/pcc"]
    panel = by_title(draw_history(RunHistory(np.arange(1, 5), told), None, []))["Validation PCC"]
    assert legend(panel) == ["all genes", "best 10"]


def test_a_term_that_no_panel_knows_is_drawn_among_others() -> None:
    panel = by_title(draw_history(history((*LOSS, "rate/new_term", "validation/other")), None, []))["Others"]
    assert legend(panel) == ["rate: new term", "other (validation)"]


def test_losses_over_decades_are_drawn_on_a_logarithmic_axis() -> None:
    wide = {"total": np.array([1000.0, 3.0, 1.0]), "prediction": np.array([900.0, 2.0, 0.5])}
    assert draw_history(RunHistory(np.arange(1, 4), wide), None, []).axes[0].get_yscale() == "log"
    assert draw_history(history(LOSS), None, []).axes[0].get_yscale() == "linear"


def test_what_was_told_before_a_resume_is_left_out(tmp_path: Path) -> None:
    """The run was killed in epoch 4 and went on from epoch 2."""
    told = [("start", {"device": "cpu"}), *(("epoch", {"epoch": e, "of": 5, "total": float(e)}) for e in (1, 2, 3))]
    told += [("step", {"step": 31, "total": 1.0}), ("start", {"device": "cpu"})]
    told += [("epoch", {"epoch": e, "of": 5, "total": 10.0 * e, "new": True, "said": "x"}) for e in (2, 3)]
    found = read_history(write_events(tmp_path / "e.jsonl", told))
    assert found.epochs.tolist() == [1, 2, 3]
    assert {name: values.tolist() for name, values in found.values.items()} == {"total": [1.0, 20.0, 30.0]}
    assert found.kept is None
    found = read_history(
        write_events(tmp_path / "e.jsonl", [("epoch", {"epoch": 2, "total": 0.5}), ("done", {"epoch": 1})])
    )
    assert found.epochs.tolist() == [1, 2]
    assert found.kept == 1


def test_a_number_that_some_epochs_lack_and_one_that_is_none(tmp_path: Path) -> None:
    told = [("epoch", {"epoch": 1, "total": 1.0}), ("epoch", {"epoch": 2, "total": float("nan"), "hca": 3.0})]
    found = read_history(write_events(tmp_path / "e.jsonl", told))
    np.testing.assert_array_equal(found.values["hca"], [np.nan, 3.0])
    np.testing.assert_array_equal(found.values["total"], [1.0, np.nan])
    assert list(by_title(draw_history(found, None, []))) == ["Loss"]


def test_the_picture_is_written_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    run = numbers((*ALIGNED, *ENTAILED, *VALIDATED), 3)
    epochs = [{"epoch": e + 1, "of": 3} | {name: v[e] for name, v in run.items()} for e in range(3)]
    events = write_events(tmp_path / "e.jsonl", [*(("epoch", e) for e in epochs), ("done", {"epoch": 2})])
    out = tmp_path / "report.png"
    out.write_text("old")
    assert draw_run(events, np.linspace(0, 1, 12), GENES, out, title="a $name$\nof_it") == out
    with Image.open(out) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 1400
        assert np.asarray(picture.convert("L")).std() > 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["e.jsonl", "report.png"]


def test_the_title_says_what_is_drawn() -> None:
    assert draw_history(history(LOSS, 1), None, []).get_suptitle() == "1 epoch. For research use only."
    figure = draw_history(history(LOSS, 9, kept=4), None, [], "mine")
    assert figure.get_suptitle() == "mine: 9 epochs, weights of epoch 4 kept. For research use only."


def test_a_run_without_an_epoch_or_a_place_to_write_is_told(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.jsonl", [("start", {}), ("step", {"step": 1, "epoch": 1})])
    for path in (events, tmp_path / "none.jsonl"):
        with pytest.raises(StoreError, match="tells of no epoch"):
            draw_run(path, None, [], tmp_path / "report.png")
    write_events(events, [("epoch", {"epoch": 1, "total": 1.0})])
    with pytest.raises(StoreError, match="cannot be written"):
        draw_run(events, None, [], tmp_path / "none" / "report.png")
    assert [file.name for file in tmp_path.iterdir()] == ["e.jsonl"]


def test_drawing_needs_no_display_and_leaves_pyplot_alone(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(json.dumps({"kind": "epoch", "time": 0, "epoch": 1, "total": 1.0}) + "\n")
    code = f"""
import os, sys
os.environ["MPLBACKEND"] = "qtagg"
os.environ.pop("DISPLAY", None)
from pathlib import Path
from napari_hyperst.training.report import draw_run
draw_run(Path({str(tmp_path / "e.jsonl")!r}), None, [], Path({str(tmp_path / "r.png")!r}))
print(sorted({{"matplotlib.pyplot", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "r.png").is_file()
