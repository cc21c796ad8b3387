"""One call for every method: from a name to a detector that takes images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.device import AUTO
from clipad_core.clip.image_file import Photo, Pixels, read_photo
from clipad_core.clip.state_dict import is_safetensors
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import read_safetensors
from clipad_core.methods import find_method, rooms
from clipad_core.methods.checkpoint import read_checkpoint
from clipad_core.methods.method import Category, Detector
from clipad_core.refinement import RefinedDetector, Refinement
from clipad_harness.base.sealed import hash_of
from clipad_harness.base.settings import Weights, find_root, read_method, read_methods, read_profile
from clipad_harness.base.weights import resolve
from clipad_harness.data.images import file_hash
from clipad_harness.experiments.digests import code_digest
from clipad_harness.experiments.pipeline import TRAINED
from clipad_harness.experiments.shards import MAIN
from clipad_harness.experiments.translation import fit, fit_all
from clipad_harness.experiments.variants import Variant, read_variants

STAND_IN = (
    "These weights are a stand-in that has never seen a photo: on photos they only show that everything "
    "runs, and no score means anything. Use the published weights"
)


def about_weights(backbone: Backbone, method: str) -> str:
    """What must be said of these weights before any score; nothing where they are real ones."""
    if backbone.kind not in ("stand-in", "random"):
        return ""
    published = " or ".join(", ".join(pair) for pair in find_method(method).published_weights)
    return f"{STAND_IN}: {published}."


@dataclass(frozen=True)
class DetectorRequest:
    """Everything that makes a detector for photos of one class, to be opened in any process.

    Attributes:
        method: the name of a room.
        weights: of the backbone.
        config: the method's own; a checkpoint of ours brings its own.
        class_name: what the photos show, where the method's prompts name it.
        references: photos of good ones, where the method reads some.
        checkpoint: what a method that learns learned.
        at_test: fields of the checkpoint's config that change after training.
        value_range: see `clipad_core.read_image`.
        device: where it computes; see `clipad_core.clip.device.find_device`.
        refine: what its maps end with; None: they stay as the method gives them.
    """

    method: str
    weights: Weights
    config: Any
    class_name: str = ""
    references: tuple[Path, ...] = ()
    checkpoint: Path | None = None
    at_test: Mapping[str, Any] = field(default_factory=dict)
    value_range: tuple[int, int] | None = None
    device: str = "cpu"
    refine: Refinement | None = None

    def backbone(self) -> Backbone:
        """Load the frozen CLIP.

        Raises:
            ClipadError: see `load_backbone`.
        """
        weights = self.weights
        return load_backbone(
            weights.backbone,
            weights.weights,
            weights.sha256,
            self.config.precision,
            self.device,
        )

    def read_references(self) -> list[Photo]:
        """The photos of good ones.

        Raises:
            ClipadError: one that cannot be read, by name.
        """
        return [read_photo(path, self.value_range) for path in self.references]

    def open(self, backbone: Backbone | None = None) -> Detector | RefinedDetector:
        """Open the detector, on a backbone that is loaded already or is loaded now.

        Raises:
            ClipadError: see `open_detector`, or a reference that cannot be read.
        """
        detector = open_detector(
            self.method,
            self.backbone() if backbone is None else backbone,
            config=self.config,
            class_name=self.class_name,
            references=[photo.pixels for photo in self.read_references()],
            checkpoint=self.checkpoint,
            at_test=self.at_test,
        )
        return detector if self.refine is None else RefinedDetector(detector, self.refine)

    def key(self, backbone: Backbone) -> str:
        """Hash of everything but the photos that scores depend on, the code as well."""
        return hash_of(
            {
                "method": self.method,
                "config": asdict(self.config),
                "backbone": backbone.key,
                "class name": self.class_name,
                "references": [file_hash(path) for path in self.references],
                "checkpoint": None if self.checkpoint is None else file_hash(self.checkpoint),
                "at test": dict(self.at_test),
                "range": self.value_range,
                "refine": None if self.refine is None else self.refine.key(),
                "code": code_digest(self.method, "clipad_harness.photos.scoring"),
            }
        )


def open_weights(backbone: str, weights: str, method: str) -> tuple[Path, Backbone, Any]:
    """The project's folder, a frozen CLIP, and the method's config: what a notebook starts with.

    Args:
        backbone: an architecture; "": that of params.yaml.
        weights: as for `load_backbone`, or a registered name; "": those of params.yaml.
        method: the name of a room.

    Raises:
        ClipadError: see `choose_weights` and `load_backbone`.
    """
    chosen, config = choose_weights(method, backbone, weights)
    root = find_root()
    device = read_profile(root).device
    named = chosen.backbone, chosen.weights, chosen.sha256
    return root, load_backbone(*named, config.precision, device), config


def choose_device(name: str) -> str:
    """A device by name, else that of the project's params.yaml, else this machine's accelerator.

    Args:
        name: as `clipad_core.clip.device.find_device` takes it; "": none.
    """
    if name:
        return name
    try:
        return read_profile(find_root()).device
    except ClipadError:
        return AUTO


def choose_method(name: str) -> str:
    """A method by name, else the first of the project's params.yaml.

    Outside of a project it is the one that learns nothing and reads photos of good ones.

    Raises:
        ClipadError: a params.yaml that says no method, or no method that needs no training.
    """
    if name:
        return name
    try:
        root = find_root()
    except ClipadError:
        return _of_photos_alone()
    return read_methods(root)[0]


def _of_photos_alone() -> str:
    for name in rooms():
        method = find_method(name)
        if method.training is None and method.references is not None:
            return name
    raise ClipadError(
        f"--method: found none, nor a params.yaml here or above, expected one of {', '.join(rooms())}."
    )


def choose_weights(
    method: str, backbone: str | None, weights: str | None, sha256: str | None = None
) -> tuple[Weights, Any]:
    """Weights as they are given, else those of the project's params.yaml; the config likewise.

    Raises:
        ClipadError: one of the two without the other, or neither and no params.yaml.
    """
    if bool(backbone) != bool(weights):
        raise ClipadError("backbone, weights: found one of them, expected both or neither.")
    requested = Weights(backbone or "", weights or "", sha256, {})
    try:
        root = find_root()
    except ClipadError as error:
        if not backbone:
            raise ClipadError(
                "--backbone, --weights: found neither, nor a params.yaml here or above, expected one "
                "of both; for example --backbone ViT-B-16-plus-240 --weights laion400m_e31."
            ) from error
        return requested, find_method(check_method(method, rooms())).config()
    own = read_profile(root).weights
    chosen = resolve(root, requested if backbone else own[check_method(method, list(own))])
    settings, room = read_method(root, method), find_method(method)
    config = fit(room.preset(settings.preset), chosen.changes)
    return chosen, config.changed(fit_all(settings.changes, chosen.changes))


def check_method(method: str, names: Sequence[str]) -> str:
    """Pass the name of a method through.

    Raises:
        ClipadError: there is no such method.
    """
    if method not in names:
        raise ClipadError(f"--method: found {method!r}, expected one of {', '.join(names)}.")
    return method


def open_detector(
    method: str,
    backbone: Backbone,
    *,
    config: Any = None,
    class_name: str = "",
    references: Sequence[Pixels] = (),
    checkpoint: Path | None = None,
    at_test: Mapping[str, Any] | None = None,
) -> Detector:
    """Open a detector for photos of one class.

    Args:
        method: the name of a room.
        backbone: a frozen CLIP, as it was loaded.
        config: the method's own; None: the setting of its paper. A checkpoint of ours brings its own.
        class_name: what the photos show, in words, where the method's prompts name it.
        references: RGB photos of good ones, where the method reads some; none for zero-shot.
        checkpoint: what a method that learns learned: a file of ours (.safetensors) or an official one.
        at_test: fields of the config that change after training.

    Raises:
        ClipadError: an unknown method, something that it needs is missing or cannot be used, or a class
            name that makes a prompt too long.
    """
    room = find_method(check_method(method, rooms()))
    config, learner = config or room.config(), None
    check_request(method, None, class_name, checkpoint, bool(references))
    if checkpoint is not None and room.training is not None:
        if brings_config(checkpoint):
            learner, config, _ = read_checkpoint(method, checkpoint, backbone)
        else:
            learner = room.training.read_official(checkpoint, backbone, config)
        config = config.changed(dict(at_test or {}))
    check_request(method, config, class_name, checkpoint, bool(references))
    if room.recipe(config, len(references)).resize == "centre_crop":
        raise ClipadError(
            f"{method}.changes: found resize: centre_crop, which does not see the borders of a photo, "
            "expected tiles or stretch."
        )
    words = class_name.strip()
    if room.needs(config).class_name:
        try:
            room.check_prompts(room.prepare(backbone, config), config, Category(words))
        except ClipadError as error:
            raise ClipadError(f"--class-name: {error}") from error
    return Detector(room, backbone, config, words, references, learner)


def brings_config(checkpoint: Path | None) -> bool:
    """Whether a checkpoint is a file of ours, which holds the config it was trained with."""
    return checkpoint is not None and is_safetensors(checkpoint)


def check_request(
    method: str, config: Any, class_name: str, checkpoint: Path | None, has_references: bool
) -> None:
    """Refuse what no weights are needed to refuse: what the method needs and is not given, and reverse.

    Args:
        config: None where a checkpoint brings its own, which says whether prompts name the class.

    Raises:
        ClipadError: an unknown method, or something that it needs is missing or cannot be used.
    """
    room = find_method(check_method(method, rooms()))
    needs = room.needs(room.config() if config is None else config)
    if needs.training:
        if checkpoint is None:
            raise ClipadError(
                f"--checkpoint: found none, nor a params.yaml here or above, expected what {method} "
                f"learned: a file of `clipad train {method}`, or one that its authors published."
            )
        if not checkpoint.is_file():
            raise ClipadError(
                f"--checkpoint: {checkpoint} does not exist, expected a file; correct it."
            )
    elif checkpoint is not None:
        raise ClipadError(
            f"--checkpoint: found {checkpoint} for {method}, which learns nothing; leave it out."
        )
    if has_references and not needs.references:
        raise ClipadError(f"--reference: found some, which {method} cannot use; leave them out.")
    if config is None:
        return
    if has_references and needs.whole_category:
        raise ClipadError(
            f"--reference: found some for {method}, whose image scores with references depend on all test "
            "images of a category with this setting, while photos are scored one by one; leave them out, or "
            f"change the setting in params.yaml, {method}.changes."
        )
    if needs.class_name and not class_name.strip():
        raise ClipadError(
            "--class-name: found none, expected what the photos show in a word or two, such as "
            f'"bottle"; with this setting {method} asks CLIP about it.'
        )
    if class_name.strip() and not needs.class_name:
        raise ClipadError(
            f"--class-name: found {class_name!r}, which {method} does not read with this setting; leave "
            "it out."
        )


def find_learner(method: str, word: str) -> tuple[Path | None, Mapping[str, Any]]:
    """What a method learned: a file by its path, or a learner of stage `train` by its name.

    Args:
        method: the name of a room.
        word: a file; or a variant of params.yaml, such as ``main`` or ``group/row``, with ``@SEED``
            where it is not the first of its seeds; "": ``main``.

    Returns:
        The file, and the fields of its config that change after training. None of a method that learns
        nothing, and where there is no project to look for a learner.

    Raises:
        ClipadError: no such name, or its learner is not trained here, or several fit.
    """
    if find_method(check_method(method, rooms())).training is None or Path(word).is_file():
        return (Path(word) if word else None), {}
    try:
        root = find_root()
        is_listed = method in read_methods(root)
    except ClipadError:
        is_listed = False
    if not is_listed:
        return (Path(word) if word else None), {}
    profile, settings = read_profile(root), read_method(root, method)
    variants = {variant.name: variant for variant in read_variants(method, settings, profile)}
    name, _, seed = (word or MAIN).partition("@")
    if name not in variants:
        raise ClipadError(
            f"--checkpoint: {word} does not exist, and params.yaml names no variant of {method} so, "
            f"expected a file or one of {', '.join(variants)}."
        )
    variant = variants[name]
    if seed and (not seed.isdecimal() or int(seed) not in variant.seeds):
        seeds = ", ".join(map(str, variant.seeds))
        raise ClipadError(
            f"--checkpoint: found the seed {seed} of {name}, expected one of {seeds}."
        )
    return _trained_here(root, method, variant, int(seed or variant.seeds[0])), variant.at_test


def _trained_here(root: Path, method: str, variant: Variant, seed: int) -> Path:
    """The learner of a variant among the files of stage `train`, which say what they were trained with."""
    job, folder = variant.training(seed), root / TRAINED / method
    fitting, problems = [], []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            _, header = read_safetensors(path, method)
            if job is not None and type(job.config)().changed(header["config"]) == job.config:
                fitting.append(path)
        except ClipadError as error:
            problems.append(str(error))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        files = ", ".join(path.name for path in fitting)
        raise ClipadError(
            f"--checkpoint: found {len(fitting)} learners of {method} with the config of {variant.name} in "
            f"{folder}, trained on other data each, expected one; name one of these files: {files}."
        )
    damage = f" ({problems[0]})" if problems else ""
    raise ClipadError(
        f"--checkpoint: found no learner of {variant.name}, seed {seed}, in {folder}{damage}, expected "
        f"what {method} learned; run `./repro clipad train {method}`, or name a file, such as one that its "
        "authors published."
    )
