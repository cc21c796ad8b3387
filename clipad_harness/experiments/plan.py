"""What a run would compute, what it would take on this machine, and what is missing for it.

Settings are checked as the run checks them, weights that are here are loaded for it, and a matrix
product tells how fast this machine is; nothing else is computed, and nothing is fetched. Times are
operations of the towers divided by that speed: they say whether a run takes minutes or days, not more.
What is finished already is not subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clipad_core.clip.device import compute_exactly, find_device
from clipad_core.clip.features import Recipe
from clipad_core.clip.one_pass import PassRecipe
from clipad_core.clip.preprocess import CROPS
from clipad_core.clip.published import architecture_config, learn_architecture
from clipad_core.methods import find_method
from clipad_core.methods.method import Method
from clipad_harness.base.files import yaml_line
from clipad_harness.base.settings import (
    Profile,
    read_feature_disk,
    read_feature_memory,
    read_profile,
    read_workers,
)
from clipad_harness.base.weights import resolve
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.datasets import MissingDataset
from clipad_harness.experiments.augment import is_new_in_every_epoch
from clipad_harness.experiments.left_out import MethodLeftOut
from clipad_harness.experiments.missing import find_missing
from clipad_harness.experiments.pipeline import Run, open_run
from clipad_harness.experiments.variants import (
    Shard,
    TrainingJob,
    Variant,
    datasets_of,
    training_rows,
    trainings,
)

# Forward and backward pass against a forward pass alone.
TRAINING_FACTOR = 3.0
# In float64 a number takes twice the bytes, a product twice the time (measured: 45, 90 GFLOP/s a core).
WIDER = {"float64": 2.0, "float32": 1.0, "float16_autocast": 1.0, "bfloat16": 1.0}
# Scores and metrics of an image in a variant, seconds a megapixel of its map. Measured on the demo:
# 0.101 CPU seconds a shard of WinCLIP, 40 maps of 96 pixels.
SECONDS_PER_MEGAPIXEL = 0.27
# A step of training beside its towers: of itself, and a megapixel of the maps of its loss. Measured on the
# demo: 17 ms for 8 maps of 96 pixels, 36 ms for 32 of them.
SECONDS_PER_STEP, SECONDS_PER_TRAINED_MEGAPIXEL = 0.01, 0.05
# Imports and weights of a process; training and measuring start two each, beside the one that waits.
SECONDS_PER_PROCESS, PROCESSES = 4.0, 6
# Of a dataset, where a plan says what fewer would take.
CATEGORIES_FEWER = 3


@dataclass(frozen=True)
class Job:
    """One method of a profile.

    Attributes:
        shards, trainings, steps: how much of each; shards of equal keys are computed and counted once.
        images: test images of all datasets that are read.
        operations: floating-point operations of the towers, in float32; ``wider``: how many times the
            time they take in the run's own precision on a CPU.
        beside: seconds of one core for all but the towers: scores, metrics, losses, starts of processes.
        gigabytes: of features on disk.
        memory: gigabytes of one process.
    """

    method: str
    dataset: str
    images: int
    shards: int
    trainings: int
    steps: int
    operations: float
    wider: float
    beside: float
    gigabytes: float
    memory: float


@dataclass(frozen=True)
class Machine:
    """What computes: processes on cores, and perhaps accelerators that run the towers for them.

    Attributes:
        rate: operations of the towers a second, of a core or of an accelerator.
        processes: that score, each on a core of its own.
        accelerators: how many; 0: the towers run in the processes.
    """

    rate: float
    processes: int
    accelerators: int = 0

    def seconds(self, job: Job) -> float:
        """How long it takes for a job from nothing.

        >>> job = Job("winclip", "mvtec", 9, 1, 0, 0, 8e9, 2.0, 4.0, 0.1, 2.0)
        >>> Machine(1e9, processes=2).seconds(job), Machine(8e9, 2, accelerators=1).seconds(job)
        (10.0, 3.0)
        """
        if self.accelerators:
            towers = job.operations / self.rate / self.accelerators
        else:
            towers = job.wider * job.operations / self.rate / self.processes
        return towers + job.beside / self.processes


# A GPU to name where none is here: half of what an A100's data sheet says of float32, 19.5 TFLOP/s.
A_GPU = Machine(1e13, processes=8, accelerators=1)


def tower_operations(config: dict[str, Any], tokens: int, part: str = "vision_cfg") -> float:
    """Floating-point operations of a transformer on some tokens: layers and attention.

    >>> sizes = {"vision_cfg": {"layers": 1, "width": 2}}
    >>> tower_operations(sizes, tokens=3)
    360.0
    """
    width, layers = config[part]["width"], config[part]["layers"]
    return float(layers * (24 * width**2 * tokens + 4 * width * tokens**2))


def speed(device: torch.device, seconds: float = 1.5) -> float:
    """Operations a second of one core, or of an accelerator, by a large product in float32.

    The fastest of many, by the time of its thread alone: what else the machine does slows some of them
    and is not counted. The towers reach 0.98 (ViT-L/14 at 518 pixels) to 1.11 (ViT-B/16+ at 240) of it,
    measured on random weights with one thread. On an accelerator it is the time of a clock.
    """
    if device.type != "cpu":
        return _speed_of(device, seconds)
    side = 1024
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix, times = torch.ones(side, side), list[float]()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 20:
            start = time.thread_time()
            matrix @ matrix
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return float(2 * side**3 / min(times))


def _speed_of(device: torch.device, seconds: float) -> float:
    """Operations a second of an accelerator, by a large product in float32 without TF32."""
    compute_exactly(device)
    side, times = 4096, list[float]()
    matrix, end = torch.ones(side, side, device=device), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # a number of the CPU: the device has finished
        times.append(time.perf_counter() - start)
    return float(2 * side**3 / min(times))


def make_plan(runs: Sequence[Run], without_weights: Collection[str] = ()) -> list[Job]:
    """A job for every run, checked as the run checks it.

    Args:
        runs: see `open_runs`.
        without_weights: names of methods whose weights are not here.

    Raises:
        ClipadError: what a run would stop at.
    """
    for run in runs:
        _check(run, run.name not in without_weights)
    return _jobs(runs, without_weights)


def _jobs(runs: Sequence[Run], without_weights: Collection[str] = ()) -> list[Job]:
    """A job for every run; a pass that serves several methods is counted for the first of them."""
    passed: dict[Hashable, int] = {}
    return [_job(run, run.name not in without_weights, passed) for run in runs]


def open_runs(root: Path, profile: Profile) -> list[Run]:
    """The methods whose datasets are here, opened by the door of their stages.

    What a run leaves out is no part of its plan either.
    """
    parameters = {
        "profile": profile.name,
        "dataset": profile.dataset,
        "categories": list(profile.categories),
    }
    runs = []
    for name in profile.weights:
        with suppress(MethodLeftOut, MissingDataset):
            runs.append(open_run(root, name, parameters))
    return runs


def _check(run: Run, has_weights: bool) -> None:
    """Find what the run would stop at; of weights that are not here no more than their architecture."""
    _architecture(run)
    if not has_weights:
        return
    scorer = run.scorer()
    for shard in run.shards:
        scorer.check(shard)
    for job in trainings(run.variants):
        if scorer.trainer is not None:
            scorer.trainer.check(job)


def _architecture(run: Run) -> dict[str, Any]:
    """Sizes of both towers; a config file beside the weights makes its architecture known."""
    weights = resolve(run.root, run.profile.weights[run.name])
    learn_architecture(weights.backbone, Path(weights.weights))
    return dict(architecture_config(weights.backbone))


def _job(run: Run, has_weights: bool, passed: dict[Hashable, int]) -> Job:
    """What a method takes: its encodings, its trainings, its shards.

    Args:
        passed: by tower, images and how these are cut: of how many a pass is counted already; it grows.
    """
    method, config, variants = run.method, _architecture(run), run.variants
    frames = {name: images.index for name, images in run.datasets.items()}
    scorer = run.scorer()

    def tower(config: Any) -> Hashable:
        """What tells a tower; without weights nobody knows who else runs the same."""
        return scorer.backbone(config).key if has_weights else run.name

    shards = list({scorer.alike(shard): shard for shard in reversed(run.shards)}.values())[::-1]
    jobs = [(job, len(training_rows(frames[job.dataset], job))) for job in trainings(variants)]
    recipes = _recipes(method, variants)
    anew = {
        job: 1.0 if size > read_feature_disk(run.root) else _encoded_anew(method, job)
        for job, size in _stored(method, jobs, recipes, config).items()
    }
    stored = [(job, images) for job, images in jobs if anew[job] < 1]
    encodings = _encodings(method, tower, recipes, shards, stored, frames)
    costs = {recipe: _tower(config, recipe) for _, recipe in encodings}
    encoded = sum(images * costs[recipe][1] for (_, recipe), images in encodings.items())
    for (place, recipe), images in encodings.items():
        one_pass = place, _pass_of(config, recipe)
        before = passed.get(one_pass, 0)
        encoded += max(0, images - before) * costs[recipe][0]
        passed[one_pass] = max(images, before)
    numbers = sum(images * costs[recipe][2] for (_, recipe), images in encodings.items())
    learned = sum(_training(method, job, images, config, anew[job]) for job, images in jobs)
    tested = {variant.tested_on for variant in variants}
    largest = max(int(_per_category(frames[dataset]).max()) for dataset in tested)
    size = _side(config, method.recipe(variants[0].config, 0))
    read = datasets_of(variants, run.profile.dataset)
    wider = WIDER[variants[0].config.precision]
    of_one_image = max(per_image for _, _, per_image in costs.values())
    return Job(
        run.name,
        run.profile.dataset,
        sum(int((frames[dataset]["split"] == "test").sum()) for dataset in read),
        len(shards),
        len(jobs),
        sum(_steps(method, job, images) for job, images in jobs),
        encoded + learned,
        wider,
        _scoring(shards, frames, size) + _losses(method, jobs) + SECONDS_PER_PROCESS * PROCESSES,
        4e-9 * wider * numbers,
        2.0
        + wider * _weights(config)
        + min(4e-9 * wider * of_one_image * largest, 1e-9 * read_feature_memory(run.root))
        + _maps(largest, size),
    )


def _recipes(method: Method, variants: Sequence[Variant]) -> list[Recipe]:
    """All that is read of images."""
    return [
        method.recipe(variant.tested_with(variant.seeds[0]), k_shot)
        for variant in variants
        for k_shot in variant.k_shots
    ]


def _stored(
    method: Method,
    jobs: Sequence[tuple[TrainingJob, int]],
    recipes: Sequence[Recipe],
    config: dict[str, Any],
) -> Mapping[TrainingJob, float]:
    """Bytes on disk of the features of what each training reads, if they are kept."""
    return {
        job: 4
        * WIDER[job.config.precision]
        * images
        * _tower(config, method.training_recipe(job.config).shared(recipes))[2]
        for job, images in jobs
    }


def _encodings(
    method: Method,
    tower: Callable[[Any], Hashable],
    recipes: Sequence[Recipe],
    shards: Sequence[Shard],
    jobs: Sequence[tuple[TrainingJob, int]],
    frames: dict[str, pd.DataFrame],
) -> dict[tuple[tuple[str, str, Hashable], Recipe], int]:
    """Of how many images every distinct encoding is kept.

    Args:
        tower: what tells the tower that a config runs.

    Returns:
        By dataset, category ("": all that is trained on) and tower, and by recipe.
    """
    images: dict[tuple[tuple[str, str, Hashable], Recipe], int] = {}
    counts = {dataset: _per_category(frame) for dataset, frame in frames.items()}
    for shard in shards:
        place = shard.variant.tested_on, shard.category, tower(shard.config)
        images[place, _shared(method, shard, recipes)] = int(counts[place[0]][place[1]])
    for job, count in jobs:
        place = job.dataset, "", tower(job.config)
        recipe = method.training_recipe(job.config).shared(recipes)
        images[place, recipe] = max(count, images.get((place, recipe), 0))
    return images


def _pass_of(config: dict[str, Any], recipe: Recipe) -> Hashable:
    """Equal for recipes that are read of one pass of a tower."""
    if not isinstance(recipe, PassRecipe):
        return recipe
    return _side(config, recipe), recipe.resize, recipe.channels


def _shared(method: Method, shard: Shard, recipes: Sequence[Recipe]) -> Recipe:
    """As most images are: square, so that several rules cut the same from them."""
    own = method.recipe(shard.config, shard.k_shot)
    return own.for_squares().shared(recipe.for_squares() for recipe in recipes)


def _side(config: dict[str, Any], recipe: Recipe) -> int:
    """Side in pixels of what the tower sees."""
    return recipe.image_size or int(config["vision_cfg"]["image_size"])


def _tower(config: dict[str, Any], recipe: Recipe) -> tuple[float, float, float]:
    """Operations of the pass of one image, of its windows, crops and tiles; how many numbers are kept."""
    side = _side(config, recipe) // config["vision_cfg"]["patch_size"]
    windows = {scale: (side - scale + 1) ** 2 for scale in recipe.scales}
    one_pass = tower_operations(config, side**2 + 1)
    more = CROPS.get(recipe.multi_crop, 0) + _tiles(side, recipe.tiles)
    beside = sum(n * tower_operations(config, s**2 + 1) for s, n in windows.items())
    numbers = (1 + more + sum(windows.values())) * config["embed_dim"]
    numbers += len(recipe.blocks) * side**2 * config["vision_cfg"]["width"]
    return one_pass, beside + more * one_pass, numbers


def _tiles(side: int, tile: int) -> int:
    """How many tiles cover a square of patches, one every half a side and the last flush with the border.

    >>> _tiles(12, 4), _tiles(15, 4), _tiles(15, 0)
    (25, 49, 0)
    """
    return (-(-(side - tile) // (tile // 2)) + 1) ** 2 if tile else 0


def _per_category(index: pd.DataFrame) -> pd.Series:
    """How many test images each category has."""
    return index[index["split"] == "test"].groupby("category").size()


def _maps(images: int, size: int) -> float:
    """Gigabytes of the maps and masks of a category, which are measured together."""
    return 5e-9 * images * size**2


def _epochs(method: Method, job: TrainingJob) -> int:
    return 0 if method.training is None else method.training.epochs(job.config, job.dataset)


def _steps(method: Method, job: TrainingJob, images: int) -> int:
    return -(-images // job.config.batch_size) * _epochs(method, job)


def _encoded_anew(method: Method, job: TrainingJob) -> float:
    """The share of the images of an epoch that are new in it."""
    augmentation = None if method.training is None else method.training.augmentation(job.config)
    if is_new_in_every_epoch(augmentation):
        return 1.0
    if augmentation is None:
        return 0.0
    return augmentation.mosaic_rate if job.dataset == augmentation.mosaics_of else 0.0


def _training(
    method: Method, job: TrainingJob, images: int, config: dict[str, Any], anew: float
) -> float:
    """Operations of one training: the text side of every step, and towers of what is encoded in it."""
    if method.training is None:
        return 0.0
    passes = images * _epochs(method, job)
    every_image = _encoded_anew(method, job) == 1 or method.training.prompts_of_images
    prompts = 2 * (passes if every_image else _steps(method, job, images))
    text = TRAINING_FACTOR * prompts * tower_operations(config, 17, "text_cfg")
    one_pass, beside, _ = _tower(config, method.training_recipe(job.config))
    return text + anew * passes * (one_pass + beside)


def _scoring(shards: Sequence[Shard], frames: dict[str, pd.DataFrame], size: int) -> float:
    """Seconds of scores and metrics: every shard reads the images of one category."""
    counts = {dataset: _per_category(frame) for dataset, frame in frames.items()}
    images = sum(int(counts[shard.variant.tested_on][shard.category]) for shard in shards)
    return SECONDS_PER_MEGAPIXEL * images * size**2 / 1e6


def _losses(method: Method, jobs: Sequence[tuple[TrainingJob, int]]) -> float:
    """Seconds of all steps but for their towers: what a step costs, and maps as large as images."""
    seconds = 0.0
    for job, images in jobs:
        maps = images * _epochs(method, job) * len(job.config.blocks)
        seconds += SECONDS_PER_STEP * _steps(method, job, images)
        seconds += SECONDS_PER_TRAINED_MEGAPIXEL * maps * job.config.image_size**2 / 1e6
    return seconds


def _weights(config: dict[str, Any]) -> float:
    """Gigabytes of both towers in float32."""
    parts = ("vision_cfg", "text_cfg")
    numbers = sum(12 * config[p]["width"] ** 2 * config[p]["layers"] for p in parts)
    return 4e-9 * (numbers + config["text_cfg"]["vocab_size"] * config["text_cfg"]["width"])


def as_table(jobs: list[Job], machine: Machine) -> str:
    """The plan as text, a line a method."""
    rows = [
        (
            find_method(job.method).title,
            job.dataset,
            job.images,
            job.shards,
            job.trainings,
            job.steps,
            _duration(machine.seconds(job)),
            f"{job.gigabytes:.1f} GB",
            f"{job.memory * machine.processes:.1f} GB",
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


WORDS = """images     test images of all datasets that are read, for testing and for training
shards     one category in one variant (a row of a table), with one number of references and one
           seed: the unit of measuring; what several variants share is counted once
