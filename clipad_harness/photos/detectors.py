"""One call for every method: from a name to a detector that takes images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.preprocess import Pixels
from clipad_core.clip.state_dict import is_safetensors
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method, rooms
from clipad_core.methods.checkpoint import read_checkpoint
from clipad_core.methods.method import Detector
from clipad_harness.base.settings import Weights, find_root, read_method, read_methods, read_profile
from clipad_harness.base.weights import resolve
from clipad_harness.experiments.translation import fit, fit_all

STAND_IN = (
    "These weights are a stand-in that has never seen a photo: on photos they only show that everything "
    "runs, and no score means anything. Use the published weights"
)


def about_weights(backbone: Backbone, method: str) -> str:
    """What must be said of these weights before any score; nothing where they are real ones."""
    if backbone.kind not in ("stand-in", "random"):
        return ""
    published = " or ".join(", ".join(pair) for pair in find_method(method).published_weights)
    return f"{STAND_IN}: {published}."


def open_weights(backbone: str, weights: str, method: str) -> tuple[Path, Backbone, Any]:
    """The project's folder, a frozen CLIP, and the method's config: what a notebook starts with.

    Args:
        backbone: an architecture; "": that of params.yaml.
        weights: as for `load_backbone`, or a registered name; "": those of params.yaml.
        method: the name of a room.

    Raises:
        ClipadError: see `choose_weights` and `load_backbone`.
    """
    chosen, config = choose_weights(method, backbone, weights)
    loaded = load_backbone(chosen.backbone, chosen.weights, chosen.sha256, config.precision)
    return find_root(), loaded, config


def choose_method(name: str) -> str:
    """A method by name, else the first of the project's params.yaml.

    Raises:
        ClipadError: no name and no params.yaml.
    """
    if name:
        return name
    try:
        return read_methods(find_root())[0]
    except ClipadError as error:
        raise ClipadError(
            f"--method: found none, nor a params.yaml here or above that lists some ({error}), expected "
            f"one of {', '.join(rooms())}."
        ) from error


def choose_weights(
    method: str, backbone: str | None, weights: str | None, sha256: str | None = None
) -> tuple[Weights, Any]:
    """Weights as they are given, else those of the project's params.yaml; the config likewise.

    Raises:
        ClipadError: one of the two without the other, or neither and no params.yaml.
    """
    if bool(backbone) != bool(weights):
        raise ClipadError("backbone, weights: found one of them, expected both or neither.")
    requested = Weights(backbone or "", weights or "", sha256, {})
    try:
        root = find_root()
    except ClipadError as error:
        if not backbone:
            raise ClipadError(
                "--backbone, --weights: found neither, nor a params.yaml here or above, expected one "
                "of both; for example --backbone ViT-B-16-plus-240 --weights laion400m_e31."
            ) from error
        return requested, find_method(check_method(method, rooms())).config()
    own = read_profile(root).weights
    chosen = resolve(root, requested if backbone else own[check_method(method, list(own))])
    settings, room = read_method(root, method), find_method(method)
    config = fit(room.preset(settings.preset), chosen.changes)
    return chosen, config.changed(fit_all(settings.changes, chosen.changes))


def check_method(method: str, names: Sequence[str]) -> str:
    """Pass the name of a method through.

    Raises:
        ClipadError: there is no such method.
    """
    if method not in names:
        raise ClipadError(f"--method: found {method!r}, expected one of {', '.join(names)}.")
    return method


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
        method: the name of a room.
        backbone: a frozen CLIP, as it was loaded.
        config: the method's own; None: the setting of its paper. A checkpoint of ours brings its own.
        class_name: what the photos show, in words, where the method's prompts name it.
        references: RGB photos of good ones, where the method reads some; none for zero-shot.
        checkpoint: what a method that learns learned: a file of ours (.safetensors) or an official one.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    room = find_method(check_method(method, rooms()))
    config, learner = config or room.config(), None
    check_request(method, None, class_name, checkpoint, bool(references))
    if checkpoint is not None and room.training is not None:
        if brings_config(checkpoint):
            learner, config, _ = read_checkpoint(method, checkpoint, backbone)
        else:
            learner = room.training.read_official(checkpoint, backbone, config)
    check_request(method, config, class_name, checkpoint, bool(references))
    if room.recipe(config, len(references)).resize == "centre_crop":
        raise ClipadError(
            f"{method}.changes: found resize: centre_crop, which does not see the borders of a photo, "
            "expected tiles or stretch."
        )
    return Detector(room, backbone, config, class_name.strip(), references, learner)


def brings_config(checkpoint: Path | None) -> bool:
    """Whether a checkpoint is a file of ours, which holds the config it was trained with."""
    return checkpoint is not None and is_safetensors(checkpoint)


def check_request(
    method: str, config: Any, class_name: str, checkpoint: Path | None, has_references: bool
) -> None:
    """Refuse what no weights are needed to refuse: what the method needs and is not given, and reverse.

    Args:
        config: None where a checkpoint brings its own, which says whether prompts name the class.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    room = find_method(check_method(method, rooms()))
    needs = room.needs(room.config() if config is None else config)
    if needs.training:
        if checkpoint is None:
            raise ClipadError(
                f"--checkpoint: found none, expected what {method} learned: a file of `clipad train "
                f"{method}` in data/trained/{method}, or one that its authors published."
            )
        if not checkpoint.is_file():
            raise ClipadError(
                f"--checkpoint: {checkpoint} does not exist, expected a file; correct it."
            )
    elif checkpoint is not None:
        raise ClipadError(
            f"--checkpoint: found {checkpoint} for {method}, which learns nothing; leave it out."
        )
    if has_references and not needs.references:
        raise ClipadError(f"--reference: found some, which {method} cannot use; leave them out.")
    if config is None:
        return
    if needs.class_name and not class_name.strip():
        raise ClipadError(
            "--class-name: found none, expected what the photos show in a word or two, such as "
            f'"bottle"; with this setting {method} asks CLIP about it.'
        )
    if class_name.strip() and not needs.class_name:
        raise ClipadError(
            f"--class-name: found {class_name!r}, which {method} does not read with this setting; leave "
            "it out."
        )
