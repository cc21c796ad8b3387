"""AnomalyCLIP (Zhou et al., ICLR 2024)."""

from clipad_core.methods.anomalyclip.detector import METHOD

__all__ = ["METHOD"]
