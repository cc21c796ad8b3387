"""Checkpoints of VCP-CLIP: the official ``.pth`` layout read and written,.

The official file is one dictionary: three groups by the names of the official modules, and beside
them, at the top, every parameter of CLIP with "prompt" in its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import (
    check_fit,
    fill,
    flatten,
    read_pth,
    to_pth,
)
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner, empty_learner

NAME = "vcpclip"
# Ours -> official: the beginnings of names.
OFFICIAL = {
    "unused_projection": "prompt_text_projection",
    "deep_prompts.first": "prompt_embeddings",
    "deep_prompts.later": "deep_prompt_embeddings",
    "deep_prompts.project.": "prompt_proj.",
    "deep_prompts.norm.": "prompt_norm.",
    "raw_heads.": "trainable_linearlayer/fc.",
    "raw_logit_scale": "New_Lan_Embed/prompt_temp",
    "pre_vcp.query": "New_Lan_Embed/prompt_query",
    "pre_vcp.mini_net.": "New_Lan_Embed/prompt_linear1.fc.",
    "post_vcp.logit_scale": "Zero_try/prompt_temp_l1",
    "post_vcp.query.": "Zero_try/q_proj_pre.",
    "post_vcp.key.": "Zero_try/k_proj_pre_1.",
    "post_vcp.value.": "Zero_try/v_proj_pre_1.",
    "post_vcp.out.": "Zero_try/proj_post_t.",
}
GROUPS = ("trainable_linearlayer", "New_Lan_Embed", "Zero_try")
# Linear layers that the official code writes as convolutions of width one.
CONVOLUTIONS = tuple(f"post_vcp.{name}.weight" for name in ("query", "key", "value", "out"))


def official_name(name: str) -> str:
    """The official name of a learnable tensor, ``group/name`` or a bare name of CLIP's.

    >>> official_name("raw_heads.0.bias"), official_name("deep_prompts.project.weight")
    ('trainable_linearlayer/fc.0.bias', 'prompt_proj.weight')

    Raises:
        ClipadError: a tensor that the official code does not have.
    """
    for clipad_name, official in OFFICIAL.items():
        if name == clipad_name or (clipad_name.endswith(".") and name.startswith(clipad_name)):
            return official + name[len(clipad_name) :]
    raise ClipadError(
        f"checkpoint: found the tensor {name}, for which the official layout has no place, expected head: "
        "contrastive and state_length: 0; keep others in a file of clipad's own."
    )


def to_official(learner: VCPCLIPLearner) -> dict[str, Any]:
    """The learner as the official dictionary, groups inside."""
    groups: dict[str, Any] = {group: {} for group in GROUPS}
    for name, value in learner.state_dict().items():
        stored = value.detach().cpu().clone()
        if name in CONVOLUTIONS:
            stored = stored[..., None]
        group, _, inner = official_name(name).rpartition("/")
        (groups[group] if group else groups)[inner] = stored
    return groups


def official_bytes(learner: VCPCLIPLearner) -> bytes:
    """The official file's bytes."""
    return to_pth(to_official(learner))


def from_official(
    groups: Mapping[str, Any], backbone: Backbone, config: VCPCLIPConfig, path: Path
) -> VCPCLIPLearner:
    """A learner from the official dictionary; a fourth group ``model`` may hold CLIP's own.

    Raises:
        ClipadError: naming the first tensor that is missing, unknown or of another shape.
    """
    flat = flatten(groups, path)
    flat = {name.removeprefix("model/"): value for name, value in flat.items()}
    learner = empty_learner(backbone, config, flat)
    learner_shapes = {name: tuple(value.shape) for name, value in learner.state_dict().items()}
    shapes = {
        official_name(name): (*shape, 1) if name in CONVOLUTIONS else shape
        for name, shape in learner_shapes.items()
    }
    check_fit(flat, shapes, path, NAME)
    values = {
        name: flat[official_name(name)].reshape(shape) for name, shape in learner_shapes.items()
    }
    fill(learner, values, backbone)
    return learner


def read_official(path: Path, backbone: Backbone, config: VCPCLIPConfig) -> VCPCLIPLearner:
    """Read an official ``.pth``: ``train_visa.pth``, ``train_mvtec.pth`` or one of your own.

    Raises:
        ClipadError: no file, truncated, code inside, another method, or a tensor that does not fit.
    """
    return from_official(read_pth(path), backbone, config, path)
