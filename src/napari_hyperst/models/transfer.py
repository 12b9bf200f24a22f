"""Start one method's image encoder from another's."""

from __future__ import annotations

import torch

from napari_hyperst.errors import ConfigError
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.methods import EncoderConfig

_LORA = "lora_"


def check_encoders(ours: EncoderConfig, theirs: EncoderConfig) -> None:
    """Check that an encoder can start from another.

    Parameters
    ----------
    ours, theirs
        Settings of the encoder that is to start, and of the one that was trained.

    Raises
    ------
    ConfigError
        If the two stand on other weights, or theirs has learnt what ours has no place for.
    """
    if ours.encoder != theirs.encoder:
        raise ConfigError(
            f"init_from has learnt on the encoder {theirs.encoder}, not on {ours.encoder}",
            do=f"set method.encoder={theirs.encoder}",
        )
    if theirs.lora_blocks == 0:
        raise ConfigError(
            "init_from has a frozen encoder, so there is nothing to start from",
            do="train it with method.lora_blocks above 0, or leave init_from out",
        )
    if ours.lora_blocks < theirs.lora_blocks:
        raise ConfigError(
            f"init_from has LoRA on {theirs.lora_blocks} blocks, this run on {ours.lora_blocks}",
            do=f"set method.lora_blocks={theirs.lora_blocks} or more",
        )
    for setting in ("lora_rank", "lora_alpha"):
        if getattr(ours, setting) != getattr(theirs, setting):
            raise ConfigError(
                f"init_from has {setting} {getattr(theirs, setting)}, this run {getattr(ours, setting)}",
                do=f"set method.{setting}={getattr(theirs, setting)}",
            )


@torch.no_grad()
def start_encoder(model: Method, source: Method) -> None:
    """Copy what an encoder has learnt, its LoRA weights, into another that stands on the same weights.

    Blocks of ``model`` with LoRA beyond those of ``source`` stay as they start, that is, without effect. Nothing else
    of ``source`` is taken over.

    Parameters
    ----------
    model
        The method to start; changed in place.
    source
        The method whose encoder was trained, of any kind.

    Raises
    ------
    ConfigError
        If the two do not fit; see ``check_encoders``.
    """
    check_encoders(model.config, source.config)
    learnt = {name: tensor for name, tensor in source.encoder.state_dict().items() if _LORA in name}
    model.encoder.load_state_dict({**model.encoder.state_dict(), **learnt})
