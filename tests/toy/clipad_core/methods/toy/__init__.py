"""Toy: a frozen CLIP's image and patch embeddings between two prompts; in no paper."""

from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import LAST_BLOCK, Features, Recipe
from clipad_core.clip.text import class_words, encode_prompts
from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm, project
from clipad_core.config import changed, choice
from clipad_core.detection import Detection
from clipad_core.maps import text_scores, upsample
from clipad_core.methods.method import Category, Method

PROMPTS = ("a photo of a flawless {}.", "a photo of a damaged {}.")


@dataclass(frozen=True)
class ToyConfig:
    precision: Literal["float64", "float32", "bfloat16"] = choice("float32", read="run")
    temperature: float = choice(0.07, "0.01 instead of 0.07", "nobody's code")

    def changed(self, values: dict[str, Any]) -> "ToyConfig":
        return changed(self, values, "toy")


def encode(backbone: Backbone, pixels: Float[Tensor, "v 3 H W"], recipe: Recipe) -> Features:
    tower, last = backbone.vision, backbone.vision.depth
    tokens, _ = embed_patches(tower, pixels)
    classes, blocks = encode_whole(tower, pre_norm(tower, tokens), [last])
    return Features(project(tower, classes), {last: project(tower, blocks[last])})


def know(
    backbone: Backbone, config: ToyConfig, category: Category, references: object, learner: object
) -> Float[Tensor, "2 d"]:
    prompts = [prompt.format(class_words(category.name, "spaces")) for prompt in PROMPTS]
    return normalize(encode_prompts(backbone.text, backbone.tokenizer, prompts), dim=-1)


def detect(
    backbone: Backbone, config: ToyConfig, knowledge: Float[Tensor, "2 d"], features: Features
) -> Detection:
    image_score = text_scores(features.image_embedding, knowledge, config.temperature)
    patches = features.patch_tokens[backbone.vision.depth]
    scores = text_scores(patches, knowledge, config.temperature)
    maps = scores.unflatten(1, backbone.vision.grid)
    return Detection(image_score, upsample(maps, backbone.input_size))


METHOD = Method(
    title="Toy",
    config=ToyConfig,
    presets={"toy": ToyConfig(), "sharp": ToyConfig(temperature=0.01)},
    names_category=lambda config: True,
    prepare=lambda backbone, config: backbone,
    recipe=lambda config, k_shot: Recipe(blocks=(LAST_BLOCK,)),
    encode=encode,
    know=know,
    detect=detect,
    mask_rule=lambda config: "nearest",
    texts=lambda config: list(PROMPTS),
    published_weights=[],
)
