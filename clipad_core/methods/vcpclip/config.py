"""Every choice of VCP-CLIP as one field, with its source, and the two published presets.

P is Qu et al., VCP-CLIP, ECCV 2024 (arXiv 2407.12276v1); C, below, is the code that made the released
weights. Where the two differ the field of ``code`` is the default, and ``paper`` replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.config import (
    changed,
    check_betas,
    check_different_blocks,
    check_least,
    choice,
    look_up_preset,
)
from clipad_core.errors import ClipadError

_C = "xiaozhen228/VCP-CLIP@4dd96ec"

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
    precision: Literal["float64", "float32", "bfloat16", "float16_autocast"] = choice(
        "float32", read="run"
    )
    augmentation: Literal["code", "none"] = choice(
        "code", "no training augmentation", f"P names none; {_C}: dataset.py", read="training"
    )
    # C --aug_rate, MVTec AD alone: four anomalous images in one
    mosaic_rate: float = choice(0.2, read="training")
    image_size: int = 518  # P 4.1, C
    blocks: tuple[int, ...] = (6, 12, 18, 24)  # P 4.1, C; 1-based
    activation: Literal["gelu", "quick_gelu", "backbone"] = (
        choice(  # "backbone": as the weights say
            "gelu",
            "QuickGELU, with which OpenAI trained, instead of the exact GELU that the code runs",
            _C,
        )
    )
    positional: Literal["bicubic_antialias", "bilinear"] = choice(  # P silent
        "bicubic_antialias",
        "the positional embedding is resized to a larger grid by bilinear interpolation instead of bicubic "
        "with antialiasing, open_clip's own",
        _C,
    )

    # Text. P 3.2 and C: unified text prompts; Table 4 and Table 9 replace words and templates.
    templates: tuple[str, ...] = ("a photo of a {state} {category}",)
    normal_states: tuple[str, ...] = ("good",)
    anomalous_states: tuple[str, ...] = ("damaged",)
    # Ours, no paper's: learned vectors in the place of a state's words, so many a state (0: the words), as
    # CoOp (Zhou et al., IJCV 2022, 3.2) learns its context; they begin as the words or at random.
    state_length: int = 0
    state_init: Literal["words", "random"] = choice("words", read="training")
    category_length: int = 2  # r: vectors that stand for the category; P Fig. 9a, C
    deep_prompts: bool = True  # P Eq. (1), C total_d_layer_len 11 (0: off)
    deep_length: int = 1  # n: vectors a block; P Fig. 9b, C
    dropout: float = choice(0.1, read="training")  # on the deep prompts; C; P silent

    # Pre-VCP, P Eq. (4). Off: the category vectors are learned, but no image speaks into them.
    pre_vcp: bool = True
    use_global: bool = True  # C --use_global: False keeps the mini-net in the file, unused

    # Post-VCP, P Eqs. (5) to (9). Off: the raw branch is the whole model, map and loss.
    post_vcp: bool = True
    heads: int = 8  # M; P Fig. 9d, C
    post_width: Literal["vision", "joint"] = choice(  # C 1024; P C = 768, 96 a head
        "vision",
        "Post-VCP as printed: as wide as the text, no biases, raw patches",
        f"P 3.3; {_C}",
    )
    post_bias: bool = choice(
        True, "Post-VCP without biases", f"P 3.3 prints none; {_C}", together="post_width"
    )
    post_unit_tokens: bool = choice(
        True,
        "keys and values of raw patches instead of unit-norm ones",
        f"P 3.3; {_C}",
        together="post_width",
    )

    # Ours: what answers. "contrastive": P, patches against text embeddings. "decoder": both text
    # embeddings are queries of a transformer decoder over the patches, as in DETR (Carion et al., ECCV
    # 2020), which gives map and image score; fields of Post-VCP and `alpha` are not read then.
    head: Literal["contrastive", "decoder"] = "contrastive"
    decoder_layers: int = 2

    # Ours: where normal images of the category go, beside a learner that was trained without any.
    # "memory": the distance to their nearest patch is a map beside that of the text, as in WinCLIP+ and
    # APRIL-GAN; "state": what Pre-VCP makes of them takes the place of the normal state; "normal_prompt":
    # their mean embedding takes the place of the normal prompt's.
    reference_use: Literal["memory", "state", "normal_prompt"] = choice("memory", read="references")
    # Of a memory: both maps as one, or "visual" (its own) or "language" (the text's) alone.
    map_fusion: Literal["mean", "harmonic", "visual", "language"] = choice(
        "mean", read="references"
    )

    # Maps. `alpha` is the weight of the RAW branch; the paper's alpha is that of the other one.
    alpha: float = choice(
        0.2,
        "the raw map weighs 0.25 instead of 0.2",
        f"P 4.1; {_C}",
        read="after training",
    )
    sigma: float = choice(
        8.0,
        "no smoothing of the map",
        f"P names none; {_C}: test.py smooths",
        read="after training",
    )
    # "decoder" is ours: the score that the decoder gives itself.
    image_score: Literal["top_pixels", "map_maximum", "decoder"] = choice(
        "top_pixels",
        "maximum of the map instead of means of its largest pixels",
        f"P B.4; {_C}: test.py",
        read="after training",
    )
    # C, of each branch before smoothing
    top_pixels: int = choice(2000, read="after training")

    # Training. Betas: C; P names Adam alone.
    epochs: int = choice(10, read="training")  # P 4.1, C
    batch_size: int = choice(32, read="training")  # P 4.1, C
    seed: int = choice(333, read="run")  # C; P: three unnamed seeds
    learning_rate: float = choice(4e-5, read="training")  # P 4.1; C on VisA
    learning_rate_mvtec: float = choice(  # C: its README
        2e-5,
        "one learning rate for all, temperatures included (that of MVTec AD acts in trainings on it "
        "alone)",
        f"P 4.1; {_C}; xiaozhen228/VCP-CLIP#9",
        read="training",
        together="learning_rate",
    )
    learning_rate_temperature: float = choice(
        1e-2,
        "both temperatures learn at the rate of everything else",
        f"P 4.1; {_C}",
        read="training",
        together="learning_rate",
    )
    learning_rate_decoder: float = choice(1e-4, read="training")  # Carion et al., section 4
    betas: tuple[float, ...] = choice((0.5, 0.999), read="training")

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        for name in ("image_size", "category_length", "deep_length", "heads", "top_pixels"):
            check_least(name, getattr(self, name), 1)
        for name in ("batch_size", "decoder_layers"):
            check_least(name, getattr(self, name), 1)
        check_least("state_length", self.state_length, 0)
        if self.epochs < 0:
            raise ClipadError(
                f"epochs: found {self.epochs}, expected 0 (nothing is learned) or more."
            )
        check_different_blocks("blocks", self.blocks)
        for name, top in (("alpha", 1), ("mosaic_rate", 1), ("dropout", 0.999)):
            if not 0 <= getattr(self, name) <= top:
                raise ClipadError(f"{name}: found {getattr(self, name)}, expected 0 to {top}.")
        if not self.sigma >= 0:
            raise ClipadError(f"sigma: found {self.sigma}, expected 0 (no smoothing) or more.")
        rates = ("learning_rate", "learning_rate_mvtec", "learning_rate_temperature")
        for name in (*rates, "learning_rate_decoder"):
            if not getattr(self, name) > 0:
                raise ClipadError(
                    f"{name}: found {getattr(self, name)}, expected a number above 0."
                )
        check_betas(self.betas)
        if self.reference_use == "state" and not (self.pre_vcp and self.use_global):
            raise ClipadError(
                "reference_use: found state, expected pre_vcp and use_global beside it, which make words of "
                "images; choose another use."
            )
        if self.image_score == "decoder" and self.head != "decoder":
            raise ClipadError(
                "image_score: found decoder, expected head: decoder beside it; choose another score."
            )
        _check_prompts(self)

    def changed(self, values: dict[str, Any]) -> VCPCLIPConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> VCPCLIPConfig().changed({"blocks": [12]}).blocks
        (12,)
        """
        return changed(self, values, "vcpclip")


