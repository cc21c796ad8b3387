"""Procedural inspection photos: one call draws a thing sound and damaged."""

from clipad_harness.standin.drawing.catalogue import (
    AUXILIARY,
    PRETRAINING,
    PRETRAINING_DEFECTS,
    TARGET,
    TARGET_ONLY_DEFECTS,
)
from clipad_harness.standin.drawing.pairs import (
    Pair,
    defects_of,
    draw_pair,
    draw_sound,
    is_texture,
    words,
)

__all__ = [
    "AUXILIARY",
    "PRETRAINING",
    "PRETRAINING_DEFECTS",
    "TARGET",
    "TARGET_ONLY_DEFECTS",
    "Pair",
    "defects_of",
    "draw_pair",
    "draw_sound",
    "is_texture",
    "words",
]
