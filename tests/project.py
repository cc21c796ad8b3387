"""A small project to run the pipeline on: two categories, few images, a little of every kind."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from clipad_harness.experiments.variants import Variant

REPOSITORY = Path(__file__).resolve().parents[1]
WEIGHTS = REPOSITORY / "data" / "weights"
DATASETS = ("synthetic_target", "synthetic_auxiliary")
# A project's params.yaml is its user's; what the tests run is this.
SETTINGS = Path(__file__).with_name("settings.yaml")
SIZE = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["synthetic"]
LEARNED = ("anomalyclip", "vcpclip")
# As CLIP's smallest: every stage runs, no number means anything.
ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def make_project(folder: Path, questions: bool = False) -> Path:
    """Write a project below `folder`: params.yaml, weights, notebooks; nothing is drawn yet.

    Args:
        questions: with the rows of open questions, which only their notebook reads; tests that count
            trainings and shards do without.
    """
    project = folder / "project"
    (project / "notebooks").mkdir(parents=True)
    for notebook in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, project / "notebooks")
    weights = project / "data" / "weights"
    weights.mkdir(parents=True)
    if (WEIGHTS / "clipad-tiny.safetensors").is_file():
        for name in ("clipad-tiny.json", "clipad-tiny.safetensors"):
            shutil.copy(WEIGHTS / name, weights)
    else:
        _random_weights(weights)
    params = settings()
    for name in params["methods"]:
        file = weights / "clipad-tiny.safetensors"
        params["profiles"]["demo"][name]["sha256"] = sha256(file.read_bytes()).hexdigest()
        params[name] |= {} if questions else {"questions": {}}
    write_settings(project, params)
    return project


def settings() -> dict[str, Any]:
    """What the tests run with, to change at will."""
    read: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    return read


def write_settings(project: Path, params: dict[str, Any]) -> None:
    """Make some settings those of a project."""
    text = yaml.safe_dump(params, sort_keys=False)
    (project / "params.yaml").write_text(text, encoding="utf-8")


def variants_of(method: str, profile: str = "demo", **changes: Any) -> list["Variant"]:
    """The variants of a method as the tests run it, some settings of its section replaced."""
    from clipad_harness.base.settings import read_method, read_profile
    from clipad_harness.experiments.variants import read_variants

    params = settings()
    params["methods"], params[method] = [method], params[method] | {"questions": {}} | changes
    with TemporaryDirectory() as folder:
        write_settings(Path(folder), params)
        own = read_method(Path(folder), method), read_profile(Path(folder), profile)
    return read_variants(method, *own)


def as_committed(*names: str) -> None:
    """Leave a test out where somebody changed what it compares, as its users may and shall."""
    is_clone = (REPOSITORY / ".git").exists()
    words = ["git", "status", "--porcelain", "--", *names]
    if (
        not is_clone
        or subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=True).stdout
    ):
        pytest.skip(f"{', '.join(names)}: changed, or not in a clone")


def tracked_params() -> dict[str, Any]:
    """The params.yaml that the tracked pages were made from; where it is another, nothing follows."""
    as_committed("params.yaml")
    read: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    return read


def draw_all(project: Path) -> None:
    """Draw both datasets."""
    from clipad_harness.standin.datasets import draw

    for name in DATASETS:
        draw(project, name)


def run_stages(project: Path) -> None:
    """Draw, index and measure WinCLIP, as dvc.yaml would."""
    from clipad_harness.data.stages import write_index
    from clipad_harness.experiments import pipeline
    from clipad_harness.standin.datasets import draw

    draw(project, "synthetic_target")
    write_index(project)
    pipeline.measure(project, "winclip")


def make_repository(folder: Path) -> Path:
    """A copy of the repository's files with the settings of the small project; nothing is run yet."""
    project = folder / "clipad"
    names = ("clipad_core", "clipad_harness", "notebooks")
    for name in (*names, "data/papers", "data/cards", "data/weights"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, project / name, ignore=ignore)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "CITATION.cff"):
        shutil.copy(REPOSITORY / name, project)
    shutil.copy(REPOSITORY / "data" / "tolerances_rerun.csv", project / "data")
    shutil.copy(make_project(folder, questions=True) / "params.yaml", project)
    dvc(project, "init", "--no-scm", "--quiet")
    return project


def run_cells(project: Path, name: str) -> None:
    """The cells of a notebook, here; what they display is printed."""
    import nbformat

    notebook = nbformat.read(project / "notebooks" / f"{name}.ipynb", as_version=4)
    names: dict[str, object] = {"display": print}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)  # a notebook of this repository


def change(project: Path, *keys: str, value: object) -> None:
    """Set one parameter of a project's params.yaml."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    section = params
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    write_settings(project, params)


def with_one_bit_changed(path: Path, every: int = 0, samples: int = 40) -> Iterator[int]:
    """Change a bit of a file, in each of its first bytes and in some of the others, and restore it.

    Yields:
        The byte that is changed now.
    """
    whole, random = path.read_bytes(), Random(0)
    for place in (*range(every), *(random.randrange(every, len(whole)) for _ in range(samples))):
        changed = bytearray(whole)
        changed[place] ^= 1 << random.randrange(8)
        path.unlink(missing_ok=True)  # who has it open keeps what was there
        path.write_bytes(changed)
        yield place
    path.write_bytes(whole)


def dvc(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run DVC with the folder's own code and return what it printed."""
    return python(folder, "-m", "dvc", *words, environment=environment)


def python(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run Python in a project, with the folder's own code, and return what it printed."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("CLIPAD_DATA", "CLIPAD_ROOT")}
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited["PATH"]])
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**inherited, **(environment or {}), "PATH": path, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]  # progress bars before that
    return done.stdout


def _random_weights(folder: Path) -> None:
    import json

    import torch
    from safetensors.torch import save_file

    from clipad_core.clip.open_clip import open_clip

    config = folder / "clipad-tiny.json"
    config.write_text(json.dumps(ARCHITECTURE), encoding="utf-8")
    open_clip.add_model_config(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("clipad-tiny", pretrained=None)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    state.pop("attn_mask", None)
    save_file(state, folder / "clipad-tiny.safetensors", metadata={"clipad": "random"})
