"""The two methods that learn, seen from the harness: one shape for both of their modules."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.detection import Detection
from clipad_core.learned.features import FrozenFeatures
from clipad_harness.base.settings import LEARNED

TITLES = {"winclip": "WinCLIP", "anomalyclip": "AnomalyCLIP", "vcpclip": "VCP-CLIP"}
# The detectors of the core; a detector's config is called the same and "Config".
CLASSES = {"winclip": "WinCLIP", "anomalyclip": "AnomalyCLIP", "vcpclip": "VCPCLIP"}


class LearnedConfig(Protocol):
    """What the configs of both methods have in common."""

    image_size: int
    batch_size: int
    epochs: int
    betas: tuple[float, ...]
    precision: str
    blocks: tuple[int, ...]

    def changed(self, values: dict[str, Any]) -> LearnedConfig:
        """The config with some fields replaced."""


class LearnedMethod(Protocol):
    """What the detector module of a method that learns offers."""

    def make_learner(self, backbone: Backbone, config: Any, seed: int) -> nn.Module:
        """Seeded initial values."""

    def prepare_backbone(self, backbone: Backbone, config: Any) -> Backbone:
        """The backbone at the input size and with the activation of a config."""

    def recipe(self, config: Any, also: Sequence[int] = ()) -> Any:
        """What must be encoded of an image; ``also``: further blocks, for others."""

    def encode(self, backbone: Backbone, pixels: Tensor, recipe: Any) -> FrozenFeatures:
        """Run the frozen tower."""

    def loss(
        self,
        learner: Any,
        backbone: Backbone,
        config: Any,
        features: FrozenFeatures,
        labels: Tensor,
        masks: Tensor,
        generator: torch.Generator | None,
        categories: Sequence[str],
    ) -> dict[str, Tensor]:
        """The parts of the loss and their `total`; prompts may name the categories."""

    def parameter_groups(self, learner: Any, config: Any, trained_on: str) -> list[dict[str, Any]]:
        """What Adam is given."""

    def detect(
        self,
        learner: Any,
        backbone: Backbone,
        config: Any,
        features: FrozenFeatures,
        categories: Sequence[str],
    ) -> Detection:
        """Scores and maps from frozen features; prompts may name the categories."""

    def sample_order(self, config: Any, backbone: Backbone, n: int, epochs: int) -> list[list[int]]:
        """Which image comes when, an epoch a list."""


def find_method(name: str) -> LearnedMethod:
    """The module of a method."""
    return import_module(f"clipad_core.methods.{name}.detector")  # type: ignore[return-value]


def shared_blocks(method: LearnedMethod, config: Any, among: Iterable[Any]) -> list[int]:
    """The blocks of a config and of all that read the same of an image but for their blocks."""
    alike = (o for o in among if method.recipe(o, config.blocks) == method.recipe(config, o.blocks))
    return sorted({*config.blocks, *(block for other in alike for block in other.blocks)})


def find_presets(name: str) -> Callable[[str], LearnedConfig]:
    """What looks a preset of a method up."""
    found: Callable[[str], LearnedConfig] = import_module(
        f"clipad_core.methods.{name}.config"
    ).find_preset
    return found


def checkpoint_of(name: str) -> Any:
    """The module that reads and writes the checkpoints of a method."""
    return import_module(f"clipad_core.methods.{name}.checkpoint")


def detector_class(name: str) -> Any:
    """The detector of a method: images in, scores and maps out."""
    return getattr(import_module(f"clipad_core.methods.{name}.detector"), CLASSES[name])


@cache
def method_digest(name: str) -> str:
    """Digest of all code of the core that a method runs: everything but the other methods."""
    import clipad_core

    others = {"winclip", *LEARNED} - {name}
    folder = Path(clipad_core.__file__).parent
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.parent.name not in others:
            found.update(path.read_bytes())
    return found.hexdigest()
