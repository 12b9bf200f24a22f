"""The model card of a checkpoint: what it is, what it was made of and how far to trust it, in Markdown."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_hyperst.errors import CheckpointError, StoreError
from napari_hyperst.models.encoders import known_encoder
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.encoders import EncoderSpec
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.settings import as_yaml
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.markdown import fenced, table, text
from napari_hyperst.training.portable import last_name, portable, portable_name
from napari_hyperst.training.report import PICTURE

#: The card's name, which the Hugging Face hub shows as a repository's page.
README = "README.md"
_METHODS = {
    "hyperst": "HyperST (arXiv 2511.22107): spots and their niches, images and genes, aligned in one space",
    "delst": "DELST (arXiv 2503.00804) as far as it is published; its defaults are ours, and this is no reproduction",
}
_PANELS = {
    "hmhvg": "highly-mean, highly-variable genes, chosen on the training slides only",
    "listed": "as they were listed",
}
_METRICS = {
    "pcc": "PCC, mean over genes, 0 for constant ones",
    "mse": "squared error of log2(count + 1)",
    "mae": "absolute error of log2(count + 1)",
    "constant_genes": "genes predicted or measured constant",
}
_STAINS = {
    "none": "",
    "white_balance": " Each slide's colours are scaled so that glass is white.",
    "macenko": " Each slide's haematoxylin and eosin are normalised to one reference (Macenko et al., ISBI 2009).",
    "reinhard": " Each slide's colours have the mean and the spread of one reference (Reinhard et al., CG&A 2001).",
}
#: How many genes are named; all are in the checkpoint's table.
_NAMED_GENES = 12


def write_model_card(card: Card, panel: GenePanel, folder: Path) -> Path:
    """Write ``README.md`` into the folder of a checkpoint; a ``report.png`` that is there is shown in it.

    Parameters
    ----------
    card, panel
        The checkpoint's.
    folder
        Its folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    path = folder / README
    staged = folder / f".{README}-{os.getpid()}"
    words = model_card(card, panel, picture=PICTURE if (folder / PICTURE).is_file() else None)
    try:
        staged.write_text(words, encoding="utf-8", errors="replace")  # names of files need not be Unicode
        os.replace(staged, path)
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=path, do="choose another folder") from error
    return path


def model_card(card: Card, panel: GenePanel, picture: str | None = None) -> str:
    """Return the model card of a checkpoint as Markdown, with the front matter that the Hugging Face hub reads.

    Nothing in it tells of the machine that trained: of paths, only their last names are written.

    Parameters
    ----------
    card, panel
        The checkpoint's.
    picture
        The picture of its training, by a path relative to the card.

    Returns
    -------
    str
        GitHub's Markdown.
    """
    encoder = _Encoder(card.method.encoder)
    lines = [
        *_front_matter(card, encoder),
        f"# {text(portable_name(card.name))}",
        "",
        "**For research use only.** Not for diagnosis.",
        "",
        *_paragraphs(_summary(card, panel)),
        "## Intended use",
        "",
        "To explore, in research, where in an H&E section genes of the panel may be expressed, beside a measurement"
        " where there is one; to compare methods; to start another model from. Not for decisions about patients, and"
        " not in place of a measurement.",
        "",
        "## How to use it",
        "",
        *_usage(),
        "## Method",
        "",
        *table(["setting", "value"], _method(card.method)),
        "",
        "## Encoder",
        "",
        *table(["", ""], encoder.facts(card)),
        "",
        "The licence is a note: read the terms where the weights are from.",
        "",
        "## Genes",
        "",
        *_paragraphs(_genes(card, panel)),
        "## Data",
        "",
        *_data(card),
        "## Agreement with measurement",
        "",
        *_metrics(card, len(panel), picture),
        "## Limits",
        "",
        *(f"- {limit}" for limit in _limits(card)),
        "",
        "## To train it again",
        "",
        *_recipe(card),
    ]
    if card.versions:
        lines += ["## Versions", "", *table(["package", "version"], list(card.versions.items())), ""]
    return "\n".join(lines)


