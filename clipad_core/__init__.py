"""The core of clipad: encoders and scoring. It knows tensors and nothing else.

What most programs need can be imported from here; torch is loaded when it is first used::

    from clipad_core import WinCLIP, WinCLIPConfig, load_backbone
"""

from typing import TYPE_CHECKING

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from clipad_core.clip.backbone import load_backbone
    from clipad_core.clip.image_file import read_image
    from clipad_core.detection import Detection
    from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
    from clipad_core.methods.anomalyclip.detector import AnomalyCLIP
    from clipad_core.methods.aprilgan.config import APRILGANConfig
    from clipad_core.methods.aprilgan.detector import APRILGAN
    from clipad_core.methods.vcpclip.config import VCPCLIPConfig
    from clipad_core.methods.vcpclip.detector import VCPCLIP
    from clipad_core.methods.winclip.config import WinCLIPConfig
    from clipad_core.methods.winclip.detector import WinCLIP

__version__ = "0.1.0"
__all__ = [
    "APRILGAN",
    "APRILGANConfig",
    "AnomalyCLIP",
    "AnomalyCLIPConfig",
    "ClipadError",
    "Detection",
    "VCPCLIP",
    "VCPCLIPConfig",
    "WinCLIP",
    "WinCLIPConfig",
    "load_backbone",
    "read_image",
]


def __getattr__(name: str) -> object:
    """Import what loads torch when it is first asked for (PEP 562), so that `clipad --help` is quick."""
    if name == "load_backbone":
        from clipad_core.clip.backbone import load_backbone

        return load_backbone
    if name == "read_image":
        from clipad_core.clip.image_file import read_image

        return read_image
    if name == "Detection":
        from clipad_core.detection import Detection

        return Detection
    if name == "WinCLIP":
        from clipad_core.methods.winclip.detector import WinCLIP

        return WinCLIP
    if name == "WinCLIPConfig":
        from clipad_core.methods.winclip.config import WinCLIPConfig

        return WinCLIPConfig
    if name == "AnomalyCLIP":
        from clipad_core.methods.anomalyclip.detector import AnomalyCLIP

        return AnomalyCLIP
    if name == "AnomalyCLIPConfig":
        from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig

        return AnomalyCLIPConfig
    if name == "APRILGAN":
        from clipad_core.methods.aprilgan.detector import APRILGAN

        return APRILGAN
    if name == "APRILGANConfig":
        from clipad_core.methods.aprilgan.config import APRILGANConfig

        return APRILGANConfig
    if name == "VCPCLIP":
        from clipad_core.methods.vcpclip.detector import VCPCLIP

        return VCPCLIP
    if name == "VCPCLIPConfig":
        from clipad_core.methods.vcpclip.config import VCPCLIPConfig

        return VCPCLIPConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
