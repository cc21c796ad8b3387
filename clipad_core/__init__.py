"""The core of clipad: encoders and scoring. It knows tensors and nothing else.

What most programs need can be imported from here; torch is loaded when it is first used::

    from clipad_core import WinCLIP, WinCLIPConfig, load_backbone
"""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from clipad_core.clip.backbone import load_backbone
    from clipad_core.detection import Detection
    from clipad_core.errors import ClipadError
    from clipad_core.methods.winclip.config import WinCLIPConfig
    from clipad_core.methods.winclip.detector import WinCLIP

__version__ = "0.1.0"
__all__ = ["ClipadError", "Detection", "WinCLIP", "WinCLIPConfig", "load_backbone"]

_HOMES = {
    "ClipadError": "errors",
    "Detection": "detection",
    "WinCLIP": "methods.winclip.detector",
    "WinCLIPConfig": "methods.winclip.config",
    "load_backbone": "clip.backbone",
}



def __getattr__(name: str) -> object:
    """Import a name from its module when it is first asked for (PEP 562)."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
