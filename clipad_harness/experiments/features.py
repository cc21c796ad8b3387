"""Frozen features: an image is encoded once, whatever is scored, and kept by its content.

The key of an entry holds all it depends on: the image's bytes, the recipe, the backbone's tensors,
its precision, and the code that encodes. So nothing has to be cleared by hand, a killed run resumes at
the image it stopped at, and a changed setting encodes only what it changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import CPU, moved
from clipad_core.clip.features import (
    LAST_BLOCK,
    Encode,
    Features,
    Recipe,
    encode_views,
    join,
    split,
    views_of,
)
from clipad_core.clip.one_pass import PassRecipe, encode_views_together
from clipad_core.clip.preprocess import CROPS, Placement, Views
from clipad_core.clip.transformer import chunks
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.base.files import alone
from clipad_harness.base.sealed import hash_of, read_tensors, tell_damage, write_tensors
from clipad_harness.base.settings import Weights
from clipad_harness.base.weights import shared_backbone
from clipad_harness.data.images import file_hash, image_size, read_image
from clipad_harness.experiments.batches import batch_size, in_batches
from clipad_harness.experiments.computed import note
from clipad_harness.experiments.digests import code_digest

Entry = dict[str, Tensor]
# Of an image: what reads the same pass.
Beside: TypeAlias = "Callable[[Path], Sequence[FeatureStore]]"
# Before images that other processes encode are looked at again.
SECONDS_TO_WAIT = 0.1
# Of an accelerator: so many are claimed at once, so that the next are read while some are encoded.
BATCHES_TOGETHER = 4


@dataclass(frozen=True)
class Asked:
    """What a run reads of an image.

    Attributes:
        trained: of how many images in all, where it is trained on; 0: of a test image, whose features are
            kept whatever they take of the disk.
    """

    config: Any
    recipe: Recipe
    trained: int = 0


def nothing_beside(image: Path) -> Sequence[FeatureStore]:
    """Where nothing else is read of a pass."""
    return ()


class FeatureStore:
    """Entries of one recipe by content; what is missing is encoded, the rest is read.

    Args:
        folder: where entries live; safe to delete at any time.
        backbone: the frozen CLIP, as the method prepared it.
        recipe: what is encoded of an image.
        encode: the method's. On a CPU one image at a time, which costs the same: beside others the last
            bits of a matrix product differ, and an entry would depend on its run. On an accelerator as
            many together as its memory takes.
        code: digest of the code that encodes.
        beside: of an image, the stores that read the same pass of the tower: what they lack of one that is
            encoded here is written there too, which costs next to nothing.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        recipe: Recipe,
        encode: Encode,
        code: str,
        beside: Beside = nothing_beside,
    ) -> None:
        self.folder, self.backbone, self.recipe, self.encode = folder, backbone, recipe, encode
        self.beside = beside
        self.about: dict[str, Any] = {
            "recipe": [type(recipe).__name__, asdict(recipe)],
            "backbone": backbone.key,
            "code": code,
        }

    def key(self, image: Path) -> str:
        """Everything an entry depends on, as one SHA-256."""
        return hash_of({"image": file_hash(image), **self.about})

    def fill(self, paths: Sequence[Path], subject: str) -> list[Path]:
        """Encode what is missing; return the file of every image, in their order.

        Raises:
            ClipadError: an image cannot be read, or the folder cannot be written.
        """
        entries = {path: self.entry(path) for path in paths}
        missing = [path for path, entry in entries.items() if not entry.is_file()]
        missing_before = len(missing)
        # A short job needs no bar; one that is interrupted goes on where it stopped.
        with tqdm(
            total=len(missing), desc=f"encode {subject}", unit="image", leave=False, delay=2
        ) as bar:
            together = batch_size(self.backbone, [self.recipe]).most
            together *= 1 if together == 1 else BATCHES_TOGETHER
            while missing:
                busy = []
                for part in chunks(len(missing), together):
                    own = {path: entries[path] for path in missing[part]}
                    others = self._write_alone(own)
                    busy += others
                    bar.update(len(own) - len(others))
                if len(busy) == len(missing):
                    time.sleep(SECONDS_TO_WAIT)
                missing = busy
        if missing_before and self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()  # for the processes that share the device
        return [entries[path] for path in paths]

    def _write_alone(self, entries: Mapping[Path, Path]) -> list[Path]:
        """Encode images unless they are there; return those that another process is at right now."""
        with ExitStack() as locks:
            busy = [
                image for image, entry in entries.items() if not locks.enter_context(alone(entry))
            ]
            missing = [
                image
                for image, entry in entries.items()
                if image not in busy and not entry.is_file()
            ]
            self._write(missing, entries)
        return busy

    def read(self, entry: Path, image: Path, names: Sequence[str] = ()) -> Entry:
        """One entry, or only the named tensors of it.

        A file that a disk that filled up, a copy cut short or a changed bit damaged, or that is in
        the place of another, is made again.

        Raises:
            ClipadError: it cannot be read even then, or the image cannot.
        """
        tensors = read_tensors(entry, entry.stem, names)
        if tensors is None:
            tell_damage(entry)
            self._write([image], {image: entry})
            tensors = read_tensors(entry, entry.stem, names)
        if tensors is None:
            raise ClipadError(
                f"{entry}: was just written and is damaged already, expected what was written; check "
                "the disk and its memory."
            )
        return tensors

    def entry(self, image: Path) -> Path:
        """The file of an image."""
        key = self.key(image)
        return self.folder / key[:2] / f"{key}.safetensors"

    def _write(self, images: Sequence[Path], entries: Mapping[Path, Path]) -> None:
        beside = dict.fromkeys(store for image in images for store in self.beside(image))
        stores = [self, *(store for store in beside if store.lacks(images))]
        size = batch_size(self.backbone, [store.recipe for store in stores])
        encode = partial(self._encode, stores)
        for batch, encoded in in_batches(images, size, self._views, encode):
            for store, features in zip(stores, encoded, strict=True):
                for image, own in zip(batch, split(moved(features, CPU)), strict=True):
                    entry = entries[image] if store is self else store.entry(image)
                    write_tensors(entry, entry.stem, _to_tensors(own))
            if self.backbone.device != CPU:
                note(self.folder.parent, self.backbone, len(batch))

    def lacks(self, images: Iterable[Path]) -> bool:
        """Whether some of the images are not encoded yet."""
        return not all(self.entry(image).is_file() for image in images)

    def _views(self, image: Path) -> Views:
        return views_of(self.backbone, np.asarray(read_image(image)), self.recipe)

    def _encode(self, stores: Sequence[FeatureStore], views: Sequence[Views]) -> list[Features]:
        if len(stores) == 1:
            return [encode_views(self.encode, self.backbone, views, self.recipe)]
        recipes = [store.recipe for store in stores if isinstance(store.recipe, PassRecipe)]
        return encode_views_together(self.backbone, views, recipes)


