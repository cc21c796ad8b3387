"""One scorer for every method: features -> know -> detect -> refine -> metrics, a shard at a time.

A shard's file is named by the hash of everything that it depends on, so it is finished once, and a
killed run goes on with the next.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import CPU, chunk_sizes, moved
from clipad_core.clip.features import Recipe, canvas_of
from clipad_core.clip.transformer import chunks
from clipad_core.config import fields_read
from clipad_core.detection import Detection, joined
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.method import Category
from clipad_core.refinement import refine_maps
from clipad_harness.base.sealed import hash_of
from clipad_harness.base.settings import Profile
from clipad_harness.base.work import Advance, Worker
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.images import read_image
from clipad_harness.experiments.by_image import ByImage, by_image, keep_by_image, read_by_image
from clipad_harness.experiments.digests import code_digest
from clipad_harness.experiments.features import Encodings, ImageFeatures, features_of
from clipad_harness.experiments.shards import (
    CategoryScores,
    Record,
    as_measured,
    keep_record,
    measure,
    read_record,
)
from clipad_harness.experiments.trainer import Trainer
from clipad_harness.experiments.variants import Shard, TrainingJob, Variant

# Learners that stay loaded: neighbouring shards share theirs.
LEARNERS_KEPT = 64
# What is kept of a shard.
_Kept: TypeAlias = tuple[Record, ByImage | None]


@dataclass(frozen=True)
class Mapped:
    """The map of one image, rounded as it is measured, and its mask at the map's size."""

    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]


