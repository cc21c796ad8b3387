"""Speed and memory of the methods that learn, on the real ViT-L/14 at 518 pixels.

    python -m benchmarks.learned [METHOD ...] [--rounds 2]

Seeded random weights, one thread, CPU seconds; the two sides of a ratio take turns in one process and
their medians are compared. Peak memory is that of a process of its own, the model included, from
when the model is made (Linux). Writes benchmarks/results/learned.json, where methods that are not
named keep what was measured, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.environment import REPOSITORY
from benchmarks.metrics import cpu_name
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.soft_prompts import run_text_blocks
from clipad_core.clip.text import read_out
from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm
from clipad_core.methods.anomalyclip import detector as anomalyclip
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.text import text_embeddings as anomalyclip_text
from clipad_core.methods.aprilgan import detector as aprilgan
from clipad_core.methods.aprilgan.config import APRILGANConfig
from clipad_core.methods.method import Category
from clipad_core.methods.vcpclip import detector as vcpclip
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.text import text_embeddings as vcpclip_text
from clipad_harness.base.files import write_text
from clipad_harness.experiments.features import FeatureStore, ImageFeatures, features_of

RESULTS = REPOSITORY / "benchmarks/results/learned.json"
ARCHITECTURE = ("ViT-L-14-336-quickgelu", "random:0")
METHODS: dict[str, tuple[Any, Any]] = {
    "anomalyclip": (anomalyclip, AnomalyCLIPConfig()),
    "vcpclip": (vcpclip, VCPCLIPConfig()),
    "aprilgan": (aprilgan, APRILGANConfig()),
}
CATEGORY = "bottle"
# Ratio -> what must hold, as the issue of each method says.
TARGETS = {
    "both branches / plain tower": "<= 1.35x",
    "15 epochs, cached / encoding in every epoch": "<= 0.20x",
    "image-by-image text / batched, 32 images": ">= 8x",
    "scoring / plain tower": "<= 1.25x",
}


def turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of every side; a first turn warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = time.process_time()
            side()
            used = time.process_time() - start
            print(f"{name}: {used:.2f} CPU s", file=sys.stderr)
            if number:
                seconds[name].append(used)
    return {name: statistics.median(samples) for name, samples in seconds.items()}


def opened(method: str) -> tuple[Any, Any, Backbone, Any]:
    """Module, published config, prepared backbone and a learner with its initial values."""
    module, config = METHODS[method]
    loaded = load_backbone(*ARCHITECTURE)
    return (
        module,
        config,
        module.prepare_backbone(loaded, config),
        module.make_learner(loaded, config, 0),
    )


def pictures(count: int, size: int) -> torch.Tensor:
    """Random normalised images."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def squares(count: int, size: int) -> torch.Tensor:
    """Masks, of every other image an anomalous part."""
    masks = torch.zeros(count, size, size)
    masks[::2, 100:200, 150:260] = 1
    return masks


def step(method: str, batch: int) -> Callable[[], object]:
    """One training step on features that are there already."""
    module, config, backbone, learner = opened(method)
    encoded = module.encode(backbone, pictures(1, config.image_size), module.recipe(config))
    features = encoded[torch.zeros(batch, dtype=torch.long)]
    masks = squares(batch, config.image_size)
    labels = torch.arange(batch) % 2
    groups = module.parameter_groups(learner, config, "visa")
    optimiser = torch.optim.Adam(groups, betas=config.betas)

    def run() -> None:
        generator = torch.Generator().manual_seed(0)
        parts = module.loss(
            learner, backbone, config, features, labels, masks, generator, [CATEGORY] * batch
        )
        optimiser.zero_grad()
        parts["total"].backward()
        optimiser.step()

    return run


def measure_anomalyclip(rounds: int) -> dict[str, Any]:
    """Branch against tower; cached epochs against encoding; an epoch against its text pass."""
    module, config, backbone, learner = opened("anomalyclip")
    image, recipe = pictures(1, config.image_size), module.recipe(config)
    plain = module.recipe(config.changed({"branch": "none"}))
    tower_seconds = turns(
        {
            "plain tower": lambda: module.encode(backbone, image, plain),
            "both branches": lambda: module.encode(backbone, image, recipe),
        },
        rounds,
    )
    batch = config.batch_size

    def text_pass() -> None:
        anomalyclip_text(learner, backbone, config).sum().backward()

    steps = turns({"step": step("anomalyclip", batch), "text pass": text_pass}, rounds)
    encode, per_image = tower_seconds["both branches"], steps["step"] / batch
    cached, every = encode + config.epochs * per_image, config.epochs * (encode + per_image)
    return {
        "seconds": tower_seconds | steps,
        "ratios": {
            "both branches / plain tower": encode / tower_seconds["plain tower"],
            "15 epochs, cached / encoding in every epoch": cached / every,
            "a step / its text pass alone": steps["step"] / steps["text pass"],
        },
    }


