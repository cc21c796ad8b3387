"""CoOp (Zhou et al., IJCV 2022), as AnomalyCLIP's tables have it: a stated reading."""

from clipad_core.methods.coop.detector import METHOD

__all__ = ["METHOD"]
