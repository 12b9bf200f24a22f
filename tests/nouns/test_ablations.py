from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.ablations import ABLATIONS, ablation
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig, MethodConfig
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.settings import read_config

METHOD = TypeAdapter(MethodConfig)


def relations(name: str) -> list[str]:
    return [relation.name for relation in ablation(name).alignment.relations]


def test_ablations_are_what_their_names_say() -> None:
    full = HyperSTConfig()
    assert ablation("full") == ablation("spot+niche") == full
    assert relations("without-gene-image-hea") == ["spot_image__niche_image", "spot_gene__niche_gene"]
    assert relations("without-hea") == []
    assert ablation("without-hea").alignment.contrastive == full.alignment.contrastive
    assert ablation("without-hha").alignment.weight == 0
    assert ablation("euclidean").alignment == full.alignment.model_copy(update={"geometry": "euclidean"})
    assert relations("reversed") == [f"{r.child}__{r.parent}" for r in full.alignment.relations]
    assert [r.eta for r in ablation("reversed").alignment.relations] == [0.7, 0.7, 1.2, 1.2]
    assert ablation("spot-only").decoder_inputs == ablation("meru").decoder_inputs == ("spot",)
    assert ablation("niche-only").decoder_inputs == ("niche",)
    assert ablation("tangent-decoder").decoder_features == "tangent"
    assert [ablation(f"lora-{k}").lora_blocks for k in (0, 5, 7, 11)] == [0, 5, 7, 11]


def test_meru_and_clip_know_spots_only() -> None:
    """METHODS 8, 17 and 18: L_pred + a (0.5 (CE + CE) + b ent(image -> gene; eta 1)), and cosine without entailment."""
    meru, clip = ablation("meru").alignment, ablation("clip").alignment
    assert meru.contrastive == clip.contrastive == (("spot_image", "spot_gene"), ("spot_gene", "spot_image"))
    assert [(r.name, r.eta) for r in meru.relations] == [("spot_image__spot_gene", 1.0)]
    assert (meru.entailment_scale, meru.geometry) == (1.0, "hyperbolic")
    assert (clip.relations, clip.geometry) == ((), "cosine")
    assert meru.embeddings == clip.embeddings == ("spot_image", "spot_gene")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_keeps_what_it_does_not_speak_of(name: str) -> None:
    base = HyperSTConfig(encoder="uni", lora_rank=4, dim=7, dropout=0.3, alignment=AlignmentConfig(temperature=0.2))
    changed = ablation(name, base)
    kept = ("encoder", "lora_rank", "dim", "dropout")
    assert all(getattr(changed, field) == getattr(base, field) for field in kept)
    assert changed.alignment.temperature == 0.2
    assert METHOD.validate_json(changed.model_dump_json()) == changed
    assert ablation(name, changed) == changed or name == "reversed"


@pytest.mark.parametrize("name", ["clip", "without-hha"])
def test_an_ablation_without_an_origin_decodes_euclidean_features(name: str) -> None:
    assert ablation(name, HyperSTConfig(decoder_features="tangent")).decoder_features == "euclidean"


def test_unknown_ablation() -> None:
    with pytest.raises(ConfigError, match="did you mean euclidean"):
        ablation("euclidian")
    with pytest.raises(ConfigError, match="name one of full"):
        ablation("?")


@pytest.mark.parametrize(
    "settings",
    [
        {"alignment": {"geometry": "cosine"}},
        {"decoder_features": "tangent", "alignment": {"weight": 0}},
        {"decoder_features": "tangent", "alignment": {"geometry": "cosine", "relations": []}},
        {"decoder_features": "tangent", "alignment": {"contrastive": [], "relations": []}},
        {"decoder_inputs": ["spot", "spot"]},
        {"alignment": {"relations": [{"parent": "spot_image", "child": "spot_image"}]}},
        {"alignment": {"weight": float("nan")}},
        {"alignment": {"curvature": 20.0}},
        {"alignment": {"temperature": 0.001}},
        {"kind": "delst", "curvature": 0.01},
        {"kind": "delst", "quantile": 0.6},
        {"kind": "delst", "alignment": {}},
        {"kind": "word2vec"},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        METHOD.validate_python(settings)


def test_a_curvature_that_is_fixed_may_be_any() -> None:
    assert (
        METHOD.validate_python({"alignment": {"curvature": 20.0, "learn_curvature": False}}).alignment.curvature == 20
    )


def test_methods_are_told_apart_by_kind() -> None:
    assert METHOD.validate_python({}) == HyperSTConfig()
    assert METHOD.validate_python({"kind": "delst", "dim": 3}) == DELSTConfig(dim=3)
    for config in (HyperSTConfig(dim=5), DELSTConfig(dim=5)):
        assert METHOD.validate_json(METHOD.dump_json(config)) == config
        training = TrainConfig(slides=(Path("a"),), out=Path("o"), method=config)
        assert TrainConfig.model_validate_json(training.model_dump_json()) == training


def test_cards_that_say_method_for_kind_still_load() -> None:
    old = {"name": "old", "method": {"method": "hyperst", "dim": 9}, "encoder_sha256": "0"}
    assert Card.model_validate(old).method == HyperSTConfig(dim=9)


def test_delst_is_said_in_terms_of_an_alignment() -> None:
    """METHODS 3: gene is the parent of image; L_cont is the mean of both directions; lambda weighs the entailment."""
    aligned = DELSTConfig(cross_weight=0.3).alignment
    assert [relation.name for relation in aligned.relations] == ["spot_gene__spot_image"]
    assert aligned.weight * aligned.entailment_weight * aligned.entailment_scale == pytest.approx(0.3)
    assert [r.name for r in DELSTConfig(parent="image").alignment.relations] == ["spot_image__spot_gene"]


def test_ablations_and_methods_from_words(tmp_path: Path) -> None:
    def read(*words: str) -> TrainConfig:
        return read_config([Path("a")], [], tmp_path / "o", None, words)

    found = read("method.ablation=clip", "method.dim=64", "method.alignment.temperature=0.1")
    assert found.method == ablation("clip", HyperSTConfig(dim=64, alignment=AlignmentConfig(temperature=0.1)))
    paper = read("method.alignment=paper", "method.ablation=without-gene-image-hea").method
    assert isinstance(paper, HyperSTConfig)
    assert {relation.eta for relation in paper.alignment.relations} == {1.0}
    assert read("method.kind=delst", "method.intra_weight=0.1").method == DELSTConfig(intra_weight=0.1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method.ablation=cliq"], "did you mean clip?"),
        (["method.kind=delst", "method.ablation=clip"], "ablation of hyperst, not of delst"),
        (["method.kind=delst", "method.quantil=0.2"], "did you mean method.quantile?"),
        (["method.kind=dalst"], "method: there are hyperst and delst"),
        (["method.alignment.wieght=1"], "did you mean method.alignment.weight?"),
        (["method.alignment.geometry=cosine"], "method.alignment: there are no cones on the unit sphere"),
        (["method.dim=0"], "method.dim: Input should be greater than 0 (it is 0)"),
    ],
)
def test_wrong_words(tmp_path: Path, words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config([Path("a")], [], tmp_path / "o", None, words)
    assert told in str(caught.value)