def _to_tensors(features: Features) -> Entry:
    """The features of one image, as an entry holds them."""
    [place] = features.placements
    tensors = {
        "image_embedding": features.image_embedding,
        "corners": Tensor(place.corners).long(),
        "canvas": Tensor(place.canvas).long(),
    }
    if features.crops is not None:
        tensors["crops"] = features.crops
    tensors |= {f"windows.{scale}": value for scale, value in features.window_embeddings.items()}
    return tensors | {f"tokens.{block}": value for block, value in features.patch_tokens.items()}


def _to_features(tensors: Mapping[str, Tensor]) -> Features:
    def numbered(prefix: str) -> dict[int, Tensor]:
        names = [name for name in tensors if name.startswith(f"{prefix}.")]
        return {int(name.partition(".")[2]): tensors[name] for name in names}

    crops, canvas = tensors.get("crops"), tensors["canvas"].tolist()
    place = Placement(
        corners=tuple((left, top) for left, top in tensors["corners"].tolist()),
        canvas=(canvas[0], canvas[1]),
        crops=0 if crops is None else len(crops),
    )
    return Features(
        tensors["image_embedding"], numbered("tokens"), numbered("windows"), crops, (place,)
    )


class ImageFeatures:
    """Stored features of some images: tensors are read when their turn comes, kept as memory is given.

    Args:
        store: of a recipe that keeps what several read.
        paths: the images.
        subject: what they are, for the progress bar.
        memory: bytes that may be kept.
    """

    def __init__(
        self, store: FeatureStore, paths: Sequence[Path], subject: str, memory: int = 0
    ) -> None:
        self.store, self.paths, self.memory = store, paths, memory
        self.entries = store.fill(paths, subject)
        self._tensors: dict[tuple[int, str], Tensor] = {}
        self._bytes = 0

    def tensors(self, place: int, names: Iterable[str]) -> Entry:
        """The named tensors of one image."""
        names = list(names)
        tensors = {n: self._tensors[place, n] for n in names if (place, n) in self._tensors}
        if missing := [name for name in names if name not in tensors]:
            read = self.store.read(self.entries[place], self.paths[place], missing)
            for name, tensor in read.items():
                if self._bytes + tensor.nbytes <= self.memory:
                    self._tensors[place, name] = tensor
                    self._bytes += tensor.nbytes
            tensors |= read
        return tensors

    def canvas(self, place: int) -> tuple[int, ...]:
        """Height and width of an image after resizing, which its map has too."""
        return tuple(self.tensors(place, ["canvas"])["canvas"].tolist())

    def read(self, place: int, recipe: Recipe, crops: ImageFeatures | None = None) -> Features:
        """One image as a recipe asks for it.

        Args:
            crops: where the multi-crop views are, if the recipe has some.
        """
        names = ["image_embedding", "corners", "canvas"]
        last = self.store.backbone.vision.depth
        names += [f"tokens.{last if b == LAST_BLOCK else b}" for b in recipe.blocks]
        names += [f"windows.{scale}" for scale in recipe.scales]
        names += [f"windows.{-recipe.tiles}"] if recipe.tiles else []
        tensors = self.tensors(place, names)
        if crops is not None:
            tensors["crops"] = crops.tensors(place, ["crops"])["crops"][: CROPS[recipe.multi_crop]]
        return _to_features(tensors)


