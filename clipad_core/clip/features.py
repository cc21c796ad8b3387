"""What is encoded of an image, and what the frozen tower says of it: one class of each, for all methods.

The towers are frozen, so an image is encoded once, and whatever is scored or trained later reads the
same features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.image_file import Pixels
from clipad_core.clip.preprocess import (
    ALIKE_ON_SQUARES,
    CROPS,
    AnyPixels,
    Placement,
    Views,
    canvas,
    is_rgb,
    make_views,
    views_of_normalised,
)
from clipad_core.errors import ClipadError

# As a block: the tower's last, whichever number it has.
LAST_BLOCK = -1


@dataclass(frozen=True)
class Recipe:
    """What must be encoded of an image; equal recipes share their features, whatever is scored.

    A method that runs something beside the tower adds what it depends on in a class of its own.

    Attributes:
        image_size: side of square views in pixels, the shorter one of others; None: what the weights
            were made for.
        resize, channels, multi_crop: how an image becomes views (`make_views`).
        blocks: 1-based numbers of the blocks whose patch tokens are kept, ascending; or `LAST_BLOCK`.
        scales: sides in patches of the windows that are encoded.
        tiles: side in patches of dense tiles, one every half a side, that are encoded as well; 0: none.
    """

    image_size: int | None = None
    resize: str = "stretch"
    channels: str = "rgb"
    multi_crop: str = "none"
    blocks: tuple[int, ...] = ()
    scales: tuple[int, ...] = ()
    tiles: int = 0

    def cut(self) -> Recipe:
        """The recipe but for what is kept of one pass: where it is equal, one pass serves both."""
        return replace(self, blocks=(), scales=())

    def shared(self, recipes: Iterable[Recipe]) -> Recipe:
        """The recipe that also keeps what its like among ``recipes`` read of the same pass.

        >>> Recipe(blocks=(6,)).shared([Recipe(blocks=(2,)), Recipe(blocks=(3,), image_size=9)]).blocks
        (2, 6)
        """
        alike = [recipe for recipe in recipes if recipe.cut() == self.cut()]
        blocks = {block for recipe in (self, *alike) for block in recipe.blocks}
        scales = {scale for recipe in (self, *alike) for scale in recipe.scales}
        return replace(self, blocks=tuple(sorted(blocks)), scales=tuple(sorted(scales)))

    def for_squares(self) -> Recipe:
        """One name for what several rules cut from square images, where the input is square too."""
        alike = self.resize in ALIKE_ON_SQUARES
        return replace(self, resize=ALIKE_ON_SQUARES[0]) if alike else self

    def without_crops(self) -> Recipe:
        """The views alone; the multi-crop views are those of `crops_alone`."""
        return replace(self, multi_crop="none")

    def crops_alone(self, recipes: Iterable[Recipe]) -> Recipe:
        """The multi-crop views alone, as many as the recipe or its like read: five are among ten."""
        alike = {
            r.multi_crop for r in recipes if r.without_crops().cut() == self.without_crops().cut()
        }
        widest = max(({self.multi_crop} | alike) & CROPS.keys(), key=CROPS.__getitem__)
        return replace(self, multi_crop=widest, blocks=(), scales=(), tiles=0)


@dataclass(frozen=True)
class Features:
    """What the frozen tower says about the views of some images; most images have one view.

    Attributes:
        image_embedding: projected class token; each method says what it projects and whether it has
            unit norm.
        patch_tokens: block number (1-based) -> one vector a patch, row-major, no class token.
        window_embeddings: scale s in patches -> one unit-norm embedding a window, row-major; under
            -s those of tiles of s patches.
        crops: image embeddings of the multi-crop views; None where there are none.
        placements: where the views of every image lie; () for one view an image, which is its canvas.
    """

    image_embedding: Float[Tensor, "v d"]
    patch_tokens: dict[int, Tensor] = field(default_factory=dict)
    window_embeddings: dict[int, Tensor] = field(default_factory=dict)
    crops: Float[Tensor, "m d"] | None = None
    placements: tuple[Placement, ...] = ()

    def __len__(self) -> int:
        return len(self.image_embedding)

    def widened(self, dtype: torch.dtype) -> Features:
        """In a precision; of what autocast made, so that products alone are in half precision."""
        return replace(
            self,
            image_embedding=self.image_embedding.to(dtype),
            patch_tokens={block: tokens.to(dtype) for block, tokens in self.patch_tokens.items()},
            window_embeddings={
                s: windows.to(dtype) for s, windows in self.window_embeddings.items()
            },
            crops=None if self.crops is None else self.crops.to(dtype),
        )

    def __getitem__(self, index: slice | Tensor) -> Features:
        """Some of the views, without crops and places."""
        return Features(
            self.image_embedding[index],
            {block: tokens[index] for block, tokens in self.patch_tokens.items()},
            {scale: windows[index] for scale, windows in self.window_embeddings.items()},
        )


def join(parts: Sequence[Features]) -> Features:
    """Features of several images or batches, one after the other."""

    def stack(tensors: list[Tensor]) -> Tensor:
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    first = parts[0]
    crops = [part.crops for part in parts if part.crops is not None]
    return Features(
        stack([part.image_embedding for part in parts]),
        {b: stack([part.patch_tokens[b] for part in parts]) for b in first.patch_tokens},
        {s: stack([part.window_embeddings[s] for part in parts]) for s in first.window_embeddings},
        stack(crops) if crops else None,
        tuple(place for part in parts for place in part.placements),
    )


def split(features: Features) -> list[Features]:
    """The features of every image by itself, as `join` takes them together."""
    parts, start, first = [], 0, 0
    for place in features.placements:
        part = features[start : start + len(place.corners)]
        crops = None
        if features.crops is not None and place.crops:
            crops = features.crops[first : first + place.crops]
        parts.append(replace(part, crops=crops, placements=(place,)))
        start, first = start + len(place.corners), first + place.crops
    return parts


# RGB images of any sizes, or normalised tensors of a backbone's own input.
Images = Sequence[np.ndarray] | np.ndarray | Tensor
# Turns normalised views (v, 3, H, W) into features by a recipe: a method's way through the tower.
Encode = Callable[[Backbone, Tensor, Any], Features]


def views_of(backbone: Backbone, image: Pixels, recipe: Recipe) -> Views:
    """Cut one image into the views of a recipe: on the CPU, wherever the backbone lies."""
    rules = (recipe.resize, recipe.channels, recipe.multi_crop)
    return make_views(image, backbone.input_size, *rules, dtype=backbone.dtype)


def canvas_of(backbone: Backbone, image: AnyPixels, recipe: Recipe) -> AnyPixels:
    """What the views of a recipe show of one image, uint8 RGB, as large as the image's map."""
    return canvas(image, backbone.input_size, recipe.resize)


