"""params.yaml, read once, checked, as frozen dataclasses. Nothing has a second default elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clipad_core.config import Choice
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method, rooms
from clipad_core.validation import listed, validate, wrong
from clipad_harness.base.files import check_regular, read_yaml
from clipad_harness.base.machine import cores
from clipad_harness.base.sections import PARAMS, get, mapping

ROOT_VARIABLE = "CLIPAD_ROOT"
# More processes than any machine has cores, and more of anything else than a page or a drawing holds.
MOST_WORKERS, MOST = 1024, 100_000
# One measures while the other encodes; each holds the weights.
WORKERS_OF_A_DEVICE = 2
# What may stand at the top of params.yaml besides the sections of methods.
TOP_NAMES = (
    "profile",
    "methods",
    "pages",
    "essays",
    "ablations",
    "device",
    "profiles",
    "workers",
    "cluster",
    "cluster_wait",
    "feature_memory_mb",
    "feature_disk_gb",
    "synthetic",
    "explorer",
    "pretrain",
)
# What `cluster` says for one worker a GPU of this machine, and what it may say of a scheduler.
LOCAL_GPUS, PROTOCOLS = "local-gpus", ("tcp", "tls")
A_WEEK = 7 * 24 * 3600


@dataclass(frozen=True)
class Weights:
    """A method's backbone, and how the method's config is fitted to it; see `translation`."""

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
        device: where it is computed; see `clipad_core.clip.device.find_device`.
        weights: the backbone of every method, by its name in ``methods``.
    """

    name: str
    dataset: str
    data_root: str | None
    categories: tuple[str, ...]
    ablation_categories: int | None
    device: str
    weights: Mapping[str, Weights]

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

    rows: Mapping[str, Mapping[str, Any] | str]
    k_shots: tuple[int, ...]


@dataclass(frozen=True)
class MethodSettings:
    """The section of a method.

    Of a method without references ``k_shots`` and ``walk_shots`` are 0 alone, of one that learns
    nothing the last three are empty; their sections do not hold them.

    Attributes:
        seeds: of references and trainings, of the main variant; ``ablation_seeds``: of all others.
        walks: presets to which one switch after the other is thrown, measured at ``walk_shots``.
        own_walks: name -> the changes of its steps, for switches that no preset throws.
        auxiliary: tested dataset -> the one that is trained on; `others` for all that are not named.
        allow_tested: datasets that may be trained on and tested, by name.
        ablation_changes: fields that every variant but the main one has besides its own.
        questions: groups like ``ablations``, whose rows are compared image by image.
    """

    preset: str
    changes: Mapping[str, Any]
    k_shots: tuple[int, ...]
    seeds: tuple[int, ...]
    ablation_seeds: tuple[int, ...]
    # A switch like those of the configs, but decided where the maps are measured.
    aupro: str = field(
        metadata={
            "choice": Choice(
                "which AUPRO: at every threshold, at 200 of them (CFLOW's, and most codes'), or MVTec's "
                "own evaluation",
                "open-edge-platform/anomalib@v2.7.0: AUPRO; zqhang/Accurate-WinCLIP-pytorch@eef4f8c: "
                "cal_pro_score",
            )
        }
    )
    fpr_limit: float
    walks: tuple[str, ...]
    walk_shots: tuple[int, ...]
    own_walks: Mapping[str, Sequence[Mapping[str, Any]]]
    ablations: Mapping[str, Ablation]
    questions: Mapping[str, Ablation]
    auxiliary: Mapping[str, str]
    allow_tested: tuple[str, ...]
    ablation_changes: Mapping[str, Any]

    @property
    def all_walks(self) -> list[str]:
        """Walks to presets, then those whose steps are written out."""
        return [*self.walks, *self.own_walks]

    def auxiliary_of(self, tested: str) -> str:
        """What is trained on for a tested dataset."""
        return self.auxiliary.get(tested) or str(get(self.auxiliary, "others", "auxiliary"))


@dataclass(frozen=True)
class Cluster:
    """Where shards and trainings run beyond the processes of this machine: `cluster`, `cluster_wait`.

    Attributes:
        place: `local-gpus`, the address of a scheduler, or the path of a scheduler file.
        wait: seconds without any worker after which a run gives up.
        root: the project's folder, which every worker sees at the same path.
        device: the profile's; ``kind`` is what that is here and is to be everywhere.
    """

    place: str
    wait: int
    root: Path
    device: str = "cpu"
    kind: str = "cpu"

    @property
    def scheduler_file(self) -> Path | None:
        """The file that a scheduler writes its address into; None where `place` is none."""
        is_file = self.place != LOCAL_GPUS and "://" not in self.place
        return self.root / self.place if is_file else None


