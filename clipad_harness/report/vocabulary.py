"""Words that a backbone has never read: the stand-in's vocabulary is that of its own captions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

from clipad_core.clip.backbone import Backbone
from clipad_core.methods.method import Category, Method, WordKind
from clipad_harness.experiments.variants import Variant
from clipad_harness.report.tables import Html, callout


def unread(backbone: Backbone, texts: Iterable[str]) -> list[str]:
    """The words of some prompts of which no token has a vector; published weights know them all."""
    has_vector = backbone.text.token_embedding.any(dim=1)
    words = dict.fromkeys(re.findall(r"[a-z]+", re.sub(r"{\w+}", "", " ".join(texts)).lower()))
    unread_words = []
    for word in words:
        row = backbone.tokenizer([word])[0]
        tokens = row[1 : int(row.argmax())]  # between start and end; the end has the highest number
        if not has_vector[tokens].any():
            unread_words.append(word)
    return unread_words


def of_category(backbone: Backbone, categories: Iterable[Category]) -> Html:
    """Which words for the damage of some categories the backbone has never read, as a callout."""
    kinds = get_args(WordKind)
    texts = [text for one in categories for kind in kinds for text in one.words(kind)]
    return _say(backbone, texts, "these categories")


def note(method: Method, backbone: Backbone, variants: Iterable[Variant], *groups: str) -> Html:
    """Which words of the rows of some ablations the backbone has never read, as a callout."""
    rows = [variant for variant in variants if variant.name.partition("/")[0] in groups]
    texts = [text for row in rows for text in method.texts(row.tested_with(row.seeds[0]))]
    return _say(backbone, texts, "these rows")


def _say(backbone: Backbone, texts: Iterable[str], whose: str) -> Html:
    words = unread(backbone, texts)
    if not words:
        return callout(f"The backbone has read every word of {whose}.")
    return callout(
        f"This backbone ({backbone.kind} weights) has never read {', '.join(words)}: to it they mean "
        "nothing, and rows that differ in such words alone differ in the number of words. So rows with "
        "them say nothing about the paper's.",
        "warning",
    )
