"""One call for every method: from a name to a detector that takes images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipad_core.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.preprocess import Pixels
from clipad_core.winclip import WinCLIP
from clipad_core.winclip_config import WinCLIPConfig
from clipad_harness.photos import Detector

METHODS = ("winclip",)


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
