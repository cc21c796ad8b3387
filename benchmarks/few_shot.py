"""PaDiM and PatchCore with a few normal images, by anomalib: the rows that WinCLIP+ is compared with.

    python -m benchmarks.few_shot                      # the profile's dataset, 1, 2 and 4 references
    python -m benchmarks.few_shot --weights random     # no download: shows that it runs, nothing else

anomalib runs in an environment of its own, with its own defaults and weights of ImageNet, which it
downloads. It sees the very references that WinCLIP+ sees for the same seed, and its maps are measured
like all others. WinCLIP's tables have these rows by other code with settings that are not printed, and
SPADE, which anomalib does not have. Writes reports/results/few_shot_baselines.csv.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.environment import PEER_PINS, REPOSITORY, peer_python
from clipad_core.clip.device import find_device
from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import read_profile
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.stages import open_data
from clipad_harness.experiments.results import COLUMNS
from clipad_harness.experiments.shards import CategoryScores, measure
from clipad_harness.papers.verdicts import MEAN, measured
from clipad_harness.report.tables import percent
from clipad_harness.report.tables_as_printed import BASELINES

TITLES = {"padim": "PaDiM", "patchcore": "PatchCore"}
SIDE = Path(__file__).with_name("few_shot_side.py")


class Side:
    """The process of anomalib's environment."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.read()

    def read(self) -> dict[str, Any]:
        """Its next line.

        Raises:
            ClipadError: it said that something went wrong, or it has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in said:
            raise ClipadError(
                f"anomalib: found {said['error'][:400]}, expected scores; its weights of ImageNet are "
                "downloaded at the first run, which needs the network."
            )
        return said

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer to a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.read()


@contextmanager
def side(python: Path, device: str) -> Iterator[Side]:
    """Start anomalib's process, and end it."""
    words = [str(python), str(SIDE), device]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        yield Side(process)


def scored(
    images: DatasetImages, category: str, predictions: Mapping[str, np.ndarray]
) -> CategoryScores:
    """What anomalib says of a category's test images, as what a method of clipad says of them."""
    rows, maps = images.rows(category, "test"), list(predictions["maps"])
    return CategoryScores(
        rows, predictions["scores"], maps, images.masks(rows, maps, "nearest"), []
    )


def measure_all(
    engine: Side,
    images: DatasetImages,
    dataset: str,
    models: Sequence[str],
    k_shots: Sequence[int],
    seeds: Sequence[int],
    weights: str,
    device: str,
) -> pd.DataFrame:
    """A row a model, category, number of references, seed and metric: the columns of all results."""
    places = [
        (model, category, k_shot, seed)
        for model in models
        for category in images.categories
        for k_shot in k_shots
        for seed in seeds
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model, category, k_shot, seed in tqdm(places, unit="run"):
            file = Path(folder) / "predictions.npz"
            references = images.references(category, k_shot, seed, "seeded")
            request = {
                "model": model,
                "weights": weights,
                "seed": seed,
                "references": [str(path) for path in references],
                "images": [str(path) for path in images.paths(category, "test")],
                "file": str(file),
            }
            said = engine.ask(request)
            with np.load(file) as opened:
                predictions = dict(opened)
            if not all(np.isfinite(values).all() for values in predictions.values()):
                tqdm.write(f"{TITLES[model]}, {category}, {k_shot}-shot: not defined, left out")
                continue
            label = f"{said['backbone']} / {weights} ({PEER_PINS[0]})"
            head = (TITLES[model], f"{k_shot}-shot", label, "float32", device, dataset, category)
            found = measure(
                scored(images, category, predictions), images.has_masks(category), "exact", 0.3
            )
            rows += [(*head, k_shot, seed, name, value, "") for name, value in found.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def table(results: pd.DataFrame) -> str:
    """Means over categories, per cent, mean and deviation over seeds, as Markdown."""
    metrics = [name for name in METRIC_LABELS if name in set(results["metric"])]
    lines = ["| method | " + " | ".join(METRIC_LABELS[name] for name in metrics) + " |"]
    lines += ["|---|" + "---|" * len(metrics)]
    for (method, k_shot), found in results.groupby(["method", "k_shot"], sort=False):
        means = {row["metric"]: row for row in measured(found) if row["category"] == MEAN}
        cells = []
        for name in metrics:
            mean, std = means[name]["ours_mean"], means[name]["ours_std_of_mean"]
            cells.append(percent(mean) + ("" if math.isnan(std) else f" ± {percent(std)}"))
        lines.append(f"| {method}, {k_shot}-shot | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--k-shots", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    parser.add_argument("--device", default="auto", help="as in params.yaml")
    parser.add_argument("--profile", help="another one than that of params.yaml")
    parser.add_argument("--dataset", help="another one than the profile's")
    parser.add_argument("--categories", nargs="+", help="some of its categories")
    parser.add_argument("--out", type=Path, default=REPOSITORY / BASELINES)
    options = parser.parse_args()
    profile = read_profile(REPOSITORY, options.profile, options.dataset, options.categories)
    data, index = open_data(REPOSITORY, profile)
    device = str(find_device(options.device))
    with side(peer_python(), device) as engine:
        results = measure_all(
            engine,
            DatasetImages(index, data),
            profile.dataset,
            options.models,
            options.k_shots,
            options.seeds,
            options.weights,
            device,
        )
    write_text(options.out, results.to_csv(index=False, lineterminator="\n"))
    print(table(results))


if __name__ == "__main__":
    try:
        main()
    except ClipadError as error:
        sys.exit(str(error))