class _Encoder:
    """What a card tells of an encoder.

    Parameters
    ----------
    name
        As a method's settings name it: with ``@``, a file of weights comes after it.
    """

    def __init__(self, name: str) -> None:
        base, self.is_local, place = name.partition("@")
        self.name = f"{base}@{last_name(place)}" if self.is_local else base
        self.spec: EncoderSpec | None
        try:
            self.spec = known_encoder(base)
        except CheckpointError:
            self.spec = None
        self.hub = self.spec.hub if self.spec is not None and not self.is_local else None

    @property
    def licence(self) -> str:
        if self.is_local:
            return "that of the local weights"
        return "not known" if self.spec is None else self.spec.licence

    def facts(self, card: Card) -> list[tuple[str, str]]:
        """Return rows of a table."""
        rows = [("name", self.name), ("sha256 of its weights", card.encoder_sha256), ("licence", self.licence)]
        if self.spec is not None:
            rows.insert(1, ("architecture", self.spec.timm_name))
        if self.hub is not None:
            rows.append(("weights", self.hub.page + (" (access must be granted)" if self.hub.gated else "")))
        return rows


def _front_matter(card: Card, encoder: _Encoder) -> list[str]:
    """Write what the hub reads; the licence is its owner's to choose, and so none of those that it knows."""
    tags = ["napari-hyperst", card.method.kind, "spatial-transcriptomics", "gene-expression", "histology", "pathology"]
    if card.method.alignment.embeddings and card.method.alignment.geometry == "hyperbolic":
        tags.append("hyperbolic")
    facts: dict[str, Any] = {
        "library_name": "napari-hyperst",
        "model_name": portable_name(card.name),
        "license": "other",
        "license_name": "not-stated",
        "tags": tags,
    }
    if encoder.hub is not None:
        facts |= {"base_model": encoder.hub.name, "base_model_relation": "adapter"}
    return ["---", *(f"{key}: {as_yaml(value)}" for key, value in facts.items()), "---", ""]


def _summary(card: Card, panel: GenePanel) -> list[str]:
    spots = sum(slide.spots for slide in card.training_slides)
    trained = f"Trained on {spots} spots of {_count(len(card.training_slides), 'slide')}." if spots else ""
    niche = "" if card.method.kind == "delst" else " and of its niche, the spot with its neighbours"
    return [
        f"Predicts {text(card.transform)} of {_count(len(panel), 'gene')} at each spot of a section, from a tile of its"
        f" H&E{niche}. {trained}".rstrip(),
        "Made with napari-hyperst. The weights here are those that were trained; the image encoder that they stand on"
        " is named below, not copied. Whoever publishes them states their licence; none is stated yet, and the"
        " encoder's terms hold for its part.",
    ]


def _usage() -> list[str]:
    shell = "napari-hyperst predict path/to/slide --checkpoint path/to/this/folder --out predicted.zarr"
    python = (
        "from napari_hyperst import export, load_checkpoint, open_slide, predict\n\n"
        'slide = open_slide("path/to/slide")\n'
        'prediction = predict(slide, load_checkpoint("path/to/this/folder"))\n'
        'export(prediction, "predicted.zarr")\n'
    )
    elsewhere = "From the Hugging Face hub it is `hf://owner/repository`; in napari, *Plugins > HyperST > Workbench*."
    return [*fenced(shell, "sh"), "", *fenced(python, "python"), "", elsewhere, ""]


