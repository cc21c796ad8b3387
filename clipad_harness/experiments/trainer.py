"""The training stage: every distinct training of a method, over the cores, kept by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import read_safetensors
from clipad_harness.base.files import replacing
from clipad_harness.base.sealed import read_json, tell_damage, write_json
from clipad_harness.base.settings import Weights
from clipad_harness.base.weights import shared_backbone
from clipad_harness.base.workers import Advance, run_all
from clipad_harness.data import images
from clipad_harness.experiments import augment, feature_store, training_data
from clipad_harness.experiments import train as train_module
from clipad_harness.experiments.feature_store import FeatureStore, code_digest
from clipad_harness.experiments.learned_variants import (
    LearnedVariant,
    Training,
    training_rows,
    trainings,
)
from clipad_harness.experiments.methods import (
    checkpoint_of,
    find_method,
    method_digest,
    shared_blocks,
)
from clipad_harness.experiments.shards import DatasetImages, hash_of
from clipad_harness.experiments.train import train
from clipad_harness.experiments.training_data import TrainingData, check_trainable, feature_store_of

CURVE_COLUMNS = ["variant", "seed", "epoch", "part", "value"]


class Trainer:
    """Trains what is missing and reads what is there.

    Args:
        method: name of the method.
        weights: its backbone.
        datasets: images by name of the dataset.
        folder: where trained learners are kept, a file each.
        cache_folder: where features and unfinished trainings are kept.
        memory: bytes of features a process keeps in memory.
        among: all variants that are trained, so that they share one encoding.
    """

    def __init__(
        self,
        method: str,
        weights: Weights,
        datasets: Mapping[str, DatasetImages],
        folder: Path,
        cache_folder: Path,
        memory: int,
        among: Sequence[LearnedVariant],
    ) -> None:
        self.among = among
        self.name, self.weights, self.datasets = method, weights, datasets
        self.folder, self.cache_folder, self.memory = folder, cache_folder, memory
        self._data: tuple[tuple[Any, ...], TrainingData] | None = None
        self._keys: dict[Training, str] = {}

    def backbone(self, config: Any) -> Backbone:
        """The backbone as a config runs it."""
        found = shared_backbone(self.weights, config.precision)
        return find_method(self.name).prepare_backbone(found, config)

    def store(self, config: Any) -> FeatureStore:
        """Frozen features as a config reads them, encoded together with those of its like."""
        method = find_method(self.name)
        blocks = shared_blocks(method, config, (variant.config for variant in self.among))
        recipe = method.recipe(config, blocks)
        folder = self.cache_folder / "features"
        code = method_digest(self.name) + code_digest([feature_store, images])
        return feature_store_of(folder, method, self.backbone(config), recipe, code)

    def rows(self, training: Training) -> pd.DataFrame:
        """The images that are trained on."""
        return training_rows(self.datasets[training.dataset].index, training)

    def key(self, training: Training) -> str:
        """Everything a training depends on, as one SHA-256."""
        if training not in self._keys:
            code = code_digest([train_module, training_data, augment, images, feature_store])
            parts = {
                "method": self.name,
                "config": asdict(training.config),
                "dataset": training.dataset,
                "content": self._content(training),
                "backbone": self.backbone(training.config).key,
                "code": [method_digest(self.name), code],
            }
            self._keys[training] = hash_of(parts)
        return self._keys[training]

    def path(self, training: Training) -> Path:
        """The file of a training; a learner, with its loss curve beside it."""
        return self.folder / f"{self.key(training)[:16]}.safetensors"

    def require(self, training: Training) -> None:
        """Check that a training is finished.

        Raises:
            ClipadError: it is not.
        """
        if not self.path(training).is_file():
            raise ClipadError(
                f"{self.folder}: found no {self.path(training).name}, the learner of this setting; run "
                f"`./repro clipad train {self.name}` first."
            )

    def learner(self, training: Training) -> nn.Module:
        """Read a finished training.

        Raises:
            ClipadError: it is not there, or its file is damaged or another training's.
        """
        self.require(training)
        backbone, path = self.backbone(training.config), self.path(training)
        read = checkpoint_of(self.name).read_checkpoint
        try:
            learner, _, _ = read(path, backbone, self.key(training))
        except ClipadError as error:
            raise ClipadError(
                f"{error} `./repro clipad train {self.name}` makes it again."
            ) from error
        return learner

    def unusable(self, training: Training) -> list[Path]:
        """Of a training's two files, those that are missing, damaged or another training's."""
        path, wrong = self.path(training), []
        try:
            read_safetensors(path, self.name, self.key(training))
        except ClipadError:
            wrong.append(path)
        try:
            self.curve(training)
        except ClipadError:
            wrong.append(path.with_suffix(".json"))
        return wrong

    def curve(self, training: Training) -> list[dict[str, float]]:
        """The loss curve of a finished training, an entry an epoch.

        Raises:
            ClipadError: it is missing, damaged or another training's.
        """
        path = self.path(training).with_suffix(".json")
        found: list[dict[str, float]] | None = read_json(path, self.key(training))
        if found is None:
            raise ClipadError(
                f"{path}: found no whole loss curve of this training, expected one; run `./repro clipad "
                f"train {self.name}` again."
            )
        return found

    def data(self, training: Training) -> TrainingData:
        """What a training reads; the latest is kept, since trainings of a recipe share it."""
        config = training.config
        store = self.store(config)
        augmented = getattr(config, "augmentation", "none")
        key = (training.dataset, training.categories, repr(store.about), config.blocks, augmented)
        if self._data is None or self._data[0] != key:
            self._data = None
            images, backbone = self.datasets[training.dataset], self.backbone(config)
            method, rows = find_method(self.name), self.rows(training)
            data = TrainingData(images, rows, store, backbone, method, config, self.memory)
            data.prepare(training.dataset)
            self._data = (key, data)
        self._data[1].config = config
        return self._data[1]

    def steps(self, training: Training) -> int:
        """How many steps a training takes."""
        images, config = len(self.rows(training)), training.config
        return -(-images // config.batch_size) * config.epochs

    def finish(self, training: Training, advance: Advance) -> Path:
        """Train, or find it trained; what is damaged is trained again."""
        path, wrong = self.path(training), self.unusable(training)
        if not wrong:
            advance(self.steps(training))
            return path
        for file in wrong:
            tell_damage(file)
        data, config = self.data(training), training.config
        method, backbone = find_method(self.name), self.backbone(config)
        learner = method.make_learner(backbone, config, config.seed)
        key = self.key(training)
        saved = self.cache_folder / "training" / f"{key}.pt"
        curve = train(method, learner, data, training.dataset, saved, advance)
        write_json(path.with_suffix(".json"), key, curve)
        content = hash_of({"content": self._content(training)})
        found = checkpoint_of(self.name).checkpoint_bytes(learner, config, backbone, content, key)
        with replacing(path) as temporary:
            temporary.write_bytes(found)
        return path

    def _content(self, training: Training) -> list[str]:
        dataset, rows = self.datasets[training.dataset], self.rows(training)
        return [dataset.content(str(name)) for name in dict.fromkeys(rows["category"])]

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it loads its own backbone and reads features from the cache."""
        return dict(self.__dict__) | {"_data": None}


