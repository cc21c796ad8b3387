"""Words that a backbone has never read: the stand-in's vocabulary is that of its own captions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from clipad_core.clip.backbone import Backbone
from clipad_core.methods.winclip.prompts import find_ensemble
from clipad_harness.report.tables import Html, callout

# The fields of the learned methods' configs that hold words.
_FIELDS = ("template", "normal_state", "anomalous_state")


def unread(backbone: Backbone, texts: Iterable[str]) -> list[str]:
    """The words of some prompts of which no token has a vector; published weights know them all."""
    known = backbone.text.token_embedding.any(dim=1)
    words = dict.fromkeys(re.findall(r"[a-z]+", re.sub(r"{\w+}", "", " ".join(texts)).lower()))
    found = []
    for word in words:
        row = backbone.tokenizer([word])[0]
        tokens = row[1 : int(row.argmax())]  # between start and end; the end has the highest number
        if not known[tokens].any():
            found.append(word)
    return found


def prompt_texts(config: Any) -> list[str]:
    """What a method's config says to the text tower, but for the name of the category."""
    if hasattr(config, "prompts"):
        return [text for label in find_ensemble(config.prompts).prompts("") for text in label]
    values = [getattr(config, name + s, ()) for name in _FIELDS for s in ("", "s")]
    return [text for one in values for text in ([one] if isinstance(one, str) else one)]


def note(backbone: Backbone, variants: Iterable[Any], *groups: str) -> Html:
    """Which words of the rows of some ablations the backbone has never read, as a callout."""
    rows = [one for one in variants if one.name.partition("/")[0] in groups]
    configs = [r.tested_with(r.seeds[0]) if hasattr(r, "tested_with") else r.config for r in rows]
    found = unread(backbone, [text for config in configs for text in prompt_texts(config)])
    if not found:
        return callout("The backbone has read every word of these rows.")
    return callout(
        f"This backbone ({backbone.kind} weights) has never read {', '.join(found)}: to it they mean "
        "nothing, and rows that differ in such words alone differ in the number of words. So rows with "
        "them say nothing about the paper's.",
        "warning",
    )
