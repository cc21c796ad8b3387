"""Which ablations AnomalyCLIP's paper and its authors' rebuttal print, and what they report as better.

A rebuttal's table stands in no version of the paper; "T4" (several blocks) was dropped from it, since
the code of that time summed the same block four times.
"""

from __future__ import annotations

from clipad_harness.papers.ablation_groups import Group

_ALL = ("pixel_auroc", "aupro", "image_auroc", "image_ap")
_BOTH = ("pixel_auroc", "image_auroc")
_WORDS = ("damaged", "anomalous", "flawed", "defective", "blemished")

GROUPS: dict[str, Group] = {
    "modules": Group(
        _ALL,
        "Table 4",
        "mvtec",
        (
            ("base", "module ablation: base"),
            ("T1", "module ablation: base + T1 (DPAM)"),
            ("T1 and T2", "module ablation: + T1 + T2 (object-agnostic prompts)"),
            ("T1, T2 and T3", "module ablation: + T1 + T2 + T3 (text-encoder tokens) = full"),
        ),
        (("T1", "base"), ("T1 and T2", "T1"), ("T1, T2 and T3", "T1 and T2")),
    ),
    "remove one": Group(
        _BOTH,
        "rebuttal Table 7 / Appendix D",
        "mvtec",
        (
            ("without T1", "remove-one: w/o T1 (DPAM)"),
            ("without T2", "remove-one: w/o T2 (object-agnostic prompts)"),
            ("without T3", "remove-one: w/o T3 (text tokens)"),
            ("full", "remove-one: full"),
        ),
        (("full", "without T1"), ("full", "without T2"), ("full", "without T3")),
    ),
    "context optimisation": Group(
        _ALL,
        "Table 5",
        "mvtec",
        (
            ("none", "context optimisation: local off, global off"),
            ("global", "context optimisation: local off, global on"),
            ("local", "context optimisation: local on, global off"),
            ("global and local", "context optimisation: local on, global on = full"),
        ),
        (
            ("global", "none"),
            ("local", "none"),
            ("global and local", "global"),
            ("global and local", "local"),
        ),
    ),
    "local loss": Group(
        ("pixel_auroc", "aupro"),
        "rebuttal Table 14",
        "mvtec",
        (
            ("none", "local loss: no local loss"),
            ("dice", "local loss: Dice only"),
            ("focal and dice", "local loss: Focal + Dice (both)"),
        ),
        (("dice", "none"), ("focal and dice", "dice")),
    ),
    "attention": Group(
        _BOTH,
        "rebuttal Tables 7 and 12",
        "mvtec",
        (
            ("QQ, KK, VV and QK", "ensemble 2 (QQ,KK,VV + QK logits averaged)"),
            ("V-V", "remove-one: full"),
            ("the tower's own", "remove-one: w/o T1 (DPAM)"),
        ),
        (("V-V", "the tower's own"),),
    ),
    "object": Group(
        ("image_auroc", "image_ap", "pixel_auroc", "aupro"),
        "Figure 5",
        "mvtec",
        (),
        (("object-agnostic", "object-aware"),),
    ),
    "class name at test": Group(
        ("image_auroc", "image_ap", "pixel_auroc", "aupro"),
        "Figure 8",
        "mvtec",
        (
            ("object", "context optimisation: local on, global on = full"),
            ("class name", 'test-time class name instead of "object" (AnomalyCLIPre)'),
        ),
        (("object", "class name"),),
    ),
    "context": Group(
        _BOTH,
        "rebuttal Tables 7 and 11",
        "mvtec",
        (
            ("shared", "shared normal/abnormal prompt context"),
            ("own for each state", "remove-one: full"),
        ),
        (("own for each state", "shared"),),
    ),
    "context tokens": Group(("aupro", "image_ap"), "Figure 7a", "mvtec"),
    "prompt depth": Group(("aupro", "image_ap"), "Figure 7b", "mvtec"),
    "prompt length": Group(("aupro", "image_ap"), "Figure 7c", "mvtec"),
    "lambda": Group(("aupro", "image_ap"), "Figure 7d", "mvtec"),
    "state word": Group(
        ("image_auroc", "image_ap", "pixel_auroc", "aupro"),
        "Table 8",
        "mvtec",
        tuple((word, f"state word: {word}") for word in _WORDS),
    ),
    "output blocks": Group(_ALL),
    "first block of the branch": Group(_BOTH),
    "training set": Group(_ALL),
    "implementation": Group(_ALL),
    "preset": Group(_ALL),
    "AUPRO": Group(("aupro",)),
}
