"""Shared fixtures. Importing clipad_core first lets open_clip import beside a CPU build of torch."""

import json
from pathlib import Path

import pytest

from clipad_core.backbone import Backbone, load_backbone

MICRO = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}


def add_config(folder: Path, name: str, config: dict) -> None:
    import open_clip

    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 32 px on a 4 x 4 grid: small enough for every test."""
    add_config(tmp_path_factory.mktemp("config"), "clipad-micro", MICRO)
    return load_backbone("clipad-micro", "random:0")
