"""anomalib's side of benchmarks/few_shot.py: a process of its environment, one JSON request a line.

A request names a model, normal reference images and test images; the answer is the name of a file with
their scores and maps, made by anomalib's own classes with their own defaults: layers, coreset,
preprocessing.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WEIGHTS = {"imagenet": True, "random": False}


def prepared(name: str, pre_trained: bool, device: torch.device) -> tuple[Any, Any]:
    """A model of anomalib, and what an image goes through before it."""
    from anomalib.models import Padim, Patchcore

    options = {"pre_trained": pre_trained, "evaluator": False, "visualizer": False}
    model = {"padim": Padim, "patchcore": Patchcore}[name](**options).to(device)
    return model, model.pre_processor.transform


def answer(request: dict[str, Any], device: torch.device) -> dict[str, str]:
    """Fit a model to the references, score the test images, write both down."""
    import numpy as np
    import torch
    from anomalib.data.utils import read_image

    torch.manual_seed(request["seed"])
    model, transform = prepared(request["model"], WEIGHTS[request["weights"]], device)

    def predict(path: str) -> Any:
        image = transform(read_image(path, as_tensor=True))
        with torch.no_grad():
            return model.model(image[None].to(device))

    model.train()
    for path in request["references"]:
        predict(path)
    model.fit()
    model.eval()
    predictions = [predict(path) for path in request["images"]]
    scores = torch.cat([part.pred_score.flatten() for part in predictions])
    maps = torch.cat([part.anomaly_map.flatten(0, -3) for part in predictions])
    np.savez(request["file"], scores=scores.cpu().numpy(), maps=maps.cpu().numpy())
    return {"backbone": str(model.model.backbone)}


def main() -> None:
    import torch

    device = torch.device(sys.argv[1])
    print(json.dumps({"ready": torch.__version__}), flush=True)
    for line in sys.stdin:
        try:
            said = answer(json.loads(line), device)
        except Exception as error:  # told, not raised: the other side has the message to write
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
