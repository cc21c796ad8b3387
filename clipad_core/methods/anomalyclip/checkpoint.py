"""Checkpoints of AnomalyCLIP: the official ``.pth`` layout read and written,.

The official file holds one group, ``prompt_learner``: what is learned, the embedded words around it,
and linear layers that are never used. Some forks leave the last out, or the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import (
    check_fit,
    fill,
    flatten,
    read_pth,
    to_pth,
)
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.learner import (
    UNUSED_WIDTH,
    AnomalyCLIPLearner,
    empty_learner,
    sizes_of,
)
from clipad_core.methods.anomalyclip.text import prompt_words

NAME = "anomalyclip"
GROUP = "prompt_learner"
CONTEXT = ("ctx_pos", "ctx_neg")
DEEPER, UNUSED = "compound_prompts_text", "compound_prompt_projections"
# Words before and behind the context, of the normal and of the anomalous prompt; never learned.
PREFIX, SUFFIX = ("token_prefix_pos", "token_prefix_neg"), ("token_suffix_pos", "token_suffix_neg")


def to_official(
    learner: AnomalyCLIPLearner, backbone: Backbone, config: AnomalyCLIPConfig
) -> dict[str, dict[str, Tensor]]:
    """The learner as the official dictionary.

    Raises:
        ClipadError: a config that the official code has no place for.
    """
    _check_official(config)
    tensors: dict[str, Tensor] = {}
    for row, name in enumerate(CONTEXT):
        tensors[name] = learner.context_tokens[row][None, None]
    for row, (before, behind) in enumerate(zip(PREFIX, SUFFIX)):
        words = _embedded_words(backbone, config, row)
        tensors[before] = words[:, :, :1]
        tensors[behind] = words[:, :, 1 + config.context_length :]
    later = config.prompt_depth - 1
    for index in range(later):
        tensors[f"{DEEPER}.{index}"] = learner.compound_prompts[index]
        if len(learner.unused_weight):
            place = min(index, len(learner.unused_weight) - 1)
            tensors[f"{UNUSED}.{index}.weight"] = learner.unused_weight[place]
            tensors[f"{UNUSED}.{index}.bias"] = learner.unused_bias[place]
    return {GROUP: {name: value.detach().cpu().clone() for name, value in tensors.items()}}


def _embedded_words(backbone: Backbone, config: AnomalyCLIPConfig, row: int) -> Tensor:
    """The official prompt of one state, embedded: its context is written as as many X."""
    words = " ".join(["X"] * config.context_length) + " " + prompt_words(config)[row]
    return backbone.text.embed(backbone.tokenizer([words]))[None].float()


def _check_official(config: AnomalyCLIPConfig) -> None:
    """The official code has two contexts and one word for every object."""
    official = {"context": "learned", "shared_context": False, "object_word": "object"}
    for name, value in official.items():
        if getattr(config, name) != value:
            raise ClipadError(
                f"{name}: found {getattr(config, name)!r}, expected {value!r}: the official file has "
                "no place for another; use a checkpoint of clipad's own."
            )


def official_bytes(
    learner: AnomalyCLIPLearner, backbone: Backbone, config: AnomalyCLIPConfig
) -> bytes:
    """The official file's bytes."""
    return to_pth(to_official(learner, backbone, config))


def from_official(
    groups: Mapping[str, Any], backbone: Backbone, config: AnomalyCLIPConfig, path: Path
) -> AnomalyCLIPLearner:
    """A learner from the official dictionary, with or without its group and its unused layers.

    The embedded words are the backbone's own and are not read.

    Raises:
        ClipadError: naming the first tensor that is missing, unknown or of another shape.
    """
    _check_official(config)
    sizes = sizes_of(backbone, config)
    flat = {
        name.removeprefix(f"{GROUP}/"): tensor for name, tensor in flatten(groups, path).items()
    }
    has_unused = any(name.startswith(UNUSED) for name in flat)
    shapes = _official_shapes(sizes.text_width, len(backbone.text.positional_embedding), config)
    words = {name for name in (*PREFIX, *SUFFIX) if name not in flat}
    shapes = {
        name: shape
        for name, shape in shapes.items()
        if name not in words and (has_unused or not name.startswith(UNUSED))
    }
    check_fit(flat, shapes, path, NAME)
    later = range(config.prompt_depth - 1)
    values = {"context_tokens": torch.stack([flat[name][0, 0] for name in CONTEXT])}
    if later:
        values["compound_prompts"] = torch.stack([flat[f"{DEEPER}.{i}"] for i in later])
        layers = [
            torch.stack([flat[f"{UNUSED}.{i}.{part}"] for i in later if has_unused])
            if has_unused
            else torch.empty(0, UNUSED_WIDTH, *inputs)
            for part, inputs in (("weight", (sizes.text_width,)), ("bias", ()))
        ]
        # Equal layers, as the official code copies them, are kept once.
        same = has_unused and all(bool((stack == stack[:1]).all()) for stack in layers)
        weights, biases = [stack[:1] if same else stack for stack in layers]
        values |= {"unused_weight": weights, "unused_bias": biases}
    learner = empty_learner(backbone, config, values)
    fill(learner, values, backbone)
    return learner


def _official_shapes(
    width: int, context: int, config: AnomalyCLIPConfig
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        CONTEXT, (1, 1, config.context_length, width)
    )
    shapes |= dict.fromkeys(PREFIX, (1, 1, 1, width))
    shapes |= dict.fromkeys(SUFFIX, (1, 1, context - 1 - config.context_length, width))
    for index in range(config.prompt_depth - 1):
        shapes[f"{DEEPER}.{index}"] = (config.prompt_length, width)
        shapes[f"{UNUSED}.{index}.weight"] = (UNUSED_WIDTH, width)
        shapes[f"{UNUSED}.{index}.bias"] = (UNUSED_WIDTH,)
    return shapes


def read_official(path: Path, backbone: Backbone, config: AnomalyCLIPConfig) -> AnomalyCLIPLearner:
    """Read an official ``.pth``, as in the authors' folder ``checkpoints``, or one of your own.

    Raises:
        ClipadError: no file, truncated, code inside, another method, or a tensor that does not fit.
    """
    return from_official(read_pth(path), backbone, config, path)
