"""The published architectures at their published sizes, with random weights, on real photos.

No weights are at hand here, so no number means anything; what is shown is that the paper profile runs
from photos to a results table. A photo through ViT-L/14 at 518 pixels takes a core many seconds, so
these tests are left out unless asked for: ``./repro test -m slow``.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from project import LEARNED, settings, write_settings

from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline
from clipad_harness.report.method import comparable, matching, summarise

pytestmark = pytest.mark.slow
# Per dataset: folder of the category -> photos to copy.
PHOTOS = {
    "mvtec/bottle": {"train/good": 2, "test/good": 1, "test/broken_large": 1},
    "hazelnut_toy/hazelnut": {"train/good": 1, "test/good": 1, "test/colour": 1},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = Path(os.environ.get("CLIPAD_DATA", ""))
    if not all((data / name).is_dir() for name in PHOTOS):
        pytest.skip("CLIPAD_DATA does not name a folder with mvtec/bottle and hazelnut_toy")
    folder = tmp_path_factory.mktemp("paper")
    for name, parts in PHOTOS.items():
        for part, count in parts.items():
            source, target = data / name / part, folder / "data" / name / part
            target.mkdir(parents=True)
            for path in sorted(source.iterdir())[:count]:
                shutil.copy(path, target)
                mask = source.parent.parent / "ground_truth" / source.name
                for mask_path in mask.glob(f"{path.stem}*"):
                    (folder / "data" / name / "ground_truth" / source.name).mkdir(
                        parents=True, exist_ok=True
                    )
                    shutil.copy(mask_path, folder / "data" / name / "ground_truth" / source.name)
    params = settings()
    paper = params["profiles"]["paper"]
    paper |= {"data_root": str(folder / "data"), "categories": ["bottle"]}
    for method in ("winclip", *LEARNED):
        paper[method]["weights"] = "random:0"
    params["profile"] = "paper"
    params["winclip"] |= {"ablations": {}, "walks": []}
    for method in LEARNED:
        params[method] |= {"ablations": {}, "walks": []}
        params[method]["auxiliary"] = {"others": "hazelnut_toy"}
    params["vcpclip"]["changes"]["augmentation"] = "none"
    write_settings(folder, params)
    return folder


def check(results: pd.DataFrame, label: str) -> None:
    """A whole table, labelled as random, of a map that is neither constant nor broken."""
    assert set(results["dataset"]) == {"mvtec"} and set(results["category"]) == {"bottle"}
    assert results["value"].between(0, 1).all() and results["value"].notna().all()
    assert all(
        "random weights" in backbone and label in backbone for backbone in results["backbone"]
    )


def test_winclip_runs_on_photos_and_says_what_it_is_not(project: Path) -> None:
    write_index(project)
    pipeline.measure(project, "winclip")
    results = pipeline.read_results(project, "winclip")
    check(results, "ViT-B-16-plus-240")
    assert set(results["k_shot"]) == {0, 1}
    scorer = pipeline.open_run(project, "winclip").scorer()
    assert comparable(scorer) == (False, "this run uses random weights, not the published ones")
    summary = summarise(scorer, matching(scorer, results))
    assert "14 of the 15 categories are not run" in " ".join(summary.missing)


@pytest.mark.parametrize("method", LEARNED)
def test_a_method_that_learns_trains_and_scores_photos_at_518_pixels(
    project: Path, method: str
) -> None:
    pipeline.train(project, method)
    pipeline.measure(project, method)
    results = pipeline.read_results(project, method)
    check(results, "ViT-L-14-336-quickgelu")
    run = pipeline.open_run(project, method)
    assert (run.variants[0].trained_on, run.variants[0].config.image_size) == ("hazelnut_toy", 518)
    curve = pd.read_csv(project / "reports/results" / method / "training.csv")
    assert curve["value"].notna().all()
