"""Leaves out of a stage's process what open_clip draws in and no stage uses.

open_clip imports timm where it finds it, for towers that clipad refuses, and timm and torchvision
import torch's compiler: together 3.5 of the 6.5 CPU seconds that loading a backbone's libraries
takes, in every one of a dozen processes. A stage says so in its environment, which its workers and the
kernels of its notebooks inherit. A program that imports clipad gets all of open_clip.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

VARIABLE = "CLIPAD_STAGE"
_COMPILER = "torch._dynamo.utils"


class _CompilerLater(ModuleType):
    """Stands for a module of torch's compiler until more is wanted than torchvision's one question."""

    def __getattr__(self, name: str) -> Any:
        """Import the real module and ask that; what inspects all modules asks for ``__file__``."""
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(importlib.import_module(_COMPILER), name)

    def is_compile_supported(self, device_type: str) -> bool:
        """Asked by ``torchvision.ops.roi_align`` when it is called, which is never."""
        return bool(self.__getattr__("is_compile_supported")(device_type))


def start_quickly() -> None:
    """Mark this process and its children as a stage's, and leave out what no stage uses."""
    os.environ[VARIABLE] = "1"
    # None makes `import timm` fail, which open_clip takes for a missing extra.
    sys.modules.setdefault("timm", None)  # type: ignore[arg-type]
    if "torch._dynamo" not in sys.modules:
        sys.modules.setdefault(_COMPILER, _CompilerLater(_COMPILER))
