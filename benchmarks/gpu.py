"""Speed on a GPU, by precision, beside anomalib 2.7.0 and the way of the official loops.

    python -m benchmarks.gpu [--device auto] [--batch 32] [--rounds 5] [--without-peer]

Seconds are those of a clock that waits for the device; the sides of a ratio take turns and their medians
are compared. Beside every rate stands the largest difference of a map from float32's, and the share of what
one large product of matrices reaches on this device in the same precision. The official loop of AnomalyCLIP
encodes every image in every epoch, one after the other; its code is not run, that order is. Writes
benchmarks/results/gpu.json and prints a Markdown table; what was not measured is a dash.

`--small` takes the stand-in instead of ViT-L/14 and ViT-B/16+, so that the program itself can be tried on a
CPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.environment import PEER_PINS, REPOSITORY, peer_python
from benchmarks.winclip import Side, write_weights
from clipad_core.clip.backbone import AUTOCAST, Backbone, load_backbone
from clipad_core.clip.device import find_device
from clipad_core.clip.features import Features, Recipe
from clipad_core.clip.packed import packed_operations
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.method import Category, Method
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import read_profile
from clipad_harness.experiments.translation import fit

RESULTS = REPOSITORY / "benchmarks/results/gpu.json"
PRECISIONS = ("float32", "bfloat16", AUTOCAST)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, AUTOCAST: torch.float16}
Weights = tuple[str, str | Path]  # as `load_backbone` takes them: an architecture, and its weights
LARGE: Weights = ("ViT-L-14-336-quickgelu", "random:0")
# Label -> what must hold.
TARGETS = {
    "winclip": ">= 3x anomalib's rate in the same precision",
    "anomalyclip, bfloat16": ">= 50 % of the matrix peak",
    "15 epochs of anomalyclip": "<= 0.20x of the official order",
}


@dataclass(frozen=True)
class Rate:
    """How fast something is scored.

    Attributes:
        rate: images a second.
        error: the largest difference of a map from float32's.
        share: of what a large product of matrices reaches; None: not counted.
        peer: images a second of anomalib; None: not measured.
    """

    label: str
    precision: str
    rate: float
    error: float | None
    share: float | None
    peer: float | None = None


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median seconds; a first turn warms up and is not counted."""
    times = []
    for _ in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def matrix_peak(device: torch.device, precision: str, side: int, rounds: int) -> float:
    """Operations a second of one large product, as `load_backbone` has set the device."""
    matrix = torch.randn(side, side, device=device).to(DTYPES[precision])
    return 2 * side**3 / seconds(lambda: matrix @ matrix, device, rounds)


def operations(work: Callable[[], object]) -> int:
    """Operations of matrix products and attention in some work."""
    with FlopCounterMode(display=False, custom_mapping=packed_operations()) as counter:
        work()
    return int(counter.get_total_flops())


class Opened:
    """A method on the device, with random images of its input size."""

    def __init__(self, name: str, weights: Weights, precision: str, options: Any) -> None:
        self.device = find_device(options.device)
        loaded = load_backbone(*weights, precision=precision, device=self.device)
        self.method: Method = find_method(name)
        self.config = self.method.config()
        if options.small:
            self.config = fit(self.config, read_profile(REPOSITORY, "demo").weights[name].changes)
        self.config = self.config.changed({"precision": precision})
        self.backbone: Backbone = self.method.prepare(loaded, self.config)
        self.recipe: Recipe = self.method.recipe(self.config, 0)
        training, self.learner = self.method.training, None
        if training is not None:
            self.learner = training.make_learner(self.backbone, self.config, 0)
        drawn = torch.Generator().manual_seed(7)
        size = self.backbone.input_size
        pixels = torch.randn(options.batch, 3, *size, generator=drawn)
        self.pixels = pixels.to(self.device, self.backbone.dtype)
        with self.backbone.computing():
            known = self.method.know(
                self.backbone, self.config, Category("bottle"), None, self.learner
            )
        self.knowledge = known

    def encode(self) -> Features:
        with self.backbone.computing():
            return self.method.encode(self.backbone, self.pixels, self.recipe)

    @torch.no_grad()
    def score(self) -> torch.Tensor:
        features = self.encode()
        with self.backbone.computing():
            detection = self.method.detect(self.backbone, self.config, self.knowledge, features)
        return detection.anomaly_map.float().cpu()

    def steps(self) -> Callable[[], None]:
        """One step of training on features that are there already."""
        assert self.method.training is not None and self.learner is not None
        training, learner, count = self.method.training, self.learner, self.config.batch_size
        features = self.encode()[torch.zeros(count, dtype=torch.long, device=self.device)]
        masks = torch.zeros(count, *self.backbone.input_size, dtype=self.backbone.dtype)
        masks[::2, 10:30, 20:40] = 1
        masks, labels = masks.to(self.device), (torch.arange(count) % 2).to(self.device)
        groups = training.parameter_groups(learner, self.config, "visa")
        optimiser = torch.optim.Adam(groups, betas=self.config.betas, fused=True)

        def step() -> None:
            drawn = torch.Generator().manual_seed(0)
            with self.backbone.computing():
                parts = training.loss(
                    learner, self.backbone, self.config, features, labels, masks, drawn, ()
                )
            optimiser.zero_grad()
            parts["total"].backward()
            optimiser.step()

        return step


