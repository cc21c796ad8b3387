"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023)."""

from clipad_core.methods.winclip.detector import METHOD

__all__ = ["METHOD"]
