"""VCP-CLIP (Qu et al., ECCV 2024)."""

from clipad_core.methods.vcpclip.detector import METHOD

__all__ = ["METHOD"]
