"""The repository's own files: pins, licence, citation, and what no tracked file may hold."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from hashlib import sha256
from importlib.metadata import packages_distributions
from pathlib import Path
from runpy import run_path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import as_committed, tracked_params, write_settings

import clipad_core

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
EVERYTHING = [*CORE, *EXTRAS["harness"], *EXTRAS["heif"], *EXTRAS["cluster"], *EXTRAS["dev"]]
MODULES = sorted([*ROOT.glob("clipad_core/**/*.py"), *ROOT.glob("clipad_harness/**/*.py")])


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def imported(module: Path) -> set[str]:
    """The top-level packages a module imports anywhere, the standard library left out."""
    packages = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            packages.add(node.module.partition(".")[0])
    return packages - set(sys.stdlib_module_names)


def undeclared(package: str, allowed: set[str]) -> dict[str, set[str]]:
    """What the modules of a package import beyond the allowed distributions and packages."""
    distributions = packages_distributions()
    problems = {}
    for module in (module for module in MODULES if package in module.parts):
        beyond = {
            name
            for name in imported(module) - allowed
            if not allowed & {canonicalize_name(by) for by in distributions.get(name, [])}
        }
        if beyond:
            problems[module.name] = beyond
    return problems


def tracked_texts() -> dict[str, str]:
    if not (ROOT / ".git").exists():
        pytest.skip("which files are tracked is known in a clone only")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    texts = {}
    for name in listed.stdout.decode().split("\0")[:-1]:
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            texts[name] = content.decode(errors="replace")
    return texts


def test_environment_yml_is_what_pyproject_gives() -> None:
    pins = run_path(str(ROOT / "tools" / "pins.py"))
    expected = pins["environment"]((ROOT / "pyproject.toml").read_text())
    assert (ROOT / "environment.yml").read_text() == expected
    assert list(EXTRAS) == ["harness", "heif", "cluster", "dev"]


@pytest.mark.parametrize("requirement", EVERYTHING, ids=str)
def test_every_requirement_has_pins_that_satisfy_it(requirement: Requirement) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    own = [pin for pin in pins if names([pin]) == names([requirement])]
    assert own
    for pin in own:
        [exact] = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version)


def test_constraints_name_no_build_no_host_and_no_path() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "\ntorch==2.13.0\n" in text
    assert not re.search(r"\+|https?:|file:|@|^-", text, re.M)


def test_the_wheel_needs_the_core_only_and_holds_both_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hatchling.build import build_wheel

    monkeypatch.chdir(ROOT)
    with ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        [metadata] = [name for name in wheel.namelist() if name.endswith("METADATA")]
        lines = wheel.read(metadata).decode().splitlines()
        packages = {name.partition("/")[0] for name in wheel.namelist() if name != metadata}
    requirement_lines = [
        line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line
    ]
    plain = [Requirement(line) for line in requirement_lines if "extra ==" not in line]
    assert names(plain) == names(CORE)
    assert not names(plain) & names(EXTRAS["harness"])
    assert {"clipad_core", "clipad_harness"} == {name for name in packages if "info" not in name}


def test_the_core_imports_its_own_dependencies_only_and_never_the_harness() -> None:
    # What follows torchvision is imported only where somebody has it.
    allowed = names(CORE) | {"clipad_core", "torchvision", "pillow_heif"}
    allowed |= {"skimage", "segment_anything"}
    assert not undeclared("clipad_core", allowed)


def test_the_harness_imports_declared_dependencies_only() -> None:
    declared = names(CORE) | names(EXTRAS["harness"]) | names(EXTRAS["cluster"])
    assert not undeclared("clipad_harness", declared | {"clipad_core", "clipad_harness"})


def test_no_tracked_file_names_a_place_on_somebodys_disk() -> None:
    place = re.compile(r"(?<![\w.~+=$}>/-])/(?:work|tmp|home|root|opt|mnt|scratch|Users)/\w")
    places = {name: place.findall(text) for name, text in tracked_texts().items()}
    assert not {name: hits for name, hits in places.items() if hits}


def test_no_tracked_file_names_a_package_registry() -> None:
    hosts = re.compile("|".join([r"pypi\." + "org", "pythonhosted", r"anaconda\." + "org/"]))
    registries = {name: hosts.findall(text) for name, text in tracked_texts().items()}
    this_file = "tests/" + Path(__file__).name
    assert not {name: hits for name, hits in registries.items() if hits and name != this_file}


def test_the_citation_can_be_read_and_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == clipad_core.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert all({"family-names", "name"} & set(author) for author in citation["authors"])


def test_the_licence_is_the_whole_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text


def test_ci_and_readme_give_the_same_test_command() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec ./repro test")
    assert "    ./repro test " in (ROOT / "README.md").read_text()


def test_no_test_depends_on_the_settings_of_the_user() -> None:
    """They stand in tests/settings.yaml; what is about the tracked params.yaml asks `tracked_params`."""
    reads = re.compile(r"(REPOSITORY|ROOT) / .params\.yaml|(read|open)_\w+\((REPOSITORY|ROOT)\b")
    tests = [*ROOT.glob("tests/**/*.py"), ROOT / "conftest.py"]
    modules = {path.name for path in tests if reads.search(path.read_text(encoding="utf-8"))}
    assert modules == {"project.py", "test_walks.py"}


def test_the_bundled_weights_are_those_that_their_profiles_name() -> None:
    name = "data/weights/clipad-tiny.safetensors"
    digest = sha256((ROOT / name).read_bytes()).hexdigest()
    for profile in tracked_params()["profiles"].values():
        weights = [
            entry for entry in profile.values() if isinstance(entry, dict) and "weights" in entry
        ]
        assert {entry["sha256"] for entry in weights if entry["weights"] == name} <= {digest}


def test_the_numbers_of_the_readme_are_those_of_the_tracked_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is what its command prints of the metrics files, which a clone has without a run."""
    from clipad_harness.cli.main import main

    as_committed("README.md", "reports")
    write_settings(tmp_path, tracked_params())
    shutil.copytree(ROOT / "reports" / "summaries", tmp_path / "reports" / "summaries")
    monkeypatch.setenv("CLIPAD_ROOT", str(tmp_path))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [words] = re.findall(r"`\./repro clipad (export headline [^`]+)` prints", text)
    assert main(words.split()) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) > 2 and "\n".join(lines) in text


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_importing_the_core_is_quick_and_loads_no_torch() -> None:
    assert run_python("import clipad_core, sys; print('torch' in sys.modules)") == "False\n"


def test_importing_the_core_leaves_python_s_import_machinery_alone() -> None:
    code = """
import sys
before = list(sys.meta_path), list(sys.path_hooks)
import clipad_core
print((list(sys.meta_path), list(sys.path_hooks)) == before)
from clipad_core import load_backbone
print(load_backbone("clipad-tiny", "data/weights/clipad-tiny.safetensors").label)
"""
    assert run_python(code) == "True\nclipad-tiny (clipad-tiny.safetensors)\n"


def test_one_module_imports_open_clip_and_torchvision() -> None:
    """Whoever imports it elsewhere has no CPU torch beside a CUDA torchvision."""
    programs = [*MODULES, *ROOT.glob("tests/**/*.py")]
    modules = {path.name for path in programs if {"open_clip", "torchvision"} & imported(path)}
    assert modules == {"open_clip.py"}
