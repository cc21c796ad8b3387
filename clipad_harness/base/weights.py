"""Weights on this machine: what is known, what is here, what is wrong with a file, and names for it.

A registered file lies in ``data/weights`` under a name of its own, beside a small record of its
architecture and SHA-256; `weights: NAME` in params.yaml then means that file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.published import (
    Published,
    cached_file,
    create_architecture,
    learn_architecture,
    recognise,
    uses_quick_gelu,
)
from clipad_core.clip.torchscript import is_torchscript
from clipad_core.clip.weights import (
    check_activation,
    check_fit,
    check_towers,
    file_sha256,
    fill_vocabulary,
    kind_of_file,
    read_state_dict,
)
from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing, write_text
from clipad_harness.base.settings import Weights

FOLDER = Path("data") / "weights"
RECORD = ".record.json"
Result = TypeVar("Result")
# Where open_clip keeps what it fetches by address.
CLIP_CACHE = Path("~/.cache/clip")


@dataclass(frozen=True)
class Registered:
    """One registered file: its name, architecture, file name in `FOLDER`, and digest."""

    name: str
    backbone: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Finding:
    """One line of a check: what was looked at, what was found, whether it is in order."""

    check: str
    result: str
    ok: bool = True


def shared_backbone(weights: Weights, precision: str) -> Backbone:
    """A frozen backbone as `load_backbone` gives it, loaded once a process: methods share it.

    A file that was written since is read anew.
    """
    path = Path(weights.weights)
    written = path.stat().st_mtime_ns if path.is_file() else None
    return _loaded(weights.backbone, weights.weights, weights.sha256, precision, written)


@cache
def _loaded(
    backbone: str, weights: str, sha256: str | None, precision: str, written: int | None
) -> Backbone:
    return load_backbone(backbone, weights, sha256, precision)


def locate(weights: Published) -> Path | None:
    """Where open_clip's copy of published weights lies on this machine; None where it does not."""
    if (file := cached_file(weights)) is not None:
        return file
    fetched = CLIP_CACHE.expanduser() / weights.url.rpartition("/")[2]
    return fetched if weights.url and fetched.is_file() else None


