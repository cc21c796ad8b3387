"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023): windows of a frozen CLIP, prompts, references.

Read top to bottom: images are encoded once (`encode`), prompts become `prototypes` and references a
memory (`know`), `score` (in `scoring`) turns features into maps by the equations of the paper, and
`stitch` puts the tiles of an image together (`detect`). `WinCLIP` is the detector that ties them
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip import one_pass
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import LAST_BLOCK, Features, Images
from clipad_core.clip.preprocess import Placement
from clipad_core.clip.prompt_ensemble import (
    PromptEnsemble,
    StatePrompts,
    raw_text_embeddings,
    text_embeddings,
)
from clipad_core.clip.text import check_prompts, class_words
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.maps import average_views, placements_of, stack_maps, text_scores, upsample
from clipad_core.methods.method import Category, Detector, Method, References, WordKind
from clipad_core.methods.winclip.config import PRESETS, WinCLIPConfig
from clipad_core.methods.winclip.prompts import find_ensemble
from clipad_core.methods.winclip.scoring import (
    TILE,
    TILE_STRIDE,
    ReferenceMemory,
    Scores,
    build_memory,
    score,
    temperature,
)
from clipad_core.methods.winclip.subset import reduced
from clipad_core.methods.winclip.windows import WindowRecipe, check_not_constant, encode_tiles

# How much of the few-shot image score is the text score, Eq. (6).
TEXT_WEIGHT = {"both": 0.5, "visual": 0.0, "text": 1.0, "map_maximum": 0.0}


def image_recipe(config: WinCLIPConfig, k_shot: int) -> WindowRecipe:
    """What ``config`` reads of a test image."""
    scales = set(config.scales) if config.map_source == "windows" else set()
    tokens = config.map_source == "patch_tokens"
    if k_shot:
        scales |= set(config.memory_scales)
        tokens |= config.patch_feature != "none"
    return WindowRecipe(
        resize=config.resize,
        channels=config.test_channels,
        multi_crop=config.multi_crop,
        blocks=(LAST_BLOCK,) if tokens else (),
        scales=tuple(sorted(scales)),
        tiles=TILE if config.map_source == "tiles" else 0,
        window_attention=config.window_attention if scales else "alone",
    )


def reference_recipe(config: WinCLIPConfig) -> WindowRecipe:
    """What ``config`` reads of a reference: always RGB, even where test images are not."""
    scales = tuple(sorted(config.memory_scales))
    return WindowRecipe(
        resize=config.resize,
        blocks=(LAST_BLOCK,) if config.patch_feature != "none" else (),
        scales=scales,
        window_attention=config.window_attention if scales else "alone",
    )


def encode(backbone: Backbone, pixels: Float[Tensor, "v 3 H W"], recipe: WindowRecipe) -> Features:
    """Encode normalised views; the image embedding has unit norm.

    Raises:
        ClipadError: all windows of every view say the same.
    """
    features = one_pass.encode(backbone, pixels, recipe)
    if recipe.tiles:
        tiles = encode_tiles(backbone.vision, pixels, recipe.tiles, TILE_STRIDE)
        check_not_constant(tiles, f"window embeddings of scale {-recipe.tiles}")
        features.window_embeddings[-recipe.tiles] = tiles
    return features


def _with_states(
    ensemble: PromptEnsemble, config: WinCLIPConfig, category: Category
) -> tuple[PromptEnsemble, str]:
    """The prompts of a category, its name left open, and the words of its name."""
    states = config.extra_anomalous_states
    if isinstance(states, str):
        kinds = category.words(states)
        if not kinds and not config.general_states:
            raise ClipadError(
                f"extra_anomalous_states: found {states!r}, of which {category.name or 'the category'} has "
                "none, and general_states is off; expected words, or general_states on."
            )
        states = tuple(f"{{}} with {kind}" for kind in kinds)
    if not config.general_states:
        ensemble = replace(ensemble, anomalous_states=())
    return ensemble.with_states(states), class_words(category.name, config.class_name)


def _ensemble(
    backbone: Backbone, config: WinCLIPConfig, category: Category
) -> tuple[PromptEnsemble, str]:
    """What is kept of the list, and the category's own states."""
    whole = find_ensemble(config.prompts)
    kept = reduced(backbone.text, backbone.tokenizer, whole, config)
    return _with_states(kept, config, category)


def raw_text(backbone: Backbone, config: WinCLIPConfig, category: Category) -> list[StatePrompts]:
    """Every prompt of a category with its raw embedding; see `raw_text_embeddings`."""
    ensemble, words = _ensemble(backbone, config, category)
    return raw_text_embeddings(backbone.text, backbone.tokenizer, ensemble, words)


def prototypes(
    backbone: Backbone, config: WinCLIPConfig, category: Category
) -> Float[Tensor, "s d"]:
    """The text prototypes of a category (section 4.1), unit norm; see `text_embeddings`."""
    ensemble, words = _ensemble(backbone, config, category)
    return text_embeddings(backbone.text, backbone.tokenizer, ensemble, words, config.text_average)


def check_category(backbone: Backbone, config: WinCLIPConfig, category: Category) -> None:
    """Refuse a category whose name makes a prompt too long for the text tower.

    Raises:
        ClipadError: a prompt that fills the context; no anomalous state is left.
    """
    ensemble, words = _with_states(find_ensemble(config.prompts), config, category)
    prompts = [prompt for group in ensemble.prompts(words) for prompt in group]
    check_prompts(backbone.tokenizer, prompts, len(backbone.text.positional_embedding))


