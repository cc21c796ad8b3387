"""A trained learner as a file of clipad's own: of any method that learns.

The authors' own layouts stand in the rooms, see `Training.read_official`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import (
    KEY,
    check_fit,
    fill,
    read_safetensors,
    to_safetensors,
)
from clipad_core.methods import find_method
from clipad_core.methods.method import Training


def find_training(name: str) -> Training:
    """How a method learns.

    Raises:
        ClipadError: there is no such method, or it learns nothing.

    >>> find_training("vcpclip").prompts_of_images
    True
    """
    training = find_method(name).training
    if training is None:
        raise ClipadError(
            f"method: found {name}, which learns nothing, expected one that does; choose another."
        )
    return training


def checkpoint_bytes(
    name: str,
    learner: nn.Module,
    config: Any,
    backbone: Backbone,
    data: str,
    key: str | None = None,
) -> bytes:
    """The bytes of a file: the learner, its config, the backbone's digest and the data's hash.

    Args:
        name: of the method's room.
        learner: that was trained.
        config: it was trained with.
        backbone: it was trained on.
        data: the hash of the data it was trained on.
        key: of everything that the training depended on; None where nobody will ask for it.
    """
    header = {"method": name, "config": asdict(config), "data": data, KEY: key}
    header["backbone"] = _weights_digest(backbone)
    return to_safetensors(learner.state_dict(), header)


def read_checkpoint(
    name: str, path: Path, backbone: Backbone, key: str | None = None
) -> tuple[nn.Module, Any, str]:
    """Read what `checkpoint_bytes` made.

    Args:
        name: of the method's room.
        path: of the file.
        backbone: the one it was trained on, before or after ``prepare``.
        key: of the training that is expected; None: whichever the file is of.

    Returns:
        The learner, the config it was trained with, and the hash of the data it was trained on.

    Raises:
        ClipadError: no file, a damaged one, another method, training or backbone, a tensor that does
            not fit.
    """
    training = find_training(name)
    tensors, header = read_safetensors(path, name, key)
    if header["backbone"] != _weights_digest(backbone):
        raise ClipadError(
            f"checkpoint: {path} was trained on weights with the digest {str(header['backbone'])[:12]}, "
            f"found {backbone.digest[:12]}; use the backbone it was trained on."
        )
    try:
        config = find_method(name).config().changed(header["config"])
        learner = training.empty_learner(backbone, config, tensors)
    except (AttributeError, TypeError) as error:
        raise ClipadError(
            f"checkpoint: {path} says {str(header['config'])[:80]!r} of its config, expected the fields "
            f"of {name}'s; it is damaged or another's. Fetch it again, or train it again."
        ) from error
    shapes = {name: tuple(value.shape) for name, value in learner.state_dict().items()}
    check_fit(tensors, shapes, path, name)
    fill(learner, tensors, backbone)
    return learner, config, header["data"]


def _weights_digest(backbone: Backbone) -> str:
    """The digest of the weights alone, the same before and after ``prepare``."""
    return backbone.digest.partition("+")[0]
