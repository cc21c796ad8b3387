"""What a run would compute, what it would take on this machine, and what is missing for it.

Nothing is computed but a matrix product that tells how fast this machine is, and nothing is fetched.
Times are operations of the towers divided by that speed: they say whether a run takes minutes or
days, not more. What is finished already is not subtracted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clipad_core.clip.features import Recipe
from clipad_core.clip.preprocess import CROPS
from clipad_core.clip.published import architecture_config
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.method import Method
from clipad_harness.base.settings import (
    Profile,
    Weights,
    read_feature_memory,
    read_method,
    read_profile,
    read_workers,
)
from clipad_harness.data.stages import open_data
from clipad_harness.experiments.left_out import (
    missing_datasets,
    with_datasets,
    with_references,
)
from clipad_harness.experiments.missing import find_missing
from clipad_harness.experiments.variants import (
    Shard,
    TrainingJob,
    Variant,
    plan_shards,
    read_variants,
    training_rows,
    trainings,
)

# Forward and backward pass against a forward pass alone.
TRAINING_FACTOR = 3.0
# In float64 a number takes twice the bytes, a product twice the time (measured: 45, 90 GFLOP/s a core).
WIDER = {"float64": 2.0, "float32": 1.0, "bfloat16": 1.0}
# Scores and metrics of an image in a variant, seconds a megapixel of its map. Measured on the demo:
# 0.101 CPU seconds a shard of WinCLIP, 40 maps of 96 pixels.
SECONDS_PER_MEGAPIXEL = 0.27


@dataclass(frozen=True)
class Job:
    """One method of a profile.

    Attributes:
        shards, trainings, steps: how much of each.
        images: test images of all datasets that are read.
        seconds: of one core.
        gigabytes: of features on disk.
        memory: gigabytes of one process.
    """

    method: str
    dataset: str
    images: int
    shards: int
    trainings: int
    steps: int
    seconds: float
    gigabytes: float
    memory: float


def tower_operations(config: dict[str, Any], tokens: int, part: str = "vision_cfg") -> float:
    """Floating-point operations of a transformer on some tokens: layers and attention.

    >>> sizes = {"vision_cfg": {"layers": 1, "width": 2}}
    >>> tower_operations(sizes, tokens=3)
    360.0
    """
    width, layers = config[part]["width"], config[part]["layers"]
    return float(layers * (24 * width**2 * tokens + 4 * width * tokens**2))


def speed(seconds: float = 1.0) -> float:
    """Operations a second of one core, by a large product in float32.

    The towers reach 0.98 (ViT-L/14 at 518 pixels) to 1.11 (ViT-B/16+ at 240) of it, measured on
    random weights with one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.ones(1024, 1024)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        matrix @ matrix
        count += 1
    used = time.perf_counter() - start
    torch.set_num_threads(threads)
    return 2 * 1024**3 * count / used


def make_plan(root: Path, profile: Profile, operations_a_second: float) -> list[Job]:
    """A job for every method whose datasets are here; the others stand in `find_missing`."""
    jobs = []
    for name in profile.weights:
        try:
            jobs.append(_job(root, profile, name, operations_a_second))
        except ClipadError:
            continue
    return jobs


def _architecture(root: Path, weights: Weights) -> dict[str, Any]:
    """Sizes of both towers; a config file beside the weights makes its architecture known."""
    beside = (root / weights.weights).with_name(f"{weights.backbone}.json")
    if Path(weights.weights).suffix and beside.is_file():
        config: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        return config
    return dict(architecture_config(weights.backbone))


