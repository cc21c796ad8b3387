"""The training stage: every distinct training of a method, over the cores, kept by content."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from clipad_core.clip.device import CPU
from clipad_core.clip.features import Recipe
from clipad_core.clip.transformer import chunks
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.checkpoint import checkpoint_bytes, find_training, read_checkpoint
from clipad_core.methods.method import Category, Training
from clipad_harness.base.files import check_place, replacing
from clipad_harness.base.sealed import hash_of, read_json, tell_damage, write_json
from clipad_harness.base.settings import Cluster
from clipad_harness.base.work import Advance, Worker
from clipad_harness.base.workers import run_all
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments.augment import is_new_in_every_epoch
from clipad_harness.experiments.digests import code_digest
from clipad_harness.experiments.features import Encodings, FeatureStore
from clipad_harness.experiments.train import train
from clipad_harness.experiments.training_data import TrainingData, check_trainable
from clipad_harness.experiments.variants import TrainingJob, Variant, training_rows, trainings

# Trained on: of so many images one process makes the features, then of the next ones.
IMAGES_TOGETHER = 16
CURVE_COLUMNS = ["variant", "seed", "epoch", "part", "value"]


class Trainer(Worker[TrainingJob, Path]):
    """Trains what is missing and reads what is there.

    Args:
        name: of the method's room.
        datasets: images by name of the dataset.
        encodings: backbones and features.
        folder: where trained learners are kept, a file each.
        finished: a folder to look for them first.
    """

    def __init__(
        self,
        name: str,
        datasets: Mapping[str, DatasetImages],
        encodings: Encodings,
        folder: Path,
        finished: Path,
    ) -> None:
        self.name, self.datasets, self.encodings = name, datasets, encodings
        self.folder, self.finished = folder, finished
        self._data: tuple[tuple[Any, ...], TrainingData] | None = None
        self._keys: dict[TrainingJob, str] = {}

    @property
    def training(self) -> Training:
        """How the method learns.

        Raises:
            ClipadError: it does not.
        """
        return find_training(self.name)

    def rows(self, job: TrainingJob) -> pd.DataFrame:
        """The images that are trained on."""
        return training_rows(self.datasets[job.dataset].index, job)

    def key(self, job: TrainingJob) -> str:
        """Everything a training depends on, as one SHA-256."""
        if job not in self._keys:
            parts = {
                "method": self.name,
                "config": asdict(job.config),
                "dataset": job.dataset,
                "content": self._content(job),
                "backbone": self.encodings.backbone(job.config).key,
                "code": code_digest(self.name, __name__),
            }
            self._keys[job] = hash_of(parts)
        return self._keys[job]

    def path(self, job: TrainingJob) -> Path:
        """The file of a training; a learner, with its loss curve beside it."""
        name = f"{self.key(job)[:16]}.safetensors"
        of_stage = self.finished / name
        return of_stage if of_stage.is_file() else self.folder / name

    def resume_point(self, job: TrainingJob) -> Path:
        """Where the state of a training is kept until it is finished."""
        return self.encodings.folder / "training" / f"{self.key(job)}.pt"

    def check(self, job: TrainingJob) -> None:
        """Find what cannot be trained on, before anything is encoded.

        Raises:
            ClipadError: images that nothing can be learned from, prompts that are too long for the text
                tower, a config that does not fit the backbone; a folder in the place of a file that is
                to be written.
        """
        for path in (self.path(job), self.path(job).with_suffix(".json"), self.resume_point(job)):
            check_place(path)
        rows, backbone = self.rows(job), self.encodings.backbone(job.config)
        check_trainable(rows)
        for category in dict.fromkeys(rows["category"]):
            find_method(self.name).check_prompts(backbone, job.config, Category(str(category)))

    def require(self, job: TrainingJob) -> None:
        """Check that a training is finished.

        Raises:
            ClipadError: it is not, or a folder stands in its place.
        """
        check_place(self.path(job))
        if not self.path(job).is_file():
            raise ClipadError(
                f"{self.folder}: found no {self.path(job).name}, the learner of this setting; run "
                f"`./repro clipad train {self.name}` first."
            )

    def learner(self, job: TrainingJob) -> nn.Module:
        """Read a finished training.

        Raises:
            ClipadError: it is not there, or its file is damaged or another training's.
        """
        self.require(job)
        backbone, path = self.encodings.backbone(job.config), self.path(job)
        try:
            learner, _, _ = read_checkpoint(self.name, path, backbone, self.key(job))
        except ClipadError as error:
            raise ClipadError(
                f"{error} `./repro clipad train {self.name}` makes it again."
            ) from error
        return learner

    def unusable(self, job: TrainingJob) -> list[Path]:
        """Of a training's two files, those that are missing, damaged or another training's."""
        path, wrong = self.path(job), []
        try:
            self.learner(job)  # as measuring reads it: what that refuses is trained again
        except ClipadError:
            wrong.append(path)
        try:
            self.curve(job)
        except ClipadError:
            wrong.append(path.with_suffix(".json"))
        return wrong

    def curve(self, job: TrainingJob) -> list[dict[str, float]]:
        """The loss curve of a finished training, an entry an epoch.

        Raises:
            ClipadError: it is missing, damaged or another training's.
        """
        path = self.path(job).with_suffix(".json")
        curve: list[dict[str, float]] | None = read_json(
            path, self.key(job), list[dict[str, float]]
        )
        if curve is None:
            raise ClipadError(
                f"{path}: found no whole loss curve of this training, expected one; run `./repro clipad "
                f"train {self.name}` again."
            )
        return curve

    def data(self, job: TrainingJob) -> TrainingData:
        """What a training reads; the latest is kept, since trainings of a recipe share it."""
        config, augmentation = job.config, self.training.augmentation(job.config)
        backbone = self.encodings.backbone(config)
        key = (job.dataset, job.categories, backbone.key, self._recipe(job), augmentation)
        if self._data is None or self._data[0] != key:
            self._data = None
            images, rows = self.datasets[job.dataset], self.rows(job)
            data = TrainingData(images, rows, self.encodings, config, augmentation)
            if self.keeps(job):
                data.prepare(job.dataset)
            self._data = (key, data)
        self._data[1].config = config
        return self._data[1]

    def paths(self, job: TrainingJob) -> list[Path]:
        """The images that are trained on."""
        return self.datasets[job.dataset].files(self.rows(job))

    def keeps(self, job: TrainingJob) -> bool:
        """Whether the features of what it is trained on are kept: of the same images, and on the disk."""
        if is_new_in_every_epoch(self.training.augmentation(job.config)):
            return False
        return self.encodings.fits(job.config, self._recipe(job), self.paths(job), job.dataset)

    def features(self, job: TrainingJob) -> FeatureStore:
        """Where the features of what it is trained on are kept."""
        return self.encodings.pass_of(job.config, self._recipe(job), self.paths(job))

    def reads(self, job: TrainingJob) -> Hashable:
        """Equal for trainings that read the same stored features."""
        recipe = self._recipe(job).shared(self.encodings.recipes)
        return job.dataset, self.encodings.backbone(job.config).key, recipe

    def epochs(self, job: TrainingJob) -> int:
        """How often a training sees every image."""
        return self.training.epochs(job.config, job.dataset)

    def steps(self, job: TrainingJob) -> int:
        """How many steps a training takes."""
        return -(-len(self.rows(job)) // job.config.batch_size) * self.epochs(job)

    def finish(self, job: TrainingJob, advance: Advance) -> Path:
        """Train, or find it trained; what is damaged is trained again."""
        path, wrong = self.path(job), self.unusable(job)
        if not wrong:
            advance(self.steps(job))
            return path
        for file in wrong:
            tell_damage(file)
        data, config = self.data(job), job.config
        backbone, key = self.encodings.backbone(config), self.key(job)
        learner = self.training.make_learner(backbone, config, config.seed)
        saved = self.resume_point(job)
        curve = train(self.training, learner, data, job.dataset, saved, advance)
        write_json(path.with_suffix(".json"), key, curve)
        content = hash_of({"content": self._content(job)})
        with replacing(path) as temporary:
            temporary.write_bytes(
                checkpoint_bytes(self.name, learner, config, backbone, content, key)
            )
        return path

    def _recipe(self, job: TrainingJob) -> Recipe:
        """What a training reads of an image."""
        return find_method(self.name).training_recipe(job.config)

    def _content(self, job: TrainingJob) -> list[str]:
        dataset, rows = self.datasets[job.dataset], self.rows(job)
        return [dataset.content(str(name)) for name in dict.fromkeys(rows["category"])]

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it loads its own backbone and reads features from the cache."""
        return dict(self.__dict__) | {"_data": None}


