"""Every choice of VCP-CLIP as one field, with its source, and the two published presets.

Sources: P = Qu et al., VCP-CLIP, ECCV 2024 (arXiv 2407.12276v1); C = xiaozhen228/VCP-CLIP@4dd96ec,
the code that made the released weights. Where the two differ the field of ``code`` is the default,
and ``paper`` replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.config import changed, look_up_preset
from clipad_core.errors import ClipadError

# Where a prompt takes its state word and where the category vectors stand.
STATE, CATEGORY = "{state}", "{category}"
# The vectors ``learning_rate_*`` knows; any other auxiliary dataset takes ``learning_rate``.
MVTEC = "mvtec"


@dataclass(frozen=True)
class VCPCLIPConfig:
    """The setting of the released code; a preset replaces what the paper says differently."""

    # Backbone. P 4.1 and C: ViT-L/14@336 by OpenAI at 518 px.
    weights: Literal["openai"] = "openai"
    # P silent. C: fp16 autocast on a GPU, float32 on a CPU; float64 (the same numbers on every CPU) and
    # bfloat16 are ours.
    precision: Literal["float64", "float32", "bfloat16"] = "float32"
    augmentation: Literal["code", "none"] = "code"  # while training; C; P names none
    mosaic_rate: float = 0.2  # C --aug_rate, MVTec AD alone: four anomalous images in one
    image_size: int = 518  # P 4.1, C
    blocks: tuple[int, ...] = (6, 12, 18, 24)  # P 4.1, C; 1-based
    # C: the erf GELU, although OpenAI trained with QuickGELU; "backbone": as the weights say.
    activation: Literal["gelu", "quick_gelu", "backbone"] = "gelu"
    positional: Literal["bicubic_antialias", "bilinear"] = "bicubic_antialias"  # C; P silent

    # Text. P 3.2 and C: unified text prompts; Table 4 and Table 9 replace words and templates.
    templates: tuple[str, ...] = ("a photo of a {state} {category}",)
    normal_states: tuple[str, ...] = ("good",)
    anomalous_states: tuple[str, ...] = ("damaged",)
    category_length: int = 2  # r: vectors that stand for the category; P Fig. 9a, C
    deep_prompts: bool = True  # P Eq. (1), C total_d_layer_len 11 (0: off)
    deep_length: int = 1  # n: vectors a block; P Fig. 9b, C
    dropout: float = 0.1  # on the deep prompts while training; C; P silent

    # Pre-VCP, P Eq. (4). Off: the category vectors are learned, but no image speaks into them.
    pre_vcp: bool = True
    use_global: bool = True  # C --use_global: False keeps the mini-net in the file, unused

    # Post-VCP, P Eqs. (5) to (9). Off: the raw branch is the whole model, map and loss.
    post_vcp: bool = True
    heads: int = 8  # M; P Fig. 9d, C
    post_width: Literal["vision", "joint"] = "vision"  # C 1024; P C = 768, 96 a head
    post_bias: bool = True  # C; P prints none
    post_unit_tokens: bool = True  # C: keys and values of unit-norm patches; P: of raw ones

    # Maps. `alpha` is the weight of the RAW branch; the paper's alpha is that of the other one.
    alpha: float = 0.2  # C 0.2; P 0.25 (printed as 0.75 on the new branch)
    sigma: float = 8.0  # C; P has no smoothing (0)
    image_score: Literal["top_pixels", "map_maximum"] = "top_pixels"  # C; P B.4: the maximum
    top_pixels: int = 2000  # C, of each branch before smoothing

    # Training. Betas: C; P names Adam alone.
    epochs: int = 10  # P 4.1, C
    batch_size: int = 32  # P 4.1, C
    seed: int = 333  # C; P: three unnamed seeds
    learning_rate: float = 4e-5  # P 4.1; C on VisA
    learning_rate_mvtec: float = 2e-5  # C on MVTec AD (its README and issue 9); P 4e-5
    learning_rate_temperature: float = 1e-2  # C, of both temperatures; P one rate for all
    betas: tuple[float, ...] = (0.5, 0.999)

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        for name in ("image_size", "category_length", "deep_length", "heads", "top_pixels"):
            _at_least_one(name, getattr(self, name))
        _at_least_one("batch_size", self.batch_size)
        if self.epochs < 0:
            raise ClipadError(
                f"epochs: found {self.epochs}, expected 0 (nothing is learned) or more."
            )
        if not self.blocks or len(set(self.blocks)) < len(self.blocks) or min(self.blocks) < 1:
            raise ClipadError(
                f"blocks: found {self.blocks}, expected different block numbers from 1 on."
            )
        for name, top in (("alpha", 1), ("mosaic_rate", 1), ("dropout", 0.999)):
            if not 0 <= getattr(self, name) <= top:
                raise ClipadError(f"{name}: found {getattr(self, name)}, expected 0 to {top}.")
        if not self.sigma >= 0:
            raise ClipadError(f"sigma: found {self.sigma}, expected 0 (no smoothing) or more.")
        for name in ("learning_rate", "learning_rate_mvtec", "learning_rate_temperature"):
            if not getattr(self, name) > 0:
                raise ClipadError(
                    f"{name}: found {getattr(self, name)}, expected a number above 0."
                )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ClipadError(f"betas: found {self.betas}, expected two numbers from 0 to below 1.")
        _check_prompts(self)

    def changed(self, values: dict[str, Any]) -> VCPCLIPConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> VCPCLIPConfig().changed({"blocks": [12]}).blocks
        (12,)
        """
        return changed(self, values, "vcpclip")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ClipadError(f"{name}: found {value}, expected at least 1.")


def _check_prompts(config: VCPCLIPConfig) -> None:
    for name in ("templates", "normal_states", "anomalous_states"):
        if not getattr(config, name):
            raise ClipadError(f"{name}: found none, expected at least one.")
    for template in config.templates:
        if template.count(STATE) != 1 or template.count(CATEGORY) != 1:
            raise ClipadError(
                f"templates: found {template!r}, expected {STATE} and {CATEGORY} once each."
            )


def prompts(config: VCPCLIPConfig) -> tuple[list[str], list[str]]:
    """All normal and all anomalous prompts, templates times states, ``{category}`` still open.

    >>> prompts(VCPCLIPConfig())
    (['a photo of a good {category}'], ['a photo of a damaged {category}'])
    """
    states = (config.normal_states, config.anomalous_states)
    both = [[t.replace(STATE, s) for t in config.templates for s in group] for group in states]
    return both[0], both[1]


PRESETS: dict[str, VCPCLIPConfig] = {
    "code": VCPCLIPConfig(),
    "paper": replace(
        VCPCLIPConfig(),
        augmentation="none",
        post_width="joint",
        post_bias=False,
        post_unit_tokens=False,
        alpha=0.25,
        sigma=0.0,
        image_score="map_maximum",
        learning_rate_mvtec=4e-5,
        learning_rate_temperature=4e-5,
    ),
}


def find_preset(name: str) -> VCPCLIPConfig:
    """Look a preset up by name, with a message that lists the names."""
    return look_up_preset(PRESETS, name)
