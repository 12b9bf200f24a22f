"""Import of a model of the authors' code: names, shapes, and a prediction equal to METHODS' account of that code."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_hyperst.errors import CheckpointError, HyperSTWarning
from napari_hyperst.models.authors import authors_config, encoder_sha256, import_authors
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.models.encoders import encoder_spec
from napari_hyperst.models.method import Batch
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.panel import GenePanel

State = dict[str, Tensor]

PANEL = GenePanel(("FASN", "ERBB2", "KRT19", "COL1A1", "ACTB"), "hmhvg")
WIDTH, BLOCKS, RANK = 16, 2, 4


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def residual_mlp(state: State, name: str, x: Tensor) -> Tensor:
    """METHODS 2.1, ResMLP: LN, Linear, twice x + MLP(LN x) with GELU, LN."""
    x = linear(state, f"{name}.linear", layer_norm(state, f"{name}.pre_norm", x))
    for i in range(2):
        inner = linear(state, f"{name}.blocks.{i}.mlp.fc1", layer_norm(state, f"{name}.blocks.{i}.norm", x))
        x = x + linear(state, f"{name}.blocks.{i}.mlp.fc2", F.gelu(inner))
    return layer_norm(state, f"{name}.post_norm", x)


def features(state: State, tiles: Tensor, scale: float) -> Tensor:
    """Run timm's own transformer, LoRA merged into its weights: W + scale B A."""
    merged = {}
    for name, tensor in state.items():
        if name.startswith("image_encoder.") and "lora_" not in name:
            merged[name.rpartition("model.")[2].removeprefix("image_encoder.").replace("base_layer.", "")] = tensor
    for name in [name for name in state if "lora_A" in name]:
        target = name.rpartition("model.")[2].partition(".lora_A")[0] + ".weight"
        merged[target] = merged[target] + scale * state[name.replace("lora_A", "lora_B")] @ state[name]
    vit = timm.create_model("test_vit", num_classes=0, img_size=224).eval()
    vit.load_state_dict(merged)
    mean, std = (torch.tensor(rgb).view(1, 3, 1, 1) for rgb in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return vit((tiles.permute(0, 3, 1, 2) / 255 - mean) / std)


def restated(state: State, batch: Batch, aligned: bool = True, scale: float = 16 / RANK) -> tuple[Tensor, State]:
    """METHODS 2.1 in plain torch: the authors' prediction, and points lifted with the exponential map of METHODS 1."""
    spot, niche = (features(state, tiles, scale) for tiles in (batch.spot, batch.niche))
    spot, niche = linear(state, "image_projector", spot), linear(state, "niche_image_projector", niche)
    points: State = {}
    if aligned:
        spot_gene = linear(state, "gene_encoder", batch.spot_genes)
        niche_gene = linear(state, "niche_gene_encoder", batch.niche_genes)
        a = "alignment."
        spot = linear(state, f"{a}image_proj", residual_mlp(state, f"{a}image_encoder", spot))
        niche = linear(state, f"{a}niche_image_proj", residual_mlp(state, f"{a}ncihe_image_encoder", niche))
        spot_gene = linear(state, f"{a}gene_proj", residual_mlp(state, f"{a}gene_encoder", spot_gene))
        niche_gene = linear(state, f"{a}niche_gene_proj", residual_mlp(state, f"{a}ncihe_gene_encoder", niche_gene))
        k = math.sqrt(min(max(state[f"{a}curv"].exp().item(), 0.1), 10))
        for name, x in (
            ("spot_image", spot), ("niche_image", niche), ("spot_gene", spot_gene), ("niche_gene", niche_gene)
        ):  # fmt: skip
            v = x * min(state[f"{a}{name.partition('_')[2]}_alpha"].exp().item(), 1)
            length = k * v.norm(dim=-1, keepdim=True)
            points[name] = torch.sinh(length) * v / length
    decoded = residual_mlp(state, "gene_decoder", torch.cat([spot, niche], dim=1))
    return linear(state, "fc", decoded), points


def random_state(blocks: int) -> State:
    """Random weights under the authors' names, in the shapes of METHODS 2.1; PEFT itself names those of the encoder."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int, about: float = 0.0) -> Tensor:
        return about + torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    genes, d = len(PANEL), WIDTH
    vit = timm.create_model("test_vit", num_classes=0, img_size=224)
    vit.load_state_dict(load_file(encoder_spec("tiny").weights))
    if blocks:
        depth = len(vit.blocks)
        targets = [f"blocks.{i}.attn.qkv" for i in range(depth - blocks, depth)]
        vit = get_peft_model(vit, LoraConfig(r=RANK, lora_alpha=16, target_modules=targets, lora_dropout=0.1))
    state = {
        f"image_encoder.{name}": draw(*tensor.shape) if "lora_" in name else tensor.clone()
        for name, tensor in vit.state_dict().items()
    }

    def add_linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = draw(outputs, inputs)
        if bias:
            state[f"{name}.bias"] = draw(outputs)

    def add_norm(name: str, width: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(width, about=1.0), draw(width)

    def add_residual_mlp(name: str, inputs: int) -> None:
        add_linear(f"{name}.linear", inputs, d)
        for i in range(2):
            add_norm(f"{name}.blocks.{i}.norm", d)
            add_linear(f"{name}.blocks.{i}.mlp.fc1", d, 2 * d)
            add_linear(f"{name}.blocks.{i}.mlp.fc2", 2 * d, d)
        add_norm(f"{name}.pre_norm", inputs)
        add_norm(f"{name}.post_norm", d)

    for name in ("image_projector", "niche_image_projector"):
        add_linear(name, vit.num_features, d)
    for name in ("gene_encoder", "niche_gene_encoder"):
        add_linear(name, genes, d)
    for name in ("image_encoder", "gene_encoder", "ncihe_image_encoder", "ncihe_gene_encoder"):
        add_residual_mlp(f"alignment.{name}", d)
    for name in ("image", "gene"):
        add_linear(f"alignment.{name}_proj", d, d, bias=False)
        state[f"alignment.niche_{name}_proj.weight"] = state[f"alignment.{name}_proj.weight"]
        state[f"alignment.{name}_alpha"] = torch.tensor(-1.5 if name == "image" else 0.01)
    state["alignment.curv"], state["alignment.logit_scale"] = torch.tensor(0.3), torch.tensor(2.2)
    add_residual_mlp("gene_decoder", 2 * d)
    add_linear("fc", d, genes)
    return state


@pytest.fixture
def state(tiny_encoder: str) -> State:
    return random_state(BLOCKS)


def some_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    spot, niche = (torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8, generator=generator) for _ in range(2))
    return Batch(spot, niche, *(torch.rand(4, len(PANEL), generator=generator) for _ in range(2)))


def card(state: State, **changes: object) -> Card:
    config = authors_config(state, "tiny").model_copy(update=changes)
    return Card(name="theirs", method=config, encoder_sha256=encoder_sha256("tiny"), panel_method="hmhvg")


def save(state: State, path: Path) -> Path:
    if path.suffix == ".safetensors":
        # As their owner would write them: what is shared once only.
        save_file({name: t.contiguous() for name, t in state.items() if "alignment.niche_" not in name}, path)
    else:
        torch.save(state, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("file", ["final_model.pth", "final_model.safetensors"])
@pytest.mark.parametrize("blocks", [BLOCKS, 0])
def test_prediction_and_embeddings_are_the_authors(tiny_encoder: str, file: str, blocks: int, tmp_path: Path) -> None:
    state = random_state(blocks)
    import_authors(save(state, tmp_path / file), tmp_path / "imported", PANEL, card(state))
    checkpoint = load_checkpoint(tmp_path / "imported")
    assert checkpoint.panel == PANEL
    found, (expression, points) = checkpoint.model(some_batch()), restated(state, some_batch())
    torch.testing.assert_close(found.prediction, expression, rtol=1e-4, atol=1e-5)
    assert found.points.keys() == points.keys()
    for name, x in points.items():
        torch.testing.assert_close(found.points[name], x, rtol=1e-4, atol=1e-5)
    assert expression.std() > 0.1


@torch.no_grad()
def test_without_alignment_the_decoder_sees_the_projectors(state: State, tmp_path: Path) -> None:
    """METHODS 2.1: as it was trained; their file holds the unused networks all the same."""
    settings = card(state, alignment=AlignmentConfig(weight=0))
    import_authors(save(state, tmp_path / "final_model.pth"), tmp_path / "imported", PANEL, settings)
    found = load_checkpoint(tmp_path / "imported").model(some_batch())
    expression, _ = restated(state, some_batch(), aligned=False)
    torch.testing.assert_close(found.prediction, expression, rtol=1e-4, atol=1e-5)
    assert not found.points


def test_every_tensor_has_its_own_place(state: State, tmp_path: Path) -> None:
    """No two names are one, none is lost: all of our tensors are the random ones, or the encoder's."""
    import_authors(save(state, tmp_path / "m.pth"), tmp_path / "imported", PANEL, card(state))
    found = load_checkpoint(tmp_path / "imported").model.state_dict()
    assert len(found) == len(state) - 2
    sums = sorted(t.double().sum().item() for name, t in state.items() if "alignment.niche_" not in name)
    clamped = sums.index(state["alignment.gene_alpha"].double().item())
    sums[clamped] = 0.0
    assert sorted(t.double().sum().item() for t in found.values()) == pytest.approx(sorted(sums))


def test_settings_are_read_from_the_shapes(state: State) -> None:
    config = authors_config(state, "tiny")
    assert (config.dim, config.lora_blocks, config.lora_rank, config.lora_alpha) == (WIDTH, BLOCKS, RANK, 16)
    assert config.alignment == AlignmentConfig.preset("code")
    assert config.decoder_inputs == ("spot", "niche")


def _drop(name: str):
    return lambda state: state.pop(name)


def _set(name: str, tensor: Tensor):
    return lambda state: state.update({name: tensor})


BROKEN = {
    "a tensor is missing": (_drop("fc.bias"), "output.bias, for one, is absent"),
    "a tensor too many": (_set("gene_decoder.blocks.2.norm.weight", torch.ones(WIDTH)), "decoder.blocks.2"),
    "a stranger": (_set("head.weight", torch.ones(3)), "head.weight is no tensor of HyperST"),
    "another shape": (_set("fc.weight", torch.ones(9, WIDTH)), r"of shape \(9, 16\) and should be of shape \(5, 16\)"),
    "no projector": (_drop("image_projector.weight"), "no HyperST of the authors"),
    "NaN": (_set("fc.bias", torch.full((5,), torch.nan)), "no finite numbers"),
    "integers": (_set("fc.bias", torch.ones(5, dtype=torch.int64)), "no finite numbers"),
    "projection not shared": (_set("alignment.niche_gene_proj.weight", torch.ones(WIDTH, WIDTH)), "which it shares"),
    "another width": (_set("image_projector.weight", torch.ones(8, 64)), "has dim 8, the card says 16"),
    "fewer blocks with LoRA": (
        lambda s: [s.pop(n) for n in list(s) if "blocks.5.attn.qkv.lora" in n], "has lora_blocks 1, the card says 2",
    ),
    "LoRA elsewhere": (
        _set("image_encoder.base_model.model.blocks.5.mlp.fc1.lora_A.default.weight", torch.ones(RANK, 64)),
        "LoRA on .*fc1",
    ),
    "another encoder": (
        lambda s: s["image_encoder.base_model.model.norm.bias"].add_(1), "other weights of the encoder.*norm.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_refused(state: State, tmp_path: Path, name: str) -> None:
    break_it, told = BROKEN[name]
    settings = card(state)
    break_it(state)
    with pytest.raises(CheckpointError, match=told) as caught:
        import_authors(save(state, tmp_path / "m.pth"), tmp_path / "imported", PANEL, settings)
    assert caught.value.do
    assert not (tmp_path / "imported").exists()


def test_panel_and_card_must_fit(state: State, tmp_path: Path) -> None:
    file = save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        import_authors(file, tmp_path / "imported", GenePanel(("FASN",)), card(state))
    other = card(state).model_copy(update={"encoder_sha256": "0" * 64})
    with pytest.raises(CheckpointError, match="other weights of tiny"):
        import_authors(file, tmp_path / "imported", PANEL, other)


def test_an_alignment_that_was_never_trained_is_told(state: State, tmp_path: Path) -> None:
    """``alignment_beta=0`` leaves no other trace, and a decoder that had learnt on other features."""
    state["alignment.curv"], state["alignment.logit_scale"] = torch.tensor(0.0), torch.tensor(math.log(1 / 0.07))
    for name in ("image", "gene"):
        state[f"alignment.{name}_alpha"] = torch.tensor(math.log(WIDTH**-0.5))
    file = save(state, tmp_path / "m.pth")
    with pytest.warns(HyperSTWarning, match="alignment was not trained"):
        import_authors(file, tmp_path / "aligned", PANEL, card(state))
    import_authors(file, tmp_path / "flat", PANEL, card(state, alignment=AlignmentConfig(weight=0)))


def test_a_broken_file_is_no_checkpoint(state: State, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match=r"m\.pth"):
        import_authors(tmp_path / "m.pth", tmp_path / "imported", PANEL, card(state))
    assert not (tmp_path / "imported").exists()