def read_registered(root: Path) -> list[Registered]:
    """All registered files, by name.

    Raises:
        ClipadError: a record that cannot be read.
    """
    registered = []
    for path in sorted((root / FOLDER).glob(f"*{RECORD}")):
        try:
            registered.append(Registered(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise ClipadError(
                f"{path}: found no record of registered weights ({error}); delete it and run "
                "`clipad weights add` again."
            ) from error
    return registered


def register(
    root: Path, file: Path, backbone: str, name: str, sha256: str | None = None, link: bool = False
) -> Path:
    """Check a file and give it a name.

    Args:
        root: the project's folder.
        file: the weights.
        backbone: the open_clip architecture they belong to.
        name: what params.yaml will call them.
        sha256: expected digest of the file, where known.
        link: point to the file instead of copying it.

    Returns:
        The record.

    Raises:
        ClipadError: anything that `inspect` finds wrong, a name that is taken or no file name.
    """
    if not name.isidentifier() and not name.replace("-", "_").replace(".", "_").isidentifier():
        raise ClipadError(
            f"--name: found {name!r}, expected letters, digits, '-', '_' and '.', a letter first."
        )
    target = root / FOLDER / f"{name}{file.suffix}"
    record = root / FOLDER / f"{name}{RECORD}"
    if record.exists() or target.exists() or target.is_symlink():
        raise ClipadError(
            f"--name: found {name!r} in {root / FOLDER} already; choose another name."
        )
    findings = inspect(file, backbone, sha256)
    wrong = [finding.result for finding in findings if not finding.ok]
    if wrong:
        raise ClipadError(wrong[0])
    with replacing(target) as temporary:
        if link:
            temporary.unlink()
            temporary.symlink_to(file.resolve())
        else:
            shutil.copyfile(file, temporary)
    registered = Registered(name, backbone, target.name, file_sha256(target))
    return write_text(record, json.dumps(asdict(registered), indent=2) + "\n")


def resolve(root: Path, weights: Weights) -> Weights:
    """Weights with their registered name or relative file replaced by the file it means.

    Raises:
        ClipadError: registered weights of another architecture than is named.
    """
    if (root / weights.weights).is_file():
        return replace(weights, weights=str(root / weights.weights))
    for registered in read_registered(root):
        if registered.name == weights.weights:
            if registered.backbone != weights.backbone:
                raise ClipadError(
                    f"backbone: found {weights.backbone}, expected {registered.backbone}, which the weights "
                    f"{registered.name!r} are registered for."
                )
            file = str(root / FOLDER / registered.file)
            return replace(weights, weights=file, sha256=weights.sha256 or registered.sha256)
    return weights


def inspect(file: Path, backbone: str | None = None, sha256: str | None = None) -> list[Finding]:
    """Look at everything that can be wrong with a file of weights, without computing anything.

    Args:
        file: the weights.
        backbone: the architecture they should fit; taken from what is published where None.
        sha256: expected digest; the name of a file in the hub's cache is one.

    Returns:
        Findings in the order of the checks; those that a wrong one makes meaningless are left out.
    """
    digest, wrong = _attempt("SHA-256", lambda: file_sha256(file, sha256 or _blob_digest(file)))
    if digest is None:
        return wrong
    findings = [Finding("SHA-256", digest)]
    published, wrong = _attempt("published", lambda: recognise(file, digest))
    label = published.label if published else "not in open_clip's list: yours to vouch for"
    findings += wrong or [Finding("published", label)]
    if backbone:
        learn_architecture(backbone, file)
    state, wrong = _attempt("format", lambda: read_state_dict(file))
    if state is None:
        return findings + wrong
    findings += [Finding("format", _format(file)), Finding("precision", _precision(state))]
    if (kind := kind_of_file(file)) in ("stand-in", "random"):
        findings.append(Finding("kind", f"{kind}: no number is comparable with a paper's"))
    _, wrong = _attempt("towers", lambda: check_towers(state, file))
    if wrong:
        return findings + wrong
    findings.append(Finding("towers", "image and text"))
    name = backbone or (published.name if published else None)
    if name is None:
        missing = "backbone: found none, expected the architecture to check against (--backbone)."
        return [*findings, Finding("architecture", missing, ok=False)]
    return findings + _fit(state, file, name, published)


def _fit(
    state: dict[str, Tensor], file: Path, name: str, published: Published | None
) -> list[Finding]:
    model, wrong = _attempt("architecture", lambda: create_architecture(name, "meta"))
    if model is None:
        return wrong
    architecture = model.state_dict()
    _, wrong = _attempt(
        "architecture", lambda: check_fit(fill_vocabulary(state, architecture), architecture, file)
    )
    findings = wrong or [Finding("architecture", f"{name}: every tensor fits")]
    _, wrong = _attempt("activation", lambda: check_activation(name, file, published))
    activation = "QuickGELU" if uses_quick_gelu(name) else "GELU"
    return findings + (wrong or [Finding("activation", activation)])


def _attempt(check: str, look: Callable[[], Result]) -> tuple[Result | None, list[Finding]]:
    """The result of a look, or the one thing it found wrong."""
    try:
        return look(), []
    except ClipadError as error:
        return None, [Finding(check, str(error), ok=False)]


def _blob_digest(file: Path) -> str | None:
    """The hub's cache names a large file by its SHA-256 and links to it."""
    name = file.resolve().name
    is_digest = len(name) == 64 and set(name) <= set("0123456789abcdef")
    return name if is_digest and file.is_symlink() else None


def _format(file: Path) -> str:
    if file.suffix == ".safetensors":
        return "safetensors"
    if is_torchscript(file):
        return "TorchScript archive, OpenAI's format; its tensors are read, its code is not run"
    return "state dict saved by torch"


def _precision(state: dict[str, Tensor]) -> str:
    floats = [value for value in state.values() if value.is_floating_point()]
    halves = sum(value.element_size() == 2 for value in floats)
    if not halves:
        return "float32"
    return (
        f"half precision in {halves} of {len(floats)} tensors: computed in float32 with the rounded "
        "values, as the published code does"
    )