class Scorer(Worker[Shard, Record]):
    """Scores shards of one method; features and finished shards are read from the cache.

    Args:
        name: of the method's room.
        profile: dataset and weights.
        datasets: images by name of the dataset.
        encodings: backbones and features.
        trainer: where learners come from; None where nothing is learned.
        variants: all variants, the main one first.
        left_out: what the run was asked for and leaves out, a sentence each.
    """

    def __init__(
        self,
        name: str,
        profile: Profile,
        datasets: Mapping[str, DatasetImages],
        encodings: Encodings,
        trainer: Trainer | None,
        variants: Sequence[Variant],
        left_out: Sequence[str] = (),
    ) -> None:
        self.name, self.method, self.profile = name, find_method(name).title, profile
        self.datasets, self.encodings, self.trainer = datasets, encodings, trainer
        self.variants, self.left_out = variants, left_out
        self._learners: OrderedDict[TrainingJob, nn.Module] = OrderedDict()
        self._latest: tuple[Hashable, ImageFeatures] | None = None
        self._checked: set[tuple[Variant, str]] = set()

    @property
    def tested(self) -> DatasetImages:
        """The profile's own dataset, which the reports show."""
        return self.datasets[self.profile.dataset]

    def backbone(self, config: Any) -> Backbone:
        """The backbone as a config runs it."""
        return self.encodings.backbone(config)

    def label(self) -> str:
        """What the results call the weights: those of the main variant."""
        return self.backbone(self.variants[0].config).label

    def computed(self, shard: Shard) -> tuple[str, str]:
        """Precision and kind of device."""
        backbone = self.backbone(shard.config)
        return backbone.precision, backbone.device.type

    def check(self, shard: Shard) -> None:
        """Find what cannot work, before anything is scored.

        Raises:
            ClipadError: weights that do not load or do not fit the config, too few references, prompts
                that are too long for the text tower, a package or a file that a refinement lacks.
        """
        self.references(shard)
        if shard.variant.refine is not None:
            shard.variant.refine.check()
        place = (shard.variant, shard.category)
        if place not in self._checked:
            config = shard.config
            category = self._category(shard)
            find_method(self.name).check_prompts(self.backbone(config), config, category)
            self._checked.add(place)

    def require(self, shard: Shard) -> None:
        """Find a training that is not finished.

        Raises:
            ClipadError: it is not.
        """
        job = shard.training
        if self.trainer is not None and job is not None:
            self.trainer.require(job)

    def shares(self, shard: Shard) -> Hashable:
        """Equal for shards of a category that read the same encoded views."""
        config = shard.config
        recipe = self._recipe(shard, config)
        return shard.variant.tested_on, shard.category, self.backbone(config).key, recipe

    def _recipe(self, shard: Shard, config: Any) -> Recipe:
        """What one pass over the test images of a shard's category keeps."""
        recipe = find_method(self.name).recipe(config, shard.k_shot)
        return self.encodings.shared(config, recipe, self._test_paths(shard))

    def _test_paths(self, shard: Shard) -> tuple[Path, ...]:
        return tuple(self.datasets[shard.variant.tested_on].paths(shard.category, "test"))

    def references(self, shard: Shard) -> list[Path]:
        """The reference images of a shard; none without shots."""
        references = find_method(self.name).references
        if references is None or not shard.k_shot:
            return []
        images = self.datasets[shard.variant.tested_on]
        rule = references.choice(shard.config)
        return images.references(shard.category, shard.k_shot, shard.seed, rule)

    def learner(self, job: TrainingJob | None) -> nn.Module | None:
        """A trained learner, the latest stay loaded; None where nothing is learned."""
        if job is None or self.trainer is None:
            return None
        if job not in self._learners:
            self._learners[job] = self.trainer.learner(job)
            if len(self._learners) > LEARNERS_KEPT:
                self._learners.popitem(last=False)
        return self._learners[job]

    def know(self, shard: Shard) -> Any:
        """All that the method knows of a shard's category before a test image is seen."""
        method, config = find_method(self.name), shard.config
        paths, features = self.references(shard), None
        if paths and method.references is not None:
            recipe = method.references.recipe(config)
            label = f"{shard.category} references"
            stored = self.encodings.images(config, recipe, paths, label)
            features = features_of(stored, recipe, range(len(paths)))
        learner, backbone = self.learner(shard.training), self.backbone(config)
        with backbone.computing():
            return method.know(backbone, config, self._category(shard), features, learner)

    def _category(self, shard: Shard) -> Category:
        return self.datasets[shard.variant.tested_on].described(shard.category)

    def _images(self, shard: Shard, config: Any, recipe: Recipe) -> ImageFeatures:
        """Features of the test images; the latest stay, since variants of a category share them."""
        key, paths = self.shares(shard), self._test_paths(shard)
        if self._latest is None or self._latest[0] != key:
            self._latest = None
            images = self.encodings.images(config, recipe, paths, shard.category)
            self._latest = (key, images)
        return self._latest[1]

    def detect(self, shard: Shard) -> CategoryScores:
        """Score every test image of a shard's category."""
        method, config = find_method(self.name), shard.config
        parts: Iterable[Detection] = self._detections(shard, range(len(self._test_paths(shard))))
        if (rescore := method.whole_category(config, shard.k_shot)) is not None:
            whole = joined([moved(part, CPU) for part in parts])
            try:
                parts = [rescore(whole)]
            except ClipadError as error:
                raise ClipadError(f"{shard.category}: {error}") from error
        scores: list[NDArray[np.float32]] = []
        maps: list[NDArray[np.float32]] = []
        for detection in parts:
            scores.append(as_measured(detection.image_score))
            maps += list(as_measured(detection.anomaly_map))
        maps = self._refined(shard, maps, range(len(maps)))
        dataset = self.datasets[shard.variant.tested_on]
        rows = dataset.rows(shard.category, "test")
        masks = dataset.masks(rows, maps, method.mask_rule(config))
        return CategoryScores(rows, np.concatenate(scores), maps, masks, self._names(shard))

    def maps(self, shard: Shard, images: Sequence[str]) -> dict[str, Mapped]:
        """Maps and masks of some test images of a shard's category, by path as the index has it."""
        method, config = find_method(self.name), shard.config
        dataset = self.datasets[shard.variant.tested_on]
        rows = dataset.rows(shard.category, "test")
        chosen = rows["image"].isin(images).to_numpy()
        places = np.flatnonzero(chosen).tolist()
        parts = self._detections(shard, places)
        maps = [one for part in parts for one in as_measured(part.anomaly_map)]
        maps = self._refined(shard, maps, places)
        masks = dataset.masks(rows[chosen], maps, method.mask_rule(config))
        pairs = (Mapped(*pair) for pair in zip(maps, masks, strict=True))
        return dict(zip(rows["image"][chosen], pairs, strict=True))

    def _detections(self, shard: Shard, places: Sequence[int]) -> Iterator[Detection]:
        """What the method says of test images at these places, a bounded number at a time, by itself."""
        method, config = find_method(self.name), shard.config
        backbone, recipe = self.backbone(config), method.recipe(config, shard.k_shot)
        knowledge, paths = self.know(shard), self._test_paths(shard)
        images = self._images(shard, config, recipe)
        crops = self.encodings.crops(config, recipe, paths, shard.category)
        size = recipe.image_size or backbone.image_size
        together = max(1, chunk_sizes(backbone.device).pixels // size**2)
        for part in _parts(images, places, together):
            features = features_of(images, recipe, part, crops)
            with backbone.computing():
                detection = method.detect(backbone, config, knowledge, features)
            yield detection

    def _refined(
        self, shard: Shard, maps: list[NDArray[np.float32]], places: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """Maps of test images at these places as the variant ends them; says where nothing was found."""
        method, config, refine = find_method(self.name), shard.config, shard.variant.refine
        if refine is None:
            return maps
        backbone, recipe = self.backbone(config), method.recipe(config, shard.k_shot)
        paths = self._test_paths(shard)
        images = (np.asarray(read_image(paths[place])) for place in places)
        seen = (canvas_of(backbone, image, recipe) for image in images)
        refined, unrefined = refine_maps(refine, seen, maps)
        if unrefined:
            print(
                f"clipad: {shard}: {refine.name} found no regions in {len(unrefined)} of {len(maps)} images, "
                "whose maps stay as they are.",
                file=sys.stderr,
            )
        return refined

    def _names(self, shard: Shard) -> list[str]:
        folder = self.datasets[shard.variant.tested_on].data
        return [path.relative_to(folder).as_posix() for path in self.references(shard)]

    def key(self, shard: Shard) -> str:
        """Everything a shard depends on, as one SHA-256."""
        method, variant = find_method(self.name), shard.variant
        config, job = self._read_of(shard), shard.training
        backbone, references = self.backbone(config), []
        category = self._category(shard)
        if method.references is not None and shard.k_shot:
            store = self.encodings.store(config, method.references.recipe(config))
            references = [store.key(path) for path in self.references(shard)]
        return hash_of(
            {
                "config": asdict(config),
                "training": None if job is None or self.trainer is None else self.trainer.key(job),
                "metrics": [variant.aupro, variant.fpr_limit],
                "refine": None if variant.refine is None else variant.refine.key(),
                "category": shard.category,
                "content": self.datasets[variant.tested_on].content(shard.category),
                "references": references,
                "words": {kind: category.words(kind) for kind in method.category_words(config)},
                "backbone": backbone.key,
                "code": code_digest(self.name, __name__),
            }
        )

    def _read_of(self, shard: Shard) -> Any:
        """The config that scores, with its default in every field that is not read."""
        method, config = find_method(self.name), shard.config
        if method.references is None or shard.k_shot:
            return config
        # Without references their fields change nothing.
        default = method.config()
        return config.changed(
            {name: getattr(default, name) for name in fields_read(type(config), "references")}
        )

    def alike(self, shard: Shard) -> Hashable:
        """Equal for shards of equal keys, which are computed once; no file is read for it."""
        variant, job = shard.variant, shard.training
        references = tuple(self.references(shard))
        counted = (
            variant.aupro,
            variant.fpr_limit,
            variant.tested_on,
            shard.category,
            variant.refine,
        )
        return self._read_of(shard), job, references, counted

    def finish(self, item: Shard, advance: Advance) -> Record:
        """Read a finished shard, or compute and keep it."""
        record, _ = self._detected(item, item.variant.by_image)()
        advance(1)
        return record

    @property
    def measures_beside(self) -> bool:
        """Whether a shard is measured while the next one is detected.

        An accelerator would wait for the CPU. A CPU measures and detects itself, with one thread a worker.
        """
        return self.backbone(self.variants[0].config).device.type != CPU.type

    def finish_all(self, group: Iterable[Shard], advance: Advance) -> list[Record]:
        """Finish shards in their order; on an accelerator each is measured beside the next one."""
        if not self.measures_beside:
            return super().finish_all(group, advance)
        records: list[Record] = []
        measured: list[Future[_Kept]] = []

        def take() -> None:
            """Wait for the shard that is being measured, if there is one."""
            while measured:
                record, _ = measured.pop().result()
                records.append(record)
                advance(1)

        with ThreadPoolExecutor(1) as thread:
            try:
                before: Hashable = None
                for shard in group:
                    if (alike := self.alike(shard)) == before:
                        take()  # what it writes is read
                    rest, before = self._detected(shard, shard.variant.by_image), alike
                    # Two shards at most are in memory, one measured and one detected. The one more is, for
                    # 83 maps of 518 pixels, 111 MB of maps and masks and up to 292 MB of what is sorted.
                    take()
                    measured.append(thread.submit(rest))
            finally:
                # Also where the next shard fails: what was detected before it is kept, and what was
                # wrong before it is said first.
                take()
        return records

    def by_image(self, shard: Shard) -> ByImage:
        """What is kept of a shard for each of its test images; read, or computed and kept."""
        _, images = self._detected(shard, with_images=True)()
        assert images is not None
        return images

    def _detected(self, shard: Shard, with_images: bool) -> Callable[[], _Kept]:
        """Read what is kept of a shard and, unless it is all there, detect; the rest is done by a call.

        The rest is metrics and files, of arrays of the CPU alone: any thread can do it.
        """
        folder, key, variant = self.encodings.folder, self.key(shard), shard.variant
        record = read_record(folder, key)
        images = read_by_image(folder, key) if with_images else None
        if record is not None and (images is not None or not with_images):
            return lambda: (record, images)
        scored, has_masks = self.detect(shard), self._has_masks(shard)

        def rest() -> _Kept:
            own, kept = record, images
            if own is None:
                values = measure(scored, has_masks, variant.aupro, variant.fpr_limit)
                own = keep_record(folder, key, values, scored.references)
            if kept is None and with_images:
                values = {n: np.nan if value is None else value for n, value in own.values.items()}
                kept = by_image(scored, values, has_masks, variant.aupro, variant.fpr_limit)
                keep_by_image(folder, key, kept)
            return own, kept

        return rest

    def _has_masks(self, shard: Shard) -> bool:
        return self.datasets[shard.variant.tested_on].has_masks(shard.category)

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it loads its own backbone, learners and features."""
        return dict(self.__dict__) | {"_learners": OrderedDict(), "_latest": None}


def _parts(images: ImageFeatures, places: Sequence[int], together: int) -> Iterator[list[int]]:
    """Images that are scored together: neighbours of one canvas, a bounded number of them."""
    for _, group in groupby(places, images.canvas):
        same = list(group)
        yield from (same[part] for part in chunks(len(same), together))
