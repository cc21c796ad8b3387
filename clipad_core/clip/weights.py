"""What is in a file of CLIP weights, and every way it can be wrong.

Nothing in a file is ever run: safetensors, plain state dicts by ``torch.load(weights_only=True)``,
OpenAI's TorchScript archives by `clipad_core.clip.torchscript`. What can be wrong with a file (a missing
tower, another architecture, another activation than it was trained with, values that are no numbers)
ends in one message before anything is computed.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from clipad_core.clip.published import Published, uses_quick_gelu
from clipad_core.clip.torchscript import is_torchscript, read_torchscript
from clipad_core.errors import ClipadError

# Tensors of OpenAI's archives that are settings, not weights (openai/CLIP, clip/model.py,
# build_model drops the first three); the mask of the causal text tower is made anew.
_SETTINGS = ("input_resolution", "context_length", "vocab_size")
_MASK = "attn_mask"


def file_sha256(path: Path, expected: str | None = None) -> str:
    """SHA-256 of a file.

    Args:
        path: the weights.
        expected: at least its first 8 digits; unchecked where None.

    Raises:
        ClipadError: there is no such file, or it has another digest.
    """
    if not path.is_file():
        raise ClipadError(
            f"weights: {path} does not exist; set `weights` to a file, a published tag, or random:SEED."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and not (len(expected) >= 8 and digest.startswith(expected.lower())):
        raise ClipadError(
            f"weights: {path} has SHA-256 {digest}, expected {expected}; the file is damaged or another "
            "one. Fetch it again, or correct `sha256`."
        )
    return digest


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read safetensors, a state dict saved by torch, or OpenAI's TorchScript archive, safely.

    Raises:
        ClipadError: none of these, a damaged file, or one that wants to run something.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        if is_torchscript(path):
            state = read_torchscript(path)
            return {k: v for k, v in state.items() if k not in _SETTINGS and not k.endswith(_MASK)}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = (
            "it holds something else than tensors, or is no file of weights"
            if isinstance(error, pickle.UnpicklingError)
            else str(error).partition("\n")[0][:200] or type(error).__name__
        )
        raise ClipadError(
            f"weights: {path} could not be read ({why}); expected "
            "safetensors, a plain state dict saved by torch, or OpenAI's archive. Fetch it again or "
            "convert it."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {
        str(key).removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read tensor by tensor, each into memory of its own.

    They are maps of the file: its pages would count beside the copies until the last one is dropped,
    and where a tensor begins in the file would decide over the last bits of a product.
    """
    with safe_open(path, "pt") as opened:
        names = list(opened.keys())
    tensors = {}
    for name in names:
        with safe_open(path, "pt") as opened:
            tensors[name] = opened.get_tensor(name).clone()
    return tensors


def check_towers(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file without both towers.

    Raises:
        ClipadError: no image tower, no text tower, or another layout.
    """
    image = any(key.startswith("visual.") for key in state)
    text = any("token_embedding." in key for key in state)
    if image and text:
        return
    missing = " and no ".join(
        name for name, present in (("image tower", image), ("text tower", text)) if not present
    )
    hint = "both are needed; get the whole CLIP."
    if any(key.startswith(("vision_model.", "text_model.")) for key in state):
        hint = "it is in the layout of Hugging Face transformers; get it in open_clip's."
    example = f" (its first tensor is {next(iter(sorted(state)))})" if state else ""
    raise ClipadError(f"weights: {path} holds no {missing}{example}: {hint}")


def check_activation(name: str, path: Path, published: Published | None) -> None:
    """Refuse weights in an architecture with another activation than they were trained with.

    VCP-CLIP computes OpenAI's weights with GELU on purpose; it changes that by itself, so it is
    given the architecture with QuickGELU like everything else.

    Raises:
        ClipadError: a QuickGELU mismatch.
    """
    trained = published.quick_gelu if published else is_torchscript(path)
    if not published and not trained:
        return  # nothing is known of these weights
    if trained != uses_quick_gelu(name):
        right = f"{name}-quickgelu" if trained else name.removesuffix("-quickgelu")
        activation = ("QuickGELU", "GELU") if trained else ("GELU", "QuickGELU")
        raise ClipadError(
            f"backbone: found {name}, which computes {activation[1]}, for weights trained with "
            f"{activation[0]} ({path}), expected {right}; set `backbone: {right}`."
        )


def check_fit(state: Mapping[str, Tensor], architecture: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that an architecture does not have, lacks, or has in another shape.

    Raises:
        ClipadError: the first tensor that does not fit, or one with a value that is no number.
    """
    for key in sorted({*architecture, *state}):
        shape = tuple(state[key].shape) if key in state else "nothing"
        expected = tuple(architecture[key].shape) if key in architecture else "nothing"
        if shape != expected:
            raise ClipadError(
                f"weights: {path} does not fit the architecture: tensor {key} is {shape}, expected "
                f"{expected}. Use the weights of this backbone, or name the backbone they belong to."
            )
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ClipadError(
                f"weights: {path}, tensor {key} holds a value that is not finite, expected numbers; "
                "fetch the file again, or convert it without overflow."
            )


def fill_vocabulary(
    state: Mapping[str, Tensor], architecture: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Put stored vocabulary rows back in place; rows that no caption used are zero."""
    filled = dict(state)
    for key in [key for key in state if key.endswith("token_embedding.rows")]:
        target = key.replace(".rows", ".weight")
        rows, vectors = filled.pop(key).long(), state[target].float()
        # Of another width or another vocabulary it is no part of this architecture: `check_fit` says so.
        size = max(len(architecture.get(target, ())), int(rows.max()) + 1)
        full = torch.zeros(size, vectors.shape[1])
        full[rows] = vectors
        filled[target] = full
    return filled


def kind_of_file(path: Path) -> str:
    """The stand-in says what it is in its own header, so no renaming can hide it."""
    if path.suffix != ".safetensors":
        return "file"
    with safe_open(path, "pt") as opened:
        return (opened.metadata() or {}).get("clipad", "file")