class Encodings:
    """The frozen side of a method: its backbones, and the features that all its variants share.

    Args:
        name: of the method's room.
        profile: name of the profile, for messages.
        weights: the profile's for this method.
        main: the main variant's config, whose published weights the profile must name.
        recipes: all that is read of images, so that what one pass can keep is kept together.
        asked: all that the run reads of an image; those of a category share a list.
        folder: of all that is kept; safe to delete at any time.
        memory: bytes of features that a process keeps.
        disk: bytes that the features of one dataset that is trained on may take in the folder.
        device: where the backbone computes; see `find_device`.
        siblings: those of the other methods of the run, whose images are encoded by the way.
    """

    def __init__(
        self,
        name: str,
        profile: str,
        weights: Weights,
        main: Any,
        recipes: Iterable[Recipe],
        asked: Mapping[Path, Sequence[Asked]],
        folder: Path,
        memory: int,
        disk: int,
        device: str,
        siblings: Sequence[Encodings] = (),
    ) -> None:
        self.name, self.profile, self.weights = name, profile, weights
        self.device, self.siblings = device, siblings
        self.main, self.recipes, self.asked = main, list(dict.fromkeys(recipes)), asked
        self.folder, self.memory, self.disk = folder, memory, disk

    def backbone(self, config: Any) -> Backbone:
        """The backbone as a config runs it.

        Raises:
            ClipadError: weights that do not load, or that do not fit the config.
        """
        return find_method(self.name).prepare(self.loaded(config), config)

    def loaded(self, config: Any) -> Backbone:
        """The backbone as it was loaded, before the method prepares it."""
        return shared_backbone(self._weights(config), config.precision, self.device)

    def _loading(self, config: Any) -> tuple[str, ...]:
        """Architecture, weights and precision: equal for configs of whatever method that load the same."""
        weights = self._weights(config)
        return weights.backbone, weights.weights, config.precision

    @cached_property
    def _tags(self) -> tuple[str, ...]:
        """The published weights that a config of the method can name; every shard asks."""
        field = find_method(self.name).weights
        return get_args(get_type_hints(type(self.main))[field]) if field else ()

    def _weights(self, config: Any) -> Weights:
        """The profile's weights; where it runs published ones that configs name, the config's own."""
        field = find_method(self.name).weights
        if self.weights.weights not in self._tags:
            return self.weights
        if self.weights.weights != (own := getattr(self.main, field)):
            raise ClipadError(
                f"profiles.{self.profile}.{self.name}.weights: found {self.weights.weights!r}, while the "
                f"preset and its changes ask for {own}; write {own} there, or "
                f"`changes: {{{field}: {self.weights.weights}}}` below `{self.name}`."
            )
        return replace(self.weights, weights=getattr(config, field))

    def shared(self, config: Any, recipe: Recipe, paths: Sequence[Path]) -> Recipe:
        """The recipe of one pass over some images that serves all variants."""
        recipe, recipes = self._named_alike(config, recipe, paths)
        return recipe.without_crops().shared(sibling.without_crops() for sibling in recipes)

    def _named_alike(
        self, config: Any, recipe: Recipe, paths: Sequence[Path]
    ) -> tuple[Recipe, list[Recipe]]:
        """A recipe and all others, under one name where they cut the same from these images."""
        height, width = self.loaded(config).input_size
        if height == width and _are_square(tuple(paths)):
            return recipe.for_squares(), [sibling.for_squares() for sibling in self.recipes]
        return recipe, self.recipes

    def store(self, config: Any, recipe: Recipe, beside: Beside = nothing_beside) -> FeatureStore:
        """Where the features of exactly this recipe are."""
        encode, backbone = find_method(self.name).encode, self.backbone(config)
        # What belongs to no room is shared by all whose recipes are equal.
        code = code_digest(_room(encode) or _room(type(recipe)), __name__)
        return FeatureStore(self.folder / "features", backbone, recipe, encode, code, beside)

    def images(
        self, config: Any, recipe: Recipe, paths: Sequence[Path], subject: str
    ) -> ImageFeatures:
        """The views of some images, encoded as far as they are not yet.

        What the method and its siblings else read of these images and of the same pass is encoded too.
        """
        return ImageFeatures(self.pass_of(config, recipe, paths), paths, subject, self.memory)

    def pass_of(self, config: Any, recipe: Recipe, paths: Sequence[Path]) -> FeatureStore:
        """Where `images` are, encoded or not: the store of the one pass that serves all variants."""
        recipe = self.shared(config, recipe, paths)
        return self.store(config, recipe, self._beside(config, recipe, paths))

    def _beside(self, config: Any, recipe: Recipe, paths: Sequence[Path]) -> Beside:
        """Of each of these images the stores of what else is read of the same pass as a recipe."""
        if not isinstance(recipe, PassRecipe):
            return nothing_beside
        own, everybody = self.store(config, recipe), (self, *self.siblings)
        loading, made = self._loading(config), dict[tuple[int, ...], list[FeatureStore]]()

        def beside(image: Path) -> list[FeatureStore]:
            asked = [sibling.asked.get(image, ()) for sibling in everybody]
            same = tuple(map(id, asked))  # images of a category have one list
            if same not in made:
                stores: dict[str, FeatureStore] = {}
                for sibling, reads in zip(everybody, asked, strict=True):
                    stores |= sibling._reading(reads, own, loading, paths)
                stores.pop(hash_of(own.about), None)
                made[same] = list(stores.values())
            return made[same]

        return beside

    def _reading(
        self, asked: Sequence[Asked], other: FeatureStore, loading: Hashable, paths: Sequence[Path]
    ) -> dict[str, FeatureStore]:
        """The stores that read the same pass as another one, by what they are about.

        Args:
            loading: how the other's backbone was loaded: nothing else is loaded for it.
            paths: of a set of images to which the image belongs.
        """
        stores = {}
        for reads in asked:
            if self._loading(reads.config) != loading:
                continue
            recipe = self.shared(reads.config, reads.recipe, paths)
            store = self.store(reads.config, recipe)
            if (
                isinstance(recipe, PassRecipe)
                and recipe.same_views(other.recipe)
                and store.backbone.key == other.backbone.key
                and reads.trained * recipe.size(store.backbone) <= self.disk
            ):
                stores[hash_of(store.about)] = store
        return stores

    def fits(self, config: Any, recipe: Recipe, paths: Sequence[Path], subject: str) -> bool:
        """Whether the views of images that are trained on take no more of the disk than is given.

        Args:
            paths: at least one. What all of them need is told by the first.
        """
        store = self.store(config, self.shared(config, recipe, paths))
        [first] = store.fill(paths[:1], subject)
        return first.stat().st_size * len(paths) <= self.disk

    def crops(
        self, config: Any, recipe: Recipe, paths: Sequence[Path], subject: str
    ) -> ImageFeatures | None:
        """Their multi-crop views; None where the recipe has none."""
        if recipe.multi_crop == "none":
            return None
        recipe, recipes = self._named_alike(config, recipe, paths)
        store = self.store(config, recipe.crops_alone(recipes))
        return ImageFeatures(store, paths, f"{subject} crops", self.memory)


def _room(thing: Any) -> str:
    """The method's room that a function or class stands in; "" of others."""
    return str(thing.__module__).partition("clipad_core.methods.")[2].partition(".")[0]


@lru_cache(maxsize=64)
def _are_square(paths: tuple[Path, ...]) -> bool:
    """Whether all images are square; kept, since every shard of a category asks."""
    sizes = [image_size(path) for path in paths]
    return all(height == width for height, width in sizes)


def features_of(
    images: ImageFeatures, recipe: Recipe, places: Iterable[int], crops: ImageFeatures | None = None
) -> Features:
    """Some of the images as a recipe asks for them, one after the other, where the backbone lies."""
    features = join([images.read(place, recipe, crops) for place in places])
    moved_features: Features = moved(features, images.store.backbone.device)
    return moved_features
