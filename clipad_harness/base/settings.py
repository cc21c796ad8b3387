"""params.yaml, read once, checked, as frozen dataclasses. Nothing has a second default elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from clipad_core.errors import ClipadError
from clipad_harness.base.files import read_yaml
from clipad_harness.base.machine import cores
from clipad_harness.base.sections import PARAMS, build, get, mapping

ROOT_VARIABLE = "CLIPAD_ROOT"
# The methods that learn on an auxiliary dataset.
LEARNED = ("anomalyclip", "vcpclip")


@dataclass(frozen=True)
class Weights:
    """A method's backbone, and how the method's config is fitted to it; see `fitting`."""

    backbone: str
    weights: str
    sha256: str | None
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Profile:
    """What is run: which data with which weights, a method.

    Attributes:
        categories: of the dataset; none: all of them.
        ablation_categories: on how many of them every variant but the main one is measured; None: all.
    """

    name: str
    dataset: str
    data_root: str | None
    categories: tuple[str, ...]
    ablation_categories: int | None
    winclip: Weights
    anomalyclip: Weights
    vcpclip: Weights

    def weights_of(self, method: str) -> Weights:
        """The backbone of a method."""
        found: Weights = getattr(self, method)
        return found

    def on(self, dataset: str) -> Profile:
        """The same weights on another dataset, all its categories."""
        return replace(self, dataset=dataset, categories=())


@dataclass(frozen=True)
class Synthetic:
    """Size of the drawn datasets, images a category."""

    seed: int
    image_size: int
    train_good: int
    test_good: int
    test_damaged: int


@dataclass(frozen=True)
class Ablation:
    """One named group of variants: row name -> changed fields, or the name of a preset."""

    k_shots: tuple[int, ...]
    rows: Mapping[str, Mapping[str, Any] | str]


@dataclass(frozen=True)
class MethodSettings:
    """What the section of every method says.

    Attributes:
        walks: presets to which one switch after the other is thrown.
        own_walks: name -> the changes of its steps, for switches that no preset throws.
    """

    preset: str
    changes: Mapping[str, Any]
    seeds: tuple[int, ...]
    ablation_seeds: tuple[int, ...]
    aupro: str
    fpr_limit: float
    walks: tuple[str, ...]
    own_walks: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def all_walks(self) -> list[str]:
        """Walks to presets, then those whose steps are written out."""
        return [*self.walks, *self.own_walks]


@dataclass(frozen=True)
class WinCLIPSettings(MethodSettings):
    """The `winclip` section; its walks are measured at `walk_shots`."""

    k_shots: tuple[int, ...]
    walk_shots: tuple[int, ...]
    ablations: Mapping[str, Ablation]


@dataclass(frozen=True)
class LearnedSettings(MethodSettings):
    """The section of a method that learns.

    Attributes:
        auxiliary: tested dataset -> the one that is trained on; `others` for all that are not named.
        allow_tested: datasets that may be trained on and tested, by name.
        ablation_changes: fields that every variant but the main one has besides its own.
        ablations: group -> row -> changed fields, or the name of a preset.
    """

    auxiliary: Mapping[str, str]
    allow_tested: tuple[str, ...]
    ablation_changes: Mapping[str, Any]
    ablations: Mapping[str, Mapping[str, Mapping[str, Any] | str]]

    def auxiliary_of(self, tested: str) -> str:
        """What is trained on for a tested dataset."""
        return self.auxiliary.get(tested) or str(get(self.auxiliary, "others", "auxiliary"))


@dataclass(frozen=True)
class Explorer:
    """The `explorer` section: how much the page holds; longest sides in pixels."""

    images_per_category: int
    picture_size: int
    map_size: int
    max_megabytes: int


def find_root(start: Path | None = None) -> Path:
    """The project folder: ``$CLIPAD_ROOT``, or the nearest one upwards that holds params.yaml.

    Notebooks run with another working directory under Papermill, pytest and JupyterLab, so none of
    them may rely on it.
    """
    start = Path(os.environ.get(ROOT_VARIABLE) or start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / PARAMS).is_file():
            return folder
    raise ClipadError(
        f"{PARAMS}: found none in {start} or above, expected the project's folder; change into it."
    )


def read_params(root: Path) -> dict[str, Any]:
    """Read params.yaml as plain data."""
    path = root / PARAMS
    try:
        found = read_yaml(path)
    except UnicodeDecodeError as error:
        raise ClipadError(f"{PARAMS}: not in UTF-8 ({error}); save it as UTF-8.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise ClipadError(f"{PARAMS}: not valid YAML{line}; correct it there.") from error
    return mapping(found, PARAMS)


def read_profile(root: Path, name: str = "", dataset: str = "") -> Profile:
    """The chosen profile; ``name`` and ``dataset`` override params.yaml where not empty."""
    params = read_params(root)
    profiles = mapping(get(params, "profiles", PARAMS), "profiles")
    name = name or str(get(params, "profile", PARAMS))
    section = {"name": name, **mapping(get(profiles, name, "profiles"), f"profiles.{name}")}
    if dataset:
        section["dataset"] = dataset
    for method in ("winclip", *LEARNED):
        where = f"profiles.{name}.{method}"
        own = mapping(get(section, method, f"profiles.{name}"), where)
        section[method] = build(Weights, own, where)
    profile: Profile = build(Profile, section, f"profiles.{name}")
    limit = profile.ablation_categories
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ClipadError(
            f"profiles.{name}.ablation_categories: found {limit!r}, expected a whole number from 1, or "
            "null for all categories."
        )
    return profile


def read_synthetic(root: Path) -> Synthetic:
    """The `synthetic` section."""
    return build(Synthetic, _section(root, "synthetic"), "synthetic")


def read_winclip(root: Path) -> WinCLIPSettings:
    """The `winclip` section."""
    section = dict(_section(root, "winclip"))
    ablations = mapping(get(section, "ablations", "winclip"), "winclip.ablations")
    section["ablations"] = {
        str(name): build(
            Ablation, mapping(value, f"winclip.ablations.{name}"), f"winclip.ablations.{name}"
        )
        for name, value in ablations.items()
    }
    settings: WinCLIPSettings = _build_method(WinCLIPSettings, section, "winclip")
    shots = {"k_shots": settings.k_shots, "walk_shots": settings.walk_shots}
    shots |= {f"ablations.{name}.k_shots": one.k_shots for name, one in settings.ablations.items()}
    for where, numbers in shots.items():
        if any(k_shot < 0 for k_shot in numbers):
            raise ClipadError(
                f"winclip.{where}: found {list(numbers)}, expected whole numbers from 0."
            )
    return settings


def read_learned(root: Path, method: str) -> LearnedSettings:
    """The section of a method that learns."""
    section = _section(root, method)
    settings: LearnedSettings = _build_method(LearnedSettings, section, method)
    return settings


def read_feature_memory(root: Path) -> int:
    """Bytes of features that a training process keeps in memory."""
    found = get(read_params(root), "feature_memory_mb", PARAMS)
    if not isinstance(found, int) or found < 0:
        raise ClipadError(f"feature_memory_mb: found {found!r}, expected a whole number from 0.")
    return found * 2**20


def read_explorer(root: Path) -> Explorer:
    """The `explorer` section."""
    settings: Explorer = build(Explorer, _section(root, "explorer"), "explorer")
    for field in fields(Explorer):
        value = getattr(settings, field.name)
        if not isinstance(value, int) or value < 1:
            raise ClipadError(
                f"explorer.{field.name}: found {value!r}, expected a whole number from 1."
            )
    return settings


def read_workers(root: Path) -> int:
    """Processes to score with: `workers`, where 0 means one a core.

    ``CLIPAD_WORKERS`` then says how many of them are this process's, where others run beside it.
    """
    workers = get(read_params(root), "workers", PARAMS)
    if not isinstance(workers, int) or workers < 0:
        raise ClipadError(f"workers: found {workers!r}, expected a whole number from 0.")
    share = os.environ.get("CLIPAD_WORKERS", "0")
    if not share.isdecimal():
        raise ClipadError(f"CLIPAD_WORKERS: found {share!r}, expected a whole number from 0.")
    return workers or int(share) or cores()


def _section(root: Path, name: str) -> Mapping[str, Any]:
    return mapping(get(read_params(root), name, PARAMS), name)


def _build_method(kind: type, section: Mapping[str, Any], method: str) -> Any:
    settings: MethodSettings = build(kind, section, method)
    if not settings.seeds or not settings.ablation_seeds:
        raise ClipadError(f"{method}.seeds, {method}.ablation_seeds: found none; add one to each.")
    for name in ("seeds", "ablation_seeds", "k_shots", "walk_shots", "walks"):
        found = getattr(settings, name, ())
        if len(set(found)) < len(found):
            raise ClipadError(f"{method}.{name}: found {list(found)}, expected each once.")
    if not 0 < settings.fpr_limit <= 1:
        raise ClipadError(
            f"{method}.fpr_limit: found {settings.fpr_limit}, expected a share above 0, at most 1."
        )
    return settings
