"""APRIL-GAN (Chen et al., 2023)."""

from clipad_core.methods.aprilgan.detector import METHOD

__all__ = ["METHOD"]
