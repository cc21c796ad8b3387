"""The one place that imports open_clip, so that a CPU torch can live beside a CUDA torchvision.

Without a special index, torchvision's Linux wheels are CUDA builds. Their compiled operators cannot
be loaded beside a CPU torch, and ``import torchvision`` then stops with ``operator torchvision::nms
does not exist``, because it describes operators to torch that were never defined. open_clip imports
torchvision for its image transforms, and nothing here computes with those operators, so it is enough
that their signatures exist. Calling ``torchvision.ops.nms`` still raises, as it should.

Everything of core and harness that needs open_clip imports it from here, where it is asked for: it
takes seconds::

    from clipad_core.clip.open_clip import open_clip
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

__all__ = ["open_clip"]

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_missing_operators() -> torch.library.Library | None:
    """Declare the operators that the installed torchvision cannot load beside this torch.

    Does nothing but on Linux, nothing on a CUDA torch, nothing where torchvision is imported already,
    and nothing where its own operators load: declaring them a second time would abort the process.

    Returns:
        What holds the declarations, None where there are none; torch drops them when it is collected.
    """
    if sys.platform != "linux" or torch.version.cuda is not None or "torchvision" in sys.modules:
        return None
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or _loads(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(name + SIGNATURE)
    return library


def _loads(torchvision: Path) -> bool:
    """Whether the compiled operators of the torchvision in this folder load beside this torch."""
    try:
        for extension in torchvision.glob("_C*.so"):
            torch.ops.load_library(str(extension))
            return True
    except OSError:
        return False
    return False


_declared = declare_missing_operators()

import open_clip  # noqa: E402  (it imports torchvision, which must find the operators declared)
