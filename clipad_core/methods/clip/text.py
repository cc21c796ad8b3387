"""The prompts of CLIP and CLIP-AC: a template around a state around the name of the category."""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.text import check_prompts, class_words, encode_prompts, mean_embedding
from clipad_core.methods.clip.config import CLIPConfig
from clipad_core.methods.method import Category

NAME = "{}"
SENTENCE = "A photo of a {}"
# Whether each embedding, and whether their mean, has unit norm.
TEXT_MEANS = {
    "unit_mean_unit": (True, True),
    "mean_unit": (False, True),
    "unit_mean": (True, False),
    "mean": (False, False),
}


def templates(config: CLIPConfig) -> tuple[str, ...]:
    """The templates of a config, with ``{}`` where state and name stand.

    Those of ImageNet are open_clip's copy of OpenAI's, in their order.

    >>> templates(CLIPConfig()), len(templates(CLIPConfig(templates="openai80")))
    (('A photo of a {}.',), 80)
    """
    if config.templates == "single":
        return (f"{SENTENCE}." if config.period else SENTENCE,)
    if config.templates == "bare":
        return (NAME,)
    from clipad_core.clip.open_clip import open_clip

    if config.templates == "openai80":
        rules = open_clip.OPENAI_IMAGENET_TEMPLATES
    else:
        rules = open_clip.SIMPLE_IMAGENET_TEMPLATES
    return tuple(rule(NAME) for rule in rules)


def prompts(config: CLIPConfig, category: str) -> tuple[tuple[str, ...], ...]:
    """All normal and all anomalous prompts of a category; with one class the normal ones alone.

    >>> prompts(CLIPConfig(), "metal_nut")
    (('A photo of a normal metal_nut.',), ('A photo of an anomalous metal_nut.',))
    """
    words = class_words(category, config.class_name)
    return tuple(
        tuple(start + words + end for start, end in group) for group in _around_name(config)
    )


def _around_name(config: CLIPConfig) -> list[list[tuple[str, str]]]:
    """What stands before and behind the name in every prompt, by state."""
    states = (
        (config.normal_state,)
        if config.one_class
        else (
            config.normal_state,
            config.anomalous_state,
        )
    )
    groups = []
    for state in states:
        group = []
        for template in templates(config):
            before, _, behind = template.partition(NAME)
            if config.article == "agree" and state[:1].lower() in tuple("aeiou"):
                before = re.sub(r"\b([Aa]) $", r"\1n ", before)
            group.append((f"{before}{state} ", behind))
        groups.append(group)
    return groups


def check_category(backbone: Backbone, config: CLIPConfig, category: Category) -> None:
    """Refuse a category whose name makes a prompt too long for the text tower.

    Raises:
        ClipadError: a prompt that fills the context.
    """
    texts = [prompt for group in prompts(config, category.name) for prompt in group]
    check_prompts(backbone.tokenizer, texts, len(backbone.text.positional_embedding))


@torch.no_grad()
def text_embeddings(
    backbone: Backbone, config: CLIPConfig, category: Category
) -> Float[Tensor, "s d"]:
    """The prompts of a category embedded: row 0 normal, row 1 anomalous.

    Returns:
        Means over the templates by ``text_mean``; of unit norm where its name ends on ``unit``.

    Raises:
        ClipadError: a prompt that fills the context.
    """
    groups = prompts(config, category.name)
    starts = [start for group in _around_name(config) for start, _ in group]
    texts = [prompt for group in groups for prompt in group]
    embeddings = encode_prompts(backbone.text, backbone.tokenizer, texts, starts)
    means = [
        mean_embedding(part, *TEXT_MEANS[config.text_mean])
        for part in embeddings.split([len(group) for group in groups])
    ]
    return torch.stack(means)
