"""Reading and writing the files of learned methods: the official layouts and our own.

The official trainers store dictionaries of tensors by ``torch.save``; ours is safetensors with the
config and the hashes of what it was trained with in its header. Nothing that could run code is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.state_dict import check_dense, load_saved, tensor_groups
from clipad_core.errors import ClipadError

# A safetensors header maps strings to strings; all we say stands under this one, as JSON.
HEADER = "clipad"
FIELDS = {"method", "config", "backbone", "data"}
DIGEST, KEY = "digest", "key"
# What trainers put around a dictionary of tensors, and what torch puts before every name.
WRAPPERS, PREFIX = ("state_dict", "model_state_dict", "model"), "module."
# As what a changed bit of a safetensors header or of JSON shows itself.
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError)


def read_pth(path: Path) -> dict[str, Any]:
    """A dictionary stored by ``torch.save``: tensors and plain containers, never code.

    Raises:
        ClipadError: no file, not such a file, truncated, or one that would run code.
    """
    _must_exist(path)
    try:
        content = load_saved(path)
    except pickle.UnpicklingError as error:
        raise ClipadError(
            f"checkpoint: {path} holds more than tensors ({_first_line(error)}), expected tensors only; "
            "it could run code and was not read."
        ) from error
    except Exception as error:
        raise ClipadError(
            f"checkpoint: {path} could not be read ({_first_line(error)}), expected a file of "
            "torch.save; it is truncated or another kind of file. Fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise ClipadError(
            f"checkpoint: {path} holds a {type(content).__name__}, expected a dictionary of tensors."
        )
    # The one entry that everything lies below; beside it a training's counters and optimizer.
    tops = {place.partition(".")[0] for place, _ in tensor_groups(content)}
    wrapper = tops.pop() if len(tops) == 1 else ""
    inner = content.get(wrapper) if wrapper in WRAPPERS else None
    return inner if isinstance(inner, dict) else content


def to_pth(content: Mapping[str, Any]) -> bytes:
    """The bytes of a file of ``torch.save``, as the official trainers store their learners."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def flatten(groups: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Nested groups as one dictionary, ``group/name`` -> tensor; top-level tensors keep their name.

    Raises:
        ClipadError: something that is no tensor, or a group inside itself.

    >>> flatten({"a": torch.zeros(1), "b": {"module.c": torch.ones(1)}}, Path("x.pth"))
    {'a': tensor([0.]), 'b/c': tensor([1.])}
    """
    try:
        return _flatten(groups, path)
    except RecursionError as error:
        raise ClipadError(
            f"checkpoint: {path} holds groups without end inside each other, expected tensors; it is no "
            "checkpoint of this method."
        ) from error


def _flatten(groups: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for name, value in groups.items():
        plain = str(name).removeprefix(PREFIX)
        if isinstance(value, Mapping):
            inner = _flatten(value, path)
            flat |= {f"{plain}/{key}": tensor for key, tensor in inner.items()}
        elif isinstance(value, Tensor):
            flat[plain] = value.detach()
        else:
            raise ClipadError(
                f"checkpoint: {path} holds {type(value).__name__} under {name!r}, expected tensors; it "
                "is no checkpoint of this method."
            )
    return flat


def tensor_digest(name: str, tensor: Tensor) -> str:
    """SHA-256 over a tensor's name, type, shape and bytes.

    >>> tensor_digest("a", torch.zeros(2)) == tensor_digest("a", torch.zeros(2, 1))
    False
    """
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_safetensors(
    path: Path, method: str, key: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and the header: method, config, backbone digest and data hash.

    Args:
        key: of the training that is wanted; None: whichever the file is of.

    Raises:
        ClipadError: no file, not such a file, damaged, of another method or training, or not by
            clipad.
    """
    _must_exist(path)
    try:
        with safe_open(path, "pt") as opened:
            stored_header = (opened.metadata() or {}).get(HEADER)
            names = opened.keys()
            tensors = {name: opened.get_tensor(name).clone() for name in names}
    except UNREADABLE as error:
        raise ClipadError(
            f"checkpoint: {path} could not be read ({_first_line(error)}), expected safetensors; it is "
            "truncated or another kind of file. Fetch it again."
        ) from error
    header = _read_header(path, stored_header)
    digest = _digest(tensors, header)
    if digest != header[DIGEST]:
        raise ClipadError(
            f"checkpoint: {path} holds other content than was written: found the digest {digest[:12]}, "
            f"expected {str(header[DIGEST])[:12]}; it is damaged. Fetch it again, or train it again."
        )
    if header["method"] != method:
        raise ClipadError(
            f"checkpoint: {path} is of the method {header['method']!r}, expected {method!r}; give the "
            "file that this method trained."
        )
    if key is not None and header.get(KEY) != key:
        raise ClipadError(
            f"checkpoint: {path} is of the training {str(header.get(KEY))[:16]}, expected {key[:16]}; "
            "files have changed places. Put the right one there, or train it again."
        )
    return tensors, header


def _read_header(path: Path, stored_header: str | None) -> dict[str, Any]:
    """What a file says under `HEADER`.

    Raises:
        ClipadError: something else than clipad writes, or no digest.
    """
    try:
        header = json.loads(stored_header or "")
    except json.JSONDecodeError:  # the bundled stand-in says something else under this name
        header = None
    if not isinstance(header, dict) or not FIELDS.issubset(header):
        raise ClipadError(
            f"checkpoint: {path} does not say what it was trained with; expected a file that clipad "
            "wrote. Read an official file by its own reader."
        )
    if DIGEST not in header:
        raise ClipadError(
            f"checkpoint: {path} holds no digest of its content, expected one, as clipad writes; "
            "without it damage would go unseen. Train it again."
        )
    return header


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 over all tensors and all that the header says beside it."""
    fields = {field: value for field, value in header.items() if field != DIGEST}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensor_digest(name, tensors[name]).encode())
    return digest.hexdigest()


def to_safetensors(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """The bytes of a file, with a digest of its content; equal input gives equal bytes."""
    stored = {key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}
    sealed = dict(header) | {DIGEST: _digest(stored, header)}
    return save(stored, {HEADER: json.dumps(sealed, sort_keys=True)})


def check_fit(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path, method: str
) -> None:
    """Stop at the first tensor, by name, that is missing, unknown, or of another shape or type."""
    check_dense("checkpoint", tensors, path)
    for name in sorted({*expected, *tensors}):
        shape = tuple(tensors[name].shape) if name in tensors else "nothing"
        expected_shape = expected.get(name, "nothing")
        if shape != expected_shape:
            raise ClipadError(
                f"checkpoint: {path} does not fit {method} on this backbone: tensor {name} is {shape}, "
                f"expected {expected_shape}. Use a checkpoint of this method, backbone and config."
            )
        if not tensors[name].is_floating_point():
            raise ClipadError(
                f"checkpoint: {path}, tensor {name} is in {tensors[name].dtype}, expected floating-point "
                "numbers; use a checkpoint as the method's training wrote it."
            )
        if not tensors[name].float().isfinite().all():
            raise ClipadError(
                f"checkpoint: {path} holds numbers in {name} that are not finite; it is damaged."
            )


def fill(learner: nn.Module, values: Mapping[str, Tensor], backbone: Backbone) -> None:
    """Give a learner without memory its values, where and in the precision the backbone computes."""
    moved = {
        name: value.to(backbone.device, backbone.dtype, copy=True) for name, value in values.items()
    }
    learner.load_state_dict(moved, assign=True)


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise ClipadError(
            f"checkpoint: {path} does not exist; expected a file. Check the path or train one first."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
