"""Every choice of AnomalyCLIP as one field, with its source, and the published presets.

P is Zhou et al., AnomalyCLIP, ICLR 2024 (arXiv 2310.18961v12); C, below, the code whose train.sh and
test.sh made the published numbers; R the authors' answers in the review of the paper (OpenReview),
whose tables are not in P.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from clipad_core.config import (
    changed,
    check_betas,
    check_different_blocks,
    check_least,
    choice,
    look_up_preset,
)
from clipad_core.errors import ClipadError
from clipad_core.methods.method import WordKind

_C = "zqhang/AnomalyCLIP@45ed4dd"

# Where a prompt takes its state word and the name of what it shows.
STATE, OBJECT = "{state}", "{object}"
# What stands in a state word for words of the category, and which of its words (`Category`).
WORD_SLOTS: dict[str, WordKind] = {
    "{defects}": "defects",
    "{other_defects}": "other_defects",
    "{phrases}": "phrases",
    "{other_phrases}": "other_phrases",
}

Branch = Literal[
    "vv", "qq", "kk", "none", "ensemble", "ensemble_qk", "maskclip", "sclip", "naclip", "clearclip"
]
Stream = Literal["sum", "mlp", "aliased"]


@dataclass(frozen=True)
class AnomalyCLIPConfig:
    """The published setting; a preset replaces what another release or the paper does differently."""

    # Backbone. P A.1 and C: ViT-L/14@336 by OpenAI at 518 px.
    weights: Literal["openai"] = "openai"
    # C: float32, also on a GPU; float64 (the same numbers on every CPU) and bfloat16 are ours.
    precision: Literal["float64", "float32", "bfloat16", "float16_autocast"] = choice(
        "float32", read="run"
    )
    image_size: int = 518  # P A.1, C
    activation: Literal["backbone", "quick_gelu", "gelu"] = "backbone"  # C: QuickGELU, OpenAI's
    positional: Literal["bilinear", "bicubic_antialias"] = choice(  # P silent
        "bilinear",
        "the positional embedding is resized to a larger grid by bicubic interpolation with antialiasing, "
        "open_clip's own, instead of bilinear",
        f"{_C}: AnomalyCLIP_lib",
    )

    # Local features. P App. C and C: V-V attention beside the tower; "none" is P Table 4 without T1.
    # P Fig. 6: Q-Q and K-K. R Table 12: logits of QQ, KK, VV averaged, and with the tower's own Q-K.
    # Other papers' readings of CLIP for dense tasks, which change the read blocks alone: `dense`.
    branch: Branch = "vv"
    dpam_from_layer: int = 6  # P A.1; C DPAM_layer=20, the last 19 of 24 blocks
    blocks: tuple[int, ...] = choice(  # P 4.1
        (24,),
        "maps of blocks 6, 12, 18 and 24 are summed: the default of the code's arguments; its scripts "
        "pass 24 alone",
        f"{_C}: test.py, test.sh; zqhang/AnomalyCLIP#18",
    )
    # "sum": attention outputs add up, C. "mlp": C's unused ffn=True. "aliased": C's issues 18 and 82, too.
    local_stream: Stream = choice(
        "sum",
        "before 2025-04-13 every listed block held the last one's tensor",
        f"{_C}; zqhang/AnomalyCLIP#64",
    )
    class_ln_post: bool = choice(  # P silent
        False,
        "the class token passes CLIP's last norm, which the released code leaves out",
        f"{_C}: AnomalyCLIP_lib; zqhang/AnomalyCLIP#14",
    )

    # Prompts. P 3.2 and C: learned vectors before "object." and "damaged object.".
    context: Literal["learned", "none"] = choice(
        "learned", "words alone, nothing is learned before them", "P Table 5"
    )
    context_length: int = 12  # E; P A.1, C n_ctx
    shared_context: bool = False  # R Table 11: one context for both states
    template: str = choice(
        "{state} {object}.",
        "no period at the end of the prompts (P 3.2)",
        f"P; {_C}: prompt_ensemble.py",
    )
    normal_state: str = ""  # P 3.2, C
    # P 3.2, C; P Tables 8 and 9 try others. One of WORD_SLOTS stands for each word of the tested category
    # in turn, and their prompts are averaged: changed after training, which has none; in no paper.
    anomalous_state: str = "damaged"
    # P Figs. 5 and 8: the name of the category in its place (object-aware prompts).
    object_word: Literal["object", "category"] = "object"

    # Text tower. P Eq. (3) and C: from block 2 on, fresh vectors behind the start token.
    prompt_depth: int = choice(  # P A.1, C: blocks 2 to 9
        9, "1: no block gets fresh vectors", "P Tables 4 and 5"
    )
    prompt_length: int = 4  # P A.1, C t_n_ctx
    half_prompts: bool = choice(  # C rounds their gradients, too; P silent
        True, "no rounding of deeper vectors to half precision", f"P; {_C}: AnomalyCLIP_lib"
    )

    # Scores. The temperature is C's, P prints none.
    temperature: float = 0.07
    sigma: float = choice(
        4.0, "no smoothing of the map", f"P 3.3 smooths; {_C}: test.py", read="after training"
    )

    # References. P and C read none: these are ours, as WinCLIP+ and APRIL-GAN have them (`memory`).
    memory_blocks: tuple[int, ...] = choice((), read="references")  # none: those of `blocks`
    map_fusion: Literal["mean", "harmonic", "visual", "language"] = choice(
        "mean", read="references"
    )
    few_shot_image_score: Literal["both", "visual", "text"] = choice("both", read="references")
    reference_choice: Literal["seeded", "first"] = choice("seeded", read="references")

    # Loss, P Eq. (2).
    global_loss: bool = choice(True, read="training")  # P Table 5
    local_loss: Literal["both", "focal", "dice", "none"] = choice(  # P Table 5, R Table 14
        "both", read="training"
    )
    local_weight: float = choice(  # lambda; P 4.1
        4.0, "λ 1 instead of 4: four equal maps count four times", _C, read="training"
    )

    # Training. Betas and seed: C; P names Adam and no number of runs.
    epochs: int = choice(  # P A.1, C
        15, "0: initial values, nothing is learned", "P Table 5", read="training"
    )
    batch_size: int = choice(8, read="training")  # P A.1, C
    seed: int = choice(111, read="run")  # C
    learning_rate: float = choice(1e-3, read="training")  # P A.1, C
    betas: tuple[float, ...] = choice((0.5, 0.999), read="training")

    def __post_init__(self) -> None:
        """Refuse what no code path knows, naming the field."""
        for name in ("image_size", "dpam_from_layer", "prompt_depth", "prompt_length"):
            check_least(name, getattr(self, name), 1)
        for name, least in (("context_length", 1), ("batch_size", 1), ("epochs", 0)):
            check_least(name, getattr(self, name), least)
        check_different_blocks("blocks", self.blocks)
        check_different_blocks("memory_blocks", compared_blocks(self))
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ClipadError(
                    f"{name}: found {getattr(self, name)}, expected a number above 0."
                )
        for name in ("sigma", "local_weight"):
            if not getattr(self, name) >= 0:
                raise ClipadError(f"{name}: found {getattr(self, name)}, expected 0 or more.")
        check_betas(self.betas)
        if self.template.count(STATE) != 1 or self.template.count(OBJECT) != 1:
            raise ClipadError(
                f"template: found {self.template!r}, expected {STATE} and {OBJECT} once each."
            )
        slots = re.findall("{.*?}", self.anomalous_state)
        if slots and (len(slots) > 1 or slots[0] not in WORD_SLOTS):
            raise ClipadError(
                f"anomalous_state: found {' and '.join(slots)}, expected at most one of "
                f"{', '.join(WORD_SLOTS)} where words of the category stand."
            )
        _check_learning(self)

    def changed(self, values: dict[str, Any]) -> AnomalyCLIPConfig:
        """Return the config with some fields replaced; lists from YAML become tuples.

        >>> AnomalyCLIPConfig().changed({"blocks": [6, 12]}).blocks
        (6, 12)
        """
        return changed(self, values, "anomalyclip")


def compared_blocks(config: AnomalyCLIPConfig) -> tuple[int, ...]:
    """The blocks whose patches are compared with references, ascending.

    >>> compared_blocks(AnomalyCLIPConfig()), compared_blocks(AnomalyCLIPConfig(memory_blocks=(24, 12)))
    ((24,), (12, 24))
    """
    return tuple(sorted(config.memory_blocks or config.blocks))


def _check_learning(config: AnomalyCLIPConfig) -> None:
    """What is learned must fit together, and nothing may be trained that nothing pulls at."""
    deep = config.prompt_depth > 1
    if deep and config.context == "learned" and config.prompt_length > config.context_length:
        raise ClipadError(
            f"prompt_length: found {config.prompt_length}, expected at most context_length "
            f"({config.context_length}): deeper vectors take the place of the context."
        )
    if deep and config.context == "none":
        raise ClipadError(
            f"prompt_depth: found {config.prompt_depth} without a context, expected 1: deeper vectors "
            "would take the place of the words."
        )
    idle = config.context == "none" or not (config.global_loss or config.local_loss != "none")
    if idle and config.epochs:
        raise ClipadError(
            f"epochs: found {config.epochs}, expected 0: with context {config.context!r} and the losses "
            "switched as they are there is nothing to train."
        )


_PUBLISHED = AnomalyCLIPConfig()

PRESETS: dict[str, AnomalyCLIPConfig] = {
    "published": _PUBLISHED,
    # C run with the defaults of its own arguments: worse than what was published (C issue 18).
    "code_default": replace(_PUBLISHED, blocks=(6, 12, 18, 24)),
    # Before 2025-04-13: four times the same map, so its loss is that of "published".
    "first_release": replace(
        _PUBLISHED, blocks=(6, 12, 18, 24), local_stream="aliased", local_weight=1.0
    ),
    # P to the letter; where it is silent it is the code that made its numbers.
    "paper": replace(_PUBLISHED, template="{state} {object}", half_prompts=False),
    # P Table 5 without any context optimisation; P does not say which words it uses.
    "untrained": replace(_PUBLISHED, context="none", prompt_depth=1, epochs=0),
}


def find_preset(name: str) -> AnomalyCLIPConfig:
    """Look a preset up by name, with a message that lists the names."""
    return look_up_preset(PRESETS, name)


def members(branch: Branch) -> tuple[str, ...]:
    """The attentions whose logits are averaged; "qk" is the tower's own stream.

    >>> members("vv"), members("none"), members("ensemble_qk")
    (('vv',), ('qk',), ('qq', 'kk', 'vv', 'qk'))
    """
    if branch not in get_args(Branch):
        raise ClipadError(
            f"branch: found {branch!r}, expected one of {', '.join(get_args(Branch))}."
        )
    ensembles = {
        "none": ("qk",),
        "ensemble": ("qq", "kk", "vv"),
        "ensemble_qk": ("qq", "kk", "vv", "qk"),
    }
    return ensembles.get(branch, (branch,))
