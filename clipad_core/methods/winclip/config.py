"""Every choice of WinCLIP / WinCLIP+ as one field, with its source, and the published presets.

Two kinds of fields: what the paper settles, and what it leaves open ([open] below), where every
published re-implementation decided for itself. A report walks from one preset to another field by
field and shows what each is worth.

Sources: P = Jeong et al., WinCLIP, CVPR 2023 with its supplement (arXiv 2303.14814); A = anomalib
2.7.0; Z = zqhang/Accurate-WinCLIP-pytorch@eef4f8c; C = caoyunkang/WinClip@0818c9d; M =
mala-lab/WinCLIP@4880fc4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.config import changed, look_up_preset
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.prompts import find_ensemble

# What the paper leaves open, and so what a report must state (spec of the paper, section 10).
OPEN_CHOICES = (
    "weights",
    "class_name",
    "text_average",
    "temperature",
    "multi_crop",
    "patch_feature",
    "reference_aggregation",
    "map_fusion",
    "scale_fusion",
    "map_size",
    "mask_rule",
    "reference_choice",
)

# What is read only where there are references.
REFERENCE_FIELDS = (
    "patch_feature",
    "memory_scales",
    "reference_aggregation",
    "clamp_association",
    "gallery_off_by_one",
    "few_shot_image_score",
    "reference_choice",
)


# No published code measures maps of more than 400 pixels a side.
LARGEST_MAP = 4096


@dataclass(frozen=True)
class WinCLIPConfig:
    """The setting of the paper; a preset replaces what another code does differently."""

    # Backbone: P names ViT-B/16+ on LAION-400M; epoch [open]. A, Z, M: e31; C: e32.
    weights: Literal["laion400m_e31", "laion400m_e32"] = "laion400m_e31"
    # [open]; C and M run half precision; float64 is ours: the same numbers on every CPU.
    precision: Literal["float64", "float32", "bfloat16"] = "float32"

    # Image. P supplement A: shorter edge to the input size, square tiles along the longer edge,
    # predictions averaged. Z, M: stretch (Pillow). A: stretch of a float tensor, not clamped.
    # C: bilinear to 1024, then Pillow. open_clip's own default: centre crop.
    resize: Literal["tiles", "stretch", "stretch_float", "stretch_1024", "centre_crop"] = "tiles"
    test_channels: Literal["rgb", "bgr"] = "rgb"  # C feeds test images as BGR, references as RGB
    # P Table 3: +1.0 image AUROC; crop set [open]. AlexNet's five or ten crops are the candidates.
    multi_crop: Literal["none", "five", "ten"] = "none"

    # Text. P Fig. 6: 22 templates with a final period. A, Z: 21 entries, one doubled. C: no period.
    prompts: str = "full22_dot"
    # P Table 7: task-specific states; "defects": one for every kind of damage of the category.
    extra_anomalous_states: tuple[str, ...] | Literal["defects"] = ()
    class_name: Literal["spaces", "raw", "object"] = "spaces"  # [open]; A, Z, C: the folder name
    text_average: Literal["mean_raw", "norm_mean"] = "mean_raw"  # [open]; M: norm_mean
    temperature: float | Literal["clip"] = 0.07  # P Eq. (1), value [open]; A, Z 0.07; C, M 0.01

    # Language-guided map. P Eq. (3) and section 4.2.
    map_source: Literal["windows", "patch_tokens", "tiles"] = "windows"  # P Table 8's rows
    scales: tuple[int, ...] = (2, 3)  # in patches: small and mid
    image_scale: bool = True  # the whole image as a third scale; C: no
    window_aggregation: Literal["harmonic", "harmonic_normal", "arithmetic"] = "harmonic"
    scale_fusion: Literal["harmonic", "harmonic_normal", "arithmetic", "max"] = "harmonic"
    zero_shot_image_score: Literal["text", "map_maximum"] = "text"  # C: maximum of the map

    # Reference association, P Eqs. (4) to (6).
    patch_feature: Literal["ln_post", "raw", "projected", "none"] = "ln_post"  # [open]; Z, M raw
    memory_scales: tuple[int, ...] = (2, 3)
    reference_aggregation: Literal["harmonic", "arithmetic"] = "harmonic"  # [open]; C arithmetic
    clamp_association: bool = True  # distances of -1e-7 are rounding; peers let them through
    gallery_off_by_one: bool = False  # C: the first window of a scale meets the previous gallery
    map_fusion: Literal["mean", "sum", "harmonic", "parallel", "visual", "language"] = "mean"
    few_shot_image_score: Literal["both", "visual", "text", "map_maximum"] = "both"  # P Eq. (6)
    reference_choice: Literal["seeded", "first", "with_replacement"] = (
        "seeded"  # A first, Z w. repl.
    )

    # Output.
    aggregation_precision: Literal["float32", "float64"] = "float32"  # Z: float64
    map_size: int | None = None  # None: the input size; C: 400
    mask_rule: Literal["nearest", "bilinear_half"] = "nearest"  # Z: bilinear, then above one half

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
        states = () if self.extra_anomalous_states == "defects" else self.extra_anomalous_states
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
