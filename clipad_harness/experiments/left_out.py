"""What a run leaves out, in sentences: what references, test images or datasets that are here do not give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipad_core.errors import ClipadError
from clipad_core.validation import listed
from clipad_harness.base.settings import Profile
from clipad_harness.data.datasets import MissingDataset
from clipad_harness.data.stages import find_data

if TYPE_CHECKING:
    from clipad_core.methods.method import Method
    from clipad_harness.data.dataset_images import DatasetImages
    from clipad_harness.experiments.variants import Variant


class MethodLeftOut(ClipadError):
    """A method cannot run here, since the dataset that it is trained on is missing; others can.

    Args:
        about: which method, and what it is trained on; what a page may say, without a path.
        reason: where the dataset was looked for, and how to get it.
    """

    def __init__(self, about: str, reason: str) -> None:
        super().__init__(f"{about} {reason}")
        self.about = about


def missing_datasets(root: Path, profile: Profile, variants: Sequence[Variant]) -> dict[str, str]:
    """The datasets that variants are trained or tested on and that are not here, each with a message."""
    missing = {}
    for dataset in dict.fromkeys(name for v in variants for name in (v.trained_on, v.tested_on)):
        try:
            if dataset not in (None, profile.dataset):
                find_data(root, profile.on(str(dataset)))
        except MissingDataset as error:
            missing[str(dataset)] = str(error)
    return missing


def with_datasets(
    name: str, variants: Sequence[Variant], missing: Mapping[str, str]
) -> tuple[list[Variant], list[str]]:
    """The variants whose datasets are here, and a sentence about the others.

    Args:
        name: of the method.
        variants: the main one first.
        missing: dataset -> why it is not here.

    Raises:
        MethodLeftOut: the main variant is not among them.
    """
    present = [v for v in variants if missing.keys().isdisjoint({v.trained_on, v.tested_on})]
    main, others = variants[0], [v.name for v in variants if v not in present]
    if main.name in others:
        raise MethodLeftOut(
            f"{name} is left out: it is trained on {main.trained_on} for {main.tested_on}, and "
            f"{main.trained_on} is not here. Get it, or train {name} on drawn images, with "
            f"{name}.auxiliary.{main.tested_on}: synthetic_auxiliary in params.yaml.",
            missing[str(main.trained_on)],
        )
    if not others:
        return present, []
    return present, [f"{', '.join(others)}: not measured, since {', '.join(missing)} is not here"]


def with_references(
    name: str, variants: Sequence[Variant], indexes: Mapping[str, pd.DataFrame]
) -> tuple[list[Variant], list[str]]:
    """The variants with the numbers of references that their datasets give, and a sentence on the rest.

    A number that one category cannot give is left out for all, since a mean is over all of them; a
    variant of which no number remains is left out.

    Args:
        name: of the method.
        variants: the main one first.
        indexes: the index of every tested dataset.

    Raises:
        ClipadError: no number remains for the main variant.
    """
    fewest = {dataset: fewest_training_images(index) for dataset, index in indexes.items()}
    possible = [
        replace(v, k_shots=tuple(k for k in v.k_shots if k <= fewest[v.tested_on][1]))
        for v in variants
    ]
    main, (category, count) = variants[0], fewest[variants[0].tested_on]
    shots = [k for k in main.k_shots if k not in possible[0].k_shots]
    why = f"{category} has {count or 'no'} normal training image{'' if count == 1 else 's'}"
    if not possible[0].k_shots:
        raise ClipadError(
            f"{name}.k_shots: found {listed(shots)}, expected at most {count}, since "
            f"{why} in {main.tested_on}; add {count or '0, without references'}."
        )
    sentences = [f"{', '.join(f'{k}-shot' for k in shots)}: left out, since {why}"] if shots else []
    return [v for v in possible if v.k_shots], sentences


def with_test_images(
    name: str,
    method: Method,
    variants: Sequence[Variant],
    indexes: Mapping[str, pd.DataFrame],
) -> tuple[list[Variant], list[str]]:
    """The variants whose image scores have something to compare, and a sentence on the rest.

    Scores that are made of all test images of a category need two at least. As of `with_references`, a
    number of references is left out for all categories.

    Args:
        name: of the method.
        method: says which scores are made so.
        variants: the main one first.
        indexes: the index of every tested dataset.

    Raises:
        ClipadError: no number of references remains for the main variant.
    """
    fewest = {dataset: _fewest(index, "test") for dataset, index in indexes.items()}

    def fits(variant: Variant, k_shot: int) -> bool:
        if fewest[variant.tested_on][1] > 1:
            return True
        return method.whole_category(variant.tested_with(variant.seeds[0]), k_shot) is None

    possible = [replace(v, k_shots=tuple(k for k in v.k_shots if fits(v, k))) for v in variants]
    main, category = variants[0], fewest[variants[0].tested_on][0]
    shots = [k for k in main.k_shots if k not in possible[0].k_shots]
    why = f"{category} has one test image, and {method.title} compares those of a category"
    if not possible[0].k_shots:
        raise ClipadError(
            f"{name}.k_shots: found {listed(shots)}, expected numbers whose scores are made image by image, "
            f"since {why}; add images or 0, without references, or leave {category} out of categories."
        )
    sentences = [f"{', '.join(f'{k}-shot' for k in shots)}: left out, since {why}"] if shots else []
    return [v for v in possible if v.k_shots], sentences


def with_words(
    method: Method,
    variants: Sequence[Variant],
    datasets: Mapping[str, DatasetImages],
    ablation_categories: int | None,
) -> tuple[list[Variant], list[str]]:
    """The variants whose prompts find the words that they name of every category, and a sentence.

    Args:
        method: says which words its prompts name.
        variants: the main one first; it is never left out, so that a wrong setting is told.
        datasets: every tested dataset.
        ablation_categories: how many categories every variant but the main one is measured on.
    """
    from clipad_harness.experiments.shards import MAIN, measured_on

    def lacks(variant: Variant) -> bool:
        images, config = datasets[variant.tested_on], variant.tested_with(variant.seeds[0])
        kinds = method.category_words(config)
        return variant.name != MAIN and not all(
            images.described(category).words(kind)
            for kind in kinds
            for category in measured_on(variant.name, images.categories, ablation_categories)
        )

    without = [variant.name for variant in variants if lacks(variant)]
    if not without:
        return list(variants), []
    present = [variant for variant in variants if variant.name not in without]
    return present, [f"{', '.join(without)}: not measured, since a category has no such words"]


def fewest_training_images(index: pd.DataFrame) -> tuple[str, int]:
    """The category with the fewest normal images to refer to, and how many it has.

    >>> rows = [("a", "train"), ("a", "test"), ("b", "test")]
    >>> fewest_training_images(pd.DataFrame(rows, columns=["category", "split"]))
    ('b', 0)
    """
    return _fewest(index, "train")


def _fewest(index: pd.DataFrame, split: str) -> tuple[str, int]:
    counts = (index["split"] == split).groupby(index["category"], sort=False).sum()
    return str(counts.idxmin()), int(counts.min())
