"""One call for every method: from a name to a detector that takes images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipad_core.backbone import Backbone, load_backbone
from clipad_core.errors import ClipadError
from clipad_core.preprocess import Pixels
from clipad_core.winclip import WinCLIP
from clipad_core.winclip_config import WinCLIPConfig, find_preset
from clipad_harness.photos import Detector
from clipad_harness.settings import Weights, find_root, read_profile, read_winclip
from clipad_harness.weights import resolve

METHODS = ("winclip",)
STAND_IN = (
    "These weights are a stand-in that has never seen a photo: on photos they only show that everything "
    "runs, and no score means anything. Use the published weights: ViT-B-16-plus-240, laion400m_e31."
)


def about_weights(backbone: Backbone) -> str:
    """What must be said of these weights before any score; nothing where they are real ones."""
    return STAND_IN if backbone.kind in ("stand-in", "random") else ""


def open_weights(backbone: str, weights: str) -> tuple[Path, Backbone, WinCLIPConfig]:
    """The project's folder, a frozen CLIP, and WinCLIP's config: what a notebook starts with.

    Args:
        backbone: an architecture; "": that of params.yaml.
        weights: as for `load_backbone`, or a registered name; "": those of params.yaml.

    Raises:
        ClipadError: see `choose_weights` and `load_backbone`.
    """
    given, config = choose_weights(backbone, weights)
    found = load_backbone(given.backbone, given.weights, given.sha256, config.precision)
    return find_root(), found, config


def choose_weights(
    backbone: str | None, weights: str | None, sha256: str | None = None
) -> tuple[Weights, WinCLIPConfig]:
    """Weights as they are given, else those of the project's params.yaml; the config likewise.

    Raises:
        ClipadError: one of the two without the other, or neither and no params.yaml.
    """
    if bool(backbone) != bool(weights):
        raise ClipadError("backbone, weights: found one of them, expected both or neither.")
    given = Weights(backbone or "", weights or "", sha256, {})
    try:
        root = find_root()
    except ClipadError as error:
        if not backbone:
            raise ClipadError(
                "--backbone, --weights: found neither, nor a params.yaml here or above, expected one "
                "of both; for example --backbone ViT-B-16-plus-240 --weights laion400m_e31."
            ) from error
        return given, find_preset("paper")
    settings = read_winclip(root)
    config = find_preset(settings.preset).changed(dict(settings.changes))
    return resolve(root, given if backbone else read_profile(root).winclip), config


def open_detector(
    method: str,
    backbone: Backbone,
    *,
    config: WinCLIPConfig | None = None,
    class_name: str = "",
    references: Sequence[Pixels] = (),
    checkpoint: Path | None = None,
) -> Detector:
    """Open a detector for photos of one class.

    Args:
        method: one of `METHODS`.
        backbone: a frozen CLIP.
        config: the method's own; None: the setting of its paper.
        class_name: what the photos show, in words.
        references: RGB photos of good ones; none for zero-shot.
        checkpoint: what a learned method learned.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    check_request(method, class_name, checkpoint)
    config = config or WinCLIPConfig()
    if config.resize == "centre_crop":
        raise ClipadError(
            "winclip.changes: found resize: centre_crop, which does not see the borders of a photo, "
            "expected tiles or stretch."
        )
    return WinCLIP(backbone, config, class_name.strip(), references)


def check_request(method: str, class_name: str, checkpoint: Path | None) -> None:
    """Refuse what no weights are needed to refuse.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    if method not in METHODS:
        raise ClipadError(f"--method: found {method!r}, expected one of {', '.join(METHODS)}.")
    if checkpoint is not None:
        raise ClipadError(
            f"--checkpoint: found {checkpoint} for winclip, which learns nothing; leave it out."
        )
    if not class_name.strip():
        raise ClipadError(
            "--class-name: found none, expected what the photos show in a word or two, such as "
            '"bottle"; winclip asks CLIP about it.'
        )