# What holds groups of variants in the section of a method.
GROUPS = ("ablations", "questions")
# What `ablations` says where the headline alone is measured, and what then stands in a section.
NONE = "none"
HEADLINE: Mapping[str, Any] = {"ablations": {}, "questions": {}, "walks": [], "own_walks": {}}
# What stands in a section only where the method reads references, and where it learns.
_OF_REFERENCES: Mapping[str, Any] = {"k_shots": (0,), "walk_shots": (0,)}
_OF_TRAINING: Mapping[str, Any] = {"auxiliary": {}, "allow_tested": (), "ablation_changes": {}}


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
        check_regular(folder / PARAMS)
        if (folder / PARAMS).is_file():
            return folder
    raise ClipadError(
        f"{PARAMS}: found none in {start} or above, expected the project's folder; change into it."
    )


def read_params(root: Path) -> dict[str, Any]:
    """Read params.yaml as plain data.

    Raises:
        ClipadError: no valid YAML, or a name at its top that nobody reads.
    """
    params = mapping(read_yaml(root / PARAMS), PARAMS)
    names = [*TOP_NAMES, *rooms()]
    if unknown := [str(name) for name in params if name not in names]:
        nearest = get_close_matches(unknown[0], names, 1)
        advice = f"; {nearest[0]} is the nearest" if nearest else ""
        raise ClipadError(
            f"{PARAMS}: found an unknown {listed(unknown)}, expected names of {', '.join(names)}{advice}. "
            "Correct or delete it."
        )
    return params


def read_profile(
    root: Path,
    name: str | None = None,
    dataset: str | None = None,
    categories: Sequence[str] | None = None,
) -> Profile:
    """The chosen profile; what is given besides the folder stands in place of params.yaml's."""
    params = read_params(root)
    profiles = mapping(get(params, "profiles", PARAMS), "profiles")
    name = name or str(get(params, "profile", PARAMS))
    section = {"name": name, **mapping(get(profiles, name, "profiles"), f"profiles.{name}")}
    if dataset:
        section["dataset"] = dataset
    if categories is not None:
        section["categories"] = list(categories)
    if section.get("device") is None:
        section["device"] = get(params, "device", PARAMS)
    where = f"profiles.{name}"
    section["weights"] = {
        method: validate(Weights, get(section, method, where), PARAMS, f"{where}.{method}")
        for method in read_methods(root)
    }
    method_names = rooms()  # weights of a method that is not run may stay where they are
    section = {key: value for key, value in section.items() if key not in method_names}
    profile: Profile = validate(Profile, section, PARAMS, f"profiles.{name}")
    limit = profile.ablation_categories
    if limit is not None and limit < 1:
        raise ClipadError(
            f"profiles.{name}.ablation_categories: found {limit!r}, expected a whole number from 1, or "
            "null for all categories."
        )
    return profile


def read_synthetic(root: Path) -> Synthetic:
    """The `synthetic` section."""
    settings: Synthetic = validate(Synthetic, _section(root, "synthetic"), PARAMS, "synthetic")
    for setting in fields(Synthetic):
        whole_number(f"synthetic.{setting.name}", getattr(settings, setting.name), 0, MOST)
    return settings


def read_methods(root: Path) -> tuple[str, ...]:
    """The methods that are run, in the order of the reports: the only list of them.

    Raises:
        ClipadError: none, one twice, or one that has no room in the core.
    """
    names = _names(root, "methods")
    if not names:
        raise wrong(PARAMS, "methods", names, "a list of names, each once")
    method_names = rooms()
    if unknown := [name for name in names if name not in method_names]:
        raise ClipadError(
            f"methods: found {unknown[0]!r}, expected some of {', '.join(method_names)}, the folders of "
            "clipad_core/methods; correct it in params.yaml."
        )
    return names


def read_pages(root: Path) -> tuple[str, ...]:
    """The methods that have a page of their own, made by a notebook of their name.

    Raises:
        ClipadError: one twice, one that is not run, or one without a notebook.
    """
    names, methods = _names(root, "pages"), read_methods(root)
    if unknown := [name for name in names if name not in methods]:
        raise ClipadError(
            f"pages: found {unknown[0]!r}, expected some of `methods`, {', '.join(methods)}; add it there, "
            "or remove it from `pages`, in params.yaml."
        )
    _check_notebooks(root, "pages", names)
    return names


