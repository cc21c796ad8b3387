"""Checkpoints of APRIL-GAN: the official ``.pth`` layout read and written.

The official file is one dictionary with one group, the linear layers by the names of the official
module. It is named after the dataset that was trained on; the official folders of trainings are
named after the one that is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import check_fit, fill, flatten, read_pth, to_pth
from clipad_core.methods.aprilgan.config import APRILGANConfig
from clipad_core.methods.aprilgan.learner import APRILGANLearner, empty_learner
from clipad_core.validation import listed

NAME = "aprilgan"
GROUP = "trainable_linearlayer"
HEADS, OFFICIAL_HEADS = "heads.", "fc."


def official_name(name: str) -> str:
    """The official name of a learnable tensor, in its group.

    >>> official_name("heads.0.bias")
    'fc.0.bias'
    """
    return OFFICIAL_HEADS + name.removeprefix(HEADS)


def to_official(learner: APRILGANLearner) -> dict[str, Any]:
    """The learner as the official dictionary."""
    tensors = learner.state_dict().items()
    return {GROUP: {official_name(name): value.detach().cpu().clone() for name, value in tensors}}


def official_bytes(learner: APRILGANLearner) -> bytes:
    """The official file's bytes."""
    return to_pth(to_official(learner))


def from_official(
    groups: Mapping[str, Any], backbone: Backbone, config: APRILGANConfig, path: Path
) -> APRILGANLearner:
    """A learner from the official dictionary, with or without its group.

    Raises:
        ClipadError: layers of more or fewer blocks; or naming the first tensor that is missing, unknown
            or of another shape, as of another backbone.
    """
    flat = {name.removeprefix(f"{GROUP}/"): value for name, value in flatten(groups, path).items()}
    layers = {name.split(".")[1] for name in flat if name.startswith(OFFICIAL_HEADS)}
    if layers and len(layers) != len(config.blocks):
        raise ClipadError(
            f"checkpoint: {path} holds {len(layers)} linear layers, expected {len(config.blocks)}, one for "
            f"each of the blocks {listed(config.blocks)}; name in blocks those that it was trained on."
        )
    learner = empty_learner(backbone, config, flat)
    names = {name: official_name(name) for name in learner.state_dict()}
    shapes = {names[name]: tuple(value.shape) for name, value in learner.state_dict().items()}
    check_fit(flat, shapes, path, NAME)
    fill(learner, {name: flat[official] for name, official in names.items()}, backbone)
    return learner


def read_official(path: Path, backbone: Backbone, config: APRILGANConfig) -> APRILGANLearner:
    """Read an official ``.pth``: ``visa_pretrained.pth``, ``mvtec_pretrained.pth`` or one of your own.

    Raises:
        ClipadError: no file, truncated, code inside, another method, or a tensor that does not fit.
    """
    return from_official(read_pth(path), backbone, config, path)