def scoring(name: str, weights: Weights, options: Any) -> list[Rate]:
    """Images a second of a method in every precision."""
    exact = Opened(name, weights, PRECISIONS[0], options)
    # Counted once: they are the same in every precision.
    count, exact_map, rates = operations(exact.score), exact.score(), []
    for precision in options.precisions:
        opened = Opened(name, weights, precision, options)
        took = seconds(opened.score, opened.device, options.rounds)
        peak = matrix_peak(opened.device, precision, options.side, options.rounds)
        error = float((opened.score() - exact_map).abs().max())
        rates.append(Rate(name, precision, options.batch / took, error, count / took / peak))
        print(rates[-1], file=sys.stderr, flush=True)
    return rates


def training(weights: Weights, options: Any) -> dict[str, float]:
    """All epochs of AnomalyCLIP's training on one image: features kept against encoded in every epoch."""
    opened = Opened("anomalyclip", weights, "float32", options)
    step = seconds(opened.steps(), opened.device, options.rounds) / opened.config.batch_size
    together = seconds(opened.encode, opened.device, options.rounds) / options.batch
    opened.pixels = opened.pixels[:1]
    alone = seconds(opened.encode, opened.device, options.rounds)
    epochs = opened.config.epochs
    return {
        "epochs": epochs,
        "kept": together + epochs * step,
        "official order": epochs * (alone + step),
        "a step": step * opened.config.batch_size,
    }


def windows(options: Any) -> list[Rate]:
    """WinCLIP with and without references, side by side with anomalib where it is asked for."""
    write_weights()
    peer = None if options.without_peer else peer_python()
    rates = []
    for precision in options.precisions:
        pythons = {"ours": Path(sys.executable)} | ({"anomalib": peer} if peer else {})
        names = {"ours": f"ours_{precision}", "anomalib": f"anomalib_{precision}"}
        sides = {s: Side(p, names[s], options.device) for s, p in pythons.items()}
        for k_shot in (0, 4):
            times: dict[str, list[float]] = {side: [] for side in sides}
            for side in sides.values():
                side.ask("set_up", name="metal_nut")
                side.ask("refer", k_shot=k_shot)
            for turn in range(options.rounds + 1):
                for label, side in sides.items():
                    answer = side.ask("detect", batch=options.batch)
                    if turn:
                        times[label].append(options.batch / answer["clock"])
            of_peer = statistics.median(times["anomalib"]) if peer else None
            ours = statistics.median(times["ours"])
            rates.append(Rate(f"winclip, {k_shot}-shot", precision, ours, None, None, of_peer))
        for side in sides.values():
            side.close()
    return rates


def as_markdown(result: dict[str, Any]) -> str:
    """The table of the README."""
    lines = [
        f"| {result['device']}, batch {result['batch']} | images/s | anomalib | ratio | error | share |",
        "|---|---|---|---|---|---|",
    ]
    for entry in result["rates"]:
        rate = Rate(**entry)
        peer = "-" if rate.peer is None else f"{rate.peer:.1f}"
        ratio = "-" if rate.peer is None else f"{rate.rate / rate.peer:.1f}x"
        error = "-" if rate.error is None else f"{rate.error:.0e}"
        share = "-" if rate.share is None else f"{rate.share:.0%}"
        cells = [f"{rate.label}, {rate.precision}", f"{rate.rate:.1f}", peer, ratio, error, share]
        lines.append(f"| {' | '.join(cells)} |")
    trained = result["training"]
    ratio = trained["kept"] / trained["official order"]
    lines.append(
        f"\nAnomalyCLIP, {trained['epochs']} epochs: {ratio:.2f}x of the time of the official order; a step "
        f"of a batch takes {trained['a step']:.3f} s."
    )
    lines += [f"Target, {label}: {target}." for label, target in TARGETS.items()]
    return "\n".join(lines)


def device_name(device: torch.device) -> str:
    """What a table calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def measure(options: Any) -> dict[str, Any]:
    """Run everything."""
    find_device(options.device)  # before anything is installed or drawn
    tiny = REPOSITORY / "data/weights/clipad-tiny.safetensors"
    weights: Weights = ("clipad-tiny", tiny) if options.small else LARGE
    rates = scoring("winclip", weights, options) if options.small else windows(options)
    for name in ("anomalyclip", "vcpclip"):
        rates += scoring(name, weights, options)
    return {
        "device": device_name(find_device(options.device)),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peer": [] if options.without_peer or options.small else list(PEER_PINS),
        "batch": options.batch,
        "rounds": options.rounds,
        "rates": [asdict(rate) for rate in rates],
        "training": training(weights, options),
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="turns of every side (default 5)")
    parser.add_argument("--side", type=int, default=8192, help="of the product that is the peak")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--without-peer", action="store_true", help="do not install anomalib")
    parser.add_argument("--small", action="store_true", help="the stand-in, to try the program")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(words)
    result = measure(options)
    write_text(options.out, json.dumps(result, indent=1) + "\n")
    print(as_markdown(result))


if __name__ == "__main__":
    try:
        main()
    except ClipadError as error:
        sys.exit(str(error))