def measure_vcpclip(rounds: int) -> dict[str, Any]:
    """Batched text against a loop over images as the released code runs it; scoring against tower."""
    module, config, backbone, learner = opened("vcpclip")
    image, recipe = pictures(1, config.image_size), module.recipe(config)
    embeddings = torch.randn(32, backbone.vision.proj.shape[1])
    whole = torch.randn(2, *backbone.text.positional_embedding.shape)

    @torch.no_grad()
    def loop() -> None:
        """Both prompts of one image after the other, all 77 places, as the released code does."""
        for _ in range(32):
            read_out(backbone.text, run_text_blocks(backbone.text, whole, {}, torch.tensor([9, 9])))

    @torch.no_grad()
    def batched() -> None:
        vcpclip_text(learner, backbone, config, embeddings)

    text = turns({"image by image": loop, "batched": batched}, rounds)

    knowledge = module.know(backbone, config, Category(CATEGORY), None, learner)

    def score() -> None:
        features = module.encode(backbone, image, recipe)
        module.detect(backbone, config, knowledge, features)

    @torch.no_grad()
    def tower() -> None:
        vision = backbone.vision
        tokens = pre_norm(vision, embed_patches(vision, image)[0])
        encode_whole(vision, tokens, (vision.depth,))

    score_seconds = turns({"plain tower": tower, "scoring": score}, rounds)
    return {
        "seconds": text | score_seconds,
        "ratios": {
            "image-by-image text / batched, 32 images": text["image by image"] / text["batched"],
            "scoring / plain tower": score_seconds["scoring"] / score_seconds["plain tower"],
        },
    }


def official_loss(
    heads: torch.nn.ModuleList,
    tokens: Iterable[torch.Tensor],
    text: torch.Tensor,
    masks: torch.Tensor,
) -> torch.Tensor:
    """A batch's loss by the steps of APRIL-GAN's official loop, written out; its code is not run.

    ByChelsea/VAND-APRIL-GAN@f13b8a6, train.py lines 112-137 and loss.py, one block after the other: its
    linear layer, tokens to unit norm, 100 times their products with both texts, both channels bilinear to
    the image's size (``align_corners``), softmax, focal loss of the pair, dice loss of the anomalous one.

    Args:
        heads: a linear layer a block.
        tokens: raw tokens of these blocks, (b, p, c).
        text: (d, 2), normal and anomalous, unit norm; as of June 2023 encoded once a class.
        masks: (b, H, W), 0 and 1.
    """
    total = torch.zeros(())
    for head, raw in zip(heads, tokens, strict=True):
        mapped = head(raw)
        mapped = mapped / mapped.norm(dim=-1, keepdim=True)
        logits = (100.0 * mapped @ text).permute(0, 2, 1)
        images, classes, patches = logits.shape
        side = math.isqrt(patches)
        grid = logits.view(images, classes, side, side)
        whole = F.interpolate(grid, size=masks.shape[-2:], mode="bilinear", align_corners=True)
        maps = torch.softmax(whole, dim=1)
        hot = torch.stack([1 - masks, masks], dim=1).clamp(1e-5, 1 - 1e-5)
        right = (hot * maps).sum(dim=1) + 1e-5
        focal = -((1 - right) ** 2 * right.log()).mean()
        found, marked = maps[:, 1].reshape(images, -1), masks.reshape(images, -1)
        both, each = (found * marked).sum(dim=1), found.sum(dim=1) + marked.sum(dim=1)
        total = total + focal + 1 - ((2 * both + 1) / (each + 1)).mean()
    return total


