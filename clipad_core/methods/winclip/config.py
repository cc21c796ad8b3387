"""Every choice of WinCLIP / WinCLIP+ as one field, with its source, and the published presets.

Two kinds of fields: what the paper settles, and what it leaves open ([open] below), where every
published re-implementation decided for itself. A report walks from one preset to another field by
field and shows what each is worth.

P is Jeong et al., WinCLIP, CVPR 2023 with its supplement (arXiv 2303.14814); the codes are named by
letters below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.config import changed, check_least, choice, look_up_preset
from clipad_core.errors import ClipadError
from clipad_core.methods.method import WordKind
from clipad_core.methods.winclip.prompts import find_ensemble, without_words

_A = "open-edge-platform/anomalib@v2.7.0"
_Z = "zqhang/Accurate-WinCLIP-pytorch@eef4f8c"
_C = "caoyunkang/WinClip@0818c9d"
_M = "mala-lab/WinCLIP@4880fc4"

# What the tokens of a window attend to: `windows` has the code.
WindowAttention = Literal["alone", "disjoint", "plain", "shifted", "neighbourhood", "global"]

# No published code measures maps of more than 400 pixels a side.
LARGEST_MAP = 4096


@dataclass(frozen=True)
class WinCLIPConfig:
    """The setting of the paper; a preset replaces what another code does differently."""

    # Backbone: P names ViT-B/16+ on LAION-400M; epoch [open].
    weights: Literal["laion400m_e31", "laion400m_e32"] = choice(
        "laion400m_e31", "epoch 32 of the checkpoint instead of 31 (a stand-in has one)", _C
    )
    # [open]; C and M run half precision; float64 is ours: the same numbers on every CPU.
    precision: Literal["float64", "float32", "bfloat16", "float16_autocast"] = choice(
        "float32", read="run"
    )

    # Image. P supplement A: shorter edge to the input size, square tiles along the longer edge,
    # predictions averaged. Z, M: stretch (Pillow). A: stretch of a float tensor, not clamped.
    # C: bilinear to 1024, then Pillow. open_clip's own default: centre crop.
    resize: Literal["tiles", "stretch", "stretch_float", "stretch_1024", "centre_crop"] = choice(
        "tiles",
        "how an image becomes 240 pixels, and in which order its channels come: square tiles (P, "
        "supplement A), a stretch, a float stretch, through 1024 pixels with test images as BGR",
        f"{_A}; {_Z}; {_C}",
    )
    test_channels: Literal["rgb", "bgr"] = choice(
        "rgb", "test images as BGR, references as RGB", _C, together="resize"
    )
    # Crop set [open]; AlexNet's five or ten crops are the candidates.
    multi_crop: Literal["none", "five", "ten"] = choice(
        "none",
        "image scores averaged over crops: worth a point in P Table 3, described nowhere, in no code "
        "(mala-lab's tiles of images that are not square are another thing)",
        f"P 5.4, Table 3; absent from {_A} and {_Z}",
    )

    # Text.
    prompts: str = choice(
        "full22_dot",
        "the template list: 22 with a period (P, Fig. 6), 21 with one doubled, 22 without a period",
        f"{_A}; {_Z}; {_C}",
    )
    # How much of the list is read, in no paper: templates without some words, and of the rest as many as
    # cover the others best, or as a seed draws (`subset`). None: all. Of states, as many of either label.
    templates_without: tuple[str, ...] = ()
    templates_kept: int | None = None
    states_kept: int | None = None
    kept_by: Literal["coverage", "random"] = "coverage"
    kept_seed: int = 0
    # P Table 7: task-specific states; "defects": one for every kind of damage of the category. The other
    # words of a category, and what is left without the list's own anomalous states, are in no paper.
    extra_anomalous_states: tuple[str, ...] | WordKind = ()
    general_states: bool = True
    class_name: Literal["spaces", "raw", "object"] = choice(  # [open]
        "spaces", "the folder's name as it stands: metal_nut", f"{_A}; {_Z}; {_C}"
    )
    text_average: Literal["mean_raw", "norm_mean"] = choice(  # [open]
        "mean_raw", "mean of unit embeddings instead of raw ones", _M
    )
    temperature: float | Literal["clip"] = choice(  # P Eq. (1); A and Z have 0.07 too
        0.07, "0.01 instead of 0.07; P prints no value", f"{_C}; {_M}"
    )

    # Language-guided map. P Eq. (3) and section 4.2.
    map_source: Literal["windows", "patch_tokens", "tiles"] = "windows"  # P Table 8's rows
    # P 4.2: windows slide by one patch, each is encoded alone. Ours, for speed: windows side by side; or
    # all windows in one pass, in which a patch sees its block (Swin, ICCV 2021), a block shifted in every
    # second layer (Swin), its neighbourhood (NAT, CVPR 2023), or, as ever, the image (MaskCLIP, ICML
    # 2023). Windows of references follow.
    window_attention: WindowAttention = "alone"
    scales: tuple[int, ...] = choice(  # in patches: small and mid
        (2, 3), "mid windows before small ones: the order of float sums", _Z
    )
    image_scale: bool = choice(True, "the whole image is no scale of the language map", _C)
    window_aggregation: Literal["harmonic", "harmonic_normal", "arithmetic"] = choice(
        "harmonic",
        "harmonic mean of normality instead of abnormality, windows and scales (P Eq. (3))",
        _C,
    )
    scale_fusion: Literal["harmonic", "harmonic_normal", "arithmetic", "max"] = choice(
        "harmonic",
        "harmonic mean of normality instead of abnormality over the scales",
        _C,
        together="window_aggregation",
    )
    zero_shot_image_score: Literal["text", "map_maximum"] = choice(
        "text", "maximum of the map instead of the text score", _C
    )

    # Reference association, P Eqs. (4) to (6).
    patch_feature: Literal["ln_post", "raw", "projected", "none"] = choice(  # [open]
        "ln_post",
        "patch memory of the residual stream, or none, instead of tokens after ln_post",
        f"{_Z}; {_M}; {_C}",
        read="references",
    )
    memory_scales: tuple[int, ...] = choice(
        (2, 3),
        "mid windows before small ones in the memory, too",
        _Z,
        read="references",
        together="scales",
    )
    reference_aggregation: Literal["harmonic", "arithmetic"] = choice(  # [open]
        "harmonic", "plain mean of window distances", _C, read="references"
    )
    clamp_association: bool = choice(  # distances of -1e-7 are rounding
        True, "rounding below zero is let through", f"{_A}; {_Z}; {_C}; {_M}", read="references"
    )
    gallery_off_by_one: bool = choice(
        False,
        "the first window of a scale is compared with the previous gallery",
        _C,
        read="references",
    )
    map_fusion: Literal["mean", "sum", "harmonic", "parallel", "visual", "language"] = choice(
        "mean",
        "sum, or parallel resistors, of language and reference map; P prints no operator",
        f"{_Z}; {_C}",
    )
    few_shot_image_score: Literal["both", "visual", "text", "map_maximum"] = choice(
        "both", "maximum of the map instead of Eq. (6)", _C, read="references"
    )
    reference_choice: Literal["seeded", "first", "with_replacement"] = choice(
        "seeded",
        "the first files of the folder, or draws with replacement, instead of seeded draws",
        f"{_A}; {_Z}",
        read="references",
    )

    # Output.
    aggregation_precision: Literal["float32", "float64"] = choice(
        "float32", "maps are averaged in double precision", _Z
    )
    map_size: int | None = choice(  # None: the input size
        None, "evaluation at 400 pixels instead of the input size", _C
    )
    mask_rule: Literal["nearest", "bilinear_half"] = choice(
        "nearest", "masks bilinear and cut at one half instead of nearest", _Z
    )

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        find_ensemble(self.prompts)
        if not isinstance(self.temperature, str) and not 0 < self.temperature < math.inf:
            raise ClipadError(f"temperature: found {self.temperature}, expected a number above 0.")
        if self.map_size is not None and not 1 <= self.map_size <= LARGEST_MAP:
            raise ClipadError(
                f"map_size: found {self.map_size}, expected 1 to {LARGEST_MAP} pixels, or null for the "
                "input size."
            )
        _check_kept(self)
        states = self.extra_anomalous_states
        if states == () and not self.general_states:
            raise ClipadError(
                "general_states: found false without extra_anomalous_states, expected states in their "
                "place."
            )
        states = () if isinstance(states, str) else states
        if wrong := [state for state in states if state.count("{}") != 1]:
            raise ClipadError(
                f"extra_anomalous_states: found {wrong[0]!r}, expected one {{}} in each, where the class "
                "name stands."
            )
        if not self.scales and not self.image_scale:
            raise ClipadError("scales: found none and image_scale is off; expected at least one.")
        if self.patch_feature == "none" and not self.memory_scales:
            raise ClipadError(
                "memory_scales: found none and no patch_feature; expected at least one."
            )

    def changed(self, values: dict[str, Any]) -> WinCLIPConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> WinCLIPConfig().changed({"scales": [2]}).scales
        (2,)
        """
        return changed(self, values, "winclip")


