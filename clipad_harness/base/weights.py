"""Weights on this machine: what is known, what is here, what is wrong with a file, and names for it.

A registered file lies in ``data/weights`` under a name of its own, beside a small record of its
architecture and SHA-256; `weights: NAME` in params.yaml then means that file.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.published import Published, cached_file, is_tag
from clipad_core.clip.state_dict import weights_file
from clipad_core.clip.weights import LOOKS, WeightsFile, file_sha256
from clipad_core.errors import ClipadError
from clipad_harness.base.files import replacing, write_text
from clipad_harness.base.settings import Weights

FOLDER = Path("data") / "weights"
RECORD = ".record.json"
# Backbones that stay in memory at once: of a page over all methods, each in its precision.
_MOST_LOADED = 4
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
    """One line of a check: what was looked at, what was found, whether it is in order.

    ``ok`` is None where the file does not tell.
    """

    check: str
    result: str
    ok: bool | None = True


def shared_backbone(weights: Weights, precision: str, device: str) -> Backbone:
    """A frozen backbone as `load_backbone` gives it, loaded once a process: methods share it.

    The latest few are kept. A file that was written since is read anew.
    """
    path = Path(weights.weights)
    written = path.stat().st_mtime_ns if path.is_file() else None
    named = weights.backbone, weights.weights, weights.sha256
    return _loaded(*named, precision, device, written)


@lru_cache(maxsize=_MOST_LOADED)
def _loaded(
    backbone: str,
    weights: str,
    sha256: str | None,
    precision: str,
    device: str,
    written: int | None,
) -> Backbone:
    return load_backbone(backbone, weights, sha256, precision, device)


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
    wrong = [finding.result for finding in findings if finding.ok is False]
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
    """Weights with their registered name, relative file or folder replaced by the file it means.

    Raises:
        ClipadError: no name, registered weights of another architecture than is named, or a folder with
            more than one file of weights, or none.
    """
    path = root / weights.weights
    if not weights.weights:  # or it would mean the project's own folder
        raise ClipadError(
            "weights: found '', expected a file, a registered name, a published tag or random:SEED."
        )
    if path.is_file() or (path.is_dir() and not is_tag(weights.backbone, weights.weights)):
        return replace(weights, weights=str(weights_file(path)))
    for registered in read_registered(root):
        if registered.name == weights.weights:
            if registered.backbone != weights.backbone:
                raise ClipadError(
                    f"backbone: found {weights.backbone!r}, expected {registered.backbone}, which the "
                    f"weights {registered.name!r} are registered for."
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
        Findings in the order of the looks; those that a wrong one makes meaningless are left out.
    """
    weights, findings = WeightsFile(file, backbone, sha256 or _blob_digest(file)), []
    for look in LOOKS:
        try:
            seen = look.see(weights)
        except ClipadError as error:
            findings.append(Finding(look.name, str(error), ok=False))
            if look.needed:
                break
        else:
            findings.append(Finding(look.name, seen.text, ok=seen.known or None))
    return findings


def _blob_digest(file: Path) -> str | None:
    """The hub's cache names a large file by its SHA-256 and links to it."""
    name = file.resolve().name
    is_digest = len(name) == 64 and set(name) <= set("0123456789abcdef")
    return name if is_digest and file.is_symlink() else None
