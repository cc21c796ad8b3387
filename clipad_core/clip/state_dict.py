"""Tensors out of a file of weights, however they were stored, without running anything in it.

What a file is, its content says, not its name: safetensors, a state dict by
``torch.load(weights_only=True)``, or OpenAI's archive by `clipad_core.clip.torchscript`. What stands
around the tensors (a training's dictionary, a prefix) is taken off where only one reading is possible.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import safe_open
from torch import Tensor

from clipad_core.clip.torchscript import DTYPES, check_sizes, is_torchscript, read_torchscript
from clipad_core.errors import ClipadError

# Tensors of OpenAI's that are settings, not weights (openai/CLIP, clip/model.py, build_model drops
# them); the mask of the causal text tower is made anew.
_SETTINGS = {"input_resolution", "context_length", "vocab_size"}
_MASK = "attn_mask"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# What is often taken for weights, by its first bytes.
_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself by `git lfs pull`",
    b"<": "a web page, not the file behind it; download it again",
    b"\x1f\x8b": "a file packed by gzip; unpack it",
    b"GGUF": "a GGUF file; get the weights in another format",
    b"\x89HDF": "an HDF5 file; get the weights in another format",
}
_ZIP, _LONGEST_REASON = b"PK", 200


@dataclass(frozen=True)
class StateDict:
    """What a file of weights holds.

    Attributes:
        tensors: by the names that open_clip has for them.
        format: of the file, in words.
        kind: "file", or what a file by clipad says of itself, as "stand-in".
        from_openai: OpenAI's settings stand among the tensors, as in its archives and their copies.
    """

    tensors: dict[str, Tensor]
    format: str
    kind: str
    from_openai: bool


def weights_file(path: Path) -> Path:
    """The file that a path means: itself, or the one file of weights in a folder.

    Of a folder as the hub has them it is open_clip's file.

    Raises:
        ClipadError: a folder with several files of weights, or none.
    """
    if not path.is_dir():
        return path
    from clipad_core.clip.open_clip import open_clip

    constants = open_clip.constants
    for name in (constants.HF_SAFE_WEIGHTS_NAME, constants.HF_WEIGHTS_NAME):
        if (path / name).is_file():
            return path / name
    files = sorted(
        file.name for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file()
    )
    if len(files) == 1:
        return path / files[0]
    raise ClipadError(
        f"weights: {path} is a folder with {len(files) or 'no'} files of weights in it, expected one "
        f"({', '.join(files[:5]) or ', '.join(_SUFFIXES)}); name the file."
    )


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a header, then a JSON object."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_state_dict(path: Path) -> StateDict:
    """Read safetensors, a state dict saved by torch, or OpenAI's TorchScript archive, safely.

    Raises:
        ClipadError: none of these, a damaged file, one that wants to run something, or several state
            dicts in one.
    """
    expected = "safetensors, a plain state dict saved by torch, or OpenAI's archive"
    kind, groups = "file", {}
    try:
        if is_safetensors(path):
            stored = "safetensors"
            groups[""], kind = _read_safetensors(path)
        elif is_torchscript(path):
            stored = (
                "TorchScript archive, OpenAI's format; its tensors are read, its code is not run"
            )
            groups[""] = read_torchscript(path)
        else:
            stored = "state dict saved by torch"
            groups = dict(tensor_groups(load_saved(path)))
    except Exception as error:  # a damaged file makes its reader raise anything
        raise unreadable("weights", path, error, expected) from error
    tensors = _without_prefix(_only_clip(groups, path), path)
    return StateDict(
        tensors={
            name: tensor
            for name, tensor in tensors.items()
            if name not in _SETTINGS and not name.endswith(_MASK)
        },
        format=stored,
        kind=kind,
        from_openai=tensors.keys() >= _SETTINGS,
    )


def load_saved(path: Path) -> Any:
    """What ``torch.save`` stored: tensors and plain containers, never code.

    Raises:
        pickle.UnpicklingError: something else than that.
        Exception: whatever a damaged file makes torch raise; see `unreadable`.
    """
    with path.open("rb") as file:
        first = file.read(64)
        for start, content in _OTHER_FILES.items():
            if first.startswith(start):
                raise ValueError(f"it is {content}")
        if first.startswith(_ZIP):
            with ZipFile(path) as archive:
                if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                    raise ValueError("it is a zip file that torch did not write; unpack it")
                check_sizes(archive, archive.infolist())
        file.seek(0)  # by its path torch would ask its name what it is
        return torch.load(file, map_location="cpu", weights_only=True)


def unreadable(source: str, path: Path, error: Exception, expected: str) -> ClipadError:
    """The one message about a file whose reader stopped."""
    reason = (
        "it holds something else than tensors, or is no file of weights"
        if isinstance(error, pickle.UnpicklingError)
        else str(error).strip().partition("\n")[0][:_LONGEST_REASON] or type(error).__name__
    )
    return ClipadError(
        f"{source}: {path} could not be read ({reason}); expected {expected}. Fetch it again or "
        "convert it."
    )


def check_dense(source: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that nothing here computes with.

    Raises:
        ClipadError: one that is sparse, nested, quantised, complex, without values, or in a type that
            torch does not compute with on every device; or a name that would break a message.
    """
    for name, tensor in tensors.items():
        if not name.isprintable():
            fault = "has a name that cannot be printed"
        elif tensor.is_nested:
            fault = "is nested"
        elif tensor.layout is not torch.strided:
            fault = "is sparse"
        elif tensor.device.type != "cpu":
            fault = "has no values"
        elif tensor.dtype not in DTYPES.values():
            fault = f"is in {str(tensor.dtype).removeprefix('torch.')}"
        else:
            continue
        raise ClipadError(
            f"{source}: {path}, tensor {name!r} {fault}, expected a dense one in float32, or in half or "
            "double precision; convert it."
        )


