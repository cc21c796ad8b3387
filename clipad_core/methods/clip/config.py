"""Every choice of the rows CLIP and CLIP-AC as one field, with its source, and presets by paper.

Nobody published code for these rows, a few sentences define them. A is Zhou et al., AnomalyCLIP, ICLR
2024 (arXiv 2310.18961v12), whose repository holds a plain CLIP that nothing there calls (C is
zqhang/AnomalyCLIP@45ed4dd); W is Jeong et al., WinCLIP, CVPR 2023 (arXiv 2303.14814). Both print a row
CLIP-AC, and it is not the same. What neither prints is [open] below: a field with its readings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.clip.features import LAST_BLOCK
from clipad_core.config import changed, choice, look_up_preset
from clipad_core.errors import ClipadError

_TEMPLATES = "arXiv:2310.18961, A.2; mlfoundations/open_clip@v3.3.0: zero_shot_metadata.py"
_W = "arXiv:2303.14814, 3, 5.1 and supplement A, as in mala-lab/WinCLIP@4880fc4"

Templates = Literal["single", "openai80", "simple7", "bare"]
TextMean = Literal["unit_mean_unit", "mean_unit", "unit_mean", "mean"]


@dataclass(frozen=True)
class CLIPConfig:
    """The row CLIP of AnomalyCLIP's tables; a preset replaces what another row has."""

    # A, App. B: float32. float64 (the same numbers on every CPU) and the halves are ours.
    precision: Literal["float64", "float32", "bfloat16", "float16_autocast"] = choice(
        "float32", read="run"
    )

    # Image. A, App. B: ViT-L/14@336 by OpenAI at 518 px, squashed. W: ViT-B/16+ at 240 px, square tiles
    # whose predictions are averaged.
    image_size: int = choice(518, "images of 240 pixels instead of 518", _W)
    resize: Literal["stretch", "tiles"] = choice(
        "stretch",
        "square tiles along the longer edge instead of a squash",
        _W,
        together="image_size",
    )
    positional: Literal["bilinear", "bicubic_antialias"] = "bilinear"  # C: AnomalyCLIP_lib
    # C's class CLIP has it, its class AnomalyCLIP has not; issue 76 ran prompts that only the first embeds.
    class_ln_post: bool = True
    # A 4.1 and A.1: the top layer. The other reading: 6, 12, 18 and 24, whose maps are summed.
    blocks: tuple[int, ...] = (LAST_BLOCK,)

    # Prompts: a template around "normal [cls]" and "anomalous [cls]".
    templates: Templates = choice(
        "single",
        "the prompts: one sentence, the mean of 80 or 7 ImageNet templates, or the bare words",
        _TEMPLATES,
    )
    period: bool = True  # [open] A prints none, its issue 76 wrote one; of the one sentence alone
    article: Literal["agree", "a"] = choice(  # A.2 prints "an anomalous"; of the templates [open]
        "agree",
        "a anomalous instead of an anomalous, as a plain format writes it into 24 of the 80 templates",
        _TEMPLATES,
        together="templates",
    )
    normal_state: str = "normal"
    anomalous_state: str = "anomalous"
    # W Table 3, one-class: the distance to the normal prompt alone.
    one_class: bool = False
    class_name: Literal["raw", "spaces", "object"] = choice(  # [open]; C's text helper: as it is
        "raw", "metal nut instead of the folder's name metal_nut", _W
    )
    # [open]; OpenAI's notebook, open_clip, CoOp and C: each of unit norm, and their mean.
    text_mean: TextMean = "unit_mean_unit"

    # Scores: A Eq. (1). It cannot change a ranking of images, only maps, which are smoothed afterwards.
    temperature: float = 0.07
    sigma: float = choice(  # A 3.3: "segmentation in the same way"
        4.0, "no smoothing of the map: the row has image scores alone", _W
    )

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        if self.image_size < 1:
            raise ClipadError(f"image_size: found {self.image_size}, expected at least 1.")
        if not self.blocks or len(set(self.blocks)) < len(self.blocks):
            raise ClipadError(f"blocks: found {self.blocks}, expected different block numbers.")
        if not self.temperature > 0:
            raise ClipadError(f"temperature: found {self.temperature}, expected a number above 0.")
        if not self.sigma >= 0:
            raise ClipadError(f"sigma: found {self.sigma}, expected 0 or more.")
        if self.normal_state == self.anomalous_state and not self.one_class:
            raise ClipadError(
                f"anomalous_state: found {self.anomalous_state!r}, which normal_state is too, expected "
                "another word; equal prompts tell nothing apart."
            )

    def changed(self, values: dict[str, Any]) -> CLIPConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> CLIPConfig().changed({"blocks": [6, 12]}).blocks
        (6, 12)
        """
        return changed(self, values, "clip")


_CLIP = CLIPConfig()
_WINCLIP = replace(
    _CLIP, image_size=240, resize="tiles", templates="bare", class_name="spaces", sigma=0.0
)

PRESETS: dict[str, CLIPConfig] = {
    # A Tables 1 and 2, rows CLIP and CLIP-AC. Which reading of the second A ran is not known.
    "clip": _CLIP,
    "clip_ac_anomalyclip": replace(_CLIP, templates="openai80", article="a"),
    # W Tables 1 and 3, on ViT-B-16-plus-240 with laion400m_e31: image scores alone.
    "clip_ac_winclip": _WINCLIP,
    "clip_ac_winclip_ensemble": replace(_WINCLIP, templates="openai80", article="a"),
}


def find_preset(name: str) -> CLIPConfig:
    """Look a preset up by name, with a message that lists the names."""
    return look_up_preset(PRESETS, name)
