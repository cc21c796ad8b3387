"""CLIP and CLIP-AC (Radford et al., ICML 2021), as the papers of anomaly detection run them."""

from clipad_core.methods.clip.detector import METHOD

__all__ = ["METHOD"]
