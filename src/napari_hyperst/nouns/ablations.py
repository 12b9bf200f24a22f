"""HyperST's ablations by name: each a change of its settings (METHODS 5 and 8)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.hierarchy import Relation, modality
from napari_hyperst.nouns.methods import HyperSTConfig

#: Blocks with LoRA in the paper's table, of an encoder of 24.
_LORA_BLOCKS = (0, 5, 7, 11)
#: The contrastive terms of one scale.
_BOTH_WAYS = (("spot_image", "spot_gene"), ("spot_gene", "spot_image"))


@dataclass(frozen=True)
class Ablation:
    """A change of HyperST's settings.

    Attributes
    ----------
    about
        What it is, as a table's row would say.
    change
        Makes of some settings those of the ablation; what the ablation does not speak of stays.
    """

    about: str
    change: Callable[[HyperSTConfig], HyperSTConfig]


def ablation(name: str, base: HyperSTConfig | None = None) -> HyperSTConfig:
    """Return the settings of an ablation.

    Parameters
    ----------
    name
        A key of ``ABLATIONS``.
    base
        The settings to change; HyperST's defaults when None.

    Raises
    ------
    ConfigError
        If there is no ablation of that name.
    """
    if name not in ABLATIONS:
        near = difflib.get_close_matches(name, ABLATIONS, n=1)
        do = f"did you mean {near[0]}?" if near else f"name one of {', '.join(ABLATIONS)}"
        raise ConfigError(f"there is no ablation {name!r}", do=do)
    return ABLATIONS[name].change(base or HyperSTConfig())


def _with(config: HyperSTConfig, alignment: Mapping[str, Any] | None = None, **changes: Any) -> HyperSTConfig:
    """Return validated settings with some of them, and some of the alignment's, changed."""
    aligned = type(config.alignment).model_validate({**dict(config.alignment), **(alignment or {})})
    return HyperSTConfig.model_validate({**dict(config), "alignment": aligned, **changes})


def _crosses(relation: Relation) -> bool:
    return modality(relation.parent) != modality(relation.child)


def _without_gene_image_hea(config: HyperSTConfig) -> HyperSTConfig:
    kept = tuple(relation for relation in config.alignment.relations if not _crosses(relation))
    return _with(config, {"relations": kept})


def _reversed(config: HyperSTConfig) -> HyperSTConfig:
    return _with(config, {"relations": tuple(relation.turned for relation in config.alignment.relations)})


def _meru(config: HyperSTConfig) -> HyperSTConfig:
    """Leave the spot alone: ``L_pred + a (mean of two CEs + b ent(image -> gene; eta 1))`` (METHODS 8, 17)."""
    entailment = {
        "relations": (Relation(parent="spot_image", child="spot_gene", eta=1.0),),
        "entailment_scale": 1.0,
    }
    return _with(config, {"contrastive": _BOTH_WAYS, **entailment}, decoder_inputs=("spot",))


def _clip(config: HyperSTConfig) -> HyperSTConfig:
    """Leave the spot alone, on the unit sphere, without entailment (METHODS 8, 18)."""
    flat = {"geometry": "cosine", "contrastive": _BOTH_WAYS, "relations": ()}
    return _with(config, flat, decoder_inputs=("spot",), decoder_features="euclidean")


def _without_hha(config: HyperSTConfig) -> HyperSTConfig:
    """Decode the projectors' output; the networks that only the alignment needs are not built (METHODS 2.1)."""
    return _with(config, {"weight": 0.0}, decoder_features="euclidean")


def _lora(blocks: int) -> Ablation:
    about = f"LoRA on the last {blocks} blocks" if blocks else "a frozen encoder"
    return Ablation(about, lambda config: _with(config, lora_blocks=blocks))


#: Every ablation of the paper's tables, and those that the ambiguities of paper and code ask for.
ABLATIONS: Mapping[str, Ablation] = MappingProxyType(
    {
        "full": Ablation("HyperST as it is", _with),
        "without-gene-image-hea": Ablation("no entailment between image and gene", _without_gene_image_hea),
        "without-hea": Ablation("no entailment", lambda config: _with(config, {"relations": ()})),
        "without-hha": Ablation("no alignment: a decoder of image features", _without_hha),
        "euclidean": Ablation("the flat counterpart", lambda config: _with(config, {"geometry": "euclidean"})),
        "meru": Ablation("one scale, image entails gene", _meru),
        "clip": Ablation("one scale, cosine similarity, no entailment", _clip),
        "spot-only": Ablation("the decoder sees the spot", lambda config: _with(config, decoder_inputs=("spot",))),
        "niche-only": Ablation("the decoder sees the niche", lambda config: _with(config, decoder_inputs=("niche",))),
        "spot+niche": Ablation("the decoder sees both", lambda c: _with(c, decoder_inputs=("spot", "niche"))),
        "reversed": Ablation("parents and children swapped", _reversed),
        "tangent-decoder": Ablation("the decoder sees tangent vectors", lambda c: _with(c, decoder_features="tangent")),
        **{f"lora-{blocks}": _lora(blocks) for blocks in _LORA_BLOCKS},
    }
)