def _check_prompts(config: VCPCLIPConfig) -> None:
    for name in ("templates", "normal_states", "anomalous_states"):
        if not getattr(config, name):
            raise ClipadError(f"{name}: found none, expected at least one.")
    for template in config.templates:
        if template.count(STATE) != 1 or template.count(CATEGORY) != 1:
            raise ClipadError(
                f"templates: found {template!r}, expected {STATE} and {CATEGORY} once each."
            )


def prompts(
    config: VCPCLIPConfig, state_of_references: bool = False
) -> tuple[list[str], list[str]]:
    """All normal and all anomalous prompts, templates times states, ``{category}`` still open.

    Where vectors stand for a state, ``{state}`` is open, too.

    Args:
        state_of_references: whether references stand for all states of normal prompts.

    >>> prompts(VCPCLIPConfig())
    (['a photo of a good {category}'], ['a photo of a damaged {category}'])
    >>> prompts(VCPCLIPConfig(), state_of_references=True)[0]
    ['a photo of a {state} {category}']
    """
    states = [config.normal_states, config.anomalous_states]
    if config.state_length:
        states = [(STATE,) * len(group) for group in states]
    if state_of_references:
        states[0] = (STATE,)
    prompts_by_state = [
        [t.replace(STATE, s) for t in config.templates for s in group] for group in states
    ]
    return prompts_by_state[0], prompts_by_state[1]


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
