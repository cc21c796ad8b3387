"""The pipeline end to end by DVC: nothing twice, the same bytes by force, what a parameter concerns."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from project import LEARNED, change, dvc

from clipad_harness.verify.cpu_settings import all_settings


def outputs(folder: Path) -> dict[str, str]:
    """Hashes of everything the stages made."""
    made = [*(folder / "reports").rglob("*"), *(folder / "data" / "index").rglob("*")]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in made
        if path.is_file() and path.name not in (".gitignore", "run.js")
    }


@pytest.fixture(scope="module")
def own_copy(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what changes the small project: other processes read that of everybody meanwhile."""
    folder = tmp_path_factory.mktemp("own") / "clipad"
    return Path(shutil.copytree(reproduced, folder, symlinks=True))


def test_dvc_repro_makes_the_report_and_twice_does_nothing(reproduced: Path) -> None:
    assert {"reports/index.html", "reports/winclip.html", "reports/explorer.html"} <= set(
        outputs(reproduced)
    )
    assert "up to date" in dvc(reproduced, "repro")
    assert json.loads(dvc(reproduced, "status", "--json")) == {}


@pytest.mark.parametrize("method", LEARNED)
def test_what_an_essay_computes_in_its_cells_is_what_the_core_computes(
    reproduced: Path, method: str
) -> None:
    page = (reproduced / "reports" / f"{method}.ipynb").read_text(encoding="utf-8")
    each = [cell.get("outputs", []) for cell in json.loads(page)["cells"]]
    shown = ["".join(o.get("data", {}).get("text/plain", "")) for outs in each for o in outs]
    answers = re.findall(r"the core's\W+(\w+)", " ".join(shown))
    assert len(answers) >= 2 and set(answers) == {"True"}


def test_everything_made_again_on_the_code_of_other_cpus_gives_the_same_bytes(
    own_copy: Path,
) -> None:
    """Products by SSE2, numpy and the C library without AVX, four threads: `dvc.lock` included."""
    before, lock = outputs(own_copy), (own_copy / "dvc.lock").read_bytes()
    for folder in (".cache", "data/trained", "data/synthetic", "data/index"):
        shutil.rmtree(own_copy / folder)
    other = all_settings()[-1].environment
    assert {"MKL_CBWR", "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS"} <= set(other)
    dvc(own_copy, "repro", "--force", environment=other)
    assert outputs(own_copy) == before
    assert (own_copy / "dvc.lock").read_bytes() == lock


@pytest.mark.parametrize(
    ("keys", "value", "stages"),
    [
        (
            ("winclip", "fpr_limit"),
            0.2,
            # and then whatever reads its results
            {"train@winclip", "measure@winclip", "notebook@winclip"},
        ),
        (("explorer", "map_size"), 32, {"explore"}),
        (("synthetic", "seed"), 7, {"draw@synthetic_target", "draw@synthetic_auxiliary"}),
        (("workers",), 1, set()),
    ],
)
def test_one_changed_parameter_concerns_only_what_depends_on_it(
    own_copy: Path, keys: tuple[str, ...], value: object, stages: set[str]
) -> None:
    path = own_copy / "params.yaml"
    before = path.read_bytes()
    try:
        change(own_copy, *keys, value=value)
        assert set(json.loads(dvc(own_copy, "status", "--json"))) == stages
    finally:
        path.write_bytes(before)


def test_dvc_shows_metrics_and_parameters(reproduced: Path) -> None:
    metrics = dvc(reproduced, "metrics", "show", "--json")
    assert "image_auroc" in metrics