def train_all(trainer: Trainer, among: Sequence[LearnedVariant], workers: int) -> pd.DataFrame:
    """Finish all trainings with one progress bar over their steps; return the loss curves.

    Files of other settings are removed, so that the folder is a function of the settings.

    Returns:
        Columns ``variant, seed, epoch, part, value``; variants that share a training share a curve.
    """
    # Features are encoded here, and the number of threads would change bits of them.
    torch.set_num_threads(1)
    jobs = trainings(among)
    for dataset in dict.fromkeys(job.dataset for job in jobs):
        check_trainable(trainer.rows(next(job for job in jobs if job.dataset == dataset)))
    # Encoded once, before the trainings that read it start side by side; not for what is finished.
    missing = [job for job in jobs if trainer.unusable(job)]
    for job in {repr(trainer.store(job.config).about): job for job in missing}.values():
        trainer.data(job)
    total = sum(trainer.steps(job) for job in missing)
    with tqdm(total=total, desc=f"train {trainer.name}", unit="step", smoothing=0.05) as bar:
        for _ in run_all(trainer, [[job] for job in missing], workers, bar):
            pass
        bar.update(total - bar.n)
    wanted = {trainer.path(job).stem for job in jobs}
    for path in trainer.folder.iterdir():
        if path.is_file() and path.stem not in wanted:
            path.unlink()
    rows = [
        (variant.name, seed, epoch + 1, part, value)
        for variant in among
        for seed in variant.seeds
        for epoch, parts in enumerate(trainer.curve(variant.training(seed)))
        for part, value in parts.items()
    ]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)
