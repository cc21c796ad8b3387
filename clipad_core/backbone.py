"""One frozen CLIP: both towers, tokenizer, pixel statistics and a digest, loaded together.

Weights come by open_clip's published name, from a local file with a known SHA-256 (the bundled
stand-in is one), or from a seed (random, for tests and for timing architectures).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from clipad_core.errors import ClipadError
from clipad_core.text import TextTower, Tokenizer, read_text_tower
from clipad_core.vision import VisionTower, optimise, read_vision_tower

# CLIP's pixel statistics (openai/CLIP, clip.py); every backbone of the three papers uses them.
MEAN = open_clip.OPENAI_DATASET_MEAN
STD = open_clip.OPENAI_DATASET_STD
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP.

    Attributes:
        label: what a report calls these weights, e.g. "ViT-B-16-plus-240 (laion400m_e31)".
        kind: "published" (by tag), "file" (yours to vouch for), "stand-in" or "random"; the last two
            are never comparable with a paper.
        digest: SHA-256 over every tensor and the architecture; part of every cache key.
        image_size: side of the square input in pixels.
        temperature: CLIP's own learned temperature, 1 / logit_scale.
    """

    label: str
    kind: str
    digest: str
    image_size: int
    temperature: float
    vision: VisionTower
    text: TextTower
    tokenizer: Tokenizer


def load_backbone(
    name: str, weights: str | Path, sha256: str | None = None, precision: str = "float32"
) -> Backbone:
    """Load a frozen CLIP and everything that must match it.

    Args:
        name: an open_clip architecture, or the name of a ``<name>.json`` config beside the file.
        weights: a published tag ("laion400m_e31"), a file, or "random:SEED".
        sha256: expected digest of the file, at least its first 8 digits; unchecked where None.
        precision: "float32" (exact) or "bfloat16" (about twice as fast, error about 1e-3).

    Raises:
        ClipadError: unknown name or tag, missing or wrong file, tensors that do not fit, no network.
    """
    if precision not in PRECISIONS:
        raise ClipadError(
            f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}."
        )
    path = Path(weights)
    if seed := re.fullmatch(r"random:(\d+)", str(weights)):
        model = _random_model(name, int(seed[1]))
        label, kind = f"{name} (random weights, seed {seed[1]})", "random"
    elif path.suffix or path.exists():
        model, kind = _model_from_file(name, path, sha256)
        label = f"{name} ({path.name})"
    else:
        model, kind = _published_model(name, str(weights)), "published"
        label = f"{name} ({weights})"
    return _freeze(model.eval(), name, label, kind, precision)


def _freeze(model: Any, name: str, label: str, kind: str, precision: str) -> Backbone:
    """Keep the tensors and drop the module: nothing can run its forward by accident."""
    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    digest = digest_tensors(state)
    vision = read_vision_tower(model.visual)
    return Backbone(
        label=label,
        kind=kind,
        digest=digest,
        image_size=vision.grid[0] * vision.patch_size,
        temperature=float(torch.exp(-model.logit_scale.detach())),
        vision=optimise(vision, PRECISIONS[precision]),
        text=read_text_tower(model),
        tokenizer=open_clip.get_tokenizer(name),
    )


def digest_tensors(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, independent of order and file format."""
    found = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().to("cpu", torch.float32).contiguous()
        found.update(f"{key}{tuple(tensor.shape)}".encode())
        found.update(tensor.numpy().data)
    return found.hexdigest()


def _create(name: str) -> nn.Module:
    if open_clip.get_model_config(name) is None:
        raise ClipadError(
            f"backbone: found {name!r}, expected an open_clip architecture (for example "
            "ViT-B-16-plus-240) or a config file of that name beside the weights; check the spelling."
        )
    # open_clip warns that the model is random; whoever called this gives it weights or wants that.
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(name, pretrained=None)
    finally:
        logging.disable(logging.NOTSET)


def _random_model(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _create(name)


def _published_model(name: str, tag: str) -> nn.Module:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        _create(name)
        raise ClipadError(
            f"weights: found {tag!r} for {name}, expected a published tag ({', '.join(tags) or 'none'}), "
            "a file, or random:SEED."
        )
    try:
        return open_clip.create_model(name, pretrained=tag)
    except (RuntimeError, OSError) as error:
        raise ClipadError(
            f"weights: {name} ({tag}) is not on this machine and could not be fetched "
            f"({str(error).splitlines()[0][:200]}). Connect to the network once, or download the file "
            "elsewhere and set `weights` to its path with its SHA-256."
        ) from error


def _model_from_file(name: str, path: Path, sha256: str | None) -> tuple[nn.Module, str]:
    if not path.is_file():
        raise ClipadError(
            f"weights: {path} does not exist; set `weights` to a file, a published tag, or random:SEED."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 is not None and not (len(sha256) >= 8 and found.startswith(sha256.lower())):
        raise ClipadError(
            f"weights: {path} has SHA-256 {found}, expected {sha256}; the file is damaged or another "
            "one. Fetch it again, or correct `sha256`."
        )
    config = path.with_name(f"{name}.json")
    if config.is_file():
        open_clip.add_model_config(config)
    state = read_state_dict(path)
    model = _create(name)
    state = _fill_vocabulary(state, model.state_dict())
    _load_strictly(model, state, path)
    return model, _kind_of_file(path)


def _kind_of_file(path: Path) -> str:
    """The stand-in says what it is in its own header, so no renaming can hide it."""
    if path.suffix != ".safetensors":
        return "file"
    with safe_open(path, "pt") as opened:
        return (opened.metadata() or {}).get("clipad", "file")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read safetensors, a state dict saved by torch, or OpenAI's TorchScript archive, safely."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ClipadError(
            f"weights: {path} could not be read ({str(error).splitlines()[0][:200]}); expected "
            "safetensors or a plain state dict saved by torch. Fetch it again or convert it."
        ) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    return {key.removeprefix("module."): value for key, value in state.items()}


def _fill_vocabulary(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put stored vocabulary rows back in place; rows that no caption used are zero."""
    filled = dict(state)
    for key in [key for key in state if key.endswith("token_embedding.rows")]:
        target = key.replace(".rows", ".weight")
        full = torch.zeros_like(wanted[target])
        full[filled.pop(key).long()] = state[target].float()
        filled[target] = full
    return filled


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    for key in sorted({*wanted, *state}):
        found = tuple(state[key].shape) if key in state else "nothing"
        expected = tuple(wanted[key].shape) if key in wanted else "nothing"
        if found != expected:
            raise ClipadError(
                f"weights: {path} does not fit the architecture: tensor {key} is {found}, expected "
                f"{expected}. Use the weights of this backbone, or name the backbone they belong to."
            )
    model.load_state_dict({key: value.float() for key, value in state.items()})
