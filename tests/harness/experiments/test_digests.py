"""Keys hold all code that decides what is kept under them: a copy of every file is edited once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import REPOSITORY

from clipad_core.methods import find_method, rooms
from clipad_harness.base.settings import Weights
from clipad_harness.experiments.digests import code_digest, core_files, import_closure
from clipad_harness.experiments.features import Encodings

KEPT = {
    "features": "clipad_harness.experiments.features",
    "trainings": "clipad_harness.experiments.trainer",
    "shards": "clipad_harness.experiments.scorer",
}

WEIGHTS = REPOSITORY / "data" / "weights" / "clipad-tiny.safetensors"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name in ("clipad_core", "clipad_harness"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    return folder


def digests(packages: Path) -> dict[tuple[str, str], str]:
    code_digest.cache_clear()
    return {
        (method, kind): code_digest(method, module, packages)
        for method in rooms()
        for kind, module in KEPT.items()
    }


def test_an_edit_of_any_file_moves_exactly_the_keys_that_it_can_reach(packages: Path) -> None:
    before = digests(packages)
    closures = {kind: import_closure(module, packages) for kind, module in KEPT.items()}
    for path in sorted(packages.rglob("*.py")):
        text = path.read_text()
        path.write_text(text + "\n# edited\n")
        after = digests(packages)
        path.write_text(text)
        moved = {key for key in before if before[key] != after[key]}
        room = path.parent.name if path.parent.parent.name == "methods" else None
        if path.is_relative_to(packages / "clipad_core"):
            expected = {key for key in before if room is None or key[0] == room}
        else:
            expected = {key for key in before if path in closures[key[1]]}
        assert moved == expected, path.relative_to(packages).as_posix()
    assert digests(packages) == before


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        ("features", ["experiments/features.py", "data/images.py"], ["experiments/scorer.py"]),
        (
            "trainings",
            ["experiments/train.py", "experiments/augment.py"],
            ["experiments/scorer.py"],
        ),
        ("shards", ["experiments/variants.py", "data/dataset_images.py"], ["report/tables.py"]),
    ],
)
def test_the_closure_of_imports_holds_what_it_should(
    packages: Path, kind: str, inside: list[str], outside: list[str]
) -> None:
    harness = packages / "clipad_harness"
    files = import_closure(KEPT[kind], packages)
    assert all(harness / name in files for name in inside)
    assert not any(harness / name in files for name in outside)


def test_an_import_inside_a_function_counts_and_one_for_types_does_not(tmp_path: Path) -> None:
    wing = tmp_path / "clipad_harness" / "wing"
    wing.mkdir(parents=True)
    for name in ("__init__", "late", "typed", "never"):
        (wing / f"{name}.py").write_text("")
    (wing / "first.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from clipad_harness.wing.typed import Name\n"
        "def run():\n    from clipad_harness.wing import late\n"
    )
    names = {path.stem for path in import_closure("clipad_harness.wing.first", tmp_path)}
    assert names == {"__init__", "first", "late"}


def test_a_method_depends_on_no_other_room() -> None:
    for method in rooms():
        folders = {path.parent for path in core_files(method)}
        assert {folder.name for folder in folders if folder.parent.name == "methods"} == {method}


def test_rooms_that_encode_alike_by_code_of_no_room_share_their_features(tmp_path: Path) -> None:
    weights = Weights("clipad-tiny", str(WEIGHTS), None, {})
    about = {}
    for name in ("clip", "coop", "anomalyclip"):
        method = find_method(name)
        config = method.config().changed({"image_size": 96})
        if name == "anomalyclip":
            config = config.changed({"blocks": [6], "prompt_depth": 3})
        recipe = method.recipe(config, 0)
        encodings = Encodings(name, "demo", weights, config, [recipe], {}, tmp_path, 0, 0, "cpu")
        about[name] = encodings.store(config, recipe).about
    assert about["clip"] == about["coop"]
    # What a room encodes by its own code is its own.
    assert about["anomalyclip"]["code"] == code_digest("anomalyclip", KEPT["features"])
    assert about["anomalyclip"]["code"] != about["clip"]["code"]


@pytest.mark.parametrize("name", ["scorer", "trainer", "features"])
def test_all_that_python_loads_with_a_module_is_part_of_its_closure(name: str) -> None:
    module = f"clipad_harness.experiments.{name}"
    code = (
        f"import sys, {module}; print(*(m.__file__ for n, m in sorted(sys.modules.items()) "
        "if n.partition('.')[0] == 'clipad_harness'), sep='\\n')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {Path(file) for file in process.stdout.split()}
    assert len(loaded) > 5 and loaded <= set(import_closure(module))