def read_essays(root: Path) -> tuple[str, ...]:
    """The notebooks about several methods, which have no numbers of their own.

    Raises:
        ClipadError: one twice, one that is a method's, or one without a notebook.
    """
    names, method_names = _names(root, "essays"), rooms()
    if taken := [name for name in names if name in method_names]:
        raise ClipadError(
            f"essays: found {taken[0]!r}, expected no name of a method; list it below `pages` of "
            "params.yaml instead."
        )
    _check_notebooks(root, "essays", names)
    return names


def _check_notebooks(root: Path, setting: str, names: Sequence[str]) -> None:
    if missing := [name for name in names if not (root / "notebooks" / f"{name}.ipynb").is_file()]:
        raise ClipadError(
            f"{setting}: found {missing[0]!r}, but no notebooks/{missing[0]}.ipynb; write it, or remove "
            f"the name from `{setting}` in params.yaml."
        )


def _names(root: Path, setting: str) -> tuple[str, ...]:
    names = get(read_params(root), setting, PARAMS)
    validate(tuple[str, ...], names, PARAMS, setting)
    if len(set(names)) < len(names):
        raise wrong(PARAMS, setting, names, "a list of names, each once")
    return tuple(names)


def settings_read(name: str) -> list[str]:
    """The settings that a method reads: the names in its section, in order."""
    method = find_method(name)
    unread = {} if method.references is not None else _OF_REFERENCES
    unread = unread if method.training is not None else {**unread, **_OF_TRAINING}
    return [setting.name for setting in fields(MethodSettings) if setting.name not in unread]


def read_method(root: Path, name: str, replaced: Mapping[str, Any] | None = None) -> MethodSettings:
    """The section of a method, some of its settings replaced.

    Where `ablations: none` stands, in the section or for all of them, the headline alone is left.

    Raises:
        ClipadError: a name or value that is wrong or missing, or one that the method does not read.
    """
    section = {**_section(root, name)}
    section |= {**({} if read_ablations(root) else HEADLINE), **(replaced or {})}
    section |= HEADLINE if section.get("ablations") == NONE else {}
    method = find_method(name)
    references, training = method.references is not None, method.training is not None
    section |= _unread(section, name, {} if references else _OF_REFERENCES, "reads no references")
    section |= _unread(section, name, {} if training else _OF_TRAINING, "learns nothing")
    shots = {"k_shots": get(section, "k_shots", name)}
    for kind in GROUPS:
        groups = mapping(get(section, kind, name), f"{name}.{kind}")
        section[kind] = {
            str(group): _ablation(value, f"{name}.{kind}.{group}", shots, references)
            for group, value in groups.items()
        }
    settings: MethodSettings = validate(MethodSettings, section, PARAMS, name)
    _check_method(settings, name)
    return settings


def _unread(
    section: Mapping[str, Any], name: str, defaults: Mapping[str, Any], why: str
) -> Mapping[str, Any]:
    """What stands for settings that a method does not read; they must not be there."""
    if wrong := [key for key in defaults if key in section]:
        raise ClipadError(
            f"{PARAMS}, {name}.{wrong[0]}: found {section[wrong[0]]!r}, expected no such setting: "
            f"{name} {why}; delete it."
        )
    return defaults


def _ablation(value: Any, where: str, shots: Mapping[str, Any], references: bool) -> Ablation:
    """One group; without shots of its own it is measured with those of the method."""
    group = mapping(value, where)
    if not references:
        _unread(group, where, {"k_shots": ()}, "is of a method without references")
    ablation: Ablation = validate(Ablation, {**shots, **group}, PARAMS, where)
    return ablation


def read_ablations(root: Path) -> bool:
    """Whether more than the headline of every method is measured: `ablations`, which is all or none."""
    ablations = get(read_params(root), "ablations", PARAMS)
    if ablations not in ("all", NONE):
        raise ClipadError(
            f"ablations: found {str(ablations)[:80]!r}, expected all, or none for the headline alone; those "
            "of a method stand in its own section."
        )
    return ablations == "all"


