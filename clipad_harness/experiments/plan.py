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

from clipad_core.clip.published import architecture_config
from clipad_core.errors import ClipadError
from clipad_harness.base.settings import (
    LEARNED,
    Profile,
    Weights,
    read_feature_memory,
    read_learned,
    read_profile,
    read_winclip,
    read_workers,
)
from clipad_harness.experiments.learned_variants import (
    Training,
    learned_plan,
    learned_variants,
    training_rows,
    trainings,
)
from clipad_harness.experiments.methods import TITLES, LearnedConfig, find_method, shared_blocks
from clipad_harness.experiments.missing import find_missing
from clipad_harness.experiments.pipeline import open_data
from clipad_harness.experiments.variants import plan as winclip_plan
from clipad_harness.experiments.variants import shares_views, variants
from clipad_harness.site.stages import METHODS

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
    one = torch.ones(1024, 1024)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        one @ one
        count += 1
    used = time.perf_counter() - start
    torch.set_num_threads(threads)
    return 2 * 1024**3 * count / used


def make_plan(root: Path, profile: Profile, operations_a_second: float) -> list[Job]:
    """A job for every method whose datasets are here; the others stand in `find_missing`."""
    jobs = []
    for method in METHODS:
        try:
            if method in LEARNED:
                jobs.append(_learned_job(root, profile, method, operations_a_second))
            else:
                jobs.append(_winclip_job(root, profile, operations_a_second))
        except ClipadError:
            continue
    return jobs


def _architecture(root: Path, given: Weights) -> dict[str, Any]:
    """Sizes of both towers; a config file beside the weights makes its architecture known."""
    beside = (root / given.weights).with_name(f"{given.backbone}.json")
    if Path(given.weights).suffix and beside.is_file():
        found: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        return found
    return dict(architecture_config(given.backbone))


def _winclip_job(root: Path, profile: Profile, rate: float) -> Job:
    settings = read_winclip(root)
    _, index = open_data(root, profile)
    config = _architecture(root, profile.winclip)
    among = variants(settings, profile.winclip.changes)
    categories = list(dict.fromkeys(index["category"]))
    shards = winclip_plan(
        categories,
        among,
        settings.seeds,
        settings.ablation_seeds,
        profile.ablation_categories,
    )
    test = index[index["split"] == "test"]
    images = _per_category(index)
    encoded = sum(int(images[category]) for category, *_ in {shares_views(s) for s in shards})
    side = config["vision_cfg"]["image_size"] // config["vision_cfg"]["patch_size"]
    windows = {scale: (side - scale + 1) ** 2 for scale in (2, 3)}
    one = tower_operations(config, side**2 + 1)
    one += sum(n * tower_operations(config, s**2 + 1) for s, n in windows.items())
    numbers = sum(windows.values()) * config["embed_dim"]
    numbers += side**2 * config["vision_cfg"]["width"]
    pixels, largest = config["vision_cfg"]["image_size"], int(images.max())
    scoring = _scoring(len(test), categories, len(shards), pixels)
    wider = WIDER[among[0].config.precision]
    return Job(
        "winclip",
        profile.dataset,
        len(test),
        len(shards),
        0,
        0,
        wider * encoded * one / rate + scoring,
        4e-9 * wider * numbers * encoded,
        # The features of a category lie in memory twice while they are read.
        1.5 + _maps(largest, pixels) + wider * (_weights(config) + 8e-9 * numbers * largest),
    )


def _learned_job(root: Path, profile: Profile, method: str, rate: float) -> Job:
    settings = read_learned(root, method)
    config = _architecture(root, profile.weights_of(method))
    among = learned_variants(method, settings, profile)
    names = dict.fromkeys([n for v in among for n in (v.trained_on, v.tested_on)])
    frames = {}
    for name in names:
        chosen = profile if name == profile.dataset else profile.on(name)
        frames[name] = open_data(root, chosen)[1]
    categories = {
        name: list(dict.fromkeys(frames[name]["category"]))
        for name in dict.fromkeys(v.tested_on for v in among)
    }
    shards, jobs = learned_plan(categories, among, profile.ablation_categories), trainings(among)
    counts = {name: int((frame["split"] == "test").sum()) for name, frame in frames.items()}
    size = among[0].config.image_size
    tokens = (size // config["vision_cfg"]["patch_size"]) ** 2 + 1
    tower = tower_operations(config, tokens)
    encodings = _encodings(method, [variant.config for variant in among])
    encoded = sum(counts.values()) * len(encodings) * tower
    sizes = [(job, len(training_rows(frames[job.dataset], job))) for job in jobs]
    learned = sum(_training(job, images, config, tower) for job, images in sizes)
    numbers = tokens * config["vision_cfg"]["width"] * sum(encodings)
    tested = sum(counts[name] for name in categories)
    largest = max(int(_per_category(frames[name]).max()) for name in categories)
    wider = WIDER[among[0].config.precision]
    return Job(
        method,
        profile.dataset,
        sum(counts.values()),
        len(shards),
        len(jobs),
        sum(_steps(job, images) for job, images in sizes),
        wider * (encoded + learned) / rate
        + _scoring(tested, categories[profile.dataset], len(shards), size),
        4e-9 * wider * numbers * sum(counts.values()),
        wider * _weights(config)
        + 2.0
        + min(4e-9 * wider * numbers * largest, 1e-9 * read_feature_memory(root))
        + _maps(largest, size),
    )


def _per_category(index: pd.DataFrame) -> pd.Series:
    """How many test images each category has."""
    return index[index["split"] == "test"].groupby("category").size()


def _maps(images: int, size: int) -> float:
    """Gigabytes of the maps and masks of a category, which are measured together."""
    return 5e-9 * images * size**2


def _encodings(method: str, configs: Sequence[LearnedConfig]) -> list[int]:
    """How many blocks each distinct encoding of an image keeps."""
    module, found = find_method(method), {}
    for config in configs:
        blocks = shared_blocks(module, config, configs)
        found[repr(module.recipe(config, blocks))] = len(blocks)
    return list(found.values())


def _steps(job: Training, images: int) -> int:
    return -(-images // job.config.batch_size) * job.config.epochs


def _training(job: Training, images: int, config: dict[str, Any], tower: float) -> float:
    """Operations of one training: the text side of every step, and towers where images change."""
    passes = images * job.config.epochs
    augmented = getattr(job.config, "augmentation", "none") != "none"
    prompts = 2 * passes if augmented or hasattr(job.config, "pre_vcp") else 2 * _steps(job, images)
    text = prompts * tower_operations(config, 17, "text_cfg")
    return TRAINING_FACTOR * text + (passes * tower if augmented else 0.0)


def _scoring(images: int, categories: list[str], shards: int, size: int) -> float:
    """Seconds of scores and metrics: every shard reads the images of one category."""
    return SECONDS_PER_MEGAPIXEL * shards * images / len(categories) * size**2 / 1e6


def _weights(config: dict[str, Any]) -> float:
    """Gigabytes of both towers in float32."""
    parts = ("vision_cfg", "text_cfg")
    numbers = sum(12 * config[p]["width"] ** 2 * config[p]["layers"] for p in parts)
    return 4e-9 * (numbers + config["text_cfg"]["vocab_size"] * config["text_cfg"]["width"])


def as_table(jobs: list[Job], workers: int) -> str:
    """The plan as text, a line a method."""
    rows = [
        (
            TITLES[job.method],
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