def official_step(batch: int) -> Callable[[], object]:
    """One step of that loop on tokens that are there already: what it does after the tower."""
    module, config, backbone, learner = opened("aprilgan")
    encoded = module.encode(backbone, pictures(1, config.image_size), module.recipe(config))
    features = encoded[torch.zeros(batch, dtype=torch.long)]
    text = module.know(backbone, config, Category(CATEGORY), None, learner).text.T
    masks = squares(batch, config.image_size)
    optimiser = torch.optim.Adam(learner.heads.parameters(), 1e-3, (0.5, 0.999))

    def run() -> None:
        loss = official_loss(learner.heads, features.patch_tokens.values(), text, masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return run


def measure_aprilgan(rounds: int) -> dict[str, Any]:
    """A training on tokens that are read from disk, as the harness reads them, against the official loop.

    That encodes every image in every epoch. The tower is ours on both sides, so that the ratio is of the
    loops; the official one's also makes the attention weights of a block for nothing. The files stay in the
    memory of the system, so no disk is waited for; what is read is checked.
    """
    module, config, backbone, _ = opened("aprilgan")
    image, recipe = pictures(1, config.image_size), module.recipe(config)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        Image.new("RGB", (config.image_size, config.image_size)).save(path)
        store = FeatureStore(Path(folder), backbone, recipe, module.encode, "benchmark")
        stored = ImageFeatures(store, [path], "benchmark")
        seconds = turns(
            {
                "encoding": lambda: module.encode(backbone, image, recipe),
                "reading": lambda: features_of(stored, recipe, [0]),
            },
            rounds,
        )
    batch = config.batch_size
    seconds |= turns({"step": step("aprilgan", batch), "official": official_step(batch)}, rounds)
    encode, per_image = seconds["encoding"], seconds["step"] / batch
    streamed = encode + config.epochs * (seconds["reading"] + per_image)
    official = encode + seconds["official"] / batch
    return {
        "seconds": seconds,
        "ratios": {
            "15 epochs, streamed / the official loop": streamed / (config.epochs * official),
            "an epoch that encodes anew / the official loop": (encode + per_image) / official,
            "a training step / the official one": seconds["step"] / seconds["official"],
            "reading an image / its part of a training step": seconds["reading"] / per_image,
        },
    }


MEASURED = {
    "anomalyclip": measure_anomalyclip,
    "vcpclip": measure_vcpclip,
    "aprilgan": measure_aprilgan,
}


def memory(method: str, workload: str) -> float:
    """Peak of a fresh process in MB: scoring a batch of 8, or one training step of it."""
    command = [sys.executable, "-m", "benchmarks.learned", "--memory", method, workload]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def run_memory(method: str, workload: str) -> None:
    """In the process of its own."""
    if workload == "step":
        work = step(method, 8)
    else:
        module, config, backbone, learner = opened(method)

        def work() -> None:
            images = pictures(8, config.image_size)
            features = module.encode(backbone, images, module.recipe(config))
            knowledge = module.know(backbone, config, Category(CATEGORY), None, learner)
            module.detect(backbone, config, knowledge, features)

    # Not ru_maxrss: it keeps the peak of the process that started this one. 5: forget the peak.
    Path("/proc/self/clear_refs").write_text("5")
    work()
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def as_markdown(result: dict[str, Any]) -> str:
    """The table of docs/speed.md."""
    lines = ["| ViT-L/14, 518 px | measured | target |", "|---|---|---|"]
    for method in filter(result.__contains__, MEASURED):
        for name, ratio in result[method]["ratios"].items():
            lines.append(f"| {method}: {name} | {ratio:.2f}x | {TARGETS.get(name, '-')} |")
        for workload, megabytes in result[method]["memory"].items():
            lines.append(f"| {method}: peak memory, {workload} of 8 | {megabytes:.0f} MB | - |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help=f"of {', '.join(MEASURED)}; none named: all")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every side (default 2)")
    parser.add_argument("--memory", nargs=2, metavar=("METHOD", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        return run_memory(*options.memory)
    about = {"cpu": cpu_name(), "python": platform.python_version(), "threads": 1}
    result: dict[str, Any] = json.loads(RESULTS.read_text())
    for method in options.methods or MEASURED:
        peaks = {workload: memory(method, workload) for workload in ("scoring", "step")}
        measured = MEASURED[method](options.rounds)
        result[method] = {**about, "rounds": options.rounds, **measured, "memory": peaks}
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    print(as_markdown(result))
    return None


if __name__ == "__main__":
    main()
