"""Every choice of APRIL-GAN as one field, with its source, and the published presets.

P is Chen et al., APRIL-GAN (arXiv 2305.17382v3); C, below, its code today. The released weights and
the printed numbers come from that code's first version, F, which differs in one thing: it is the
default, and ``head`` and ``paper`` replace what C and P do otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.clip.text import class_words
from clipad_core.config import (
    changed,
    check_betas,
    check_different_blocks,
    check_least,
    choice,
    look_up_preset,
)
from clipad_core.errors import ClipadError
from clipad_core.methods.aprilgan.prompts import (
    ANOMALOUS_STATES,
    NORMAL_STATES,
    PLACE,
    TEMPLATES,
)

_C = "ByChelsea/VAND-APRIL-GAN@f13b8a6"
_F = "ByChelsea/VAND-APRIL-GAN@fb26cd1"

# The only dataset that is trained on for `epochs_mvtec` and whose images become mosaics.
MVTEC = "mvtec"


@dataclass(frozen=True)
class APRILGANConfig:
    """The setting behind the released weights; a preset replaces what others do differently."""

    # Backbone. P 3.1 and C: ViT-L/14@336 by OpenAI at 518 px.
    weights: Literal["openai"] = "openai"
    # P silent. C: fp16 autocast on a GPU, float32 on a CPU; float64 (the same numbers on every CPU) and
    # bfloat16 are ours.
    precision: Literal["float64", "float32", "bfloat16", "float16_autocast"] = choice(
        "float32", read="run"
    )
    image_size: int = 518  # P 3.1, C
    blocks: tuple[int, ...] = (6, 12, 18, 24)  # P 3.1, C --features_list; 1-based
    # "by_size", C: the exact GELU at every size but the one that the weights were made for, where they
    # run as they are ("backbone").
    activation: Literal["by_size", "gelu", "quick_gelu", "backbone"] = choice(
        "by_size",
        "QuickGELU, with which OpenAI trained, instead of the exact GELU that the code runs",
        f"P silent; {_C}: open_clip/factory.py",
    )
    positional: Literal["bicubic_antialias", "bilinear"] = choice(  # P silent
        "bicubic_antialias",
        "the positional embedding is resized to a larger grid by bilinear interpolation instead of bicubic "
        "with antialiasing, open_clip's own",
        f"{_C}: open_clip/model.py",
    )

    # Text. P 2.1 names states and templates, C lists them.
    templates: tuple[str, ...] = TEMPLATES
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    class_name: Literal["raw", "spaces", "object"] = choice(  # C: as the folder spells it
        "raw",
        "words instead of the folder's name, or the word object",
        f"P silent; {_C}: data/mvtec.py",
    )

    # Scores. P Eqs. (1) and (3) print no temperature; C multiplies similarities with 100.
    temperature: float = 0.01

    # References, P 2.2.
    # C --few_shot_features; None: those of `blocks` (P 2.2)
    memory_blocks: tuple[int, ...] | None = choice(None, read="references")
    few_shot_image_score: Literal["stretched", "added", "text"] = choice(
        "stretched",
        "each image by itself, text score plus the map's maximum, instead of half their sum with maxima "
        "stretched over the category",
        f"P 2.2; {_C}: test.py",
        read="references",
    )
    reference_choice: Literal["with_replacement", "seeded", "first"] = choice(
        "with_replacement",
        "no image is drawn twice",
        f"P silent; {_C}: dataset.py",
        read="references",
    )

    # Training.
    batch_text: Literal["first", "own"] = choice(
        "first",
        "every image is trained against the text of its own class, not of the first one of its batch",
        f"{_F} and {_C}: train.py",
        read="training",
    )
    # C --aug_rate, of MVTec AD alone: four images of the class in one, normal ones among them
    mosaic_rate: float = choice(0.2, read="training")  # P 3.1
    epochs: int = choice(15, read="training")  # P 3.1, C on VisA
    epochs_mvtec: int = choice(3, read="training")  # P 3.1, C: on MVTec AD at most so many
    batch_size: int = choice(
        8, "batches of 16 instead of 8 images", f"P 3.1; {_C}: train.sh", read="training"
    )
    seed: int = choice(111, read="run")  # C; P: five unnamed seeds
    learning_rate: float = choice(1e-3, read="training")  # P 3.1, C
    betas: tuple[float, ...] = choice((0.5, 0.999), read="training")  # C; P names Adam alone

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        for name in ("image_size", "batch_size"):
            check_least(name, getattr(self, name), 1)
        for name in ("epochs", "epochs_mvtec"):
            check_least(name, getattr(self, name), 0)
        check_different_blocks("blocks", self.blocks)
        check_different_blocks("memory_blocks", compared_blocks(self))
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ClipadError(
                    f"{name}: found {getattr(self, name)}, expected a number above 0."
                )
        if not 0 <= self.mosaic_rate <= 1:
            raise ClipadError(f"mosaic_rate: found {self.mosaic_rate}, expected 0 to 1.")
        check_betas(self.betas)
        _check_prompts(self)

    def changed(self, values: dict[str, Any]) -> APRILGANConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> APRILGANConfig().changed({"blocks": [12]}).blocks
        (12,)
        """
        return changed(self, values, "aprilgan")


def compared_blocks(config: APRILGANConfig) -> tuple[int, ...]:
    """The blocks whose patches are compared with references, ascending.

    >>> compared_blocks(APRILGANConfig().changed({"blocks": [12, 6]}))
    (6, 12)
    """
    return tuple(sorted(config.blocks if config.memory_blocks is None else config.memory_blocks))


def _check_prompts(config: APRILGANConfig) -> None:
    class_words("", config.class_name)
    for name in ("templates", "normal_states", "anomalous_states"):
        texts = getattr(config, name)
        if not texts:
            raise ClipadError(f"{name}: found none, expected at least one.")
        for text in texts:
            if text.count(PLACE) != 1:
                inside = "the state" if name == "templates" else "the name of the class"
                raise ClipadError(
                    f"{name}: found {text!r}, expected {PLACE} once, where {inside} stands."
                )


PRESETS: dict[str, APRILGANConfig] = {
    "first_release": APRILGANConfig(),
    "head": replace(APRILGANConfig(), batch_text="own"),
    # P to the letter; where it is silent it is the code that made its numbers.
    "paper": replace(
        APRILGANConfig(), batch_text="own", batch_size=16, few_shot_image_score="added"
    ),
}


def find_preset(name: str) -> APRILGANConfig:
    """Look a preset up by name, with a message that lists the names."""
    return look_up_preset(PRESETS, name)
