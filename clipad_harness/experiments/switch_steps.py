"""From one preset to another, one switch at a time: the steps whose effects an autopsy measures."""

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
    names = (name for name, what in choices(type(start)).items() if what.read != "run")
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
    left, taken = differing(start, end), list[dict[str, Any]]()
    for name in left:
        if not any(name in values for values in taken):
            group = thrown_together(type(start), name)
            taken.append({one: getattr(end, one) for one in group if one in left})
    return own_steps(taken)


def own_steps(changes: Sequence[Mapping[str, Any]]) -> Steps:
    """The same for steps that are written out, each named by its first field.

    >>> own_steps([{"multi_crop": "five"}, {"aupro": "mvtec"}])[1:]
    [('1 multi_crop', {'multi_crop': 'five'}), ('2 aupro', {'multi_crop': 'five', 'aupro': 'mvtec'})]
    """
    found: Steps = [(START, {})]
    for change in changes:
        found.append((f"{len(found)} {next(iter(change))}", found[-1][1] | dict(change)))
    return found
