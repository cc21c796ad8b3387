"""A random CLIP as wide as its joint space, and VCP-CLIP at its size, for several tests."""

import numpy as np
import pytest
import torch
from micro import MICRO, add_config

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import Features
from clipad_core.clip.one_pass import encode
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import prepare_backbone, recipe
from clipad_core.methods.vcpclip.initial import make_learner
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner

SMALL = VCPCLIPConfig().changed(
    {"image_size": 48, "blocks": [1, 3], "heads": 4, "top_pixels": 50, "sigma": 1.5}
)


@pytest.fixture(scope="session")
def square(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 32 px on a 4 x 4 grid, 32 wide everywhere; VCP-CLIP adds into words."""
    add_config(tmp_path_factory.mktemp("square"), "clipad-micro-square", MICRO | {"embed_dim": 32})
    return load_backbone("clipad-micro-square", "random:0")


def learner_of(backbone: Backbone, config: VCPCLIPConfig = SMALL, seed: int = 3) -> VCPCLIPLearner:
    """A learner whose Post-VCP looks somewhere: its queries are six times as large."""
    learner = make_learner(backbone, config, seed)
    if learner.post_vcp is not None:
        with torch.no_grad():
            learner.post_vcp.query.weight *= 6
    return learner


def features_of(backbone: Backbone, config: VCPCLIPConfig = SMALL, images: int = 3) -> Features:
    """What the prepared tower says about some random pictures."""
    drawn = torch.Generator().manual_seed(7)
    side = config.image_size
    pixels = torch.randn(images, 3, side, side, generator=drawn)
    return encode(prepare_backbone(backbone, config), pixels, recipe(config))


def masks_of(config: VCPCLIPConfig = SMALL, images: int = 3) -> torch.Tensor:
    """A normal image, then squares of anomalous pixels."""
    masks = torch.zeros(images, config.image_size, config.image_size)
    masks[1:, 5:20, 10:30] = 1
    return masks


def pictures(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Random RGB images of some heights and widths."""
    drawn = np.random.default_rng(0)
    return [drawn.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