def _job(root: Path, profile: Profile, name: str, rate: float) -> Job:
    """What a method takes: its encodings, its trainings, its shards."""
    method, config = find_method(name), _architecture(root, profile.weights[name])
    variants = read_variants(name, read_method(root, name), profile)
    variants, _ = with_datasets(name, variants, missing_datasets(root, profile, variants))
    frames = _frames(root, profile, variants)
    variants, _ = with_references(name, variants, frames)
    tested = dict.fromkeys(variant.tested_on for variant in variants)
    categories = {dataset: list(dict.fromkeys(frames[dataset]["category"])) for dataset in tested}
    shards = plan_shards(method, categories, variants, profile.ablation_categories)
    jobs = [(job, len(training_rows(frames[job.dataset], job))) for job in trainings(variants)]
    encodings = _encodings(method, variants, shards, jobs, frames)
    costs = [(images, *_tower(config, recipe)) for recipe, images in encodings.items()]
    encoded = sum(images * operations for images, operations, _ in costs)
    numbers = sum(images * per_image for images, _, per_image in costs)
    learned = sum(_training(method, job, images, config) for job, images in jobs)
    largest = max(int(_per_category(frames[dataset]).max()) for dataset in tested)
    size = _side(config, method.recipe(variants[0].config, 0))
    counts = {dataset: int((frame["split"] == "test").sum()) for dataset, frame in frames.items()}
    wider = WIDER[variants[0].config.precision]
    of_one_image = max(per_image for _, _, per_image in costs)
    return Job(
        name,
        profile.dataset,
        sum(counts.values()),
        len(shards),
        len(jobs),
        sum(_steps(job, images) for job, images in jobs),
        wider * (encoded + learned) / rate + _scoring(shards, frames, size),
        4e-9 * wider * numbers,
        2.0
        + wider * _weights(config)
        + min(4e-9 * wider * of_one_image * largest, 1e-9 * read_feature_memory(root))
        + _maps(largest, size),
    )


def _frames(root: Path, profile: Profile, variants: Sequence[Variant]) -> dict[str, pd.DataFrame]:
    """The index of every dataset that some variant is trained or tested on."""
    used = [name for v in variants for name in (v.trained_on, v.tested_on) if name is not None]
    return {
        name: open_data(root, profile if name == profile.dataset else profile.on(name))[1]
        for name in dict.fromkeys(used)
    }


def _encodings(
    method: Method,
    variants: Sequence[Variant],
    shards: Sequence[Shard],
    jobs: Sequence[tuple[TrainingJob, int]],
    frames: dict[str, pd.DataFrame],
) -> dict[Recipe, int]:
    """Every distinct encoding, and of how many images it is made."""
    recipes = [
        method.recipe(variant.tested_with(variant.seeds[0]), k_shot)
        for variant in variants
        for k_shot in variant.k_shots
    ]
    passes = {
        (shard.variant.tested_on, shard.category, _shared(method, shard, recipes))
        for shard in shards
    }
    images: dict[Recipe, int] = {}
    for dataset, category, recipe in passes:
        images[recipe] = images.get(recipe, 0) + int(_per_category(frames[dataset])[category])
    trained: dict[tuple[str, Recipe], int] = {}
    for job, count in jobs:
        recipe = method.recipe(job.config, 0).shared(recipes)
        trained[job.dataset, recipe] = max(count, trained.get((job.dataset, recipe), 0))
    for (_, recipe), count in trained.items():
        images[recipe] = images.get(recipe, 0) + count
    return images


def _shared(method: Method, shard: Shard, recipes: Sequence[Recipe]) -> Recipe:
    """As most images are: square, so that several rules cut the same from them."""
    own = method.recipe(shard.variant.tested_with(shard.seed), shard.k_shot)
    return own.for_squares().shared(recipe.for_squares() for recipe in recipes)


def _side(config: dict[str, Any], recipe: Recipe) -> int:
    """Side in pixels of what the tower sees."""
    return recipe.image_size or int(config["vision_cfg"]["image_size"])