def tensor_groups(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary that holds tensors under names, with its place, the outermost first.

    >>> [place for place, _ in tensor_groups({"epoch": 3, "model": {"a": torch.zeros(1)}})]
    ['model']
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, no dictionary of tensors")
    pending, known = [("", content)], set()
    for place, group in pending:
        if id(group) in known:  # the same one under two names, or inside itself
            continue
        known.add(id(group))
        named = {name: value for name, value in group.items() if isinstance(name, str)}
        tensors = {
            name: value.detach() for name, value in named.items() if isinstance(value, Tensor)
        }
        if tensors:
            yield place, tensors
        pending += [
            (f"{place}.{name}" if place else name, value)
            for name, value in named.items()
            if isinstance(value, Mapping)
        ]


def _only_clip(groups: Mapping[str, dict[str, Tensor]], path: Path) -> dict[str, Tensor]:
    """The one group of tensors with names of CLIP's; the first one where none has."""
    clips = {
        place: tensors
        for place, tensors in groups.items()
        if any("visual." in name or "token_embedding." in name for name in tensors)
    }
    if len(clips) > 1:
        raise ClipadError(
            f"weights: {path} holds several state dicts ({', '.join(map(repr, clips))}), expected one; "
            "save the one that counts in a file of its own."
        )
    return next(iter((clips or groups).values()), {})


def _without_prefix(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take off what stands before every name of the image tower, as `module.` or `model.`."""
    matches = [re.match(r"(?:(.+?)\.)??visual\.", name) for name in tensors]
    prefixes = sorted({match[1] or "" for match in matches if match})
    if len(prefixes) > 1:
        raise ClipadError(
            f"weights: {path} holds several image towers, below {', '.join(map(repr, prefixes))}, "
            "expected one; save the one that counts in a file of its own."
        )
    if not prefixes or not prefixes[0]:
        return tensors
    stripped = {name.removeprefix(f"{prefixes[0]}."): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise ClipadError(
            f"weights: {path} holds tensors with and without {prefixes[0]!r} before the same name, "
            "expected one of each; save the one that counts in a file of its own."
        )
    return stripped


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read tensor by tensor, each into memory of its own; the stand-in's header says what it is.

    They are maps of the file: its pages would count beside the copies until the last one is dropped,
    and where a tensor begins in the file would decide over the last bits of a product.
    """
    with safe_open(path, "pt") as opened:
        names, kind = list(opened.keys()), (opened.metadata() or {}).get("clipad", "file")
    tensors = {}
    for name in names:
        with safe_open(path, "pt") as opened:
            tensors[name] = opened.get_tensor(name).clone()
    return tensors, kind
