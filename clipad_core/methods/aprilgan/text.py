"""The text side of APRIL-GAN: 420 sentences about a class, averaged into two vectors; nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.prompt_ensemble import PromptEnsemble, text_embeddings
from clipad_core.clip.text import check_prompts, class_words
from clipad_core.methods.aprilgan.config import APRILGANConfig
from clipad_core.methods.method import Category


def ensemble_of(config: APRILGANConfig) -> PromptEnsemble:
    """The states and templates of a config.

    >>> ensemble_of(APRILGANConfig()).prompts("nut")[1][0]
    'a bad photo of a damaged nut.'
    """
    return PromptEnsemble(
        config.normal_states, config.anomalous_states, config.templates, "APRIL-GAN"
    )


def class_text(backbone: Backbone, config: APRILGANConfig, name: str) -> Float[Tensor, "2 d"]:
    """Text embeddings of a class: row 0 normal, row 1 anomalous, unit norm (section 2.1).

    Each sentence has unit norm before they are averaged. What was asked before is kept.

    Args:
        name: of the class, as the data set's folder spells it.
    """
    words = class_words(name, config.class_name)
    ensemble = ensemble_of(config)
    return text_embeddings(backbone.text, backbone.tokenizer, ensemble, words, "norm_mean")


def batch_text(
    backbone: Backbone, config: APRILGANConfig, categories: Sequence[str]
) -> Float[Tensor, "n 2 d"]:
    """What the images of a training batch are compared with: a pair an image, or one for all.

    Args:
        categories: of every image; of the first version of the code the first one's counts.
    """
    names = categories[:1] if config.batch_text == "first" else categories
    return torch.stack([class_text(backbone, config, name) for name in names])


def check_category(backbone: Backbone, config: APRILGANConfig, category: Category) -> None:
    """Refuse a category whose name makes a prompt too long for the text tower.

    Raises:
        ClipadError: a prompt that fills the context.
    """
    words = class_words(category.name, config.class_name)
    prompts = [prompt for state in ensemble_of(config).prompts(words) for prompt in state]
    check_prompts(backbone.tokenizer, prompts, len(backbone.text.positional_embedding))
