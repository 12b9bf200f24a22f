"""A picture of a training run, made of its events: every term and scalar over the epochs, and each gene's PCC."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from napari_hyperst.errors import StoreError
from napari_hyperst.nouns.events import EventReader

#: The picture's name in a checkpoint's folder.
PICTURE = "report.png"
_RESEARCH_USE = "For research use only."
_VALIDATION = "validation/"
# Okabe and Ito's colours, which most colour-blind people tell apart, without the yellow that white swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BLACK, _GREY = "#222222", "#8A8A8A"
_EMBEDDINGS = {
    "spot_image": "#0072B2", "niche_image": "#56B4E9", "spot_gene": "#D55E00", "niche_gene": "#E69F00",
    "image": "#0072B2", "gene": "#D55E00",
}  # fmt: skip
_LABELS = {
    "prediction": "prediction (squared error)", "pcc": "all genes", "mse": "squared error", "mae": "absolute error",
    "hca": "HCA: mean of the contrastive", "hea": "HEA: scaled sum of entailment", "contrastive": "contrastive: mean",
    "cross": "entailment across modalities", "intra": "entailment within a slide",
    "learning_rate": "heads", "lora_learning_rate": "LoRA",
}  # fmt: skip
#: Curves that the title of their panel tells enough of, where they are alone.
_TOLD_BY_TITLE = ("curvature", "temperature", "grad_norm", "learning_rate", "waiting", "validation/pcc")
_DASHED = (0, (3, 1.5))
#: Above this ratio of the largest to the least, an axis is logarithmic.
_WIDE = 50.0
#: How many of the best and of the worst genes are named, and how much of their names.
_NAMED, _NAME_LENGTH = 5, 18


@dataclass(frozen=True)
class RunHistory:
    """What a run told at the end of each epoch.

    Attributes
    ----------
    epochs
        (E,) the epochs, counted from 1, ascending.
    values
        (E,) of each number by its name; NaN where an epoch did not tell it.
    kept
        The epoch whose weights were kept, where that is known.
    """

    epochs: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    kept: int | None = None


@dataclass(frozen=True)
class _Panel:
    """Curves that share an axis.

    Attributes
    ----------
    title, unit
        What is written above and beside it.
    has
        Whether a number of the run, by name, belongs into it.
    share
        Whether it is a part of a whole, from 0 to 1.
    may_be_log
        Whether its axis is logarithmic where the values span a wide range.
    """

    title: str
    unit: str
    has: Callable[[str], bool]
    share: bool = False
    may_be_log: bool = False


def _any_of(*names: str, within: Sequence[str] = ()) -> Callable[[str], bool]:
    return lambda name: name in names or name.startswith(tuple(f"{prefix}/" for prefix in within))


#: In their order; a number is drawn in the first that has it, and what none has comes last.
_PANELS = (
    _Panel("Loss", "", _any_of("total", "prediction"), may_be_log=True),
    _Panel("Alignment", "before weights", _any_of("hca", "hea", "contrastive", "cross", "intra"), may_be_log=True),
    _Panel("Contrastive terms, query → key", "nats", _any_of(within=["contrastive"]), may_be_log=True),
    _Panel("Entailment terms, parent → child", "mean violation (radians)", _any_of(within=["entailment", "intra"])),
    _Panel("Entailment satisfied", "children in their parent's cone", _any_of(within=["satisfied"]), share=True),
    _Panel("Norms", "mean distance from the origin", _any_of(within=["norm"])),
    _Panel("Curvature", "c (the curvature is −c)", _any_of("curvature")),
    _Panel("Temperature", "of the contrastive terms", _any_of("temperature")),
    _Panel("Scales", "α of the tangent vectors", _any_of("alpha_image", "alpha_gene")),
    _Panel("Validation error", "of log2(count + 1)", _any_of(f"{_VALIDATION}mse", f"{_VALIDATION}mae")),
    _Panel("Validation PCC", "mean over genes", lambda name: name.startswith(f"{_VALIDATION}pcc")),
    _Panel("Gradient", "norm before clipping", _any_of("grad_norm"), may_be_log=True),
    _Panel("Learning rate", "", _any_of("learning_rate", "lora_learning_rate")),
    _Panel("Waiting for data", "share of time", _any_of("waiting"), share=True),
    _Panel("Others", "", lambda name: True),
)


def read_history(events: Path) -> RunHistory:
    """Read what a run told at the end of each epoch.

    Where a run was resumed, what had been told of the epochs that were done again is left out.

    Parameters
    ----------
    events
        The run's ``events.jsonl``.

    Raises
    ------
    StoreError
        If there is none, or no epoch in it.
    """
    told: dict[int, dict[str, float]] = {}
    kept: int | None = None
    for event in EventReader(events).new():
        number = event.content.get("epoch")
        if not isinstance(number, int):
            continue
        if event.kind == "epoch":
            told = {epoch: numbers for epoch, numbers in told.items() if epoch < number}
            told[number] = {
                name: float(value)
                for name, value in event.content.items()
                if name not in ("epoch", "of") and _is_number(value)
            }
        elif event.kind == "done":
            kept = number
    if not told:
        raise StoreError("tells of no epoch", where=events, do="train at least one epoch before drawing the run")
    names = dict.fromkeys(name for numbers in told.values() for name in numbers)
    values = {name: np.array([numbers.get(name, np.nan) for numbers in told.values()]) for name in names}
    return RunHistory(np.array(list(told)), values, kept)


def draw_run(
    events: Path,
    by_gene: NDArray[np.floating] | None,
    genes: Sequence[str],
    out: Path,
    *,
    kept: int | None = None,
    title: str = "",
) -> Path:
    """Draw a run.

    Parameters
    ----------
    events
        The run's ``events.jsonl``.
    by_gene
        (G,) each gene's PCC on the validation slides, NaN where it has none; None without validation.
    genes
        Their names.
    out
        The PNG to write.
    kept
        The epoch whose weights were kept; by default what the run's ``done`` says.
    title
        Written above.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StoreError
        If the events tell of no epoch, or the picture cannot be written.
    """
    history = read_history(events)
    if kept is not None:
        history = RunHistory(history.epochs, history.values, kept)
    figure = draw_history(history, by_gene, genes, title)
    staged = out.with_name(f".{out.name}-{os.getpid()}")
    try:
        figure.savefig(staged, format="png", dpi=110)
        os.replace(staged, out)
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=out, do="choose another folder") from error
    finally:
        staged.unlink(missing_ok=True)
    return out


def draw_history(
    history: RunHistory, by_gene: NDArray[np.floating] | None, genes: Sequence[str], title: str = ""
) -> Figure:
    """Draw what a run told; arguments as in ``draw_run``. Panels with nothing to show are left out."""
    drawn = _sort_into_panels(history)
    has_genes = by_gene is not None and bool(np.isfinite(by_gene).any())
    count = len(drawn) + has_genes
    # As few gaps as can be, in at most four rows of three or four.
    fitting = [n for n in (3, 4) if count <= 4 * n] or [4]
    columns = count if count <= 4 else min(fitting, key=lambda n: (-count % n, -n))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows + 0.5), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    relations = [name for panel, names in drawn if panel.title.startswith("Entailment") for name in names]
    colours = dict(zip(dict.fromkeys(map(_subject, relations)), cycle(_COLOURS), strict=False))
    for panel, names in drawn:
        _draw_curves(axes.pop(0), panel, names, history, colours if names[0] in relations else _EMBEDDINGS)
    if by_gene is not None and has_genes:
        _draw_genes(axes.pop(0), np.asarray(by_gene, float), genes)
    for left_over in axes:
        left_over.remove()
    last = int(history.epochs[-1])
    told = f"{last} epoch{'s' * (last != 1)}" + (f", weights of epoch {history.kept} kept" * (history.kept is not None))
    heading = f"{_shorten(title, 16 * columns)}: {told}" if title else told
    figure.suptitle(f"{heading}. {_RESEARCH_USE}", fontsize=12, parse_math=False)
    return figure


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sort_into_panels(history: RunHistory) -> list[tuple[_Panel, list[str]]]:
    """Return the panels that have something to show, with the names of their curves.

    A term's validation is drawn beside it, and so is not among them; what only validation has, is.
    """
    sorted_in: list[tuple[_Panel, list[str]]] = [(panel, []) for panel in _PANELS]
    told = {name: values for name, values in history.values.items() if np.isfinite(values).any()}
    for combined, group in (("hca", "contrastive/"), ("hea", "entailment/")):
        if not any(name.startswith(group) for name in told):  # a method without such terms: their sum says nothing
            told.pop(combined, None)
    every = history.values.get(f"{_VALIDATION}pcc")
    for name, values in told.items():
        term = name.removeprefix(_VALIDATION)
        # PCC@k of a panel of no more than k genes is that of all genes.
        repeated = term.startswith("pcc@") and every is not None and np.allclose(values, every, equal_nan=True)
        if term != "constant_genes" and not repeated and (term == name or term not in told):
            next(names for panel, names in sorted_in if panel.has(name)).append(name)
    return [(panel, names) for panel, names in sorted_in if names]


def _subject(name: str) -> str:
    """Return what a name speaks of: an embedding, a modality or a relation; by it, it has its colour."""
    last = name.removeprefix(_VALIDATION).rpartition("/")[2].removeprefix("alpha_")
    return {f"low_{kind}__high_{kind}": kind for kind in ("gene", "image")}.get(last, last)


def _draw_curves(
    axes: Axes, panel: _Panel, names: Sequence[str], history: RunHistory, colours: Mapping[str, str]
) -> None:
    epochs = history.epochs
    marker = "o" if len(epochs) <= 15 else ""
    shown: list[NDArray[np.float64]] = []
    validated = False
    for number, name in enumerate(names):
        shown.append(history.values[name])
        colour = colours.get(_subject(name), _COLOURS[number % len(_COLOURS)])
        axes.plot(epochs, shown[-1], color=colour, lw=1.6, marker=marker, ms=3.5, label=_label(name))
        held_out = _validation_of(name, history)
        if held_out is not None:
            validated = True
            shown.append(held_out)
            axes.plot(epochs, held_out, color=colour, lw=1.4, ls=_DASHED, marker=marker, ms=4.5, mfc="white")
    handles, labels = axes.get_legend_handles_labels()
    if validated:
        handles.append(Line2D([], [], color=_BLACK, lw=1.4, ls=_DASHED, marker=marker, ms=4.5, mfc="white"))
        labels.append("validation")
    if history.kept is not None and history.kept in epochs:
        kept = axes.axvline(history.kept, color=_GREY, lw=1, ls=":", zorder=0)
        if panel is _PANELS[0]:
            handles.append(kept)
            labels.append("epoch kept")
    _set_limits(axes, panel, np.concatenate(shown), epochs)
    _tidy(axes, panel.title, panel.unit)
    if len(handles) > 1 or names[0] not in _TOLD_BY_TITLE:
        _add_legend(axes, handles, labels)


def _add_legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Put the legend below, where it hides nothing."""
    axes.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=7.5, frameon=False,
        handlelength=2.2, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip


