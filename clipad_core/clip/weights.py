"""Every way a file of CLIP weights can be wrong: one list of looks at it.

Loading takes all of them and stops at the first that is wrong; a check reports each. What can be wrong
with a file (a missing tower, another architecture, another activation than it was trained with, values
that are no numbers) ends in one message before anything is computed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clipad_core.clip.published import (
    Published,
    check_pixels,
    create_architecture,
    learn_architecture,
    recognise,
    uses_quick_gelu,
)
from clipad_core.clip.state_dict import StateDict, check_dense, read_state_dict
from clipad_core.errors import ClipadError

# As the rows of a vocabulary are stored, where only some of it is.
_ROWS, _WHOLE = "token_embedding.rows", "token_embedding.weight"


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


@dataclass
class WeightsFile:
    """A file of weights, and what the looks so far have learned of it.

    Attributes:
        path: of the file.
        name: the architecture that it should fit; None: the one it is published for.
        sha256: expected digest, at least its first 8 digits; unchecked where None.
    """

    path: Path
    name: str | None
    sha256: str | None = None
    digest: str = field(init=False)
    published: Published | None = field(default=None, init=False)
    state: StateDict = field(init=False)
    architecture: str = field(init=False)
    model: nn.Module = field(init=False)


class Seen(NamedTuple):
    """What a look saw, in words; not ``known``: the file does not tell."""

    text: str
    known: bool = True


class Look(NamedTuple):
    """One look at a file; ``needed``: where it finds something wrong, those after it make no sense."""

    name: str
    see: Callable[[WeightsFile], Seen]
    needed: bool


def _digest(file: WeightsFile) -> Seen:
    file.digest = file_sha256(file.path, file.sha256)
    return Seen(file.digest)


def _published(file: WeightsFile) -> Seen:
    file.published = recognise(file.path, file.digest)
    if file.published is None:
        return Seen("not in open_clip's list: yours to vouch for", known=False)
    return Seen(file.published.label)


def _format(file: WeightsFile) -> Seen:
    file.state = read_state_dict(file.path)
    return Seen(file.state.format)


def _numbers(file: WeightsFile) -> Seen:
    check_dense("weights", file.state.tensors, file.path)
    floats = [value for value in file.state.tensors.values() if value.is_floating_point()]
    others = [value for value in floats if value.dtype != torch.float32]
    if not others:
        return Seen("float32")
    types = sorted({str(value.dtype).removeprefix("torch.") for value in others})
    return Seen(
        f"{' and '.join(types)} in {len(others)} of {len(floats)} tensors: computed in float32 with "
        "the rounded values, as the published code does"
    )


def _kind(file: WeightsFile) -> Seen:
    """The stand-in says what it is in its own header, so no renaming can hide it."""
    if file.state.kind == "file":
        return Seen("real weights, as far as the file tells", known=False)
    return Seen(f"{file.state.kind}: no number is comparable with a paper's")


def _towers(file: WeightsFile) -> Seen:
    """Refuse a file without both towers."""
    names = file.state.tensors
    image = any(name.startswith("visual.") for name in names)
    text = any("token_embedding." in name for name in names)
    if image and text:
        return Seen("image and text")
    missing = " and no ".join(
        name for name, present in (("image tower", image), ("text tower", text)) if not present
    )
    hint = "both are needed; get the whole CLIP."
    if any(re.search(r"\b(vision|text)_model\.", name) for name in names):
        hint = "it is in the layout of Hugging Face transformers; get it in open_clip's."
    example = f" (its first tensor is {min(names)!r})" if names else ""
    raise ClipadError(f"weights: {file.path} holds no {missing}{example}: {hint}")


def _backbone(file: WeightsFile) -> Seen:
    name = file.name or (file.published.name if file.published else None)
    if name is None:
        raise ClipadError(
            "backbone: found none, expected the architecture to check against (--backbone)."
        )
    learn_architecture(name, file.path)
    file.architecture, file.model = name, create_architecture(name, device="meta")
    return Seen(name)


def _architecture(file: WeightsFile) -> Seen:
    """Refuse tensors that an architecture does not have, lacks, or has in another shape or type."""
    architecture = file.model.state_dict()
    tensors = fill_vocabulary(file.state.tensors, architecture, file.path)
    for name in sorted({*architecture, *tensors}):
        shape = tuple(tensors[name].shape) if name in tensors else "nothing"
        expected = tuple(architecture[name].shape) if name in architecture else "nothing"
        if shape != expected:
            raise ClipadError(
                f"weights: {file.path} does not fit the architecture: tensor {name} is {shape}, "
                f"expected {expected}. Use the weights of this backbone, or name the backbone they "
                "belong to."
            )
    for name, value in tensors.items():
        if not architecture[name].is_floating_point():
            continue
        if not value.is_floating_point():
            raise ClipadError(
                f"weights: {file.path}, tensor {name} is in {value.dtype}, expected floating-point "
                "numbers; quantised weights cannot be used, get the original ones."
            )
        if not bool(value.float().isfinite().all()):
            raise ClipadError(
                f"weights: {file.path}, tensor {name} holds a value that is not finite, expected "
                "numbers; fetch the file again, or convert it without overflow."
            )
    # Half precision becomes float32 with the rounded values, as in the published code. Assigned, not
    # copied: weights that nobody reads are never made, and those that count lie in memory once.
    file.model.load_state_dict(
        {name: value.float() for name, value in tensors.items()}, assign=True
    )
    return Seen(f"{file.architecture}: every tensor fits")


def _activation(file: WeightsFile) -> Seen:
    """Refuse weights in an architecture with another activation than they were trained with.

    VCP-CLIP computes OpenAI's weights with GELU on purpose; it changes that by itself, so it is
    given the architecture with QuickGELU like everything else.
    """
    name, activations = file.architecture, ("GELU", "QuickGELU")
    computed = uses_quick_gelu(name)
    trained = file.published.quick_gelu if file.published else file.state.from_openai or None
    if trained is None:
        return Seen(
            f"{activations[computed]} is computed; the file does not tell what it was trained with",
            known=False,
        )
    if trained != computed:
        right = f"{name}-quickgelu" if trained else name.removesuffix("-quickgelu")
        raise ClipadError(
            f"backbone: found {name}, which computes {activations[computed]}, for weights trained with "
            f"{activations[trained]} ({file.path}), expected {right}; set `backbone: {right}`."
        )
    return Seen(activations[trained])


def _pixels(file: WeightsFile) -> Seen:
    if file.published is None:
        return Seen("normalised as CLIP's; the file does not tell", known=False)
    check_pixels(file.published)
    return Seen("normalised as CLIP's")


# In the order of a file's life: what needs least of it first.
LOOKS = (
    Look("SHA-256", _digest, needed=True),
    Look("published", _published, needed=False),
    Look("format", _format, needed=True),
    Look("numbers", _numbers, needed=True),
    Look("kind", _kind, needed=False),
    Look("towers", _towers, needed=True),
    Look("backbone", _backbone, needed=True),
    Look("architecture", _architecture, needed=False),
    Look("activation", _activation, needed=False),
    Look("pixels", _pixels, needed=False),
)


def fill_vocabulary(
    state: Mapping[str, Tensor], architecture: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Put stored vocabulary rows back in place; rows that no caption used are zero.

    A table of another width, or for another architecture, is no part of this one and stays as it is.

    Raises:
        ClipadError: row numbers that are none of this vocabulary's, or not one for each stored row.
    """
    filled = dict(state)
    for name in [name for name in state if name.endswith(_ROWS)]:
        target, rows = name.removesuffix(_ROWS) + _WHOLE, filled.pop(name)
        vectors, whole = state.get(target), architecture.get(target)
        if vectors is None or whole is None or vectors.shape[1:] != whole.shape[1:]:
            continue
        fits = not rows.is_floating_point() and tuple(rows.shape) == (len(vectors),)
        numbers = set(rows.tolist()) if fits else set()
        if not numbers or len(numbers) < len(vectors) or not numbers <= set(range(len(whole))):
            raise ClipadError(
                f"weights: {path}, tensor {name} holds {tuple(rows.shape)} numbers in {rows.dtype}, "
                f"expected another one from 0 to {len(whole) - 1} for each of the {len(vectors)} stored "
                "rows; fetch the file again."
            )
        full = torch.zeros(whole.shape, dtype=vectors.dtype)
        full[rows.long()] = vectors
        filled[target] = full
    return filled
