"""One side of the metrics benchmark, measured in a process of its own.

Run by `benchmarks.metrics` as `python -m benchmarks.metrics_sides <side> <folder>`, with the
interpreter that has the side's libraries. Prints one JSON line: CPU seconds of the call, peak
memory of the process before and after it, and the values it gave.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

N_IMAGES = 83  # MVTec AD bottle: 20 normal and 63 anomalous test images
N_NORMAL = 20
GRID_PER_SIZE = {240: 15, 518: 37}  # the patch grids of ViT-B-16-plus-240 and ViT-L/14 at 518
Side = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps as a patch grid gives them, upsampled bilinearly, and masks with up to three discs."""
    from scipy import ndimage

    random = np.random.default_rng(size)
    grid = GRID_PER_SIZE[size]
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    maps = np.empty((N_IMAGES, size, size), np.float32)
    masks = np.zeros((N_IMAGES, size, size), np.uint8)
    for i in range(N_IMAGES):
        for _ in range(0 if i < N_NORMAL else random.integers(1, 4)):
            center_y, center_x, radius = random.random(3)
            inside = np.hypot(y - center_y, x - center_x) < 0.03 + 0.1 * radius
            masks[i] |= inside | (np.hypot(y - 0.5, x - center_x) < 0.02)
        noise = random.random((grid, grid), dtype=np.float32)
        response = ndimage.zoom(masks[i].astype(np.float32), grid / size, order=1)
        maps[i] = ndimage.zoom(0.6 * noise + 0.4 * response, size / grid, order=1)
    return maps, masks


def clipad_four(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """This project: four pixel metrics."""
    from clipad_core.metrics.metrics import pixel_metrics

    return pixel_metrics(maps, masks)


def clipad_cflow200(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """This project: AUPRO with 200 thresholds."""
    from clipad_core.metrics.metrics import aupro

    return {"aupro": aupro(maps, masks, "cflow200")}


def anomalib_four(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """The classes that compute behind anomalib's AUROC, AUPR, F1Max and AUPRO."""
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.f1_score import _F1Max

    values = {}
    named = {"pixel_auroc": _AUROC, "pixel_ap": _AUPR, "pixel_f1max": _F1Max, "aupro": _AUPRO}
    for name, kind in named.items():
        metric = kind()
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
        values[name] = float(metric.compute())
    return values


def sklearn_three(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """scikit-learn's three calls for AUROC, average precision and F1-max."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    labels, scores = masks.ravel(), maps.ravel()
    values = {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "pixel_ap": float(average_precision_score(labels, scores)),
    }
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return values | {"pixel_f1max": float(f1.max())}


def loop_cflow200(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """The 200 passes of the definition, regions found anew in each as published code does."""
    return {"aupro": _loop(maps, masks, label_once=False)}


def loop_cflow200_labelled_once(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """The same 200 passes with the regions found once: what a careful loop costs."""
    return {"aupro": _loop(maps, masks, label_once=True)}


def _loop(maps: np.ndarray, masks: np.ndarray, label_once: bool) -> float:
    from skimage import measure

    def regions_of_all() -> list[list[np.ndarray]]:
        return [[r.coords for r in measure.regionprops(measure.label(mask))] for mask in masks]

    regions = regions_of_all()
    background = masks == 0
    rates, overlaps = [], []
    lowest, highest = maps.min(), maps.max()
    for threshold in np.arange(lowest, highest, (highest - lowest) / 200):
        predicted = maps > threshold
        if not label_once:
            regions = regions_of_all()
        covered = [
            image[at[:, 0], at[:, 1]].mean()
            for image, own in zip(predicted, regions, strict=True)
            for at in own
        ]
        overlaps.append(np.mean(covered))
        rates.append(np.logical_and(background, predicted).sum() / background.sum())
    rate, overlap = np.array(rates), np.array(overlaps)
    rate, overlap = rate[rate < 0.3][::-1], overlap[rate < 0.3][::-1]
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    return float(np.dot(np.diff(rate), overlap[1:] + overlap[:-1]) / 2)


SIDES: dict[str, Side] = {
    side.__name__: side
    for side in (
        clipad_four,
        clipad_cflow200,
        anomalib_four,
        sklearn_three,
        loop_cflow200,
        loop_cflow200_labelled_once,
    )
}


def peak_megabytes() -> float:
    """Peak resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure_side(side: Side, folder: Path) -> dict:
    """Load the maps, warm up on three of them, then measure one call on all."""
    maps, masks = np.load(folder / "maps.npy"), np.load(folder / "masks.npy")
    side(maps[N_NORMAL - 1 : N_NORMAL + 2], masks[N_NORMAL - 1 : N_NORMAL + 2])
    before = peak_megabytes()
    start = time.process_time()
    values = side(maps, masks)
    seconds = time.process_time() - start
    memory = {"megabytes_before": before, "megabytes": peak_megabytes()}
    return {"seconds": seconds, "values": values, **memory}


if __name__ == "__main__":
    chosen, place = sys.argv[1], Path(sys.argv[2])
    if chosen == "draw":
        place.mkdir(parents=True, exist_ok=True)
        for name, array in zip(("maps", "masks"), draw(int(place.name)), strict=True):
            np.save(place / f"{name}.npy", array)
    else:
        print(json.dumps(measure_side(SIDES[chosen], place)))