def train_all(
    trainer: Trainer, variants: Sequence[Variant], workers: int | Cluster
) -> pd.DataFrame:
    """Finish all trainings with one progress bar over their steps; return the loss curves.

    Returns:
        Columns ``variant, seed, epoch, part, value``; variants that share a training share a curve.
    """
    # Features are encoded here, and the number of threads would change bits of them.
    torch.set_num_threads(1)
    jobs = trainings(variants)
    for job in jobs:
        trainer.check(job)
    missing = [job for job in jobs if trainer.unusable(job)]
    _encode(trainer, missing, workers)
    missing.sort(key=trainer.steps, reverse=True)  # begun last, a long one would end alone
    total = sum(trainer.steps(job) for job in missing)
    with tqdm(total=total, desc=f"train {trainer.name}", unit="step", smoothing=0.05) as bar:
        for _ in run_all(trainer, [[job] for job in missing], workers, bar):
            pass
        bar.update(total - bar.n)
    rows = [
        (variant.name, seed, epoch + 1, part, value)
        for variant in variants
        for seed in variant.seeds
        if (trained := variant.training(seed)) is not None
        for epoch, parts in enumerate(trainer.curve(trained))
        for part, value in parts.items()
    ]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


class _Encoder(Worker[tuple[Sequence[TrainingJob], slice], None]):
    """Encodes some images of what trainings read: for all of them that are trained on these."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._read: dict[TrainingJob, tuple[FeatureStore, list[Path]]] = {}

    def finish(self, item: tuple[Sequence[TrainingJob], slice], advance: Advance) -> None:
        jobs, part = item
        for job in jobs:
            if job not in self._read:
                self._read[job] = self.trainer.features(job), self.trainer.paths(job)
            store, paths = self._read[job]
            store.fill(paths[part], job.dataset)
        advance(part.stop - part.start)


def _encode(trainer: Trainer, jobs: Sequence[TrainingJob], workers: int | Cluster) -> None:
    """Encode once what trainings read, before those that read the same start side by side.

    Not on a cluster, whose workers share the images among themselves when they train.
    """
    if isinstance(workers, Cluster):
        return
    trained_on: dict[tuple[Path, ...], list[TrainingJob]] = {}
    for job in {trainer.reads(job): job for job in jobs}.values():
        if trainer.keeps(job):
            trained_on.setdefault(tuple(trainer.paths(job)), []).append(job)
    groups = []
    for paths, reading in trained_on.items():
        stores = [trainer.features(job) for job in reading]
        # An accelerator takes as many together as it can.
        together = IMAGES_TOGETHER if stores[0].backbone.device == CPU else len(paths)
        for part in chunks(len(paths), together):
            if any(store.lacks(paths[part]) for store in stores):
                groups.append([(reading, part)])
    total = sum(part.stop - part.start for [(_, part)] in groups)
    with tqdm(total=total, desc=f"encode for {trainer.name}", unit="image", leave=False) as bar:
        for _ in run_all(_Encoder(trainer), groups, workers, bar):
            pass
        bar.update(total - bar.n)


def remove_others(trainer: Trainer, variants: Sequence[Variant]) -> None:
    """Remove files of other settings, so that the folder is a function of the settings."""
    stems = {trainer.path(job).stem for job in trainings(variants)}
    for path in trainer.folder.iterdir() if trainer.folder.is_dir() else ():
        if path.is_file() and path.stem not in stems:
            path.unlink()
