"""Which ablations the WinCLIP paper prints, where, and what it reports as better."""

from __future__ import annotations

from clipad_harness.papers.ablation_groups import Group

GROUPS: dict[str, Group] = {
    "prompts": Group(
        ("image_auroc", "image_ap", "image_f1max"),
        "Table 3",
        "mvtec",
        (
            ("one class", "AC ablation: one-class (normal prompt only)"),
            ("two class", "AC ablation: two-class prompts"),
            ("states", "AC ablation: + state ensemble"),
            ("states and templates", "AC ablation: + prompt (template) ensemble"),
            ("states and templates, five crops", "AC ablation: + multi-crop (= full WinCLIP)"),
            ("states and templates, ten crops", "AC ablation: + multi-crop (= full WinCLIP)"),
        ),
        (
            ("two class", "one class"),
            ("states", "two class"),
            ("states and templates", "states"),
            ("states and templates, five crops", "states and templates"),
        ),
    ),
    "image score": Group(
        ("image_auroc",),
        "Table 5",
        "mvtec",
        (
            ("max M^W only", "AC ablation: max M^W only (vision)"),
            ("text score only", "AC ablation: ascore0 only (language)"),
            ("both", "AC ablation: max M^W + ascore0 (full)"),
        ),
        (("both", "max M^W only"), ("both", "text score only")),
    ),
    "memories": Group(
        ("pixel_auroc",),
        "Table 6",
        "mvtec",
        (
            ("M^P", "AS ablation: M^P only"),
            ("M^P and mid windows", "AS ablation: M^P + M^W_m"),
            ("full, with the language map", "AS ablation: M^P + M^W_m + M^W_s (full)"),
        ),
        (
            ("M^P and mid windows", "M^P"),
            ("full, with the language map", "M^P and mid windows"),
        ),
    ),
    "task states": Group(
        ("image_auroc",),
        "Table 7",
        "visa",
        (
            ("general states", "generic states"),
            ("states of the category's defects", "+ task-specific states"),
        ),
        (("states of the category's defects", "general states"),),
    ),
    "language map": Group(
        ("pixel_auroc", "aupro", "pixel_f1max"),
        "Table 8",
        "mvtec",
        (
            ("patch tokens", "AS ablation: patch tokens"),
            ("image tiling", "AS ablation: image tiling"),
            ("windows, full", "AS ablation: full WinCLIP"),
            ("no image scale", "AS ablation: w/o image scale"),
            ("no mid scale", "AS ablation: w/o mid scale"),
            ("no small scale", "AS ablation: w/o small scale"),
            ("no harmonic", "AS ablation: w/o harmonic averaging"),
        ),
        tuple(
            ("windows, full", worse)
            for worse in (
                "patch tokens",
                "image tiling",
                "no image scale",
                "no mid scale",
                "no small scale",
                "no harmonic",
            )
        ),
    ),
    "temperature": Group(("pixel_auroc", "image_auroc", "aupro")),
    "text averaging": Group(("image_auroc", "pixel_auroc", "aupro")),
    "class name": Group(("image_auroc", "pixel_auroc", "aupro")),
    "patch feature": Group(("pixel_auroc", "image_auroc", "aupro")),
    "map fusion": Group(("pixel_auroc", "aupro")),
    "reference windows": Group(("pixel_auroc", "image_auroc", "aupro")),
    "preset": Group(("image_auroc", "pixel_auroc", "aupro")),
    "AUPRO": Group(("aupro",)),
}