def category_words(config: WinCLIPConfig) -> tuple[WordKind, ...]:
    """Which words of a category its anomalous states name."""
    states = config.extra_anomalous_states
    return (states,) if isinstance(states, str) else ()


def prompt_texts(config: WinCLIPConfig) -> list[str]:
    """All that the prompts of any category can say but for its own words."""
    own = config.extra_anomalous_states
    ensemble = find_ensemble(config.prompts).with_states(() if isinstance(own, str) else own)
    return [text for label in ensemble.prompts("") for text in label]


@dataclass(frozen=True)
class Knowledge:
    """What WinCLIP knows of a category: its text prototypes, and with references their memory."""

    text: Float[Tensor, "s d"]
    memory: ReferenceMemory | None


def know(
    backbone: Backbone,
    config: WinCLIPConfig,
    category: Category,
    references: Features | None = None,
    learner: object = None,
) -> Knowledge:
    """Prompts to prototypes and references to a memory, before a test image is seen.

    Args:
        references: as `encode` gives them with `reference_recipe`; None: zero-shot.
        learner: part of the shared signature; WinCLIP learns nothing.
    """
    memory = None
    if references is not None:
        memory = build_memory(backbone.vision, references, config)
    return Knowledge(prototypes(backbone, config, category), memory)


def detect(
    backbone: Backbone, config: WinCLIPConfig, knowledge: Knowledge, features: Features
) -> Detection:
    """Score images whose maps have one shape, from their frozen features.

    Raises:
        ClipadError: a score is not finite, all windows of a scale have one score, or maps of different
            shapes (call once a shape).
    """
    scores = score(backbone, features, knowledge.text, config, knowledge.memory)
    crops = features.image_embedding[:0] if features.crops is None else features.crops
    crop_scores = text_scores(crops, knowledge.text, temperature(backbone, config))
    places = placements_of(features, backbone.input_size)
    images = stitch(scores, places, crop_scores, config, backbone.input_size)
    return Detection(
        torch.stack([image_score for image_score, _ in images]),
        stack_maps([anomaly_map for _, anomaly_map in images]),
    )


def stitch(
    scores: Scores,
    placements: Sequence[Placement],
    crops: Float[Tensor, " m"],
    config: WinCLIPConfig,
    size: tuple[int, int],
) -> list[tuple[Tensor, Tensor]]:
    """Put the views of every image together: one image score and a map on its canvas.

    Overlapping tiles are averaged, for the score and for the map (supplement A).

    Args:
        crops: text scores of the multi-crop views; their mean replaces the text score of the views.
        size: height and width of a view.
    """
    results, start, first = [], 0, 0
    for placement in placements:
        part = slice(start, start + len(placement.corners))
        crop_scores = crops[first : first + placement.crops]
        start, first = part.stop, first + placement.crops
        anomaly_map = average_views(upsample(scores.patch_scores[part], size), placement)
        if config.map_size is not None:
            anomaly_map = _resize_from_grid(scores.patch_scores[part], anomaly_map, config.map_size)
        image_score = scores.image_score[part].mean()
        if len(crop_scores):
            zero_shot = scores.visual_map is None
            weight = 1.0 if zero_shot else TEXT_WEIGHT[config.few_shot_image_score]
            image_score = image_score + weight * (
                crop_scores.mean() - scores.text_score[part].mean()
            )
        results.append((_or_maximum(image_score, anomaly_map, scores, config), anomaly_map))
    return results


def _resize_from_grid(patch_scores: Tensor, stitched: Tensor, side: int) -> Tensor:
    """A fixed output side: straight from the grid for one view, from the canvas for several."""
    source = patch_scores if len(patch_scores) == 1 else stitched[None]
    return upsample(source, (side, side))[0]


def _or_maximum(
    image_score: Tensor, anomaly_map: Tensor, scores: Scores, config: WinCLIPConfig
) -> Tensor:
    rule = (
        config.zero_shot_image_score if scores.visual_map is None else config.few_shot_image_score
    )
    return anomaly_map.amax() if rule == "map_maximum" else image_score


METHOD = Method(
    title="WinCLIP",
    config=WinCLIPConfig,
    presets=PRESETS,
    names_category=lambda config: config.class_name != "object",
    prepare=lambda backbone, config: backbone,
    recipe=image_recipe,
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: config.mask_rule,
    texts=prompt_texts,
    published_weights=[
        ("ViT-B-16-plus-240", "laion400m_e31"),
        ("ViT-B-16-plus-240", "laion400m_e32"),
    ],
    weights="weights",
    references=References(
        title="WinCLIP+", recipe=reference_recipe, choice=lambda config: config.reference_choice
    ),
    check_prompts=check_category,
    normal_prompt=lambda knowledge: knowledge.text[0],
    category_words=category_words,
)


class WinCLIP(Detector):
    """The detector: ``WinCLIP(backbone, config, "bottle", references)(images)``.

    Args:
        backbone: a frozen CLIP.
        config: a preset or a change of one.
        category: the class name, as the data set's folder spells it; a `Category` where
            ``extra_anomalous_states`` asks for its words.
        references: k normal images; none for zero-shot WinCLIP.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: WinCLIPConfig,
        category: str | Category,
        references: Images = (),
    ) -> None:
        super().__init__(METHOD, backbone, config, category, references)
