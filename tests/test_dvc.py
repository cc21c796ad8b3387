"""The pipeline end to end by DVC: nothing twice, the same bytes by force, what a parameter concerns."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import yaml
from project import LEARNED, REPOSITORY, change, dvc, settings

from clipad_harness.experiments.digests import core_files, import_closure, imports
from clipad_harness.verify.cpu_settings import all_settings

METHODS, ESSAYS = settings()["methods"], settings()["essays"]


def outputs(folder: Path) -> dict[str, str]:
    """Hashes of everything the stages made."""
    paths = [*(folder / "reports").rglob("*"), *(folder / "data" / "index").rglob("*")]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file() and path.name not in (".gitignore", "run.js")
    }


@pytest.fixture(scope="module")
def own_copy(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what changes the small project: other processes read that of everybody meanwhile."""
    folder = tmp_path_factory.mktemp("own") / "clipad"
    return Path(shutil.copytree(reproduced, folder, symlinks=True))


def test_dvc_repro_makes_the_report_and_twice_does_nothing(reproduced: Path) -> None:
    pages = ("index", "explorer", "tables", "conflicts", *ESSAYS, *METHODS)
    assert {f"reports/{name}.html" for name in pages} <= set(outputs(reproduced))
    assert "up to date" in dvc(reproduced, "repro")
    assert json.loads(dvc(reproduced, "status", "--json")) == {}


@pytest.mark.parametrize("method", LEARNED)
def test_what_an_essay_computes_in_its_cells_is_what_the_core_computes(
    reproduced: Path, method: str
) -> None:
    page = (reproduced / "reports" / f"{method}.ipynb").read_text(encoding="utf-8")
    each = [cell.get("outputs", []) for cell in json.loads(page)["cells"]]
    texts = ["".join(o.get("data", {}).get("text/plain", "")) for outs in each for o in outs]
    answers = re.findall(r"the core's\W+(\w+)", " ".join(texts))
    assert len(answers) >= 2 and set(answers) == {"True"}


def test_everything_made_again_on_the_code_of_other_cpus_gives_the_same_bytes(
    own_copy: Path,
) -> None:
    """Products by SSE2, numpy and the C library without AVX, four threads: `dvc.lock` included."""
    before, lock = outputs(own_copy), (own_copy / "dvc.lock").read_bytes()
    for folder in (".cache", "data/trained", "data/synthetic", "data/index"):
        shutil.rmtree(own_copy / folder)
    environment = all_settings()[-1].environment
    assert {"MKL_CBWR", "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS"} <= set(environment)
    dvc(own_copy, "repro", "--force", environment=environment)
    assert outputs(own_copy) == before
    assert (own_copy / "dvc.lock").read_bytes() == lock


def stale(project: Path) -> set[str]:
    """The stages whose dependencies, parameters or outputs are no longer those of the last run."""
    return set(json.loads(dvc(project, "status", "--json")))


def of(method: str, *stages: str) -> set[str]:
    return {f"{stage}@{method}" for stage in stages or ("train", "measure", "notebook")}


def test_repro_runs_side_by_side_what_keeps_one_core_busy_and_waits_for_nothing(
    own_copy: Path,
) -> None:
    page = own_copy / "clipad_harness" / "site" / "templates" / "page.css"
    params, before = (own_copy / "params.yaml").read_bytes(), page.read_bytes()
    plan = [sys.executable, "-c", run_path(str(REPOSITORY / "repro"))["PLAN"]]

    def planned() -> dict[str, list[str]]:
        return json.loads(
            subprocess.run(plan, cwd=own_copy, check=True, capture_output=True).stdout
        )

    try:
        assert planned() == {}
        page.write_text("p {}")
        assert planned() == {name: [] for name in SITE - {"pages"}}
        change(own_copy, "winclip", "fpr_limit", value=0.2)
        assert planned()["notebook@winclip"] == ["measure@winclip", "train@winclip"]
        assert planned()["notebook@vcpclip"] == []
    finally:
        page.write_bytes(before)
        (own_copy / "params.yaml").write_bytes(params)


PRINTED = {"printed@tables", "printed@conflicts"}
OVERVIEWS = {*(f"essay@{name}" for name in ESSAYS), "explore", *PRINTED}
SITE = {*(f"notebook@{name}" for name in METHODS), *OVERVIEWS, "pages"}


