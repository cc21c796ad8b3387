"""One side of benchmarks/winclip.py and gpu.py: a process that answers one JSON request a line.

Runs in either environment: `ours_PRECISION` here, `anomalib` in the peer's own; `anomalib_PRECISION` runs
it as its trainer does there, under autocast. All hold the same seeded random ViT-B-16-plus-240, and read
the same image tensors.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the peer's environment lacks clipad
    from contextlib import AbstractContextManager

    from torch import Tensor

    from clipad_core.clip.features import Features
    from clipad_core.methods.winclip.scoring import ReferenceMemory

ARCHITECTURE = "ViT-B-16-plus-240"


def images(count: int, seed: int) -> Tensor:
    """Normalised images at the model's size, the same in both environments."""
    import torch

    return torch.randn(count, 3, 240, 240, generator=torch.Generator().manual_seed(seed))


class Clipad:
    """The detector on tensors: preprocessing is left out on both sides."""

    text: Tensor  # of the category that was set up last

    def __init__(self, weights: Path, precision: str, device: str) -> None:
        from clipad_core.clip.backbone import load_backbone
        from clipad_core.methods.winclip.config import find_preset

        self.backbone = load_backbone(ARCHITECTURE, weights, precision=precision, device=device)
        self.config = find_preset("anomalib")
        self.memory: ReferenceMemory | None = None

    def set_up(self, name: str) -> None:
        from clipad_core.methods.method import Category
        from clipad_core.methods.winclip.detector import prototypes

        with self.backbone.computing():
            self.text = prototypes(self.backbone, self.config, Category(name))

    def forget(self) -> None:
        """A tower without the beginnings of prompts it has read."""
        from dataclasses import replace

        self.backbone = replace(self.backbone, text=replace(self.backbone.text))

    def _encode(self, batch: Tensor, k_shot: int) -> Features:
        from clipad_core.methods.winclip.detector import encode, image_recipe

        batch = batch.to(self.backbone.device)
        with self.backbone.computing():
            features = encode(self.backbone, batch, image_recipe(self.config, k_shot))
        return features.widened(self.backbone.dtype)

    def refer(self, k_shot: int) -> None:
        from clipad_core.methods.winclip.scoring import build_memory

        self.memory = None
        if k_shot:
            features = self._encode(images(k_shot, seed=99), k_shot)
            with self.backbone.computing():
                self.memory = build_memory(self.backbone.vision, features, self.config)

    def detect(self, batch: Tensor) -> list[float]:
        from clipad_core.maps import upsample
        from clipad_core.methods.winclip.scoring import score

        features = self._encode(batch, int(self.memory is not None))
        with self.backbone.computing():
            scores = score(self.backbone, features, self.text, self.config, self.memory)
        maps = upsample(scores.patch_scores, (240, 240))
        return [*scores.image_score.tolist(), *maps.amax(dim=(1, 2)).tolist()]


class Anomalib:
    """anomalib's own model, with the same weights instead of the published ones."""

    def __init__(self, weights: Path, precision: str, device: str) -> None:
        import open_clip
        import torch
        from anomalib.models.image.winclip import torch_model
        from safetensors.torch import load_file

        create = open_clip.create_model_and_transforms

        def without_download(name: str, **_options: object) -> tuple[Any, Any, Any]:
            model, train, evaluate = create(name, pretrained=None)
            model.load_state_dict(load_file(weights), strict=False)
            return model, train, evaluate

        torch_model.open_clip.create_model_and_transforms = without_download
        self.torch = torch
        self.device = torch.device("cuda" if device == "auto" else device)
        self.half = {"bfloat16": torch.bfloat16, "float16_autocast": torch.float16}.get(precision)
        self.model = torch_model.WinClipModel().eval().to(self.device)

    def computing(self) -> AbstractContextManager[None]:
        """As its trainer runs it: under autocast where half precision is asked for."""
        return self.torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def set_up(self, name: str) -> None:
        with self.torch.no_grad(), self.computing():
            self.model.setup(name)

    def forget(self) -> None:
        """It keeps nothing between classes."""

    def refer(self, k_shot: int) -> None:
        self.model.k_shot = 0
        if k_shot:
            with self.torch.no_grad(), self.computing():
                self.model.reference_images = None
                self.model.class_name = None
                self.model.setup(None, images(k_shot, seed=99).to(self.device))

    def detect(self, batch: Tensor) -> list[float]:
        with self.torch.no_grad(), self.computing():
            prediction = self.model(batch.to(self.device))
        return [*prediction.pred_score.tolist(), *prediction.anomaly_map.amax(dim=(1, 2)).tolist()]


def variants_cost(side: Clipad, count: int) -> dict[str, float]:
    """CPU seconds of scoring ``count`` images once, and of nine further variants of it.

    The features of one image stand for each of them: what a variant costs beyond the encoding does
    not depend on what they hold.
    """
    from dataclasses import replace

    from clipad_core.clip.features import Features
    from clipad_core.methods.method import Category
    from clipad_core.methods.winclip.detector import prototypes
    from clipad_core.methods.winclip.scoring import score

    def repeated(features: Features) -> Features:
        return Features(
            features.image_embedding.repeat(count, 1),
            {b: t.repeat(count, 1, 1) for b, t in features.patch_tokens.items()},
            {s: w.repeat(count, 1, 1) for s, w in features.window_embeddings.items()},
        )

    repeated_features = repeated(side._encode(images(1, seed=5), 1))
    base = side.config
    variants = [
        base,
        replace(base, prompts="full22_dot"),
        replace(base, prompts="full22_nodot"),
        replace(base, prompts="states_only"),
        replace(base, prompts="two_class"),
        replace(base, temperature=0.01),
        replace(base, text_average="norm_mean"),
        replace(base, map_fusion="harmonic"),
        replace(base, scales=(2,)),
        replace(base, window_aggregation="arithmetic"),
    ]
    seconds = []
    for config in variants:
        start = time.process_time()
        text = prototypes(side.backbone, config, Category("transistor"))
        score(side.backbone, repeated_features, text, config, side.memory)
        seconds.append(time.process_time() - start)
    return {"first": seconds[0], "others": sum(seconds[1:])}


def answer(side: Clipad | Anomalib, request: dict[str, Any]) -> dict[str, Any]:
    """Do one request and time it in CPU seconds of this process."""
    action = request["do"]
    batch = images(request.get("batch", 0), seed=7)
    start, clock = time.process_time(), time.perf_counter()
    values: object = None
    if action == "set_up":
        side.set_up(request["name"])
    elif action == "forget":
        side.forget()
    elif action == "refer":
        side.refer(request["k_shot"])
    elif action == "variants":
        assert isinstance(side, Clipad)
        values = variants_cost(side, request["batch_of"])
    else:
        values = side.detect(batch)
    # Values are numbers of the CPU, so that the device has finished.
    seconds, clock = time.process_time() - start, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "clock": clock, "megabytes": peak, "values": values}


def main() -> None:
    name, weights, threads, device = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    import torch

    torch.set_num_threads(threads)
    whose, _, precision = name.partition("_")
    kind = Anomalib if whose == "anomalib" else Clipad
    side = kind(weights, precision or "float32", device)
    print(json.dumps({"ready": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(side, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
