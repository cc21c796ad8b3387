"""What a method is: the one contract that the harness, the notebooks and the command line know.

A method is a folder beside this file whose ``__init__.py`` exposes one ``METHOD``. Whatever it does, an
image goes the same way through all of them::

    backbone = METHOD.prepare(backbone, config)               the frozen CLIP as the method runs it
    features = METHOD.encode(backbone, pixels, recipe)        what the tower says of an image
    knowledge = METHOD.know(backbone, config, category, ...)  all that is known before a test image
    detection = METHOD.detect(backbone, config, knowledge, features)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import moved
from clipad_core.clip.features import Encode, Features, Images, Recipe, encode_all
from clipad_core.config import look_up_preset
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError

# How a mask is resized: `nearest`, or bilinear and above one half, as all learned methods do.
MaskRule = Literal["nearest", "bilinear_half"]
# What prompts can name of a category beside its name: fields of `Category`.
WordKind = Literal["defects", "other_defects", "phrases", "other_phrases"]
ConfigT = TypeVar("ConfigT", bound="Config")


class Config(Protocol):
    """A frozen dataclass, a field a choice; those of methods that learn have `seed` and `epochs` too."""

    @property
    def precision(self) -> str:
        """A key of `backbone.PRECISIONS`."""

    def changed(self: ConfigT, values: dict[str, Any]) -> ConfigT:
        """The config with some fields replaced."""


@dataclass(frozen=True)
class Category:
    """What is inspected.

    Attributes:
        name: as the data set's folder spells it; "" where nobody says.
        defects: how the data set calls its kinds of damage, for states of prompts that name them
            (WinCLIP, Table 7).
        other_defects: kinds of damage that it does not show, of the data set's other categories: the
            control of the former.
        phrases: how an engineer would describe its damage, nouns as in "stripped thread".
        other_phrases: those of another category: the control of the former.
    """

    name: str = ""
    defects: tuple[str, ...] = ()
    other_defects: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    other_phrases: tuple[str, ...] = ()

    def words(self, kind: WordKind) -> tuple[str, ...]:
        """Its words of one kind, each once, in alphabetical order.

        >>> Category("nut", defects=("missing_part", "burn", "burn")).words("defects")
        ('burn', 'missing part')
        """
        listed: tuple[str, ...] = getattr(self, kind)
        return tuple(sorted({word.replace("_", " ") for word in listed}))


@dataclass(frozen=True)
class References:
    """What a method does with normal images of the tested category.

    Attributes:
        title: how papers call the method with them.
        recipe: of a config, what must be encoded of a reference.
        choice: of a config, how k of them are chosen: ``seeded``, ``first`` or ``with_replacement``.
    """

    title: str
    recipe: Callable[[Any], Recipe]
    choice: Callable[[Any], str]


@dataclass(frozen=True)
class Augmentation:
    """What a training does to every image, anew in every epoch; the harness knows it by name.

    Attributes:
        name: of the rule; see `clipad_harness.experiments.augment`.
        mosaic_rate: share of the images that are replaced by one that is mixed of four.
        mosaics_of: the only dataset whose images are.
    """

    name: str
    mosaic_rate: float
    mosaics_of: str


def epochs_of_config(config: Any, trained_on: str) -> int:
    """For methods that train equally long on every dataset."""
    return int(config.epochs)


def unaugmented(config: Any) -> Augmentation | None:
    """For methods that train on images as they are."""
    return None


def adam(groups: list[dict[str, Any]], config: Any) -> torch.optim.Optimizer:
    """What AnomalyCLIP and VCP-CLIP step by; fused: the same up to rounding in a fifth of the time."""
    return torch.optim.Adam(groups, betas=tuple(config.betas), fused=True)


def constant_rate(config: Any, epoch: int) -> float:
    """For methods whose learning rates stay what their parameter groups say."""
    return 1.0


@dataclass(frozen=True)
class Training:
    """How a method learns on an auxiliary dataset; its towers stay frozen.

    Attributes:
        make_learner: backbone, config and seed -> a module of the learnable tensors, initial values.
        loss: learner, backbone, config, features, labels (b), masks (b, H, W), generator of the step,
            category of every image -> the parts of the loss and their ``total``.
        parameter_groups: learner, config, name of the auxiliary dataset -> what the
            optimizer is given, each with its learning rate ``lr``.
        sample_order: config, backbone, images, epochs -> which image comes when, an epoch a list.
        empty_learner: backbone, config, tensors of a file by name -> a learner without values, of the
            sizes that the tensors have where the config leaves them open.
        read_official: a file of the authors, backbone, config -> learner.
        recipe: config -> what the training reads of an image; None: what is read of a test image.
        make_optimizer: parameter groups, config -> what steps.
        rate_factor: config, epoch counted from 0 -> by what its learning rates are multiplied.
        augmentation: of a config, what is done to every image; None: nothing.
        epochs: config, name of the auxiliary dataset -> how many.
        prompts_of_images: whether prompts are made anew for every image, which costs.
    """

    make_learner: Callable[[Backbone, Any, int], nn.Module]
    loss: Callable[
        [
            Any,
            Backbone,
            Any,
            Features,
            Tensor,
            Tensor,
            torch.Generator | None,
            Sequence[str],
        ],
        dict[str, Tensor],
    ]
    parameter_groups: Callable[[Any, Any, str], list[dict[str, Any]]]
    sample_order: Callable[[Any, Backbone, int, int], list[list[int]]]
    empty_learner: Callable[[Backbone, Any, Mapping[str, Tensor]], nn.Module]
    read_official: Callable[[Path, Backbone, Any], nn.Module]
    recipe: Callable[[Any], Recipe] | None = None
    make_optimizer: Callable[[list[dict[str, Any]], Any], torch.optim.Optimizer] = adam
    rate_factor: Callable[[Any, int], float] = constant_rate
    augmentation: Callable[[Any], Augmentation | None] = unaugmented
    epochs: Callable[[Any, str], int] = epochs_of_config
    prompts_of_images: bool = False


# Image scores of all test images of a category, from what each of them says by itself.
Rescore = Callable[[Detection], Detection]


def image_by_image(config: Any, k_shot: int) -> Rescore | None:
    """For methods whose scores of an image depend on no other one."""
    return None


def no_words(config: Any) -> tuple[WordKind, ...]:
    """For methods whose prompts name nothing of a category but its name."""
    return ()


def no_prompts(backbone: Backbone, config: Any, category: Category) -> None:
    """For methods whose prompts always fit."""


@dataclass(frozen=True)
class Needs:
    """What a method must be given beside test images."""

    class_name: bool
    references: bool
    training: bool
    whole_category: bool


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        title: as papers and results call it.
        config: the class of its configs; ``config()`` is the setting of its paper or code.
        presets: published settings by name.
        names_category: of a config, whether prompts name the category.
        prepare: backbone as it was loaded, config -> as the method runs it; refuses what does not fit.
        recipe: config, number of references -> what must be encoded of a test image.
        encode: backbone, normalised views (v, 3, H, W), recipe -> features.
        know: backbone, config, category, features of the references or None, learner or None -> what
            is known before a test image is seen.
        detect: backbone, config, what `know` gave, features of images of one canvas -> scores and maps.
        mask_rule: of a config, how masks are resized to its maps.
        texts: of a config, what its prompts say, but for the category.
        published_weights: architecture and open_clip's tag of those that its paper and code run.
        weights: the config's field that names published weights; "" where every config takes any.
        references: where normal images of the category are read; None: they are not.
        training: where something is learned; None: nothing is.
        whole_category: config, number of references -> what makes the scores of a category's test images
            of what `detect` says of each; None: an image's score depends on no other image.
        check_prompts: prepared backbone, config, category -> refuses prompts that the text tower cannot
            read whole, at once and without embedding them: before a run, not in the middle of it.
        normal_prompt: of what `know` gave, the embedding (d) of its normal prompt, where one serves all
            images; None: each image has its own.
        category_words: of a config, which words of a category its prompts hold beside its name.
    """

    title: str
    config: type[Any]
    presets: Mapping[str, Any]
    names_category: Callable[[Any], bool]
    prepare: Callable[[Backbone, Any], Backbone]
    recipe: Callable[[Any, int], Recipe]
    encode: Encode
    know: Callable[[Backbone, Any, Category, Features | None, Any], Any]
    detect: Callable[[Backbone, Any, Any, Features], Detection]
    mask_rule: Callable[[Any], MaskRule]
    texts: Callable[[Any], list[str]]
    published_weights: Sequence[tuple[str, str]]
    weights: str = ""
    references: References | None = None
    training: Training | None = None
    whole_category: Callable[[Any, int], Rescore | None] = image_by_image
    check_prompts: Callable[[Backbone, Any, Category], None] = no_prompts
    normal_prompt: Callable[[Any], Tensor] | None = None
    category_words: Callable[[Any], Sequence[WordKind]] = no_words

    def preset(self, name: str) -> Any:
        """A published setting by name.

        Raises:
            ClipadError: there is none; the message lists them.
        """
        return look_up_preset(self.presets, name)

    def training_recipe(self, config: Any) -> Recipe:
        """What must be encoded of an image that is trained on."""
        own = None if self.training is None else self.training.recipe
        return self.recipe(config, 0) if own is None else own(config)

    def needs(self, config: Any) -> Needs:
        """What must be given beside test images, with this config and references where some are read."""
        return Needs(
            class_name=self.names_category(config),
            references=self.references is not None,
            training=self.training is not None,
            whole_category=self.whole_category(config, int(self.references is not None))
            is not None,
        )


