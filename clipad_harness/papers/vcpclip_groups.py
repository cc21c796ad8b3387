"""Which ablations the VCP-CLIP paper prints, where, and what it reports as better."""

from __future__ import annotations

from clipad_harness.papers.ablation_groups import Group

_PIXEL = ("pixel_ap", "aupro", "pixel_auroc")
# The paper's other two pairs are rows for weights that have read all of their words.
_STATES = ("good, damaged", "perfect, flawed", "flawless, imperfect")
_BLOCKS = ("6", "12", "18", "24", "6, 12", "6, 12, 18", "6, 12, 18, 24")
_PROMPTS = {
    "1, as trained": "test-time Prompt 1 a photo of a good/damaged [z] (training prompt)",
    "2": "test-time Prompt 2 This is a good/damaged photo of [z]",
    "3": "test-time Prompt 3 It is a photo of a [z] without/with damage",
    "4": "test-time Prompt 4 There is (not) a damaged [z] in the photo",
    "5": "test-time Prompt 5 It is a good, perfect and pristine / damaged, flawed and broken "
    "picture of [z]",
}

GROUPS: dict[str, Group] = {
    "components": Group(
        _PIXEL,
        "Table 2",
        "mvtec",
        (
            ("DTP only", "components: DTP only (= baseline)"),
            ("DTP and Post-VCP", "components: DTP + Post-VCP (no Pre-VCP)"),
            ("DTP and Pre-VCP", "components: DTP + Pre-VCP (no Post-VCP)"),
            ("Pre-VCP and Post-VCP", "components: Pre-VCP + Post-VCP (no DTP)"),
            ("full", "components: DTP + Pre-VCP + Post-VCP (full)"),
        ),
        (
            ("full", "DTP only"),
            ("full", "DTP and Post-VCP"),
            ("full", "DTP and Pre-VCP"),
            ("full", "Pre-VCP and Post-VCP"),
        ),
    ),
    "visual context": Group(_PIXEL),
    "blocks": Group(
        _PIXEL,
        "Table 3",
        "mvtec",
        tuple((row, f"image layers {{{row.replace(' ', '')}}}") for row in _BLOCKS),
        (("6, 12, 18, 24", "6, 12, 18"), ("6, 12, 18", "6, 12"), ("6, 12", "6")),
    ),
    "state words": Group(
        _PIXEL,
        "Table 4",
        "mvtec",
        tuple(
            (row, f'template "a photo of a [state] [z]", states {row.replace(", ", "/")}')
            for row in _STATES
        ),
    ),
    "state words at test": Group(
        _PIXEL,
        "Figure 7",
        "mvtec",
        (),
        (("full, perfect and flawed", "baseline, perfect and flawed"),),
    ),
    "resolution": Group(
        _PIXEL,
        "Table 5",
        "mvtec",
        tuple((row, f"input resolution {row}") for row in ("224", "336", "518", "798")),
        (("518", "798"), ("518", "336"), ("336", "224")),
    ),
    "prompt at test": Group(_PIXEL, "Table 9", "mvtec", tuple(_PROMPTS.items())),
    "length r": Group(_PIXEL, "Figure 9a", "mvtec"),
    "length n": Group(_PIXEL, "Figure 9b", "mvtec"),
    "alpha": Group(_PIXEL, "Figure 9c", "mvtec"),
    "training": Group((*_PIXEL, "image_auroc")),
    "training categories": Group(_PIXEL),
    "implementation": Group((*_PIXEL, "image_auroc", "image_ap")),
    "training set": Group((*_PIXEL, "image_auroc")),
    "preset": Group((*_PIXEL, "image_auroc", "image_ap")),
    "AUPRO": Group(("aupro",)),
}