def _method(method: HyperSTConfig | DELSTConfig) -> list[tuple[str, str]]:
    last = "last block" if method.lora_blocks == 1 else f"last {method.lora_blocks} blocks"
    blocks = f"on the {last}, rank {method.lora_rank}, scale {method.lora_alpha}, dropout {method.lora_dropout:g}"
    rows = [
        ("method", _METHODS[method.kind]),
        ("LoRA", blocks if method.lora_blocks else "none: the encoder is frozen"),
        ("width", str(method.dim)),
        ("dropout", f"{method.dropout:g}"),
    ]
    if isinstance(method, HyperSTConfig):
        decoded = " and ".join(method.decoder_inputs)
        rows.append(("decoder", f"{method.decoder_features} features of the {decoded} image"))
        rows.append(("linear path", "yes" if method.linear_path else "no"))
    else:
        within = f"{method.intra_weight:g}, the poorest and richest {method.quantile:.0%} of a slide's spots, both ways"
        rows.append(("weight of entailment within a slide", within))
    return rows + _alignment(method.alignment)


def _alignment(alignment: AlignmentConfig) -> list[tuple[str, str]]:
    if not alignment.embeddings:
        return [("alignment", "none")]
    rows = [
        ("geometry", alignment.geometry),
        ("weight of the alignment", f"{alignment.weight:g}"),
        (
            "contrastive, query → key",
            ", ".join(f"{_words(q)} → {_words(k)}" for q, k in alignment.contrastive) or "none",
        ),
        ("temperature at first", f"{alignment.temperature:g}"),
    ]
    if alignment.relations:
        relations = (f"{_words(one.parent)} → {_words(one.child)} (η {one.eta:g})" for one in alignment.relations)
        rows.append(("entailment, parent → child", ", ".join(relations)))
        scale = f"{alignment.entailment_weight:g} × {alignment.entailment_scale:g}"
        rows.append(("weight of their sum in the alignment", scale))
    else:
        rows.append(("entailment", "none"))
    if alignment.geometry == "hyperbolic":
        learnt = ", learnt" if alignment.learn_curvature else ", fixed"
        rows.append(("curvature at first", f"−{alignment.curvature:g}{learnt}"))
    return rows


def _genes(card: Card, panel: GenePanel) -> list[str]:
    names = ", ".join(text(gene) for gene in panel.genes[:_NAMED_GENES])
    more = ", … All are in `genes.csv`." if len(panel) > _NAMED_GENES else "."
    where = f" ({_names(card.panel_slides)})" if card.panel_slides else ""
    chosen = text(_PANELS.get(card.panel_method, card.panel_method))
    return [f"{_count(len(panel), 'gene')}, {chosen}{where}: {names}{more}"]


def _data(card: Card) -> list[str]:
    lines: list[str] = []
    for heading, slides in (
        ("Trained on:", card.training_slides),
        ("The encoder started from a checkpoint that was trained on:", card.encoder_slides),
    ):
        if slides:
            rows = [(portable_name(slide.name), slide.spots, round(slide.mpp, 3)) for slide in slides]
            lines += [heading, "", *table(["slide", "spots", "µm/px"], rows), ""]
    if card.validation_slides:
        lines.append(f"Settings or epoch were chosen on: {_names(card.validation_slides)}.")
    elif card.training.get("holdout"):
        lines.append(f"The epoch was chosen on a block, {card.training['holdout']:.0%} of the spots, of each of these.")
    else:
        lines.append("No slide was held out: there was nothing to choose settings or the epoch on.")
    ring = "the square that holds the spot and its ring of neighbours"
    niche = ring if card.tiles.niche_um == "ring" else f"{card.tiles.niche_um:g} µm"
    size = f"Tiles: spot {card.tiles.spot_um:g} µm, niche {niche}; both resampled to {card.tiles.pixels} px."
    return [*lines, "", size + _STAINS[card.tiles.stain], ""]


