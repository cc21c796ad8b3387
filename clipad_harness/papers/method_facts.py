"""What the pages of the three methods have in common, and what is each method's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipad_harness.papers import anomalyclip_groups, vcpclip_groups, winclip_groups
from clipad_harness.papers.ablation_groups import Group

if TYPE_CHECKING:
    pass

# Whose printed means stand beside a dataset that a paper does not have, never compared.
PAPER_DATASET = "mvtec"


@dataclass(frozen=True)
class MethodFacts:
    """One method as the pages see it.

    Attributes:
        name: in params.yaml and in file names.
        title: of the page.
        backbone: what the paper's numbers were made with.
        metrics: the first screen's.
        code: the files that say how an image is scored.
        groups: its ablations.
        missing: what its page should show and never does.
    """

    name: str
    title: str
    backbone: str
    metrics: tuple[str, ...]
    code: tuple[str, ...]
    groups: Mapping[str, Group]
    missing: tuple[str, ...] = ()


_LEARNED_CODE = ("clipad_harness/experiments/train.py", "clipad_harness/experiments/scorer.py")
# By the name that results tables and papers use.
FACTS = {
    "WinCLIP": MethodFacts(
        "winclip",
        "WinCLIP and WinCLIP+",
        "ViT-B-16-plus-240",
        ("image_auroc", "pixel_auroc", "aupro"),
        (
            "clipad_core/methods/winclip/detector.py",
            "clipad_core/methods/winclip/config.py",
            "clipad_harness/experiments/scorer.py",
        ),
        winclip_groups.GROUPS,
        ("Table 9's other backbones: only one backbone is run",),
    ),
    "AnomalyCLIP": MethodFacts(
        "anomalyclip",
        "AnomalyCLIP",
        "ViT-L-14-336-quickgelu",
        ("image_auroc", "image_ap", "pixel_auroc", "aupro"),
        (
            "clipad_core/methods/anomalyclip/detector.py",
            "clipad_core/methods/anomalyclip/config.py",
            *_LEARNED_CODE,
        ),
        anomalyclip_groups.GROUPS,
        ("other backbones: only one backbone is run",),
    ),
    "VCP-CLIP": MethodFacts(
        "vcpclip",
        "VCP-CLIP",
        "ViT-L-14-336-quickgelu",
        ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"),
        (
            "clipad_core/methods/vcpclip/detector.py",
            "clipad_core/methods/vcpclip/config.py",
            *_LEARNED_CODE,
        ),
        vcpclip_groups.GROUPS,
        ("other backbones: only one backbone is run",),
    ),
}


def find_group(method: str, name: str) -> Group:
    """A known group, or plain columns for one that params.yaml adds."""
    return FACTS[method].groups.get(name, Group(("image_auroc", "pixel_auroc", "aupro")))
