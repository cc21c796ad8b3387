"""How far WinCLIP's numbers move between settings of the CPU libraries, by precision.

    python -m benchmarks.rerun_spread [CATEGORIES] [--precisions float32 bfloat16]

Every setting of `clipad_harness.verify.cpu_settings`, and one below AVX2, scores some images of
some categories (three, evenly spread) of the drawn dataset zero-shot and with one reference, each
in a process and with a feature cache of its own. Printed, and written to
benchmarks/results/rerun_spread.json: the largest difference
from the first setting of the same precision, and from float64. These are the figures in the column
`measured` of data/tolerances_rerun.csv. Methods that train are not measured here: their tolerance follows
from the spread over their seeds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch

from benchmarks.environment import REPOSITORY
from clipad_core.clip.backbone import PRECISIONS
from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import find_root
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments.pipeline import Run, open_run
from clipad_harness.experiments.shards import measure, measured_on
from clipad_harness.experiments.variants import Shard
from clipad_harness.verify.cpu_settings import Setting, all_settings

RESULTS = REPOSITORY / "benchmarks/results/rerun_spread.json"
IMAGES = 4  # of every defect of a category, and as many normal ones
BELOW = Setting("below AVX2", "torch without AVX", {"ATEN_CPU_CAPABILITY": "default"})
EXACT = "float64"


def demo() -> Run:
    """WinCLIP with the stand-in on the drawn dataset, whatever profile the project runs."""
    return open_run(find_root(REPOSITORY), "winclip", {"profile": "demo"})


def score(precision: str, categories: int, folder: Path) -> dict[str, np.ndarray]:
    """Features, scores and metrics by name; features are kept in `folder` and read from there."""
    run = demo()
    main = run.variants[0]
    main = replace(main, config=main.config.changed({"precision": precision}))
    index = run.index.groupby(["category", "split", "defect"], sort=False).head(IMAGES)
    images = DatasetImages(index, run.data)
    scorer = replace(run, variants=[main], datasets={main.tested_on: images}).scorer()
    scorer.encodings.folder = folder
    numbers: dict[str, np.ndarray] = {}
    for category in measured_on("the spread", images.categories, categories):
        for k_shot in (0, 1):
            scored = scorer.detect(Shard(main, category, k_shot, 0))
            name = f"{category}, {k_shot}-shot"
            numbers[f"scores/image/{name}"] = scored.image_scores
            numbers[f"scores/maps/{name}"] = np.stack(scored.maps)
            values = measure(scored, images.has_masks(category), main.aupro, main.fpr_limit)
            for metric, value in values.items():
                numbers[f"metrics/{metric}/{name}"] = np.array(value)
    for entry in folder.rglob("*.safetensors"):
        for tensor, kept in safetensors.torch.load_file(entry).items():
            numbers[f"features/value/{entry.stem}/{tensor}"] = kept.double().numpy()
    return numbers


def score_apart(precision: str, setting: Setting, categories: int) -> dict[str, np.ndarray]:
    """The numbers of one precision under one setting, which a process of its own starts with."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "numbers.safetensors"
        words = [str(categories), "--precisions", precision]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.rerun_spread", *words, "--numbers", numbers],
            cwd=REPOSITORY,
            env={**os.environ, **setting.environment},
            check=False,
        )
        if done.returncode:
            raise ClipadError(
                f"{precision}, setting {setting.name!r}: found exit code {done.returncode}, expected "
                "numbers; what stopped it is said above."
            )
        return safetensors.numpy.load_file(numbers)


def gaps(
    reference: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The largest difference by level and metric, of what both have; nan where one alone is undefined."""
    largest: dict[str, float] = {}
    for name in reference.keys() & numbers.keys():
        quantity = "/".join(name.split("/")[:2])
        one, other = reference[name], numbers[name]
        defined = ~(np.isnan(one) & np.isnan(other))
        gap = np.max(np.abs(one - other), where=defined, initial=largest.get(quantity, 0.0))
        largest[quantity] = float(gap)
    return dict(sorted(largest.items()))


def spread(
    precisions: Sequence[str], settings: Sequence[Setting], categories: int
) -> list[dict[str, object]]:
    """A row a precision and setting: differences from the first setting and from float64's first."""
    exact: dict[str, np.ndarray] = {}
    rows: list[dict[str, object]] = []
    for precision in precisions:
        first: dict[str, np.ndarray] = {}
        for setting in settings:
            numbers = score_apart(precision, setting, categories)
            first, exact = first or numbers, exact or numbers
            differences = {
                "from the first": gaps(first, numbers),
                "from float64": gaps(exact, numbers),
            }
            rows.append({"precision": precision, "setting": setting.name, **differences})
            print(precision, setting.name, flush=True)
            for baseline, largest in differences.items():
                print(f"  {baseline}:", {k: float(f"{v:.2g}") for k, v in largest.items()})
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("categories", nargs="?", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--numbers", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.numbers:
        with tempfile.TemporaryDirectory() as folder:
            [precision] = options.precisions
            numbers = score(precision, options.categories, Path(folder))
            return safetensors.numpy.save_file(numbers, options.numbers)
    most = len(demo().categories)
    if not 1 <= options.categories <= most:
        parser.error(f"found {options.categories} categories, expected 1 to {most}.")
    precisions = list(dict.fromkeys([EXACT, *options.precisions]))
    settings = [*all_settings(), BELOW]
    rows = spread(precisions, settings, options.categories)
    result = {"categories": options.categories, "rows": rows}
    write_text(options.out, json.dumps(result, indent=1) + "\n")
    return None


if __name__ == "__main__":
    try:
        main()
    except ClipadError as error:
        sys.exit(str(error))
