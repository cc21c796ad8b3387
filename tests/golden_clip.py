"""The random CLIP models that official codes were run on for the recordings.

Their weights are normal draws, a tensor after the other from one seed, so a recording needs to keep
only the seed and what cannot be drawn again: the rows of the vocabulary that prompts use, and what
was drawn after the vocabulary.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipad_core.clip.backbone import Backbone, load_backbone

VOCABULARY = 49408
LOGIT_SCALE = math.log(1 / 0.07)


def architecture(sizes: Mapping[str, int]) -> dict[str, Any]:
    """The open_clip config of a recorded model; heads are 64 wide, as in OpenAI's."""
    width, text = sizes["v_width"], sizes["t_width"]
    return {
        "embed_dim": sizes["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": sizes["pre_res"],
            "layers": sizes["v_layers"],
            "width": width,
            "patch_size": sizes["patch"],
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": VOCABULARY,
            "width": text,
            "heads": text // 64,
            "layers": sizes["t_layers"],
        },
    }


def _block(prefix: str, width: int) -> dict[str, tuple[float, tuple[int, ...]]]:
    names = {
        "attn.in_proj_weight": (1.3 * width**-0.5, (3 * width, width)),
        "attn.in_proj_bias": (0.1, (3 * width,)),
        "attn.out_proj.weight": (width**-0.5, (width, width)),
        "attn.out_proj.bias": (0.05, (width,)),
        "ln_1.weight": (0.2, (width,)),
        "ln_1.bias": (0.1, (width,)),
        "mlp.c_fc.weight": (width**-0.5, (4 * width, width)),
        "mlp.c_fc.bias": (0.1, (4 * width,)),
        "mlp.c_proj.weight": (0.7 * (4 * width) ** -0.5, (width, 4 * width)),
        "mlp.c_proj.bias": (0.05, (width,)),
        "ln_2.weight": (0.2, (width,)),
        "ln_2.bias": (0.1, (width,)),
    }
    return {f"{prefix}.{name}": rule for name, rule in names.items()}


def golden_weights(sizes: Mapping[str, int], recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights: drawn again up to the vocabulary, then what was kept."""
    width, text, joint = sizes["v_width"], sizes["t_width"], sizes["embed_dim"]
    patch, grid = sizes["patch"], sizes["pre_res"] // sizes["patch"]
    rules: dict[str, tuple[float, tuple[int, ...]]] = {
        "positional_embedding": (0.3, (77, text)),
        "text_projection": (text**-0.5, (text, joint)),
        "visual.class_embedding": (0.5, (width,)),
        "visual.positional_embedding": (0.5, (grid**2 + 1, width)),
        "visual.proj": (width**-0.5, (width, joint)),
        "visual.conv1.weight": ((3 * patch**2) ** -0.5, (width, 3, patch, patch)),
        "visual.ln_pre.weight": (0.2, (width,)),
        "visual.ln_pre.bias": (0.1, (width,)),
    }
    for index in range(sizes["v_layers"]):
        rules |= _block(f"visual.transformer.resblocks.{index}", width)
    rules |= {"visual.ln_post.weight": (0.2, (width,)), "visual.ln_post.bias": (0.1, (width,))}
    for index in range(sizes["t_layers"]):
        rules |= _block(f"transformer.resblocks.{index}", text)
    generator = torch.Generator().manual_seed(sizes["seed"])
    state = {"logit_scale": torch.tensor(LOGIT_SCALE)}
    for name, (scale, shape) in rules.items():
        mean = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        state[name] = torch.randn(shape, generator=generator) * scale + mean
    vocabulary = torch.zeros(VOCABULARY, text)
    vocabulary[recorded["rows"].long()] = recorded["token_embedding.rows"]
    state["token_embedding.weight"] = vocabulary
    return state | {name: recorded[name] for name in ("ln_final.weight", "ln_final.bias")}


def golden_backbone(
    folder: Path,
    name: str,
    sizes: Mapping[str, int],
    recorded: Mapping[str, Tensor],
    precision: str,
) -> Backbone:
    """The recorded model, through the same loader a user's file goes through."""
    (folder / f"{name}.json").write_text(json.dumps(architecture(sizes)))
    save_file(golden_weights(sizes, recorded), folder / f"{name}.safetensors")
    return load_backbone(name, folder / f"{name}.safetensors", precision=precision)
