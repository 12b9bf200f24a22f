"""The model card, read back as a page would be: by a parser of Markdown, and of YAML."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from napari_hyperst.errors import StoreError
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.nouns.ablations import ABLATIONS, ablation
from napari_hyperst.nouns.checkpoint import Card, TrainingSlide
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.card import model_card, write_model_card
from napari_hyperst.training.markdown import fenced, table, text
from napari_hyperst.training.settings import read_config

PANEL = GenePanel(tuple(f"GENE_{i}" for i in range(60)), "hmhvg", ("C3", "C4"))
METRICS = {
    "pcc": 0.51234,
    "pcc@10": 0.7,
    "pcc@50": 0.6,
    "pcc@200": 0.51234,
    "mse": 1.25,
    "mae": 0.75,
    "constant_genes": 2,
}
CONFIG = TrainConfig(
    slides=(Path("data/C3"), Path("data/C4")), validation=(Path("data/C5"),), out=Path("runs/mine"), name="mine",
    method=HyperSTConfig(lora_blocks=1, dim=64), tiles=TileSpec(niche_um=250), epochs=7, cache="off",
    learning_rate=2e-5, micro_batch=None, trackers=("wandb",),
)  # fmt: skip
ODD = (
    "a|b",
    "_under_ *star*",
    "line\nbreak  twice",
    "`tick` ``two``",
    "<b>&amp;",
    "$x$ #1 ~~no~~ [l](u)",
    "\\",
    "café 组织",
)


def card_of(config: TrainConfig = CONFIG, **changes: Any) -> Card:
    """Return the card that the trainer makes of a run with these settings."""
    elsewhere = {"slides", "validation", "out", "name", "method", "tiles", "init_from"}
    fields: dict[str, Any] = {
        "name": config.name,
        "method": config.method,
        "encoder_sha256": "89d7" * 16,
        "tiles": config.tiles,
        "panel_method": PANEL.method,
        "panel_slides": PANEL.slides,
        "training_slides": tuple(
            TrainingSlide(name=path.name, fingerprint=f"f{i}", spots=180 + i, mpp=0.68 + 0.02 * i)
            for i, path in enumerate(config.slides)
        ),
        "validation_slides": tuple(path.name for path in config.validation),
        "training": config.model_dump(mode="json", exclude=elsewhere),
        "metrics": {"validation": METRICS},
        "versions": {"napari-hyperst": "0.1.0", "torch": "2.15.0"},
    }
    return Card(**(fields | changes))


class Page:
    """A page of Markdown, parsed."""

    def __init__(self, source: str) -> None:
        assert source.startswith("---\n")
        front, _, body = source[4:].partition("\n---\n")
        self.source, self.front = source, yaml.safe_load(front)
        self.tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(body)
        self.headings = [
            _plain(self.tokens[i + 1]) for i, token in enumerate(self.tokens) if token.type == "heading_open"
        ]
        self.paragraphs = [
            _plain(self.tokens[i + 1]) for i, token in enumerate(self.tokens) if token.type == "paragraph_open"
        ]
        self.code = {token.info: token.content for token in self.tokens if token.type == "fence"}
        self.tables: list[list[list[str]]] = []
        for i, token in enumerate(self.tokens):
            if token.type == "table_open":
                self.tables.append([])
            elif token.type == "tr_open":
                self.tables[-1].append([])
            elif token.type in ("td_open", "th_open"):
                self.tables[-1][-1].append(_plain(self.tokens[i + 1]))

    def facts(self, first: str) -> dict[str, str]:
        """Return the rows of the table that has this at the head of a row or a column."""
        found = [rows for rows in self.tables if first in [rows[0][0], *(row[0] for row in rows)]]
        assert len(found) == 1, first
        return {row[0]: row[-1] for row in found[0][1:]}


def _plain(token: Token) -> str:
    """Return what a reader sees of a line; markup in it would show as another kind of token."""
    return "".join(
        child.content for child in token.children or () if child.type in ("text", "code_inline", "text_special")
    )


def shown(words: str) -> str:
    return " ".join(words.split())


def test_a_card_says_what_it_is_what_it_saw_and_how_well_it_did() -> None:
    page = Page(model_card(card_of(), PANEL, "report.png"))
    assert page.front["library_name"] == "napari-hyperst"
    assert page.front["license"] == "other"
    assert {"napari-hyperst", "hyperst", "hyperbolic", "spatial-transcriptomics"} <= set(page.front["tags"])
    assert page.headings == [
        "mine", "Intended use", "How to use it", "Method", "Encoder", "Genes", "Data", "Agreement with measurement",
        "Limits", "To train it again", "Versions",
    ]  # fmt: skip
    assert page.paragraphs[0] == "For research use only. Not for diagnosis."
    assert page.paragraphs[1].startswith("Predicts log2(count+1) of 60 genes at each spot")
    assert page.paragraphs[1].endswith("Trained on 361 spots of 2 slides.")
    method = page.facts("method")
    assert method["method"].startswith("HyperST")
    assert method["LoRA"] == "on the last block, rank 8, scale 16, dropout 0.1"
    assert method["width"] == "64"
    assert method["entailment, parent → child"].startswith("spot image → spot gene (η 0.7), niche image →")
    assert method["curvature at first"] == "−1, learnt"
    encoder = page.facts("sha256 of its weights")
    assert encoder["sha256 of its weights"] == "89d7" * 16
    assert encoder["licence"] == "Apache-2.0"
    assert encoder["name"] == "dinov2-vits14"
    (genes,) = (words for words in page.paragraphs if words.startswith("60 genes"))
    assert "chosen on the training slides only (C3, C4): GENE_0, GENE_1," in genes
    assert genes.endswith("GENE_11, … All are in genes.csv.")
    slides = next(rows for rows in page.tables if rows[0] == ["slide", "spots", "µm/px"])
    assert slides[1:] == [["C3", "180", "0.68"], ["C4", "181", "0.7"]]
    assert "Settings or epoch were chosen on: C5." in page.paragraphs
    assert "Tiles: spot 112 µm, niche 250 µm; both resampled to 224 px." in page.paragraphs
    metrics = page.facts("PCC, mean over genes, 0 for constant ones")
    assert metrics == {
        "PCC, mean over genes, 0 for constant ones": "0.5123",
        "PCC, mean over the best 10": "0.7",
        "PCC, mean over the best 50": "0.6",
        "squared error of log2(count + 1)": "1.25",
        "absolute error of log2(count + 1)": "0.75",
        "genes predicted or measured constant": "2",
    }
    images = [child for token in page.tokens for child in token.children or () if child.type == "image"]
    assert [image.attrs["src"] for image in images] == ["report.png"]
    assert page.facts("package") == {"napari-hyperst": "0.1.0", "torch": "2.15.0"}
    limits = " ".join(page.paragraphs)
    assert "It has seen 2 slides, at 0.68 to 0.7 µm/px, and nothing else" in limits
    assert "sampled at 0.5 µm/px" in limits
    assert "so the agreement on them is optimistic" in limits
    assert "sequencing depth" in limits


def test_its_code_runs_as_it_stands() -> None:
    page = Page(model_card(card_of(), PANEL))
    compile(page.code["python"], "card", "exec")
    namespace: dict[str, Any] = {}
    exec(page.code["python"].partition("\n\n")[0], namespace)
    assert {"export", "load_checkpoint", "open_slide", "predict"} <= set(namespace)


METHODS = {
    **{name: ablation(name) for name in ABLATIONS},
    "delst": DELSTConfig(parent="image"),
    "paper": HyperSTConfig(alignment=AlignmentConfig.preset("paper")),
}


@pytest.mark.parametrize("name", METHODS)
def test_its_settings_and_command_repeat_the_run(name: str, tmp_path: Path) -> None:
    """All settings come back; of the slides, the names."""
    config = CONFIG.model_copy(update={"method": METHODS[name]})
    page = Page(model_card(card_of(config), PANEL))
    (tmp_path / "settings.yaml").write_text(page.code["yaml"])
    commands = [token.content for token in page.tokens if token.type == "fence" and token.info == "sh"]
    words = shlex.split(commands[-1])
    assert words[:3] == ["napari-hyperst", "train", "--slides"]
    cuts = [words.index(option) for option in ("--val", "--config", "--out")]
    slides, validation = map(Path, words[3 : cuts[0]]), map(Path, words[cuts[0] + 1 : cuts[1]])
    assert words[cuts[1] + 1] == "settings.yaml"
    found = read_config(list(slides), list(validation), Path("runs/mine"), tmp_path / "settings.yaml", [])
    assert found == config.model_copy(update={"slides": (Path("C3"), Path("C4")), "validation": (Path("C5"),)})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_card_of_its_own_terms(name: str) -> None:
    method = METHODS[name]
    page = Page(model_card(card_of(method=method), PANEL))
    facts = page.facts("method")
    aligned = method.alignment
    assert page.front["tags"][1] == method.kind
    assert ("hyperbolic" in page.front["tags"]) == bool(aligned.embeddings and aligned.geometry == "hyperbolic")
    assert facts["LoRA"].startswith("on the last" if method.lora_blocks else "none")
    if not aligned.embeddings:
        assert facts["alignment"] == "none"
        assert not any(words.startswith("Norms, cones") for words in page.paragraphs)
        return
    assert facts["geometry"] == aligned.geometry
    assert ("curvature at first" in facts) == (aligned.geometry == "hyperbolic")
    told = facts.get("entailment, parent → child", "")
    assert told.count("→") == len(aligned.relations)
    assert ("entailment" in facts) == (not aligned.relations)
    if method.kind == "delst":
        assert "no reproduction" in facts["method"]
        assert "niche" not in page.paragraphs[1]


def test_odd_names_stay_what_they_are() -> None:
    slides = tuple(TrainingSlide(name=name, fingerprint=str(i), spots=1, mpp=0.5) for i, name in enumerate(ODD))
    changes = {"training_slides": slides, "validation_slides": ODD, "panel_slides": ODD, "panel_method": "by | hand_"}
    changes |= {"metrics": {ODD[0]: {"odd | one_": 1.0}}, "versions": {"a|b": "1_2_3"}}
    plain = Page(model_card(card_of(), PANEL))
    for name in ODD:
        page = Page(model_card(card_of(name=name, **changes), GenePanel(ODD)))
        assert page.headings == [shown(name), *plain.headings[1:]]
        assert page.front["model_name"] == shown(name)
        assert yaml.safe_load(page.code["yaml"])["name"] == shown(name)
        table_of_slides = next(rows for rows in page.tables if rows[0] == ["slide", "spots", "µm/px"])
        assert [row[0] for row in table_of_slides[1:]] == [shown(odd) for odd in ODD]
        listed = ", ".join(shown(odd) for odd in ODD)
        assert f"Settings or epoch were chosen on: {listed}." in page.paragraphs
        assert f"8 genes, by | hand_ ({listed}): {listed}." in page.paragraphs
        assert page.facts("odd | one_") == {"odd | one_": "1"}
        assert page.facts("package")["a|b"] == "1_2_3"
        kinds = {token.type for token in page.tokens} | {c.type for t in page.tokens for c in t.children or ()}
        assert not {"link_open", "s_open", "html_inline", "hr", "blockquote_open", "code_block"} & kinds


def test_nothing_of_this_machine_is_told() -> None:
    """Paths from the root or the home, in whatever field they may have come, are told by their last names."""
    roots = ("/home/someone/secret", "/secret/place", "C:\\Users\\someone\\secret", "~/secret", "\\\\server\\secret")
    for root in roots:
        mark = "\\" if "\\" in root else "/"
        encoder = f"vit_small_patch16_224@{root}{mark}weights.safetensors"
        slide = TrainingSlide(name=f"{root}{mark}C3", fingerprint="f", spots=1, mpp=0.5)
        card = card_of(
            name=f"{root}{mark}mine",
            method=HyperSTConfig(encoder=encoder),
            training_slides=(slide,),
            encoder_slides=(slide,),
            validation_slides=(f"{root}{mark}C4",),
            panel_slides=(f"{root}{mark}C3",),
            training={
                "epochs": 3,
                "device": f"{root}{mark}cuda",
                "init_from": f"{root}{mark}start",
                "init_from_sha256": "ab",
            },
        )
        words = model_card(card, PANEL)
        assert "secret" not in words
        assert "someone" not in words
        page = Page(words)
        assert page.headings[0] == "mine"
        assert page.facts("sha256 of its weights")["name"] == "vit_small_patch16_224@weights.safetensors"
        settings = yaml.safe_load(page.code["yaml"])
        assert settings["method"]["encoder"] == "vit_small_patch16_224@weights.safetensors"
        assert settings["init_from"] == "start"
    assert "vit_base@mine.bin" in model_card(card_of(method=HyperSTConfig(encoder="vit_base@runs/my/mine.bin")), PANEL)
    assert "runs/my" not in model_card(card_of(method=HyperSTConfig(encoder="vit_base@runs/my/mine.bin")), PANEL)


@pytest.mark.parametrize(
    ("encoder", "licence", "base"),
    [
        ("uni", "CC-BY-NC-ND-4.0", "MahmoodLab/UNI"),
        ("uni@weights.bin", "that of the local weights", None),
        ("phikon", "Owkin non-commercial licence", "owkin/phikon"),
        ("vit_small_patch14_dinov2.lvd142m", "apache-2.0", "timm/vit_small_patch14_dinov2.lvd142m"),
        ("nobody-knows-it", "not known", None),
    ],
)
def test_the_encoders_terms_are_told(encoder: str, licence: str, base: str | None) -> None:
    page = Page(model_card(card_of(method=HyperSTConfig(encoder=encoder)), PANEL))
    facts = page.facts("sha256 of its weights")
    assert facts["licence"] == licence
    assert facts["name"] == encoder
    assert page.front.get("base_model") == base
    assert page.front["license"] == "other"  # the encoder's is not the checkpoint's
    if base is not None:
        assert facts["weights"].startswith(f"https://huggingface.co/{base}")
        assert ("access must be granted" in facts["weights"]) == (encoder == "uni")


def test_a_card_with_little_to_say_says_so() -> None:
    card = Card(name="bare", method=HyperSTConfig(lora_blocks=0), encoder_sha256="ab")
    page = Page(model_card(card, GenePanel(("ACTB",))))
    assert page.paragraphs[1].startswith("Predicts log2(count+1) of 1 gene at each spot")
    assert "Trained on" not in page.source
    assert "1 gene, as they were listed: ACTB." in page.paragraphs
    assert "No slide was held out: there was nothing to choose settings or the epoch on." in page.paragraphs
    assert "Nothing was measured." in page.paragraphs
    assert "How well it predicts sections that it has not seen was not measured." in page.paragraphs
    assert page.facts("method")["LoRA"] == "none: the encoder is frozen"
    assert "Versions" not in page.headings
    assert "report.png" not in page.source
    started = card_of(encoder_slides=card_of().training_slides, training={"init_from": "big", "init_from_sha256": "cd"})
    page = Page(model_card(started, PANEL))
    assert "The encoder started from a checkpoint that was trained on:" in page.paragraphs
    assert "The encoder started from the checkpoint big, whose weights have the sha256 cd." in page.paragraphs


def test_a_card_says_what_was_done_about_stains() -> None:
    page = Page(model_card(card_of(tiles=TileSpec(stain="macenko")), PANEL))
    (size,) = (words for words in page.paragraphs if words.startswith("Tiles: "))
    said = "224 px. Each slide's haematoxylin and eosin are normalised to one reference (Macenko et al., ISBI 2009)."
    assert size.endswith(said)
    assert "stain: macenko" in page.source


def test_a_checkpoint_with_card_and_picture_beside_it_is_loaded(tiny_checkpoint_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint_folder, tmp_path / "best"))
    before = load_checkpoint(folder)
    path = write_model_card(before.card, before.panel, folder)
    assert path == folder / "README.md"
    assert "![" not in path.read_text(encoding="utf-8")
    (folder / "report.png").write_bytes(b"a picture")
    write_model_card(before.card, before.panel, folder)
    assert "](report.png)" in path.read_text(encoding="utf-8")
    names = {"README.md", "card.json", "genes.csv", "model.safetensors", "report.png"}
    assert {file.name for file in folder.iterdir()} == names
    after = load_checkpoint(folder)
    assert (after.card, after.panel, after.sha256) == (before.card, before.panel, before.sha256)
    assert Page(path.read_text(encoding="utf-8")).facts("licence")["licence"] == "BSD-3-Clause"
    with pytest.raises(StoreError, match="cannot be written"):
        write_model_card(before.card, before.panel, tmp_path / "none")


def test_the_card_of_the_bundled_checkpoint() -> None:
    loaded = load_checkpoint("her2st-dinov2s")
    page = Page(model_card(loaded.card, loaded.panel))
    assert page.headings[0] == "her2st-dinov2s"
    assert page.paragraphs[1].endswith("Trained on 723 spots of 4 slides.")
    assert yaml.safe_load(page.code["yaml"])["epochs"] == 80


def test_markdown_of_names() -> None:
    parser = MarkdownIt("commonmark").enable("table")
    for name in ODD:
        (_, inline, _) = parser.parse(f"a {text(name)} z")
        assert _plain(inline) == f"a {shown(name)} z"
    rows = table(["x|y", "n"], [[name, i] for i, name in enumerate(ODD)])
    assert len(rows) == 2 + len(ODD)
    assert rows[1] == "| --- | ---: |"
    code = "````\nx\n```"
    (fence,) = parser.parse("\n".join(fenced(code, "yaml")))
    assert (fence.info, fence.content) == ("yaml", f"{code}\n")
