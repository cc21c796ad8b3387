"""Fixtures of the core's tests."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from micro import MICRO, add_config

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.open_clip import open_clip


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """What a user meets: the shape checks of the test run would refuse bad shapes before us."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def rectangle(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 24 x 40 px on a grid of 3 x 5, as wide as its joint space."""
    vision = MICRO["vision_cfg"] | {"image_size": [24, 40]}
    config = MICRO | {"embed_dim": 32, "vision_cfg": vision}
    add_config(tmp_path_factory.mktemp("rectangle"), "clipad-micro-rectangle", config)
    return load_backbone("clipad-micro-rectangle", "random:0")


@pytest.fixture(scope="module")
def model(micro: Backbone) -> torch.nn.Module:
    """open_clip's own module with the weights of the fixture."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.create_model("clipad-micro", pretrained=None).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
