"""Prompt ensembles as data: states times templates, every published list under its own name.

WinCLIP (Jeong et al., CVPR 2023), section 4.1 and Fig. 6 of its supplement. A prompt is a template
around a state around the class name (`clipad_core.clip.prompt_ensemble`).
"""

from __future__ import annotations

from clipad_core.clip.prompt_ensemble import PromptEnsemble
from clipad_core.errors import ClipadError

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

_STEMS = (
    "a cropped photo of {} {{}}",
    "a close-up photo of {} {{}}",
    "a bright photo of {} {{}}",
    "a dark photo of {} {{}}",
    "a jpeg corrupted photo of {} {{}}",
    "a blurry photo of {} {{}}",
    "a photo of {} {{}}",
    "a photo of {} small {{}}",
    "a photo of {} large {{}}",
    "a photo of {} {{}} for visual inspection",
    "a photo of {} {{}} for anomaly detection",
)
TEMPLATES = tuple(stem.format(article) for stem in _STEMS for article in ("a", "the"))
TEMPLATES_DOT = tuple(f"{template}." for template in TEMPLATES)
# The list in zqhang/Accurate-WinCLIP-pytorch and anomalib 2.7.0: one entry lost, one doubled, one
# replaced by the double (spec: 21 entries, 20 of them distinct).
_LOST = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
ZQ21_DOT = (
    *(template for template in TEMPLATES_DOT if template not in _LOST),
    "a jpeg corrupted photo of the {}.",
)
NOTE_003_TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of a {}",
    "a bright photo of a {}",
    "a dark photo of a {}",
)
NOTE_003_STATES = tuple(
    f"{{}} with {word}"
    for word in (
        "defect",
        "flaw",
        "scratch",
        "crack",
        "stain",
        "hole",
        "dent",
        "tear",
        "contamination",
        "anomaly",
    )
)


ENSEMBLES: dict[str, PromptEnsemble] = {
    "full22_dot": PromptEnsemble(
        NORMAL_STATES,
        ANOMALOUS_STATES,
        TEMPLATES_DOT,
        "WinCLIP supplement, Fig. 6; mala-lab/WinCLIP",
    ),
    "full22_nodot": PromptEnsemble(
        NORMAL_STATES, ANOMALOUS_STATES, TEMPLATES, "caoyunkang/WinClip, ad_prompts.py"
    ),
    "zq21_dot": PromptEnsemble(
        NORMAL_STATES,
        ANOMALOUS_STATES,
        ZQ21_DOT,
        "zqhang/Accurate-WinCLIP-pytorch and anomalib 2.7.0, prompting.py (a doubled entry)",
    ),
    "compact_note003": PromptEnsemble(
        ("{}",), NOTE_003_STATES, NOTE_003_TEMPLATES, "reading note 003; in no published code"
    ),
    "one_class": PromptEnsemble(("normal {}",), (), ("{}",), "WinCLIP Table 3, one-class"),
    "two_class": PromptEnsemble(
        ("normal {}",), ("anomalous {}",), ("{}",), "WinCLIP Table 3, two-class (CLIP-AC)"
    ),
    "states_only": PromptEnsemble(
        NORMAL_STATES, ANOMALOUS_STATES, ("{}",), "WinCLIP Table 3, + states"
    ),
    "templates_only": PromptEnsemble(
        ("normal {}",), ("anomalous {}",), TEMPLATES_DOT, "the two-class pair in the 22 templates"
    ),
    "single_pair": PromptEnsemble(
        ("{}",), ("damaged {}",), ("a photo of a {}.",), "one prompt a state, the shortest ensemble"
    ),
}


def without_words(templates: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    """The templates that hold none of some words.

    >>> without_words(("a photo of a {}.", "a photo of a small {}."), ("small", "large"))
    ('a photo of a {}.',)
    """
    return tuple(text for text in templates if not set(words) & set(text.rstrip(".").split()))


def find_ensemble(name: str) -> PromptEnsemble:
    """Look an ensemble up by name, with a message that lists the names."""
    if name not in ENSEMBLES:
        raise ClipadError(
            f"prompts: found {name!r}, expected one of {', '.join(ENSEMBLES)}; choose one of them."
        )
    return ENSEMBLES[name]