@pytest.mark.parametrize(
    ("keys", "value", "stages"),
    [
        # and then whatever reads their results
        (("winclip", "fpr_limit"), 0.2, of("winclip")),
        (("vcpclip", "changes"), {"epochs": 2}, of("vcpclip")),
        (("profiles", "demo", "vcpclip", "weights"), "a.safetensors", of("vcpclip") | OVERVIEWS),
        (("profiles", "paper", "winclip", "weights"), "laion400m_e32", set()),
        (("explorer", "map_size"), 32, {"explore"}),
        (("synthetic", "seed"), 7, {"draw@synthetic_target", "draw@synthetic_auxiliary"}),
        (("workers",), 2, set()),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_one_changed_parameter_concerns_only_what_depends_on_it(
    own_copy: Path, keys: tuple[str, ...], value: object, stages: set[str]
) -> None:
    path = own_copy / "params.yaml"
    before = path.read_bytes()
    try:
        change(own_copy, *keys, value=value)
        assert stale(own_copy) == stages
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("clipad_harness/site/templates/page.css", SITE),
        ("clipad_harness/report/templates/table.html.j2", SITE),
        ("clipad_core/methods/winclip/scoring.py", of("winclip") | OVERVIEWS | {"pages"}),
        (
            "clipad_harness/experiments/scorer.py",
            SITE.union(*(of(name, "train", "measure") for name in METHODS)),
        ),
        ("clipad_harness/verify/verify.py", set()),
        ("clipad_harness/photos/page.py", set()),
        ("clipad_harness/cli/main.py", set()),
        ("notebooks/vcpclip.ipynb", of("vcpclip", "notebook")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_edited_file_concerns_only_what_depends_on_it(
    own_copy: Path, name: str, stages: set[str]
) -> None:
    path = own_copy / name
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n")
        assert stale(own_copy) == stages
    finally:
        path.write_bytes(before)


# What the command of a stage imports, and the kernel of its notebook beside the notebook's own cells.
RUNS = {
    "pretrain": ("clipad_harness.standin.train",),
    "draw": ("clipad_harness.standin.datasets",),
    "index": ("clipad_harness.data.stages",),
    "train": ("clipad_harness.experiments.pipeline",),
    "measure": ("clipad_harness.experiments.pipeline",),
    "notebook": ("clipad_harness.site.stages", "clipad_harness.site.page_facts"),
    "essay": ("clipad_harness.site.stages", "clipad_harness.site.page_facts"),
    "explore": ("clipad_harness.site.explorer",),
    "printed": ("clipad_harness.site.printed_pages",),
    "pages": ("clipad_harness.site.stages",),
}
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def instances() -> list[tuple[str, str]]:
    """Stages with the items that they are repeated for; "" for one that is not."""
    return [
        (name, item)
        for name, stage in STAGES.items()
        for item in (
            settings()[stage["foreach"][2:-1]]
            if isinstance(stage.get("foreach"), str)
            else stage.get("foreach", [""])
        )
    ]


def imported_by(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere but for its types; of a notebook all its cells."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(source)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        source = "\n".join(code)
    return set(imports(source))


def runs_of(name: str, item: str) -> set[Path]:
    """The files that a stage runs: what its modules import, further down as well.

    What the core offers by its own name loads no room before it is asked for, and a room is the
    stage's own.
    """
    modules = set(RUNS[name])
    if name in ("notebook", "essay"):
        modules |= imported_by(REPOSITORY / "notebooks" / f"{item}.ipynb")
    files = {path for module in modules for path in import_closure(module)}
    waiting = [*modules, *(module for path in files for module in imported_by(path))]
    while waiting:
        path = module_file(waiting.pop())
        if path is not None and path not in files:
            files.add(path)
            if path != REPOSITORY / "clipad_core" / "__init__.py":
                waiting += imported_by(path)
    return files


def module_file(name: str) -> Path | None:
    """The file of a module of the core."""
    path = REPOSITORY / name.replace(".", "/")
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if name.startswith("clipad_core") and file.is_file()), None)


def says_nothing(path: Path) -> bool:
    """Whether a file holds a docstring alone."""
    return all(isinstance(statement, ast.Expr) for statement in ast.parse(path.read_text()).body)


@pytest.mark.parametrize(("name", "item"), instances())
def test_a_stage_depends_on_every_file_that_it_runs(name: str, item: str) -> None:
    assert set(RUNS) == set(STAGES)
    stage = STAGES[name].get("do", STAGES[name])
    depends = [REPOSITORY / dependency.replace("${item}", item) for dependency in stage["deps"]]
    files = runs_of(name, item)
    if name in ("train", "measure", "notebook", "essay", "explore", "printed", "pages"):
        rooms = (item,) if item in METHODS else METHODS
        files |= {path for method in rooms for path in core_files(method)}
    folders = {path.parent / "templates" for path in files}
    files |= {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    missing = {
        path.relative_to(REPOSITORY).as_posix()
        for path in files
        if not any(path.is_relative_to(dependency) for dependency in depends)
        and not (path.suffix == ".py" and says_nothing(path))
    }
    assert len(files) > 10 and not missing
    assert all(dependency.exists() for dependency in depends if "clipad_" in dependency.as_posix())


def test_dvc_shows_metrics_and_parameters(reproduced: Path) -> None:
    metrics = dvc(reproduced, "metrics", "show", "--json")
    assert "image_auroc" in metrics
