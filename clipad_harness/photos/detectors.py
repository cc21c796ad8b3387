"""One call for every method: from a name to a detector that takes images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.preprocess import Pixels
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.detector import WinCLIP
from clipad_harness.base.settings import (
    Weights,
    find_root,
    read_learned,
    read_profile,
    read_winclip,
)
from clipad_harness.base.weights import resolve
from clipad_harness.experiments.methods import CLASSES, checkpoint_of, detector_class, find_presets
from clipad_harness.experiments.translation import fit, fit_all
from clipad_harness.photos.photos import Detector

STAND_IN = (
    "These weights are a stand-in that has never seen a photo: on photos they only show that everything "
    "runs, and no score means anything. Use the published weights: ViT-B-16-plus-240, laion400m_e31 "
    "(winclip) or ViT-L-14-336-quickgelu, openai (the others)."
)


def about_weights(backbone: Backbone) -> str:
    """What must be said of these weights before any score; nothing where they are real ones."""
    return STAND_IN if backbone.kind in ("stand-in", "random") else ""


def open_weights(
    backbone: str, weights: str, method: str = "winclip"
) -> tuple[Path, Backbone, Any]:
    """The project's folder, a frozen CLIP, and the method's config: what a notebook starts with.

    Args:
        backbone: an architecture; "": that of params.yaml.
        weights: as for `load_backbone`, or a registered name; "": those of params.yaml.
        method: one of `CLASSES`.

    Raises:
        ClipadError: see `choose_weights` and `load_backbone`.
    """
    given, config = choose_weights(method, backbone, weights)
    found = load_backbone(given.backbone, given.weights, given.sha256, config.precision)
    return find_root(), found, config


def choose_weights(
    method: str, backbone: str | None, weights: str | None, sha256: str | None = None
) -> tuple[Weights, Any]:
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
        return given, _published_config(method)
    chosen = resolve(root, given if backbone else read_profile(root).weights_of(method))
    settings = read_winclip(root) if method == "winclip" else read_learned(root, method)
    config = find_presets(method)(settings.preset)
    return chosen, fit(config, chosen.changes).changed(fit_all(settings.changes, chosen.changes))


def _published_config(method: str) -> Any:
    module = import_module(f"clipad_core.methods.{method}.config")
    return getattr(module, f"{CLASSES[method]}Config")()


def open_detector(
    method: str,
    backbone: Backbone,
    *,
    config: Any = None,
    class_name: str = "",
    references: Sequence[Pixels] = (),
    checkpoint: Path | None = None,
) -> Detector:
    """Open a detector for photos of one class.

    Args:
        method: one of `CLASSES`.
        backbone: a frozen CLIP, as it was loaded.
        config: the method's own; None: the setting of its paper. A checkpoint of ours brings its own.
        class_name: what the photos show, in words (winclip; the others need none).
        references: RGB photos of good ones (winclip); none for zero-shot.
        checkpoint: what a learned method learned: a file of ours (.safetensors) or an official one.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    check_request(method, class_name, checkpoint, bool(references))
    if checkpoint is not None:
        return _open_learned(method, backbone, config, checkpoint)
    config = config or _published_config("winclip")
    if config.resize == "centre_crop":
        raise ClipadError(
            "winclip.changes: found resize: centre_crop, which does not see the borders of a photo, "
            "expected tiles or stretch."
        )
    return WinCLIP(backbone, config, class_name.strip(), references)


def _open_learned(method: str, backbone: Backbone, config: Any, checkpoint: Path) -> Detector:
    files = checkpoint_of(method)
    if checkpoint.suffix == ".safetensors":
        learner, config, _ = files.read_checkpoint(checkpoint, backbone)
    else:
        config = config or _published_config(method)
        learner = files.read_official(checkpoint, backbone, config)
    found: Detector = detector_class(method)(backbone, config, learner)
    return found


def check_request(
    method: str, class_name: str, checkpoint: Path | None, has_references: bool
) -> None:
    """Refuse what no weights are needed to refuse.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    if method not in CLASSES:
        raise ClipadError(f"--method: found {method!r}, expected one of {', '.join(CLASSES)}.")
    if method == "winclip":
        if checkpoint is not None:
            raise ClipadError(
                f"--checkpoint: found {checkpoint} for winclip, which learns nothing; leave it out."
            )
        if not class_name.strip():
            raise ClipadError(
                "--class-name: found none, expected what the photos show in a word or two, such as "
                '"bottle"; winclip asks CLIP about it.'
            )
        return
    if checkpoint is None:
        raise ClipadError(
            f"--checkpoint: found none, expected what {method} learned: a file of `clipad train "
            f"{method}` in data/trained/{method}, or one that its authors published."
        )
    if not checkpoint.is_file():
        raise ClipadError(
            f"--checkpoint: {checkpoint} does not exist, expected a file; correct it."
        )
    if has_references:
        raise ClipadError(f"--reference: found some, which {method} cannot use; leave them out.")
