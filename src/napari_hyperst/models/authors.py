"""Import of a HyperST that was trained with the authors' code (METHODS 2.1): its state dict becomes a checkpoint.

Only names and shapes of that code's parameters are used here. Their modules, and ours:

============================================== ====================================
theirs                                         ours
============================================== ====================================
``image_encoder`` (in PEFT's ``base_model``)   ``encoder.vit``
``image_projector``, ``niche_image_projector`` ``image_projectors.spot``, ``.niche``
``gene_encoder``, ``niche_gene_encoder``       ``gene_projectors.spot``, ``.niche``
``alignment.image_encoder``, ``gene_encoder``  ``alignment_encoders.spot_*``
``alignment.ncihe_*_encoder`` (so spelt)       ``alignment_encoders.niche_*``
``alignment.image_proj``, ``gene_proj``        ``alignment_projections.*``
``alignment.curv``, ``logit_scale``            ``alignment.log_curvature``, ``.logit_scale``
``alignment.image_alpha``, ``gene_alpha``      ``alignment.log_alpha.*``
``gene_decoder``, ``fc``                       ``decoder``, ``output``
============================================== ====================================
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from napari_hyperst.errors import CheckpointError, HyperSTWarning
from napari_hyperst.models.alignment import Alignment
from napari_hyperst.models.checkpoint import save_checkpoint
from napari_hyperst.models.encoders import encoder_spec, weights_sha256
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.state_dicts import read_state_dict
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel

#: Scale of LoRA in the authors' code, which their state dict does not hold.
_LORA_ALPHA = 16
#: Their modules by the start of the name, and ours; of nested ones the innermost comes first.
_MODULES = {
    "image_encoder.base_model.model.": "encoder.vit.",
    "image_encoder.": "encoder.vit.",
    "image_projector.": "image_projectors.spot.",
    "niche_image_projector.": "image_projectors.niche.",
    "gene_encoder.": "gene_projectors.spot.",
    "niche_gene_encoder.": "gene_projectors.niche.",
    "alignment.image_encoder.": "alignment_encoders.spot_image.",
    "alignment.gene_encoder.": "alignment_encoders.spot_gene.",
    "alignment.ncihe_image_encoder.": "alignment_encoders.niche_image.",
    "alignment.ncihe_gene_encoder.": "alignment_encoders.niche_gene.",
    "alignment.image_proj.": "alignment_projections.image.",
    "alignment.gene_proj.": "alignment_projections.gene.",
    "alignment.curv": "alignment.log_curvature",
    "alignment.logit_scale": "alignment.logit_scale",
    "alignment.image_alpha": "alignment.log_alpha.image",
    "alignment.gene_alpha": "alignment.log_alpha.gene",
    "gene_decoder.": "decoder.",
    "fc.": "output.",
}
#: Within a residual MLP.
_LAYERS = {
    "pre_norm.": "stem.0.",
    "linear.": "stem.1.",
    ".norm.": ".0.",
    ".mlp.fc1.": ".1.",
    ".mlp.fc2.": ".4.",
    "post_norm.": "norm.",
}
#: Second names that their state dict has for tensors that are shared.
_SHARED = {
    "alignment.niche_image_proj.weight": "alignment.image_proj.weight",
    "alignment.niche_gene_proj.weight": "alignment.gene_proj.weight",
}
#: What our model leaves out where its settings need it neither to predict nor to align.
_NEEDED_TO_TRAIN = ("gene_projectors.", "alignment_encoders.", "alignment_projections.", "alignment.")
#: What the learnt scalars of the alignment start at, but for the alphas, which start at log(dim ** -0.5).
_SCALARS_AT_START = {"alignment.curv": 0.0, "alignment.logit_scale": -math.log(0.07)}
_ALPHAS = ("alignment.image_alpha", "alignment.gene_alpha")
_LORA_A = re.compile(r"image_encoder\..*blocks\.\d+\.attn\.qkv\.lora_A\.default\.weight")


def authors_config(
    state: dict[str, Tensor], encoder: str = "uni", alignment: AlignmentConfig | None = None
) -> HyperSTConfig:
    """Derive settings from the shapes in a state dict of the authors' code.

    Parameters
    ----------
    state
        Of ``final_model.pth`` or ``best_model.pth``, from ``state_dicts.read_state_dict``.
    encoder
        Name of the image encoder that it stands on.
    alignment
        The objective it was trained with (their ``alignment_beta`` and ``entail_weight``), which leaves no trace in
        the tensors; by default that of the authors' code. With a weight of 0 the decoder sees the projectors' output,
        as it did in training.

    Returns
    -------
    HyperSTConfig
        With the width, the number of blocks with LoRA and its rank as found. LoRA's scale is 16 and dropout 0.1,
        the defaults of the authors' code.

    Raises
    ------
    CheckpointError
        If there is no projector, or LoRA on anything but the query-key-value projections of the last blocks.
    """
    try:
        dim = len(state["image_projector.weight"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "there is no image_projector.weight, so this is no HyperST of the authors' code",
            do="give the state dict of the whole model",
        ) from error
    lora = sorted(name for name in state if ".lora_A." in name)
    other = [name for name in lora if not _LORA_A.fullmatch(name)]
    if other:
        raise CheckpointError(
            f"LoRA on {other[0]} is not known here", do="train with LoRA on the query-key-value projections only"
        )
    return HyperSTConfig(
        encoder=encoder,
        lora_blocks=len(lora),
        lora_rank=len(state[lora[0]]) if lora else HyperSTConfig().lora_rank,
        lora_alpha=_LORA_ALPHA,
        dim=dim,
        alignment=alignment or AlignmentConfig.preset("code"),
    )


def import_authors(weights: Path, folder: Path, panel: GenePanel, card: Card) -> None:
    """Make a checkpoint of a HyperST that was trained with the authors' code.

    Every tensor must have its place and shape, and the encoder's own weights must be those of the encoder that the
    card names, for a checkpoint holds no others. Its prediction equals that of the authors' code.

    Parameters
    ----------
    weights
        The file of their state dict, ``final_model.pth`` or ``best_model.pth``.
    folder
        Where to write the checkpoint.
    panel
        The genes in the order they were trained in: the lines of the authors' ``selected_gene_list.txt``.
    card
        Its settings and history; ``card.method`` from ``authors_config``, ``card.encoder_sha256`` from
        ``encoder_sha256``.

    Raises
    ------
    CheckpointError
        If the file is no such state dict, or does not fit the card or the panel.

    Warns
    -----
    HyperSTWarning
        If the card names an alignment, but that of the state dict was never trained.
    """
    state = read_state_dict(weights)
    config = _config(card)
    found = authors_config(state, config.encoder)
    for setting in ("dim", "lora_blocks", "lora_rank"):
        theirs, said = getattr(found, setting), getattr(config, setting)
        if theirs != said:
            raise CheckpointError(f"has {setting} {theirs}, the card says {said}", where=weights, do="mend the card")
    if config.alignment.weight > 0 and _never_aligned(state, config.dim):
        warnings.warn(
            f"{weights}: curvature, temperature and alphas are as they start, so the alignment was not trained; "
            "give the card an alignment of weight 0, or predictions and maps mean nothing",
            HyperSTWarning,
            stacklevel=2,
        )
    if card.encoder_sha256 != encoder_sha256(config.encoder):
        raise CheckpointError(
            f"the card names other weights of {config.encoder} than are here", where=weights, do="mend the card"
        )
    model = HyperST(config, len(panel))
    model.load_state_dict(_fit(_rename(state, weights), model, weights))
    for module in model.modules():
        if isinstance(module, Alignment):
            module.clamp_()  # as their forward does before it uses the scalars
    save_checkpoint(folder, model, panel, card)


def encoder_sha256(encoder: str) -> str:
    """Return the hash of an encoder's weights, for a card."""
    return weights_sha256(encoder_spec(encoder).weights)