trainings  distinct ones; variants that differ after training share theirs
steps      of the optimiser, in all trainings together
time       from nothing; what is finished already is not subtracted. An image passes a tower once for all
           methods that run it alike, which is counted for the first of them
disk       features of images in .cache; memory: of all processes together"""


def elsewhere(jobs: Sequence[Job], machine: Machine) -> list[str]:
    """How long the same takes with more processes like these, and on a GPU; a line each."""
    places = [
        (
            f"{count} processes like these, on one machine or several",
            replace(machine, processes=count),
        )
        for count in (8, 64)
        if count > machine.processes and not machine.accelerators
    ]
    if not machine.accelerators:
        text = f"a GPU that multiplies float32 at {A_GPU.rate / 1e12:.0f} TFLOP/s, not measured, and 8 cores"
        places.append((text, A_GPU))
    return [
        f"{_duration(sum(place.seconds(job) for job in jobs)):>10}  {text}"
        for text, place in places
    ]


def ways_down(
    runs: Sequence[Run], machine: Machine, without_weights: Collection[str] = ()
) -> list[str]:
    """What takes less: the headline alone, fewer categories, both; a line each, all methods together.

    Args:
        runs: of the methods.
        machine: that computes.
        without_weights: names of methods whose weights are not here.
    """
    if not runs:
        return []
    profile, categories = runs[0].profile, runs[0].categories
    fewer = categories[:CATEGORIES_FEWER]
    headline = "ablations: none"
    few = f"profiles.{profile.name}.categories: {yaml_line(list(fewer))}"
    ways: list[tuple[str, list[Run]]] = []
    if any(len(run.variants) > 1 for run in runs):
        ways.append((headline, [_headline(run) for run in runs]))
    if len(fewer) < len(categories):
        ways.append((few, [_on(run, fewer) for run in runs]))
    if len(ways) == 2:
        ways.append((f"{headline} and {few}", [_headline(_on(run, fewer)) for run in runs]))
    times = [
        sum(machine.seconds(job) for job in _jobs(smaller, without_weights)) for _, smaller in ways
    ]
    return [
        f"{_duration(seconds):>10}  {text}" for (text, _), seconds in zip(ways, times, strict=True)
    ]


def _headline(run: Run) -> Run:
    return replace(run, variants=run.variants[:1])


def _on(run: Run, categories: Sequence[str]) -> Run:
    """The run, tested on some categories."""
    index = run.index[run.index["category"].isin(categories)]
    return replace(
        run, datasets={**run.datasets, run.profile.dataset: DatasetImages(index, run.data)}
    )


def _too_large(run: Run) -> list[str]:
    """A sentence where features of what is trained on are not kept."""
    frames = {name: images.index for name, images in run.datasets.items()}
    jobs = [(job, len(training_rows(frames[job.dataset], job))) for job in trainings(run.variants)]
    stored = _stored(run.method, jobs, _recipes(run.method, run.variants), _architecture(run))
    most = read_feature_disk(run.root)
    sizes = [
        size for job, size in stored.items() if size > most and _encoded_anew(run.method, job) < 1
    ]
    if not sizes:
        return []
    return [
        f"{run.method.title}: the features of what it trains on are {max(sizes) / 1e9:.1f} GB, more than "
        f"feature_disk_gb ({most / 1e9:.0f}), so that every epoch encodes its images anew."
    ]


def report_plan(root: Path, name: str, dataset: str) -> tuple[str, list[str]]:
    """The text of `clipad plan`, and what is missing.

    Raises:
        ClipadError: what the run would stop at, but for what is missing.
    """
    profile = read_profile(root, name, dataset)
    missing, device = find_missing(root, profile), find_device(profile.device)
    accelerators = 0 if device.type == "cpu" else 1
    machine = Machine(speed(device), read_workers(root, device.type), accelerators)
    runs = open_runs(root, profile)
    jobs = make_plan(runs, missing.weights)
    planned, core = [run.name for run in runs], f"on {device}" if accelerators else "and core"
    lines = [f"Profile {profile.name}, tested on {profile.dataset}, computed on {device}."]
    lines += [as_table(jobs, machine), WORDS] if jobs else ["No method can run: see below."]
    for method, datasets in missing.datasets.items():
        if jobs and datasets and method not in planned:
            title = find_method(method).title
            lines.append(f"{title} is not in the table, for want of {', '.join(datasets)}.")
    lines.append(
        f"Times: tower operations at {machine.rate / 1e9:.0f} billion a second {core} (a large product, "
        f"timed just now), {machine.processes} processes; scores, metrics and losses as measured on the "
        "demo. Disk: features in .cache, by their sizes. Memory: weights by their sizes and an allowance "
        "for a batch that is not measured, all processes together."
    )
    lines += [f"{run.method.title}: {sentence}." for run in runs for sentence in run.left_out]
    lines += [sentence for run in runs for sentence in _too_large(run)]
    if jobs and (others := elsewhere(jobs, machine)):
        lines.append("\n".join(["Elsewhere, all methods together:", *others]))
    if less := ways_down(runs, machine, missing.weights):
        heading = "Ways down, in params.yaml, with the time of all methods together:"
        lines.append("\n".join([heading, *less]))
    lines += [f"Missing: {text}" for text in missing.sentences] or ["Nothing is missing."]
    return "\n\n".join(lines), missing.sentences
