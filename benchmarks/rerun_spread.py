"""How far WinCLIP's numbers move between settings of the CPU libraries, by precision.

    python -m benchmarks.rerun_spread [CATEGORIES]

Every setting of `clipad_harness.verify.cpu_settings`, and one below AVX2, scores some images of
some categories (three, evenly spread) of the drawn dataset zero-shot and with one reference, each
in a process and with a feature cache of its own. Printed, and written to
benchmarks/results/rerun_spread.json: the largest difference
from the first setting of the same precision, and from float64. These are the figures in the column
`measured` of data/tolerances_rerun.csv. Methods that train are not measured here: their tolerance follows
from the spread over their seeds.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from benchmarks.environment import REPOSITORY
from clipad_core.clip.backbone import PRECISIONS
from clipad_harness.base.files import write_text
from clipad_harness.experiments.pipeline import open_run
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import Shard
from clipad_harness.verify.cpu_settings import Setting, all_settings

RESULTS = REPOSITORY / "benchmarks/results/rerun_spread.json"
IMAGES = 4  # of every defect of a category, and as many normal ones
BELOW = Setting("below AVX2", "torch without AVX", {"ATEN_CPU_CAPABILITY": "default"})


def score(precision: str, categories: int, folder: Path) -> None:
    """In a process of its own: score, and leave features, scores and metrics in `folder`."""
    run = open_run(REPOSITORY)
    main = run.variants[0]
    main = replace(main, config=main.config.changed({"precision": precision}))
    index = run.index.groupby(["category", "split", "defect"], sort=False).head(IMAGES)
    scorer = Scorer(run.profile, index, run.data, folder, [main])
    numbers: dict[str, np.ndarray] = {}
    for place in range(categories):
        category = run.categories[place * len(run.categories) // categories]
        for k_shot in (0, 1):
            shard = Shard(main, category, k_shot, 0)
            detections, name = scorer.detect(shard), f"{category}, {k_shot}-shot"
            numbers[f"scores/image/{name}"] = detections.image_scores
            numbers[f"scores/maps/{name}"] = np.stack(detections.maps)
            for metric, value in scorer.measure(shard).items():
                numbers[f"metrics/{metric}/{name}"] = np.array(value)
    for entry in folder.rglob("*.safetensors"):
        for tensor, values in load_file(entry).items():
            numbers[f"features/value/{entry.stem}/{tensor}"] = values.double().numpy()
    np.savez(folder / "numbers.npz", **numbers)


def measured(precision: str, setting: Setting, categories: int) -> dict[str, np.ndarray]:
    """The numbers of one precision under one setting."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.rerun_spread"]
        subprocess.run(
            [*command, precision, str(categories), folder],
            cwd=REPOSITORY,
            env={**os.environ, **setting.environment},
            check=True,
        )
        with np.load(Path(folder) / "numbers.npz") as numbers:
            return dict(numbers)


def gaps(
    reference: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The largest difference by level and metric, of what both have."""
    largest: dict[str, float] = {}
    for name in reference.keys() & numbers.keys():
        quantity = "/".join(name.split("/")[:2])
        gap = float(np.nanmax(np.abs(reference[name] - numbers[name]), initial=0.0))
        largest[quantity] = max(gap, largest.get(quantity, 0.0))
    return dict(sorted(largest.items()))


def main(categories: int) -> None:
    """Measure, print, write."""
    settings, rows = [*all_settings(), BELOW], []
    exact: dict[str, np.ndarray] = {}
    for precision in PRECISIONS:
        first: dict[str, np.ndarray] = {}
        for setting in settings:
            numbers = measured(precision, setting, categories)
            first, exact = first or numbers, exact or numbers
            rows.append(
                {
                    "precision": precision,
                    "setting": setting.name,
                    "from the first": gaps(first, numbers),
                    "from float64": gaps(exact, numbers),
                }
            )
            print(precision, setting.name, flush=True)
            for baseline in ("from the first", "from float64"):
                print(
                    f"  {baseline}:", {k: float(f"{v:.2g}") for k, v in rows[-1][baseline].items()}
                )
    write_text(RESULTS, json.dumps({"categories": categories, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        score(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
