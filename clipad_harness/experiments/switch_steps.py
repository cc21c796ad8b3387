"""From one preset to another, one switch at a time: the steps whose effects are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipad_core.config import choices, thrown_together

START = "0 start"
Steps = list[tuple[str, dict[str, Any]]]


def walk_group(preset: str) -> str:
    """The name of the group of variants that walks to a preset.

    >>> walk_group("anomalib")
    'walk to anomalib'
    """
    return f"walk to {preset}"


def differing(start: Any, end: Any) -> list[str]:
    """The fields in which two configs differ, in order, but for seed and precision of the run."""
    names = (name for name, choice in choices(type(start)).items() if choice.read != "run")
    return [name for name in names if getattr(start, name) != getattr(end, name)]


def steps(start: Any, end: Any) -> Steps:
    """Names of the steps and the fields that are changed once they are taken, cumulative.

    Fields are taken in the order of the config, which follows an image through the method; those that
    one piece of published code decides together are one step, named by the first that differs.

    Args:
        start, end: two configs of one kind.

    Returns:
        The start first, without changes; after the last step nothing is `differing`.

    >>> from clipad_core.methods.winclip.config import find_preset
    >>> [name for name, _ in steps(find_preset("paper"), find_preset("malalab"))]
    ['0 start', '1 text_average', '2 temperature', '3 patch_feature', '4 clamp_association']
    """
    names, taken = differing(start, end), list[dict[str, Any]]()
    for name in names:
        if not any(name in values for values in taken):
            group = thrown_together(type(start), name)
            taken.append({field: getattr(end, field) for field in group if field in names})
    return own_steps(taken)


def own_steps(changes: Sequence[Mapping[str, Any]]) -> Steps:
    """The same for steps that are written out, each named by its first field.

    >>> own_steps([{"multi_crop": "five"}, {"aupro": "mvtec"}])[1:]
    [('1 multi_crop', {'multi_crop': 'five'}), ('2 aupro', {'multi_crop': 'five', 'aupro': 'mvtec'})]
    """
    walk: Steps = [(START, {})]
    for change in changes:
        walk.append((f"{len(walk)} {next(iter(change))}", walk[-1][1] | dict(change)))
    return walk