def check_images(images: Images, size: tuple[int, int], name: str = "images") -> None:
    """Stop at what is no image of a detector, before anything is encoded.

    Args:
        size: height and width of a tensor.
        name: of the parameter, for the message.

    Raises:
        ClipadError: no image; neither a sequence of uint8 RGB arrays nor one float tensor of the size.
    """
    high, wide = size
    expected = (
        "RGB images in a list, each an array (height, width, 3) of uint8, or one tensor (images, 3, "
        f"{high}, {wide}) of floats, normalised as CLIP's preprocessing does"
    )
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1:] != (3, *size) or not images.is_floating_point():
            raise ClipadError(
                f"{name}: found a tensor {tuple(images.shape)} of {images.dtype}, expected {expected}."
            )
    elif not isinstance(images, (Sequence, np.ndarray)):
        raise ClipadError(f"{name}: found {type(images).__name__}, expected {expected}.")
    if len(images) == 0:
        raise ClipadError(f"{name}: found none, expected {expected}.")
    for place, image in enumerate([] if isinstance(images, Tensor) else images):
        is_array = isinstance(image, np.ndarray)
        if not is_array or not is_rgb(image):
            description = f"{image.shape} of {image.dtype}" if is_array else type(image).__name__
            description += ", without pixels" if is_array and image.size == 0 else ""
            raise ClipadError(f"{name}[{place}]: found {description}, expected {expected}.")


def encode_all(
    encode: Encode, backbone: Backbone, images: Images, recipe: Recipe, name: str = "images"
) -> Features:
    """Cut and encode images.

    Args:
        encode: a method's.
        backbone: as the method prepared it.
        images: RGB images of any sizes; or one normalised tensor of the backbone's own input size, which
            is taken as it is: it is not resized, and its channels stay where they are.
        name: of the parameter, for the message.

    Raises:
        ClipadError: no image, or something else.
    """
    check_images(images, backbone.input_size, name)
    if isinstance(images, Tensor):
        tensors = images.to(backbone.device, backbone.dtype)
        views = [views_of_normalised(image, recipe.multi_crop) for image in tensors]
    else:
        views = [views_of(backbone, image, recipe) for image in images]
    return encode_views(encode, backbone, views, recipe)


def encode_views(
    encode: Encode, backbone: Backbone, views: Sequence[Views], recipe: Recipe
) -> Features:
    """Encode the views of some images, and their crops, where the backbone lies."""

    def encoded(pixels: Tensor) -> list[Features]:
        features = encode(backbone, pixels, recipe)
        crops = on_device([view.crops for view in views], backbone.device)
        if len(crops):
            whole = replace(recipe.cut(), tiles=0)
            features = replace(features, crops=encode(backbone, crops, whole).image_embedding)
        return [features]

    [features] = of_views(backbone, views, encoded)
    return features


def of_views(
    backbone: Backbone, views: Sequence[Views], encoded: Callable[[Tensor], Sequence[Features]]
) -> list[Features]:
    """The features of the views of some images, with their places and in the backbone's precision.

    Args:
        encoded: of all views one after the other, where the backbone lies, one or several features.
    """
    pixels = on_device([view.pixels for view in views], backbone.device)
    places = tuple(view.placement for view in views)
    with backbone.computing():
        read = encoded(pixels)
    return [replace(features, placements=places).widened(backbone.dtype) for features in read]


def on_device(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Tensors one after the other; for a GPU in pinned memory, which it copies while the CPU goes on."""
    if device.type != "cuda" or tensors[0].device == device:
        return torch.cat(list(tensors)).to(device)
    shape = (sum(map(len, tensors)), *tensors[0].shape[1:])
    pinned = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=True)
    return torch.cat(list(tensors), out=pinned).to(device, non_blocking=True)