def read_feature_memory(root: Path) -> int:
    """Bytes of features that a training process keeps in memory."""
    megabytes = get(read_params(root), "feature_memory_mb", PARAMS)
    return whole_number("feature_memory_mb", megabytes, 0, 2**30) * 2**20


def read_feature_disk(root: Path) -> int:
    """Bytes that the features of one dataset that is trained on may take on disk."""
    gigabytes = get(read_params(root), "feature_disk_gb", PARAMS)
    return whole_number("feature_disk_gb", gigabytes, 0, 2**20) * 10**9


def read_explorer(root: Path) -> Explorer:
    """The `explorer` section."""
    settings: Explorer = validate(Explorer, _section(root, "explorer"), PARAMS, "explorer")
    for setting in fields(Explorer):
        whole_number(f"explorer.{setting.name}", getattr(settings, setting.name), 1, MOST)
    return settings


def read_workers(root: Path, kind: str = "cpu") -> int:
    """Processes to score with: `workers`, where 0 means one a core, or two that share an accelerator.

    Args:
        kind: of the device that computes.
    """
    workers = get(read_params(root), "workers", PARAMS)
    number = whole_number("workers", workers, 0, MOST_WORKERS)
    return number or (cores() if kind == "cpu" else WORKERS_OF_A_DEVICE)


def read_cluster(root: Path, device: str = "cpu", kind: str = "cpu") -> Cluster | None:
    """What does the shards and trainings in place of processes of this machine; None: nothing does.

    Args:
        device: the profile's; ``kind``: what that is here.

    Raises:
        ClipadError: no place that `cluster` may name, or a time that is none.
    """
    params = read_params(root)
    place, wait = get(params, "cluster", PARAMS), get(params, "cluster_wait", PARAMS)
    wait = whole_number("cluster_wait", wait, 1, A_WEEK)
    if place is None:
        return None
    validate(str, place, PARAMS, "cluster")
    protocol, is_address, host = place.partition("://")
    name, _, port = host.rpartition(":")
    if not place or (is_address and not (protocol in PROTOCOLS and name and port.isdigit())):
        raise wrong(
            PARAMS,
            "cluster",
            place,
            f"null, {LOCAL_GPUS}, tls://host:port, tcp://localhost:port or the path of a scheduler file",
        )
    return Cluster(place, wait, root, device, kind)


def read_engine(root: Path, device: str = "cpu", kind: str = "cpu") -> int | Cluster:
    """What does the shards and trainings: a cluster where there is one, else so many processes.

    Args:
        device: the profile's; ``kind``: what that is here.
    """
    return read_cluster(root, device, kind) or read_workers(root, kind)


def whole_number(where: str, value: Any, least: int, most: int) -> int:
    """A whole number of params.yaml within its limits.

    Raises:
        ClipadError: something else, or a number outside them.

    >>> whole_number("workers", 8, 0, 1024)
    8
    """
    number: int = validate(int, value, PARAMS, where)
    if not least <= number <= most:
        raise wrong(PARAMS, where, number, f"a whole number from {least} to {most}")
    return number


def _section(root: Path, name: str) -> Mapping[str, Any]:
    return mapping(get(read_params(root), name, PARAMS), name)


def _check_method(settings: MethodSettings, name: str) -> None:
    needed = {key: getattr(settings, key) for key in ("seeds", "ablation_seeds", "k_shots")}
    shots = {
        f"{kind}.{group}.k_shots": ablation.k_shots
        for kind in GROUPS
        for group, ablation in getattr(settings, kind).items()
    }
    for where, numbers in {**needed, **shots}.items():
        if not numbers:
            raise wrong(PARAMS, f"{name}.{where}", [], "at least one number; add 0")
    for key in ("seeds", "ablation_seeds", "k_shots", "walk_shots", "walks"):
        values = getattr(settings, key)
        if len(set(values)) < len(values):
            raise ClipadError(f"{name}.{key}: found {list(values)}, expected each once.")
    if not 0 < settings.fpr_limit <= 1:
        raise ClipadError(
            f"{name}.fpr_limit: found {settings.fpr_limit:g}, expected a share above 0, at most 1."
        )
    numbers_from_0 = {
        name: getattr(settings, name)
        for name in ("seeds", "ablation_seeds", "k_shots", "walk_shots")
    }
    for where, numbers in {**numbers_from_0, **shots}.items():
        if any(number < 0 for number in numbers):
            raise ClipadError(
                f"{name}.{where}: found {list(numbers)}, expected whole numbers from 0."
            )
