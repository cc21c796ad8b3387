"""Recordings of the official codes, and their random CLIPs loaded as a user's file is loaded."""

import json
import math
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.learned.official_init import Architecture

# Equal to what was recorded within one tolerance, in both.
PRECISIONS = ("float32", "float64")
GOLDENS = Path(os.environ.get("CLIPAD_GOLDENS", Path(__file__).parent / "goldens"))
Recording = dict[str, np.ndarray]
# What the official codes run; their draws at this size are recorded.
VIT_L_336 = Architecture(
    vision_width=1024,
    vision_depth=24,
    patch_size=14,
    grid=24,
    text_width=768,
    text_depth=12,
    context=77,
    vocabulary=49408,
    joint=768,
)


def read_recording(path: Path) -> Recording:
    """All arrays of a recording; what is stored in half precision is exact in it."""
    with np.load(path) as opened:
        arrays = dict(opened)
    half = np.float16
    return {k: v.astype(np.float32) if v.dtype == half else v for k, v in arrays.items()}


def part(recording: Recording, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, by the rest of their name."""
    return {
        key.removeprefix(prefix): torch.tensor(value)
        for key, value in recording.items()
        if key.startswith(prefix)
    }


def recorded_backbone(
    recording: Recording, name: str, folder: Path, precision: str, quick_gelu: bool = False
) -> Backbone:
    """Write the recorded CLIP, whose tensors have OpenAI's names, into a folder and load it."""
    sizes = json.loads(str(recording["config_json"]))["clip"]
    architecture = {
        "embed_dim": sizes["embed_dim"],
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": sizes["pre_res"],
            "layers": sizes["v_layers"],
            "width": sizes["v_width"],
            "patch_size": sizes["patch"],
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": sizes["t_width"],
            "heads": sizes["t_width"] // 64,
            "layers": sizes["t_layers"],
        },
    }
    (folder / f"{name}.json").write_text(json.dumps(architecture))
    save_file(part(recording, "clip/"), folder / f"{name}.safetensors")
    return load_backbone(name, folder / f"{name}.safetensors", precision=precision)


class Comparison(NamedTuple):
    """One array beside what was recorded of it."""

    digest: str
    """Of the recorded array: one that is compared in two precisions is still one."""
    numbers: int
    error: float
    tolerance: float

    @property
    def share(self) -> float:
        """What the error takes of its tolerance; without end where it is larger, or no number."""
        if not self.error <= self.tolerance:
            return math.inf
        return self.error / self.tolerance if self.tolerance else 0.0


# What `close` has compared since somebody emptied it: `parity.py` counts it.
COMPARISONS: list[Comparison] = []
SCALES = {
    "max(1, |x|)": lambda recorded: recorded.abs().clamp(min=1),
    "|x|": torch.abs,
    "largest |x|": lambda recorded: recorded.abs().max(),
    "1": torch.ones_like,
}


def close(actual: Any, expected: Any, tolerance: float, per: str = "max(1, |x|)") -> None:
    """Within a tolerance, in units of a scale of what was recorded: one of `SCALES`."""
    recorded, measured = _as_tensor(expected), _as_tensor(actual)
    assert measured.shape == recorded.shape
    error = float(((measured - recorded).abs() / SCALES[per](recorded)).max())
    digest = sha256(recorded.numpy().tobytes()).hexdigest()
    COMPARISONS.append(Comparison(digest, recorded.numel(), error, tolerance))
    assert error <= tolerance


def equal(actual: Any, expected: Any) -> None:
    """The same numbers."""
    close(actual, expected, 0, per="1")


def _as_tensor(values: Any) -> Tensor:
    array = values.detach() if isinstance(values, Tensor) else torch.tensor(np.asarray(values))
    return array.double().contiguous()