def _metrics(card: Card, genes: int, picture: str | None) -> list[str]:
    lines = []
    names = list(dict.fromkeys(name for found in card.metrics.values() for name in found))
    # PCC@k of a panel of no more than k genes is that of all.
    names = [name for name in names if not (_best(name) and _best(name) >= genes)]
    if names:
        sets = list(card.metrics)
        rows = [[_metric(name), *(card.metrics[one].get(name, "") for one in sets)] for name in names]
        lines += [*table(["", *sets], rows), ""]
        if any(map(_best, names)):
            lines += [
                "The best genes are those that came out best on these very spots, so those rows are optimistic.",
                "",
            ]
    else:
        lines += ["Nothing was measured.", ""]
    return lines + ([f"![Curves of the training run]({picture})", ""] if picture else [])


def _limits(card: Card) -> list[str]:
    side = f"{card.tiles.spot_um / card.tiles.pixels:.2g}"
    lines = []
    if card.training_slides:
        mpp = sorted({round(slide.mpp, 2) for slide in card.training_slides})
        scale = f"{mpp[0]:g}" if len(mpp) == 1 else f"{mpp[0]:g} to {mpp[-1]:g}"
        lines.append(
            f"It has seen {_count(len(card.training_slides), 'slide')}, at {scale} µm/px, and nothing else: on another"
            " tissue, disease, stain or scanner its predictions have no ground."
        )
    lines.append(
        f"A spot tile is sampled at {side} µm/px. H&E that is coarser than what it was trained on shows it less."
    )
    if card.validation_slides:
        lines.append(
            "The slides that it was validated on were chosen on, so the agreement on them is optimistic. Whether they"
            " are of other patients than those trained on is not recorded; sections of one patient say little about"
            " another."
        )
    else:
        if card.training.get("holdout"):
            lines.append("It was validated on blocks of the sections that it was trained on, which is optimistic.")
        lines.append("How well it predicts sections that it has not seen was not measured.")
    if card.transform == "log2(count+1)":
        lines.append("Its target keeps sequencing depth: a part of any correlation is that of depth, not of a gene.")
    if card.method.alignment.embeddings:
        lines.append("Norms, cones and violations describe this model; they are no measurement of the tissue.")
    return lines


def _recipe(card: Card) -> list[str]:
    command = ["napari-hyperst", "train", "--slides", *(portable_name(slide.name) for slide in card.training_slides)]
    if card.validation_slides:
        command += ["--val", *map(portable_name, card.validation_slides)]
    command += ["--config", "settings.yaml", "--out", "run"]
    shell = shlex.join(" ".join(word.split()) for word in command)
    settings = {name: card.training[name] for name in TrainConfig.model_fields if name in card.training}
    settings = {
        "name": card.name,
        **settings,
        "method": card.method.model_dump(mode="json"),
        "tiles": card.tiles.model_dump(),
    }
    settings = {name: portable(value) for name, value in settings.items()}
    lines = ["Give the paths of the slides for their names.", "", *fenced(shell, "sh"), ""]
    if "init_from" in card.training and "init_from_sha256" in card.training:
        start, sha256 = text(portable_name(str(card.training["init_from"]))), text(card.training["init_from_sha256"])
        lines += [f"The encoder started from the checkpoint {start}, whose weights have the sha256 {sha256}.", ""]
        settings["init_from"] = portable_name(str(card.training["init_from"]))
    return [
        *lines,
        "<details>",
        "<summary>settings.yaml</summary>",
        "",
        *fenced(as_yaml(settings, block=True), "yaml"),
        "",
        "</details>",
        "",
    ]


def _metric(name: str) -> str:
    return f"PCC, mean over the best {_best(name)}" if _best(name) else _METRICS.get(name, name)


def _best(metric: str) -> int:
    """Return the k of PCC@k; 0 for another metric."""
    k = metric.removeprefix("pcc@")
    return int(k) if k != metric and k.isdigit() else 0


def _paragraphs(paragraphs: Sequence[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (paragraph, "")]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _words(embedding: str) -> str:
    return embedding.replace("_", " ")


def _names(names: Sequence[str]) -> str:
    return ", ".join(text(portable_name(name)) for name in names)
