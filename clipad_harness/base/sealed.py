"""Files kept under a key: each holds its key and a digest of its content, compared at every read.

A disk, a copy or a hand can change any bit, and other numbers would come out of it without a word. A
file that fails the comparison is worth as much as one that is not there: what can be made again is
made again. So whoever reads gets None in both cases. Learners, which are handed on, are refused by name
instead: `clipad_core.learned.checkpoint_files` seals them by the same digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipad_core.learned.checkpoint_files import HEADER, UNREADABLE, tensor_digest
from clipad_harness.base.files import check_place, replacing, write_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_KEY, _DIGEST, _CONTENT = "key", "sha256", "content"


def hash_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of everything a result depends on: the key that it is kept under."""
    return _json_digest(parts)


def write_json(path: Path, key: str, content: Any) -> Path:
    """Write what JSON can hold.

    Raises:
        ClipadError: the folder is read-only or the disk is full.
    """
    sealed = {_KEY: key, _DIGEST: _json_digest(content), _CONTENT: content}
    return write_text(path, json.dumps(sealed, sort_keys=True))


def read_json(path: Path, key: str, kind: Any = Any) -> Any:
    """What `write_json` wrote under this key; None where it is missing, damaged or another's.

    Args:
        path: of the file.
        key: that it is kept under.
        kind: the type of what is kept; content of another type is damage too.

    Raises:
        ClipadError: something else than a file stands there, see `check_place`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_json(Path(folder) / "curve.json", "a key", [0.5, 0.25])
    ...     whole = read_json(path, "a key"), read_json(path, "another key")
    ...     size = path.write_text(path.read_text().replace("0.25", "0.26"))
    ...     (*whole, read_json(path, "a key"))
    ([0.5, 0.25], None, None)
    """
    check_place(path)
    try:
        sealed = json.loads(path.read_bytes())
        content = sealed[_CONTENT]
        whole = (sealed[_KEY], sealed[_DIGEST]) == (key, _json_digest(content))
        return _adapter(kind).validate_python(content) if whole else None
    except UNREADABLE:
        return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # it takes longer than all of `clipad --help`

    return TypeAdapter(kind)


def write_state(path: Path, key: str, state: Mapping[str, Any]) -> None:
    """Write a state of a training by ``torch.save``, behind a line with its key and digest.

    Raises:
        ClipadError: the folder is read-only or the disk is full.
    """
    whole = io.BytesIO()  # torch says RuntimeError of a disk that is full
    torch.save(state, whole)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_first_line(key, whole.getbuffer()))
        file.write(whole.getbuffer())


def read_state(path: Path, key: str) -> dict[str, Any] | None:
    """What `write_state` wrote under this key; None where it is missing, damaged or another's.

    Raises:
        ClipadError: something else than a file stands there, see `check_place`.
    """
    check_place(path)
    try:
        line, end, whole = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if line + end != _first_line(key, whole):
        return None
    try:
        state = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, *UNREADABLE):
        return None
    return state if isinstance(state, dict) else None


def write_tensors(path: Path, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors with a digest a tensor, so that some can be read and compared alone.

    Raises:
        ClipadError: the folder is read-only or the disk is full.
    """
    plain = {name: value.contiguous() for name, value in tensors.items()}
    digests = {name: tensor_digest(name, value) for name, value in plain.items()}
    # Under one name: safetensors writes several in an order of chance.
    seal = {HEADER: json.dumps({_KEY: key, _DIGEST: digests}, sort_keys=True)}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, seal)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(path: Path, key: str, names: Sequence[str] = ()) -> dict[str, Tensor] | None:
    """What `write_tensors` wrote under this key, or only the tensors of these ``names``.

    They are copied before they are compared, so that they are not the file any more: what happens to
    it afterwards does not reach them.

    Returns:
        None where the file, or what is wanted of it, is missing, damaged or another's.

    Raises:
        ClipadError: something else than a file stands there, see `check_place`.
    """
    check_place(path)
    try:
        with safe_open(path, "pt") as file:
            seal = json.loads((file.metadata() or {})[HEADER])
            stored = list(file.keys())
            if seal[_KEY] != key or sorted(seal[_DIGEST]) != sorted(stored):
                return None
            tensors = {name: file.get_tensor(name).clone() for name in names or stored}
            digests = {name: seal[_DIGEST][name] for name in tensors}
    except UNREADABLE:
        return None
    whole = all(tensor_digest(name, value) == digests[name] for name, value in tensors.items())
    return tensors if whole else None


def tell_damage(path: Path) -> None:
    """Say that a file which could not be used is made again; nothing where there was none."""
    if path.exists():
        print(f"clipad: {path}: damaged, or another's; made again.", file=sys.stderr)


def _json_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _first_line(key: str, content: bytes | memoryview) -> bytes:
    return f"{key} {hashlib.sha256(content).hexdigest()}\n".encode()
