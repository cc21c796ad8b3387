"""A random CLIP small enough for every test."""

import json
from pathlib import Path

import clipad_core  # noqa: F401  (lets open_clip import beside a CPU build of torch)

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