class Detector:
    """Images in, scores and maps out: ``Detector(METHOD, backbone, config, "bottle")(images)``.

    Args:
        method: of a room.
        backbone: a frozen CLIP as it was loaded; it is prepared here.
        config: a preset or a change of one; of a trained learner what it was made with, or a change of
            what is not learned.
        category: what the images show, as the data set's folder spells it.
        references: k normal images, RGB or one tensor as of a call; none for zero-shot.
        learner: what was learned, where the method learns.

    Raises:
        ClipadError: something that the method needs is missing, or that it cannot use.
    """

    def __init__(
        self,
        method: Method,
        backbone: Backbone,
        config: Any,
        category: str | Category = "",
        references: Images = (),
        learner: nn.Module | None = None,
    ) -> None:
        self.method, self.config, self.k_shot = method, config, len(references)
        self.backbone = method.prepare(backbone, config)
        self.recipe = method.recipe(config, self.k_shot)
        features = None
        if self.k_shot:
            if method.references is None:
                raise ClipadError(
                    f"references: found {len(references)}, which {method.title} does not read, expected "
                    "none."
                )
            recipe = method.references.recipe(config)
            features = encode_all(method.encode, self.backbone, references, recipe, "references")
        if (learner is None) != (method.training is None):
            number = "none" if learner is None else "one"
            expected = "what its training or a checkpoint gives" if learner is None else "none"
            raise ClipadError(f"learner: found {number} for {method.title}, expected {expected}.")
        inspected = Category(category) if isinstance(category, str) else category
        with self.backbone.computing():
            self.knowledge = method.know(self.backbone, config, inspected, features, learner)

    def __call__(self, images: Images) -> Detection:
        """Score images whose maps have one shape; where the method needs a whole category, these are it.

        Args:
            images: RGB images, arrays (height, width, 3) of uint8 of any sizes; or one normalised
                tensor (b, 3, H, W) of ``backbone.input_size``, which is taken as it is.

        Raises:
            ClipadError: no image, something else, or maps of different shapes (call once a shape).
        """
        features = encode_all(self.method.encode, self.backbone, images, self.recipe)
        with self.backbone.computing():
            detection = self.method.detect(self.backbone, self.config, self.knowledge, features)
        rescore = self.method.whole_category(self.config, self.k_shot)
        return detection if rescore is None else rescore(detection)

    def to(self, device: str | torch.device) -> Detector:
        """The same detector on another device; this one stays where it is.

        Args:
            device: as `load_backbone` takes it.

        Raises:
            ClipadError: there is no such device here, or it lacks the backbone's precision.
        """
        detector = copy.copy(self)
        detector.backbone = self.backbone.to(device)
        detector.knowledge = moved(self.knowledge, detector.backbone.device)
        return detector
