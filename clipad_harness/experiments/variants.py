"""What is scored: params.yaml's presets, changes and ablations as a flat list of variants.

A variant is a full config under a name ("main" or "group/row"). It is expanded into shards, one a
category, number of shots and reference seed; see `score`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from clipad_core.clip.preprocess import ALIKE_ON_SQUARES
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.config import WinCLIPConfig, find_preset
from clipad_core.methods.winclip.detector import Recipe, image_recipe
from clipad_core.metrics.aupro import AuproDefinition
from clipad_harness.base.settings import WinCLIPSettings
from clipad_harness.experiments.shards import MAIN, Shard, measured_on
from clipad_harness.experiments.switch_steps import own_steps, steps, walk_group

# zqhang/Accurate-WinCLIP-pytorch draws its references after torch.manual_seed(10).
ZQHANG_SEED = 10


@dataclass(frozen=True)
class WinCLIPVariant:
    """One row of a table: a config, the AUPRO definition it is measured with, and its shots.

    ``defect_states`` adds the category's own defect names to the anomalous states (Table 7).
    """

    name: str
    config: WinCLIPConfig
    k_shots: tuple[int, ...]
    aupro: AuproDefinition
    fpr_limit: float
    defect_states: bool = False

    def for_category(self, defects: Sequence[str]) -> WinCLIPConfig:
        """The config with the task-specific states of one category filled in."""
        if not self.defect_states:
            return self.config
        words = sorted({defect.replace("_", " ") for defect in defects})
        return replace(
            self.config, extra_anomalous_states=tuple(f"{{}} with {word}" for word in words)
        )


WinCLIPShard = Shard[WinCLIPVariant]


def variants(settings: WinCLIPSettings, fitted: Mapping[str, Any]) -> list[WinCLIPVariant]:
    """All variants of the `winclip` section, the main one first.

    Args:
        fitted: fields that the profile's backbone needs.

    Raises:
        ClipadError: an unknown preset, field or value, naming where it stands.
    """
    base = find_preset(settings.preset).changed({**fitted, **settings.changes})
    found = [_variant(MAIN, base, {}, settings.k_shots, settings)]
    for group, ablation in settings.ablations.items():
        for row, changes in ablation.rows.items():
            name = f"{group}/{row}"
            try:
                if isinstance(changes, str):
                    preset = find_preset(changes).changed(dict(fitted))
                    found.append(_variant(name, preset, {}, ablation.k_shots, settings))
                else:
                    found.append(_variant(name, base, changes, ablation.k_shots, settings))
            except ClipadError as error:
                raise ClipadError(
                    f"params.yaml, winclip.ablations.{group}.{row}: {error}"
                ) from error
    walks = {
        name: steps(base, find_preset(name).changed(dict(fitted))) for name in settings.walks
    } | {name: own_steps(changes) for name, changes in settings.own_walks.items()}
    return found + [
        _variant(f"{walk_group(name)}/{step}", base, changes, settings.walk_shots, settings)
        for name, taken in walks.items()
        for step, changes in taken
    ]


def _variant(
    name: str,
    base: WinCLIPConfig,
    changes: Mapping[str, Any],
    k_shots: tuple[int, ...],
    settings: WinCLIPSettings,
) -> WinCLIPVariant:
    fields = dict(changes)
    aupro = fields.pop("aupro", settings.aupro)
    if aupro not in get_args(AuproDefinition):
        raise ClipadError(
            f"aupro: found {aupro!r}, expected one of {', '.join(get_args(AuproDefinition))}."
        )
    defects = fields.get("extra_anomalous_states") == "defects"
    if defects:
        fields.pop("extra_anomalous_states")
    return WinCLIPVariant(name, base.changed(fields), k_shots, aupro, settings.fpr_limit, defects)


def plan(
    categories: Sequence[str],
    among: Sequence[WinCLIPVariant],
    seeds: Sequence[int],
    ablation_seeds: Sequence[int],
    ablation_categories: int | None,
) -> list[WinCLIPShard]:
    """All shards, category by category, so that one category's features serve all its variants.

    ``seeds`` choose the references of the main variant, ``ablation_seeds`` those of all others,
    which are measured on ``ablation_categories`` (`measured_on`).
    """

    def seeds_of(variant: WinCLIPVariant, k_shot: int) -> Sequence[int]:
        chosen = seeds if variant.name == MAIN else ablation_seeds
        return chosen if k_shot else chosen[:1]

    return [
        Shard(variant, category, k_shot, seed)
        for category in categories
        for variant in sorted(among, key=_views_first)
        if category in measured_on(variant, categories, ablation_categories)
        for k_shot in variant.k_shots
        for seed in seeds_of(variant, k_shot)
    ]


def shares_views(shard: WinCLIPShard) -> tuple[str, ...]:
    """Equal for shards that read the same encoded views; neighbours in a `plan` where they are."""
    return (shard.category, *_views_first(shard.variant))


def _views_first(variant: WinCLIPVariant) -> tuple[str, ...]:
    config = variant.config
    return (
        config.weights,
        config.resize,
        config.test_channels,
        config.multi_crop,
        str(config.map_source == "tiles"),
    )


def shared_recipe(
    config: WinCLIPConfig, k_shot: int, among: Sequence[WinCLIPVariant], are_square: bool
) -> Recipe:
    """The recipe that serves every variant cutting its views as ``config`` does.

    One pass over the images then encodes all scales and tokens that any of them reads.

    Args:
        are_square: whether all images are, so that several rules cut the same from them.
    """
    wanted = named_alike(image_recipe(config, k_shot), are_square)
    alike = [
        recipe
        for variant in among
        for k in variant.k_shots
        if _cut(recipe := named_alike(image_recipe(variant.config, k), are_square)) == _cut(wanted)
    ]
    scales = {scale for recipe in [wanted, *alike] for scale in recipe.scales}
    tokens = any(recipe.patch_tokens for recipe in [wanted, *alike])
    return replace(wanted, scales=tuple(sorted(scales)), patch_tokens=tokens)


def named_alike(recipe: Recipe, are_square: bool) -> Recipe:
    """One name for what several rules cut from square images, so that they are encoded once."""
    alike = are_square and recipe.resize in ALIKE_ON_SQUARES
    return replace(recipe, resize=ALIKE_ON_SQUARES[0]) if alike else recipe


def _cut(recipe: Recipe) -> tuple[str, str, str, bool]:
    return recipe.resize, recipe.channels, recipe.multi_crop, recipe.tiles


def choose_references(paths: Sequence[Path], k_shot: int, seed: int, rule: str) -> list[Path]:
    """Choose k normal references, the same on every machine.

    - ``seeded``: without replacement; the same seed's 1-shot reference is among its 4-shot ones.
    - ``first``: the first k in name order (anomalib with a folder).
    - ``with_replacement``: zqhang's rule, which may choose an image twice.

    Raises:
        ClipadError: fewer references than k.

    >>> [path.name for path in choose_references([Path("a"), Path("b"), Path("c")], 2, 0, "first")]
    ['a', 'b']
    """
    if k_shot > len(paths):
        raise ClipadError(
            f"k_shots: found {k_shot}, expected at most {len(paths)} (the normal training images of "
            "this category); lower k_shots or add images to train/good."
        )
    if rule == "first":
        return list(paths[:k_shot])
    generator = torch.Generator()
    if rule == "with_replacement":
        generator.manual_seed(ZQHANG_SEED + seed)
        chosen = torch.randint(0, len(paths), (k_shot,), generator=generator)
    else:
        generator.manual_seed(seed)
        chosen = torch.randperm(len(paths), generator=generator)[:k_shot]
    return [paths[i] for i in chosen.tolist()]