def _tower(config: dict[str, Any], recipe: Recipe) -> tuple[float, float]:
    """Operations of encoding one image, and how many numbers are kept of it."""
    side = _side(config, recipe) // config["vision_cfg"]["patch_size"]
    windows = {scale: (side - scale + 1) ** 2 for scale in recipe.scales}
    views = 1 + CROPS.get(recipe.multi_crop, 0)
    operations = views * tower_operations(config, side**2 + 1)
    operations += sum(n * tower_operations(config, s**2 + 1) for s, n in windows.items())
    numbers = (views + sum(windows.values())) * config["embed_dim"]
    return operations, numbers + len(recipe.blocks) * side**2 * config["vision_cfg"]["width"]


def _per_category(index: pd.DataFrame) -> pd.Series:
    """How many test images each category has."""
    return index[index["split"] == "test"].groupby("category").size()


def _maps(images: int, size: int) -> float:
    """Gigabytes of the maps and masks of a category, which are measured together."""
    return 5e-9 * images * size**2


def _steps(job: TrainingJob, images: int) -> int:
    return -(-images // job.config.batch_size) * job.config.epochs


def _training(method: Method, job: TrainingJob, images: int, config: dict[str, Any]) -> float:
    """Operations of one training: the text side of every step, and towers where images change."""
    if method.training is None:
        return 0.0
    passes = images * job.config.epochs
    augmented = method.training.augmentation(job.config) is not None
    every_image = augmented or method.training.prompts_of_images
    prompts = 2 * (passes if every_image else _steps(job, images))
    text = TRAINING_FACTOR * prompts * tower_operations(config, 17, "text_cfg")
    tower, _ = _tower(config, method.recipe(job.config, 0))
    return text + (passes * tower if augmented else 0.0)


def _scoring(shards: Sequence[Shard], frames: dict[str, pd.DataFrame], size: int) -> float:
    """Seconds of scores and metrics: every shard reads the images of one category."""
    counts = {dataset: _per_category(frame) for dataset, frame in frames.items()}
    images = sum(int(counts[shard.variant.tested_on][shard.category]) for shard in shards)
    return SECONDS_PER_MEGAPIXEL * images * size**2 / 1e6


def _weights(config: dict[str, Any]) -> float:
    """Gigabytes of both towers in float32."""
    parts = ("vision_cfg", "text_cfg")
    numbers = sum(12 * config[p]["width"] ** 2 * config[p]["layers"] for p in parts)
    return 4e-9 * (numbers + config["text_cfg"]["vocab_size"] * config["text_cfg"]["width"])


def as_table(jobs: list[Job], workers: int) -> str:
    """The plan as text, a line a method."""
    rows = [
        (
            find_method(job.method).title,
            job.dataset,
            job.images,
            job.shards,
            job.trainings,
            job.steps,
            _duration(job.seconds / workers),
            f"{job.gigabytes:.1f} GB",
            f"{job.memory * workers:.1f} GB",
        )
        for job in jobs
    ]
    columns = ["method", "dataset", "images", "shards", "trainings", "steps"]
    columns += ["time", "disk", "memory"]
    return pd.DataFrame(rows, columns=columns).to_string(index=False)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def report_plan(root: Path, name: str, dataset: str) -> tuple[str, list[str]]:
    """The text of `clipad plan`, and what is missing."""
    profile = read_profile(root, name, dataset)
    workers, rate = read_workers(root), speed()
    jobs = make_plan(root, profile, rate)
    missing = find_missing(root, profile)
    lines = [f"Profile {profile.name}, tested on {profile.dataset}."]
    lines += [as_table(jobs, workers)] if jobs else ["No method can run: see below."]
    lines.append(
        f"Times: tower operations at {rate / 1e9:.0f} billion a second and core (a large product, "
        f"timed just now), {workers} processes; scores and metrics as measured on the demo. Disk: "
        "features in .cache, by their sizes. Memory: weights by their sizes and an allowance for a "
        "batch that is not measured, all processes together."
    )
    lines += [f"Missing: {text}" for text in missing] or ["Nothing is missing."]
    return "\n\n".join(lines), missing
