"""Is this something else: what an anomaly detector says of images whose content nobody told it of.

Three tasks that the field keeps apart from anomaly detection ask the same of an image, whether it is like
what is known: open-set recognition (an object of no known category), one-class classification (anything but
one category) and out-of-distribution detection (no image of the kind that is known at all; Salehi et al.,
TMLR 2022, set them side by side). All images here are normal: nothing on them is damaged.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.features import Features, encode_all
from clipad_core.clip.image_file import Pixels
from clipad_core.clip.joint import JointRecipe
from clipad_core.clip.one_pass import encode
from clipad_core.clip.text import class_words, encode_prompts
from clipad_core.methods import find_method
from clipad_core.methods.method import Category
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.images import read_image
from clipad_harness.data.stages import open_data
from clipad_harness.experiments.features import features_of
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import as_measured

OPEN_SET, ONE_CLASS = "open-set recognition", "one-class classification"
OUT_OF_DISTRIBUTION = "out-of-distribution detection"
IMAGE_SCORE, NORMAL_PROMPT = "image score", "distance to the normal prompt"
SIMILARITY, SOFTMAX = "maximum similarity", "maximum concept matching"
# What Ming et al. (NeurIPS 2022) ask plain CLIP of every known category, and their temperature.
CONCEPT, CONCEPT_TEMPERATURE = "a photo of a {}", 1.0


@dataclass(frozen=True)
class Task:
    """Images to tell apart by how unlike they are to what is known.

    Attributes:
        title: of the kind of task; several tasks of one title are averaged.
        known: names of the known categories.
        inside: images of them; ``outside``: of anything else. Files, or RGB pixels.
    """

    title: str
    known: tuple[str, ...]
    inside: Sequence[Path | Pixels]
    outside: Sequence[Path | Pixels]


@dataclass(frozen=True)
class Novelty:
    """A task and what was found: higher scores are more unlike what is known.

    Attributes:
        labels: 1 for an image of `outside`.
        scores: by name of the score (b,).
    """

    task: Task
    labels: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Extent:
    """How much of a dataset is looked at; None: all.

    Attributes:
        categories: how many are the known ones, evenly spread.
        images: how many normal test images of a category, evenly spread.
    """

    categories: int | None = None
    images: int | None = None


def normal_images(
    images: DatasetImages, categories: Sequence[str], extent: Extent = Extent()
) -> list[Path]:
    """The normal test images of some categories."""
    chosen: list[Path] = []
    for category in categories:
        rows = images.rows(category, "test")
        names = rows.loc[rows["label"] == 0, "image"].tolist()
        chosen += [images.data / name for name in spread(names, extent.images)]
    return chosen


def open_set(seen: DatasetImages, unseen: DatasetImages, extent: Extent = Extent()) -> Task:
    """Whether an object is of a category that a method was trained on.

    Args:
        seen: the auxiliary dataset; ``unseen``: one with other categories.
    """
    known, other = (spread(images.categories, extent.categories) for images in (seen, unseen))
    inside, outside = normal_images(seen, known, extent), normal_images(unseen, other, extent)
    return Task(OPEN_SET, known, inside, outside)


def one_class(images: DatasetImages, extent: Extent = Extent()) -> list[Task]:
    """Whether an object is of one category, every other of the dataset against it; a task a category."""
    return [
        Task(
            ONE_CLASS,
            (known,),
            normal_images(images, [known], extent),
            normal_images(images, [name for name in images.categories if name != known], extent),
        )
        for known in spread(images.categories, extent.categories)
    ]


def out_of_distribution(
    images: DatasetImages, others: Sequence[Path | Pixels], extent: Extent = Extent()
) -> Task:
    """Whether an image is of the dataset's kind at all.

    Args:
        others: of another kind, as photos beside drawings.
    """
    known = spread(images.categories, extent.categories)
    return Task(OUT_OF_DISTRIBUTION, known, normal_images(images, known, extent), others)


def tasks_of(run: Run, others: Sequence[Path | Pixels], extent: Extent = Extent()) -> list[Task]:
    """All three kinds of task of a run; no open set where nothing was trained on other categories.

    Args:
        others: of another kind than the run's images, see `other_images`.
    """
    seen = run.datasets.get(run.variants[0].trained_on or "")
    open_sets = [] if seen is None else [open_set(seen, run.tested, extent)]
    outside = out_of_distribution(run.tested, others, extent)
    return [*open_sets, *one_class(run.tested, extent), outside]


def other_images(run: Run, dataset: str, extent: Extent = Extent()) -> Sequence[Path | Pixels]:
    """What is out of distribution: normal images of another dataset, or `photographs` where none is named.

    Args:
        dataset: of a card, below the profile's data_root or $CLIPAD_DATA; "": none.

    Raises:
        ClipadError: an unknown dataset, or one that is not here.
    """
    if not dataset:
        return photographs()
    data, index = open_data(run.root, run.profile.on(dataset))
    images = DatasetImages(index, data)
    return normal_images(images, spread(images.categories, extent.categories), extent)


def spread(names: Sequence[str], limit: int | None) -> tuple[str, ...]:
    """So many of some names, evenly spread; None: all.

    >>> spread(["a", "b", "c", "d"], 2)
    ('a', 'c')
    """
    if limit is None or limit >= len(names):
        return tuple(names)
    return tuple(names[place * len(names) // limit] for place in range(limit))


def photographs() -> list[Pixels]:
    """Twelve photographs that scikit-image brings along, free of rights, each of something else.

    Those it keeps without loss, so that they are the same numbers on every machine; grey ones have three
    equal channels.

    >>> len(photographs()), photographs()[0].shape
    (12, (512, 512, 3))
    """
    from skimage import data

    motorcycle, _, _ = data.stereo_motorcycle()
    single = [data.astronaut, data.brick, data.camera, data.cat, data.clock, data.coffee]
    single += [data.coins, data.grass, data.gravel, data.immunohistochemistry, data.moon]
    images = [*(read() for read in single), motorcycle]
    return [np.broadcast_to(np.atleast_3d(one), (*one.shape[:2], 3)).copy() for one in images]


@torch.no_grad()
def measure_novelty(scorers: Sequence[Scorer], tasks: Sequence[Task]) -> dict[str, list[Novelty]]:
    """Every image of some tasks by every score, zero-shot, with the first seed of the main variant.

    Where prompts name the category, an image is as anomalous as under the known category that it fits best.
    The baselines are of plain CLIP with the method's own weights: one minus the largest similarity to the
    concept of a known category, and with several of them one minus the largest softmax of it (Ming et al.,
    NeurIPS 2022, Eq. (2)).

    Args:
        scorers: of the methods; what they learned is trained already.

    Returns:
        What was found by the method's title, in the order of the tasks.
    """
    files = [
        one for task in tasks for one in (*task.inside, *task.outside) if isinstance(one, Path)
    ]
    concepts: dict[Hashable, _Concepts] = {}
    found = {}
    for scorer in scorers:
        backbone = scorer.encodings.loaded(scorer.variants[0].config)
        plain = concepts.setdefault(backbone.key, _Concepts(backbone))
        asked = _Asked(scorer, list(dict.fromkeys(files)))
        found[scorer.method] = [_novelty(asked, plain, task) for task in tasks]
    return found


def _novelty(asked: _Asked, concepts: _Concepts, task: Task) -> Novelty:
    pictures = [*task.inside, *task.outside]
    labels = np.repeat([0, 1], [len(task.inside), len(task.outside)])
    known = task.known if asked.names_category else task.known[:1]
    by_known = [torch.stack([asked.of_method(one, name) for name in known]) for one in pictures]
    lowest = torch.stack(by_known).amin(dim=1)
    scores = {IMAGE_SCORE: lowest[:, 0]}
    if asked.method.normal_prompt is not None:
        scores[NORMAL_PROMPT] = lowest[:, 1]
    distances = torch.stack(
        [torch.stack([concepts.distance(one, name) for name in task.known]) for one in pictures]
    )
    scores[SIMILARITY] = distances.amin(dim=1)
    if len(task.known) > 1:
        shares = ((1 - distances) / CONCEPT_TEMPERATURE).softmax(dim=1)
        scores[SOFTMAX] = 1 - shares.amax(dim=1)
    return Novelty(task, labels, {name: as_measured(values) for name, values in scores.items()})


class _Asked:
    """One method, asked for an image and a known category; what was found is kept, since tasks share both.

    Args:
        scorer: of the method.
        files: all that it will be asked for; their features are kept on disk as those of any other.
    """

    def __init__(self, scorer: Scorer, files: Sequence[Path]) -> None:
        self.scorer, self.variant = scorer, scorer.variants[0]
        self.method = find_method(scorer.name)
        self.config = self.variant.tested_with(self.variant.seeds[0])
        self._training = self.variant.training(self.variant.seeds[0])
        self.names_category = self.method.names_category(self.config)
        self.backbone = scorer.backbone(self.config)
        self.recipe, self.know = self.method.recipe(self.config, 0), cache(self._know)
        self._places = {path: place for place, path in enumerate(files)}
        given = self.config, self.recipe, files, "novelty"
        self._images = scorer.encodings.images(*given)
        self._crops = scorer.encodings.crops(*given)
        self._found: dict[tuple[int | Path, str], Tensor] = {}
        self._latest: tuple[int | Path, Features] | None = None

    def of_method(self, picture: Path | Pixels, name: str) -> Tensor:
        """Image score, and distance to the normal prompt, where there is one (nan), of one category."""
        key = _key(picture)
        if (key, name) not in self._found:
            features, knowledge = self._features(picture), self.know(name)
            with self.backbone.computing():
                found = self.method.detect(self.backbone, self.config, knowledge, features)
            distance = found.image_score.new_tensor(torch.nan)
            if self.method.normal_prompt is not None:
                prompt = self.method.normal_prompt(knowledge)
                distance = _distance(features.image_embedding, prompt)
            self._found[key, name] = torch.stack([found.image_score[0], distance])
        return self._found[key, name]

    def _know(self, name: str) -> Any:
        """Of a category that is not tested, as those that were trained on, the name alone is known."""
        tested, learner = self.scorer.tested, self.scorer.learner(self._training)
        category = tested.described(name) if name in tested.categories else Category(name)
        with self.backbone.computing():
            return self.method.know(self.backbone, self.config, category, None, learner)

    def _features(self, picture: Path | Pixels) -> Features:
        """The latest stay here."""
        key = _key(picture)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._encoded(picture)
        return self._latest[1]

    def _encoded(self, picture: Path | Pixels) -> Features:
        if isinstance(picture, Path):
            return features_of(self._images, self.recipe, [self._places[picture]], self._crops)
        return encode_all(self.method.encode, self.backbone, [picture], self.recipe)


class _Concepts:
    """Plain CLIP, asked how far an image is from a category's concept; methods of its weights share it."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self._concept = backbone, cache(self._embedded)
        self._views: dict[int | Path, Tensor] = {}

    def distance(self, picture: Path | Pixels, name: str) -> Tensor:
        """One minus the cosine of an image and the concept of a category."""
        key = _key(picture)
        if key not in self._views:
            recipe = JointRecipe(class_alone=True)
            features = encode_all(encode, self.backbone, [_pixels(picture)], recipe)
            self._views[key] = features.image_embedding
        return _distance(self._views[key], self._concept(name))

    def _embedded(self, name: str) -> Tensor:
        text = CONCEPT.format(class_words(name, "spaces"))
        with self.backbone.computing():
            return encode_prompts(self.backbone.text, self.backbone.tokenizer, [text])[0]


def _key(picture: Path | Pixels) -> int | Path:
    """What tells pictures apart; pixels are those of one array, which its task holds."""
    return picture if isinstance(picture, Path) else id(picture)


def _pixels(picture: Path | Pixels) -> Pixels:
    return np.asarray(read_image(picture)) if isinstance(picture, Path) else picture


def _distance(views: Tensor, text: Tensor) -> Tensor:
    """One minus the cosine of an image and a text (d), the mean over its views (v, d)."""
    return (1 - F.normalize(views, dim=-1) @ F.normalize(text, dim=0)).mean()