def _validation_of(name: str, history: RunHistory) -> NDArray[np.float64] | None:
    """Return a training term's validation; that of prediction may go by the name of what it is."""
    other = {"prediction": f"{_VALIDATION}mse"}.get(name, "")
    found = history.values.get(f"{_VALIDATION}{name}", history.values.get(other))
    return found if found is not None and np.isfinite(found).any() else None


def _set_limits(axes: Axes, panel: _Panel, values: NDArray[np.float64], epochs: NDArray[np.int64]) -> None:
    first, last = int(epochs[0]), int(epochs[-1])
    margin = max(0.5, 0.02 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    finite = values[np.isfinite(values)]
    if panel.share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    elif panel.may_be_log and finite.min() > 0 and finite.max() / finite.min() > _WIDE:
        axes.set_yscale("log")


def _tidy(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10.5, loc="left", fontweight="bold", color=_BLACK)
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(name: str) -> str:
    """Return a name as it is shown; "→" leads from the query to the key, and from the parent to the child."""
    bare = name.removeprefix(_VALIDATION)
    group, _, last = bare.rpartition("/")
    if bare in _LABELS:
        return _LABELS[bare]
    if bare.startswith("pcc@"):
        return f"best {bare.removeprefix('pcc@')}"
    if group == "intra" or last.startswith("low_"):
        return f"spot poor in genes → rich, {_subject(name)}"
    words = last.replace("__", " → ").replace("_", " ").removeprefix("alpha ")
    if group not in ("", "contrastive", "entailment", "satisfied", "norm"):
        words = f"{group.replace('_', ' ')}: {words}"
    return f"{words} (validation)" if name.startswith(_VALIDATION) else words


def _draw_genes(axes: Axes, by_gene: NDArray[np.float64], genes: Sequence[str]) -> None:
    """Draw the genes' PCC from the best to the worst, and name those at the ends."""
    there = np.flatnonzero(np.isfinite(by_gene))
    order = there[np.argsort(-by_gene[there], kind="stable")]
    pcc = by_gene[order]
    rank = np.arange(1, len(order) + 1)
    axes.plot(rank, pcc, color=_COLOURS[0], lw=1.2, marker="o", ms=3 if len(order) > 40 else 4.5)
    missing = len(by_gene) - len(order)
    mean = float(np.nan_to_num(by_gene).mean())
    line = axes.axhline(mean, color=_COLOURS[1], lw=1.2, ls="--")
    low, high = min(0.0, float(pcc.min())), max(0.0, float(pcc.max()))
    room = 0.08 * max(high - low, 0.1)
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(0.5 - 0.02 * len(order), len(order) * 1.02 + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    named = max(1, min(_NAMED, len(order) // 2))
    for ends, where, place in ((order[:named], "best", (0.98, 0.97)), (order[-named:], "worst", (0.03, 0.04))):
        if where == "worst" and len(order) < 2:
            continue
        lines = [f"{_shorten(genes[gene], _NAME_LENGTH)}  {by_gene[gene]:.2f}" for gene in ends]
        axes.text(
            *place, "\n".join([where, *lines]), transform=axes.transAxes, fontsize=7.5, color=_BLACK,
            ha="right" if where == "best" else "left", va="top" if where == "best" else "bottom", parse_math=False,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    _tidy(axes, "Validation PCC by gene", "PCC")
    axes.set_xlabel("gene, by rank", fontsize=8)
    _add_legend(axes, [line], [f"mean {mean:.3f}" + f", with 0 for {missing} without a PCC" * bool(missing)])


def _shorten(text: str, length: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
