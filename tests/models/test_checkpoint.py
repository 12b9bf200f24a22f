from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from napari_hyperst.models.encoders import EncoderSpec, encoder_spec, register_encoder
from napari_hyperst.nouns.bundled import bundled_checkpoints


@pytest.fixture
def folder(tiny_checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint_folder, tmp_path / "checkpoint"))


def test_what_is_saved_is_loaded(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "copy", tiny_checkpoint.model, tiny_checkpoint.panel, tiny_checkpoint.card)
    again = load_checkpoint(tmp_path / "copy")
    assert again.card == tiny_checkpoint.card
    assert again.panel.genes == tiny_checkpoint.panel.genes
    for name, tensor in tiny_checkpoint.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert again.sha256 == tiny_checkpoint.sha256


def test_base_encoder_is_not_copied(tiny_checkpoint_folder: Path) -> None:
    names = set(load_file(tiny_checkpoint_folder / "model.safetensors"))
    assert all("lora_" in name for name in names if name.startswith("encoder."))
    assert any("lora_" in name for name in names)
    assert sorted(path.name for path in tiny_checkpoint_folder.iterdir()) == [
        "card.json", "genes.csv", "model.safetensors",
    ]  # fmt: skip


def test_saving_over_a_checkpoint_replaces_it(folder: Path, tiny_checkpoint: Checkpoint) -> None:
    (folder / "stray").touch()
    save_checkpoint(folder, tiny_checkpoint.model, tiny_checkpoint.panel, tiny_checkpoint.card)
    assert not (folder / "stray").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def _edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def _edit_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


BROKEN = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "no card": (lambda f: (f / "card.json").unlink(), "no card.json"),
    "weights cut off": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]), "safetensors",
    ),
    "a pickle": (lambda f: torch.save({"x": torch.zeros(1)}, f / "model.safetensors"), "safetensors"),
    "card is no JSON": (lambda f: (f / "card.json").write_text("{"), "card.json"),
    "card has an unknown key": (lambda f: _edit_card(f, surprise=1), "surprise"),
    "card of a later version": (lambda f: _edit_card(f, schema_version=2), "schema_version"),
    "other encoder weights": (lambda f: _edit_card(f, encoder_sha256="0" * 64), "other weights of tiny"),
    "genes are empty": (lambda f: (f / "genes.csv").write_text("gene\n"), "genes.csv"),
    "a gene twice": (lambda f: (f / "genes.csv").write_text("gene\nA\nA\n"), "genes.csv"),
    "too few genes": (lambda f: (f / "genes.csv").write_text("gene\nA\nB\n"), "another shape"),
    "a tensor is missing": (lambda f: _edit_weights(f, lambda t: t.pop("output.bias")), "output.bias"),
    "a tensor too many": (lambda f: _edit_weights(f, lambda t: t.update(extra=torch.zeros(1))), "extra"),
    "weights are NaN": (lambda f: _edit_weights(f, lambda t: t["output.bias"].fill_(torch.nan)), "finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoint(folder: Path, name: str) -> None:
    break_it, told = BROKEN[name]
    break_it(folder)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    line = str(caught.value)
    assert told in line
    assert str(folder) in line
    assert "\n" not in line
    assert caught.value.do


def test_no_such_checkpoint_names_the_bundled_ones() -> None:
    with pytest.raises(CheckpointError, match="her2st-dinov2s"):
        load_checkpoint("no-such-thing")
    assert "her2st-dinov2s" in bundled_checkpoints()


def test_from_a_local_hub_folder(tiny_checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own cache layout, read by huggingface_hub itself, without a network."""
    import huggingface_hub

    revision = "a" * 40
    repo = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_checkpoint_folder, repo / "snapshots" / revision)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    original = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **kwargs: original(name, cache_dir=tmp_path, local_files_only=True, **kwargs),
    )
    assert len(load_checkpoint("hf://someone/tiny").panel) == 8
    with pytest.raises(CheckpointError, match="hf://someone/else.*cannot be fetched"):
        load_checkpoint("hf://someone/else")
    with pytest.raises(CheckpointError, match="names no repository"):
        load_checkpoint("hf://a/b/c/d")


def test_an_encoder_that_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    spec = encoder_spec("tiny")
    tensors = load_file(spec.weights)
    tensors["norm.bias"] += 1
    save_file(tensors, tmp_path / "changed.safetensors")
    register_encoder(EncoderSpec("tiny", spec.timm_name, tmp_path / "changed.safetensors", spec.licence))
    try:
        with pytest.raises(CheckpointError, match="other weights of tiny"):
            load_checkpoint(folder)
    finally:
        register_encoder(spec)


def test_genes_keep_their_other_names(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    genes = tiny_checkpoint.panel.genes
    aliases = ("", *(f"ENSG{i:011d}" for i in range(1, len(genes))))
    for name, panel in (("both", replace(tiny_checkpoint.panel, aliases=aliases)), ("one", tiny_checkpoint.panel)):
        save_checkpoint(tmp_path / name, tiny_checkpoint.model, panel, tiny_checkpoint.card)
        assert load_checkpoint(tmp_path / name).panel.aliases == panel.aliases
    assert (tmp_path / "one" / "genes.csv").read_text() == "\n".join(["gene", *genes, ""])
    with pytest.raises(ValueError, match="another name for each gene or for none"):
        replace(tiny_checkpoint.panel, aliases=("A",))
