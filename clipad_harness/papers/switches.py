"""What each switch of an autopsy is, and who throws it: one sentence and its source, a field each.

Addresses: a repository at a commit, a file where one decides it. P: the method's own paper.
"""

from __future__ import annotations

from dataclasses import dataclass

_ANOMALIB = "open-edge-platform/anomalib@v2.7.0"
_ZQHANG = "zqhang/Accurate-WinCLIP-pytorch@eef4f8c"
_CAOYUNKANG = "caoyunkang/WinClip@0818c9d"
_MALALAB = "mala-lab/WinCLIP@4880fc4"
_ANOMALYCLIP = "zqhang/AnomalyCLIP@45ed4dd"
_VCPCLIP = "xiaozhen228/VCP-CLIP@4dd96ec"


@dataclass(frozen=True)
class Switch:
    """One decision on the way from a paper to a number."""

    meaning: str
    source: str


# The first field of every step of a walk -> what it is.
SWITCHES: dict[str, Switch] = {
    # WinCLIP
    "weights": Switch("epoch 32 of the checkpoint instead of 31 (a stand-in has one)", _CAOYUNKANG),
    "resize": Switch(
        "how an image becomes 240 pixels, and in which order its channels come: square tiles (P, "
        "supplement A), a stretch, a float stretch, through 1024 pixels with test images as BGR",
        f"{_ANOMALIB}; {_ZQHANG}; {_CAOYUNKANG}",
    ),
    "prompts": Switch(
        "the template list: 22 with a period (P, Fig. 6), 21 with one doubled, 22 without a period",
        f"{_ANOMALIB}; {_ZQHANG}; {_CAOYUNKANG}",
    ),
    "class_name": Switch(
        "the folder's name as it stands: metal_nut", f"{_ANOMALIB}; {_ZQHANG}; {_CAOYUNKANG}"
    ),
    "text_average": Switch("mean of unit embeddings instead of raw ones", _MALALAB),
    "temperature": Switch("0.01 instead of 0.07; P prints no value", f"{_CAOYUNKANG}; {_MALALAB}"),
    "scales": Switch("mid windows before small ones: the order of float sums", _ZQHANG),
    "image_scale": Switch("the whole image is no scale of the language map", _CAOYUNKANG),
    "window_aggregation": Switch(
        "harmonic mean of normality instead of abnormality, windows and scales (P Eq. (3))",
        _CAOYUNKANG,
    ),
    "zero_shot_image_score": Switch("maximum of the map instead of the text score", _CAOYUNKANG),
    "patch_feature": Switch(
        "patch memory of the residual stream, or none, instead of tokens after ln_post",
        f"{_ZQHANG}; {_MALALAB}; {_CAOYUNKANG}",
    ),
    "reference_aggregation": Switch("plain mean of window distances", _CAOYUNKANG),
    "clamp_association": Switch(
        "rounding below zero is let through", f"{_ANOMALIB}; {_ZQHANG}; {_CAOYUNKANG}; {_MALALAB}"
    ),
    "gallery_off_by_one": Switch(
        "the first window of a scale is compared with the previous gallery", _CAOYUNKANG
    ),
    "map_fusion": Switch(
        "sum, or parallel resistors, of language and reference map; P prints no operator",
        f"{_ZQHANG}; {_CAOYUNKANG}",
    ),
    "few_shot_image_score": Switch("maximum of the map instead of Eq. (6)", _CAOYUNKANG),
    "reference_choice": Switch(
        "the first files of the folder, or draws with replacement, instead of seeded draws",
        f"{_ANOMALIB}; {_ZQHANG}",
    ),
    "aggregation_precision": Switch("maps are averaged in double precision", _ZQHANG),
    "map_size": Switch("evaluation at 400 pixels instead of the input size", _CAOYUNKANG),
    "mask_rule": Switch("masks bilinear and cut at one half instead of nearest", _ZQHANG),
    "multi_crop": Switch(
        "image scores averaged over crops: worth a point in P Table 3, described nowhere, in no code "
        "(mala-lab's tiles of images that are not square are another thing)",
        f"P 5.4, Table 3; absent from {_ANOMALIB} and {_ZQHANG}",
    ),
    "aupro": Switch(
        "which AUPRO: at every threshold, at 200 of them (CFLOW's, and most codes'), or MVTec's own "
        "evaluation",
        f"{_ANOMALIB}: AUPRO; {_ZQHANG}: cal_pro_score",
    ),
    # AnomalyCLIP
    "blocks": Switch(
        "maps of blocks 6, 12, 18 and 24 are summed: the default of the code's arguments; its scripts "
        "pass 24 alone",
        f"{_ANOMALYCLIP}: test.py, test.sh; zqhang/AnomalyCLIP#18",
    ),
    "local_stream": Switch(
        "before 2025-04-13 every listed block held the last one's tensor",
        f"{_ANOMALYCLIP}; zqhang/AnomalyCLIP#64",
    ),
    "local_weight": Switch("λ 1 instead of 4: four equal maps count four times", _ANOMALYCLIP),
    "template": Switch(
        "no period at the end of the prompts (P 3.2)", f"P; {_ANOMALYCLIP}: prompt_ensemble.py"
    ),
    "half_prompts": Switch(
        "no rounding of deeper vectors to half precision", f"P; {_ANOMALYCLIP}: AnomalyCLIP_lib"
    ),
    "positional": Switch(
        "the other interpolation of the positional embedding to a larger grid: bilinear (AnomalyCLIP) "
        "against bicubic with antialiasing (VCP-CLIP, open_clip)",
        f"{_ANOMALYCLIP}: AnomalyCLIP_lib; {_VCPCLIP}",
    ),
    "class_ln_post": Switch(
        "the class token passes CLIP's last norm, which the released code leaves out",
        f"{_ANOMALYCLIP}: AnomalyCLIP_lib; zqhang/AnomalyCLIP#14",
    ),
    # VCP-CLIP
    "activation": Switch(
        "QuickGELU, with which OpenAI trained, instead of the exact GELU that the code runs",
        _VCPCLIP,
    ),
    "post_width": Switch(
        "Post-VCP as printed: as wide as the text, no biases, raw patches", f"P 3.3; {_VCPCLIP}"
    ),
    "alpha": Switch("the raw map weighs 0.25 instead of 0.2", f"P 4.1; {_VCPCLIP}"),
    "sigma": Switch(
        "no smoothing of the map",
        f"AnomalyCLIP smooths (P 3.3); VCP-CLIP's P names none, its code smooths ({_VCPCLIP}: test.py)",
    ),
    "image_score": Switch(
        "maximum of the map instead of means of its largest pixels", f"P B.4; {_VCPCLIP}: test.py"
    ),
    "learning_rate_mvtec": Switch(
        "one learning rate for all, temperatures included (that of MVTec AD acts in trainings on it "
        "alone)",
        f"P 4.1; {_VCPCLIP}; xiaozhen228/VCP-CLIP#9",
    ),
    "augmentation": Switch("no training augmentation", f"P names none; {_VCPCLIP}: dataset.py"),
}
# A field that no published code decides: this run's own settings hold another value than the preset.
OWN = Switch("this run's own setting, back to the preset's", "params.yaml")
# Switches that no run here can throw: what, why not, source.
NOT_MEASURED: tuple[tuple[str, str, str], ...] = (
    (
        "anomalib with open_clip 2.26.1 or newer",
        "every window gets the same embedding (its transpose meets batch-first blocks): the zero-shot "
        "map is constant, pixel AUROC 50.0 by definition; clipad stops at a constant map",
        f"{_ANOMALIB}; mlfoundations/open_clip#906",
    ),
    (
        "scores clamped to 0..1 before the metrics",
        "anomalib's engine does so after the model; it ties scores and depends on its thresholds",
        f"{_ANOMALIB}: post-processor",
    ),
)