def _check_kept(config: WinCLIPConfig) -> None:
    """What is kept of a list must be in it."""
    ensemble = find_ensemble(config.prompts)
    for word in config.templates_without:
        if without_words(ensemble.templates, (word,)) == ensemble.templates:
            raise ClipadError(
                f"templates_without: found {word!r}, which no template of {config.prompts} holds, expected "
                "words of its templates."
            )
    left = without_words(ensemble.templates, config.templates_without)
    if not left:
        raise ClipadError(
            f"templates_without: found {', '.join(config.templates_without)}, without which no template "
            f"of {config.prompts} is left; expected fewer words."
        )
    states = max(len(ensemble.normal_states), len(ensemble.anomalous_states))
    for name, count, most in (
        ("templates_kept", config.templates_kept, len(left)),
        ("states_kept", config.states_kept, states),
    ):
        if count is not None and not 1 <= count <= most:
            raise ClipadError(
                f"{name}: found {count}, expected 1 to {most}, as {config.prompts} has, or null for all."
            )
    check_least("kept_seed", config.kept_seed, 0)


_PAPER = WinCLIPConfig()

PRESETS: dict[str, WinCLIPConfig] = {
    "paper": _PAPER,
    "anomalib": replace(
        _PAPER,
        resize="stretch_float",
        prompts="zq21_dot",
        class_name="raw",
        clamp_association=False,
        reference_choice="first",
    ),
    "zqhang": replace(
        _PAPER,
        resize="stretch",
        prompts="zq21_dot",
        class_name="raw",
        scales=(3, 2),
        memory_scales=(3, 2),
        patch_feature="raw",
        clamp_association=False,
        map_fusion="sum",
        aggregation_precision="float64",
        reference_choice="with_replacement",
        mask_rule="bilinear_half",
    ),
    "caoyunkang": replace(
        _PAPER,
        weights="laion400m_e32",
        resize="stretch_1024",
        test_channels="bgr",
        prompts="full22_nodot",
        class_name="raw",
        temperature=0.01,
        image_scale=False,
        window_aggregation="harmonic_normal",
        scale_fusion="harmonic_normal",
        zero_shot_image_score="map_maximum",
        patch_feature="none",
        reference_aggregation="arithmetic",
        clamp_association=False,
        gallery_off_by_one=True,
        map_fusion="parallel",
        few_shot_image_score="map_maximum",
        map_size=400,
    ),
    "malalab": replace(
        _PAPER,
        resize="tiles",
        prompts="full22_dot",
        text_average="norm_mean",
        temperature=0.01,
        patch_feature="raw",
        clamp_association=False,
    ),
}


def find_preset(name: str) -> WinCLIPConfig:
    """Look a preset up by name, with a message that lists the names."""
    return look_up_preset(PRESETS, name)