def _never_aligned(state: dict[str, Tensor], dim: int) -> bool:
    start = _SCALARS_AT_START | dict.fromkeys(_ALPHAS, -0.5 * math.log(dim))
    return all(name in state and math.isclose(state[name].item(), at, abs_tol=1e-6) for name, at in start.items())


def _config(card: Card) -> HyperSTConfig:
    try:
        return HyperSTConfig.model_validate(card.method.model_dump())
    except ValidationError as error:
        raise CheckpointError(
            "the card's settings are of another method", where=card.name, do="give it those of a HyperST"
        ) from error


def _rename(state: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Put tensors under our names; those that are shared appear once."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} holds values that are no finite numbers", where=where, do="train it again")
        if name in _SHARED:
            if _SHARED[name] in state and not torch.equal(tensor, state[_SHARED[name]]):
                raise CheckpointError(
                    f"{name} differs from {_SHARED[name]}, which it shares", where=where, do="train it as published"
                )
            continue
        renamed[_our_name(name, where)] = tensor.float()
    return renamed


def _our_name(name: str, where: Path) -> str:
    for theirs, ours in _MODULES.items():
        if name.startswith(theirs):
            rest = name.removeprefix(theirs)
            if ours.startswith(("alignment_encoders.", "decoder.")):
                for layer, place in _LAYERS.items():
                    rest = rest.replace(layer, place, 1)
            return ours + rest
    raise CheckpointError(f"{name} is no tensor of HyperST", where=where, do="give the state dict of the whole model")


def _fit(found: dict[str, Tensor], model: HyperST, where: Path) -> dict[str, Tensor]:
    """Return the tensors that the model takes: all of its own, of their shapes, and the encoder's own unchanged."""
    wanted = model.state_dict()
    built = {_module(name) for name in wanted}
    found = {name: found[name] for name in found if _module(name) in built or not name.startswith(_NEEDED_TO_TRAIN)}
    wrong = sorted(found.keys() ^ wanted.keys()) or sorted(
        name for name in wanted if wanted[name].shape != found[name].shape
    )
    if wrong:
        theirs, ours = (
            f"of shape {tuple(state[wrong[0]].shape)}" if wrong[0] in state else "absent" for state in (found, wanted)
        )
        raise CheckpointError(
            f"{len(wrong)} tensors do not fit: {wrong[0]}, for one, is {theirs} and should be {ours}",
            where=where,
            do="check the genes, the settings, and that the encoder is the one it was trained on",
        )
    for name, tensor in wanted.items():
        if name.startswith("encoder.") and "lora_" not in name and not torch.equal(tensor, found[name]):
            raise CheckpointError(
                f"stands on other weights of the encoder than those of {model.encoder.spec.name}: {name} differs",
                where=where,
                do="name the encoder it was trained on",
            )
    return found


def _module(name: str) -> str:
    """Return the first two parts of a parameter's name, by which what a method has not built is known."""
    return ".".join(name.split(".")[:2])
