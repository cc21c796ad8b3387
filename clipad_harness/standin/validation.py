"""Zero-shot scores of the model in training on categories kept out of training."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipad_core.methods.winclip.prompts import find_ensemble
from clipad_core.metrics.metrics import image_metrics
from clipad_harness.standin.captions import UNKNOWN, CompactTokenizer, words
from clipad_harness.standin.drawing import draw_pair
from clipad_harness.standin.model import Model, embed_captions, embed_view, patch_tokens

IMAGES = 20  # sound and as many damaged ones, a category
FIRST_SEED = 900_000_000


class Validation:
    """Mean image AUROC over the held-out categories, full prompt ensemble.

    ``auroc`` uses the category's own name, ``auroc_object`` the word "object" and
    ``auroc_unknown`` a word that no caption trained, as a target's name may be.
    """

    def __init__(self, categories: tuple[str, ...], draw_size: int, size: int) -> None:
        self._images = {
            name: torch.cat(
                [_draw(name, draw_size, size, first, half) for first, half in ((0, 0), (IMAGES, 1))]
            )
            for name in categories
        }

    @torch.no_grad()
    def __call__(self, model: Model, tokenizer: CompactTokenizer) -> dict[str, float]:
        """The three means; nothing where no category is held out."""
        aurocs: dict[str, list[float]] = {}
        generic = {
            "auroc_object": _prototypes(model, tokenizer, "object"),
            "auroc_unknown": _prototypes(model, tokenizer, UNKNOWN),
        }
        labels = np.repeat([0, 1], IMAGES)
        for name, images in self._images.items():
            patches = patch_tokens(model, images.to(model.logit_scale.device))
            numbers = torch.arange(patches.shape[1], device=patches.device).expand(len(images), -1)
            embeddings = embed_view(model, patches, numbers)
            own = {"auroc": _prototypes(model, tokenizer, words(name))}
            for key, text in (own | generic).items():
                scores = (embeddings @ (text[1] - text[0])).double().cpu().numpy()
                aurocs.setdefault(key, []).append(image_metrics(labels, scores)["image_auroc"])
        return {key: float(np.mean(values)) for key, values in aurocs.items()}


def _draw(name: str, draw_size: int, size: int, first: int, half: int) -> Float[Tensor, "n 3 s s"]:
    """Sound (half 0) or damaged (half 1) drawings at the model's size; no drawing gives both."""
    pairs = [draw_pair(name, FIRST_SEED + first + index, draw_size) for index in range(IMAGES)]
    pixels = np.stack([(pair.sound, pair.damaged)[half] for pair in pairs])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def _prototypes(model: Model, tokenizer: CompactTokenizer, noun: str) -> Float[Tensor, "2 d"]:
    """Mean text embeddings of the paper's ensemble, unit norm: normal, anomalous."""
    device = model.logit_scale.device
    means = [
        embed_captions(model, *(part.to(device) for part in tokenizer(list(prompts)))).mean(dim=0)
        for prompts in find_ensemble("full22_dot").prompts(noun)
    ]
    return F.normalize(torch.stack(means), dim=-1)
