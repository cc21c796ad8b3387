"""Lets a CPU torch live beside a CUDA torchvision, so that ``import open_clip`` works.

Without a special index, torchvision's Linux wheels are CUDA builds. Their compiled operators cannot
be loaded beside a CPU torch, and ``import torchvision`` then stops with ``operator torchvision::nms
does not exist``, because it describes operators to torch that were never defined. Nothing here
computes with those operators (open_clip wants the image transforms only), so it is enough that
their signatures exist. Calling ``torchvision.ops.nms`` still raises, as it should.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# torch drops the signatures again when the library object that defined them is collected.
_kept: list[Any] = []


class TorchvisionHook(MetaPathFinder):
    """Finds nothing itself; prepares torch at the moment torchvision is first wanted."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Prepare torch when ``torchvision`` is asked for, then leave the search to the others."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            spec = PathFinder.find_spec(fullname)
            if spec is not None and spec.origin is not None:
                define_missing_operators(Path(spec.origin).parent)
        return None


def install_hook() -> None:
    """Put the hook in place once, where it can matter: on Linux, before torchvision is loaded.

    >>> import sys
    >>> before = list(sys.meta_path)
    >>> install_hook()
    >>> sys.meta_path == before or isinstance(sys.meta_path[0], TorchvisionHook)
    True
    """
    waiting = any(isinstance(finder, TorchvisionHook) for finder in sys.meta_path)
    if sys.platform == "linux" and "torchvision" not in sys.modules and not waiting:
        sys.meta_path.insert(0, TorchvisionHook())


def define_missing_operators(torchvision: Path) -> None:
    """Declare the operators that the torchvision in this folder cannot load beside this torch.

    Does nothing on a CUDA torch, and nothing where torchvision's own operators load: declaring them
    a second time would abort the process.
    """
    import torch  # here, because importing clipad_core alone must not cost seconds

    if torch.version.cuda is not None or _loads(torchvision):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(name + SIGNATURE)
    _kept.append(library)


def _loads(torchvision: Path) -> bool:
    """Whether torchvision's compiled operators load beside this torch."""
    import torch

    try:
        for extension in torchvision.glob("_C*.so"):
            torch.ops.load_library(str(extension))
            return True
    except OSError:
        return False
    return False
