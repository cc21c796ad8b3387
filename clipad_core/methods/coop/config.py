"""Every choice of the row CoOp as one field, with its source: a reading, not a reproduction.

A is Zhou et al., AnomalyCLIP, ICLR 2024 (arXiv 2310.18961v12), whose A.2 says of this row: one learned
context before "normal [cls]" and "anomalous [cls]", "all parameters kept as in their paper". P is that
paper: Zhou et al., CoOp, IJCV 2022; C its code. What neither settles for this data is [open] below, and
nobody published code or weights for the row: no run can be held against its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from clipad_core.clip.features import LAST_BLOCK
from clipad_core.config import changed, choice, look_up_preset
from clipad_core.errors import ClipadError

_R = "arXiv:2310.18961, rebuttal, Table 8; the loop of zqhang/AnomalyCLIP@45ed4dd: train.py, train.sh"


@dataclass(frozen=True)
class CoOpConfig:
    """A's words read by P and C; a preset replaces what another reading does differently."""

    # A, App. B: float32; C trains in half precision [open]. float64 is ours.
    precision: Literal["float64", "float32", "bfloat16", "float16_autocast"] = choice(
        "float32", read="run"
    )

    # Image, as of A's other rows: plain tower, all tokens by CLIP's own norm and projection. C takes
    # CLIP's own size alone and crops and flips what it trains on; A resizes all images to 518 [open].
    image_size: int = 518
    positional: Literal["bilinear", "bicubic_antialias"] = "bilinear"
    class_ln_post: bool = True
    blocks: tuple[int, ...] = (LAST_BLOCK,)

    # Prompts. P: 16 vectors, drawn; C: before "normal metal nut.", underscores as spaces.
    context_length: int = 16
    # C: initial values from words, as "a photo of a", which then say how many vectors there are.
    context_words: str = ""
    context_position: Literal["end", "middle", "front"] = "end"  # of the class token; P: end
    normal_state: str = "normal"
    anomalous_state: str = "anomalous"
    class_name: Literal["spaces", "raw", "object"] = "spaces"

    # Scores: A Eq. (1).
    temperature: float = choice(0.07, read="after training")
    sigma: float = choice(4.0, read="after training")

    # Loss: cross-entropy of the image label alone. None named: each image between the two prompts of
    # its own category [open]; C takes one softmax over the prompts of all, which must be named.
    joint_categories: tuple[str, ...] = choice((), read="training")
    training_temperature: float | Literal["clip"] = choice(
        "clip", read="training"
    )  # P; [open] 0.07

    # Training. P: SGD 0.002, first epoch at 1e-5, then a cosine; 50 epochs is what it gives its largest
    # set [open]. C: momentum, and the weight decay that its toolbox sets, in neither paper nor settings.
    epochs: int = choice(50, "15 epochs instead of 50", _R, read="training")
    batch_size: int = choice(
        32, "batches of 8 instead of 32", _R, read="training", together="epochs"
    )
    drop_last: bool = choice(
        True, "the last, incomplete batch is kept", _R, read="training", together="epochs"
    )
    seed: int = choice(1, read="run")  # C: 1, 2, 3
    optimizer: Literal["sgd", "adam"] = choice(
        "sgd",
        "AnomalyCLIP's own loop: Adam at one rate. The rebuttal's minutes an epoch are about AnomalyCLIP's",
        _R,
        read="training",
        together="epochs",
    )
    learning_rate: float = choice(
        2e-3, "0.001 instead of 0.002", _R, read="training", together="epochs"
    )
    schedule: Literal["warm_cosine", "constant"] = choice(
        "warm_cosine", "no schedule", _R, read="training", together="epochs"
    )
    warmup_rate: float = choice(1e-5, read="training")
    momentum: float = choice(0.9, read="training")
    weight_decay: float = choice(5e-4, "no weight decay", _R, read="training", together="epochs")
    betas: tuple[float, ...] = choice((0.5, 0.999), read="training")  # of Adam; A's code

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        for name, least in (
            ("image_size", 1),
            ("context_length", 1),
            ("batch_size", 1),
            ("epochs", 0),
        ):
            if getattr(self, name) < least:
                raise ClipadError(
                    f"{name}: found {getattr(self, name)}, expected at least {least}."
                )
        if not self.blocks or len(set(self.blocks)) < len(self.blocks):
            raise ClipadError(f"blocks: found {self.blocks}, expected different block numbers.")
        positive = {"temperature": self.temperature, "learning_rate": self.learning_rate}
        if not isinstance(self.training_temperature, str):
            positive["training_temperature"] = self.training_temperature
        for name, value in positive.items():
            if not value > 0:
                raise ClipadError(f"{name}: found {value}, expected a number above 0.")
        for name in ("sigma", "warmup_rate", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ClipadError(f"{name}: found {getattr(self, name)}, expected 0 or more.")
        if not 0 <= self.momentum < 1:
            raise ClipadError(
                f"momentum: found {self.momentum}, expected a number from 0 to below 1."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ClipadError(f"betas: found {self.betas}, expected two numbers from 0 to below 1.")
        if self.normal_state == self.anomalous_state:
            raise ClipadError(
                f"anomalous_state: found {self.anomalous_state!r}, which normal_state is too, expected "
                "another word; equal prompts tell nothing apart."
            )

    def changed(self, values: dict[str, Any]) -> CoOpConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> CoOpConfig().changed({"joint_categories": ["bottle"]}).joint_categories
        ('bottle',)
        """
        return changed(self, values, "coop")


_READING = CoOpConfig()

PRESETS: dict[str, CoOpConfig] = {
    "reading": _READING,
    # The other reading of A: its own loop, size and prompts a step.
    "anomalyclip_loop": replace(
        _READING,
        epochs=15,
        batch_size=8,
        drop_last=False,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
    ),
}


def find_preset(name: str) -> CoOpConfig:
    """Look a preset up by name, with a message that lists the names."""
    return look_up_preset(PRESETS, name)
