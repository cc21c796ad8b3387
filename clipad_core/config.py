"""Configs as frozen dataclasses: a field per choice, changed by name with values from YAML.

A field made by `choice` says of itself what throwing it changes, who throws it, and when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from clipad_core.errors import ClipadError
from clipad_core.validation import validate

Config = TypeVar("Config")
# When a field is read: only where there are references, by a training alone, by no training, or for
# reasons of the run (its seed and precision), which are no switches between a paper and a code.
Read = Literal["always", "references", "training", "after training", "run"]


@dataclass(frozen=True)
class Choice:
    """What a field of a config says of itself.

    Attributes:
        meaning: what throwing the switch changes, for a reader of a table; "" where nobody throws it.
        source: who throws it; a repository at its commit, a file of it where one decides. P is the
            method's own paper.
        read: when it is read.
        together: the first field of a switch that published code decides as one; "" for a field that
            is a switch of its own or the first of several.
    """

    meaning: str = ""
    source: str = ""
    read: Read = "always"
    together: str = ""


def choice(
    default: Any,
    meaning: str = "",
    source: str = "",
    *,
    read: Read = "always",
    together: str = "",
) -> Any:
    """A field of a config with its default and its `Choice`."""
    return field(default=default, metadata={"choice": Choice(meaning, source, read, together)})


def choices(kind: type) -> dict[str, Choice]:
    """What every field of a config says of itself, in order; a plain field says nothing.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     sigma: float = choice(4.0, "no smoothing", "P 3.3", read="after training")
    ...     size: int = 240
    >>> choices(Example)["sigma"].meaning, choices(Example)["size"].meaning
    ('no smoothing', '')
    """
    return {entry.name: entry.metadata.get("choice", Choice()) for entry in fields(kind)}


def fields_read(kind: type, moment: Read) -> tuple[str, ...]:
    """The fields of a config that are read at one moment only, in order."""
    return tuple(name for name, option in choices(kind).items() if option.read == moment)


def thrown_together(kind: type, name: str) -> tuple[str, ...]:
    """The fields of the switch that a field belongs to, the one that names it first.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     resize: str = "tiles"
    ...     channels: str = choice("rgb", together="resize")
    >>> thrown_together(Example, "channels")
    ('resize', 'channels')
    """
    options = choices(kind)
    first = options[name].together or name
    return (first, *(member for member, option in options.items() if option.together == first))


def changed(config: Config, values: Mapping[str, Any], method: str) -> Config:
    """Return ``config`` with some fields replaced; lists become tuples, whole numbers floats.

    Raises:
        ClipadError: an unknown field, or a value that its type does not allow; whatever the
            config's own ``__post_init__`` refuses.
    """
    same = {entry.name: getattr(config, entry.name) for entry in fields(config)}  # type: ignore[arg-type]
    new: Config = validate(type(config), same | dict(values), method)
    return new


def look_up_preset(presets: Mapping[str, Config], name: str) -> Config:
    """Look a preset up by name, with a message that lists the names."""
    if name not in presets:
        raise ClipadError(
            f"preset: found {name!r}, expected one of {', '.join(presets)}; choose one of them."
        )
    return presets[name]


def check_least(name: str, value: int, least: int) -> None:
    """Refuse a value of a field that is too small.

    >>> check_least("image_size", 0, 1)
    Traceback (most recent call last):
        ...
    clipad_core.errors.ClipadError: image_size: found 0, expected at least 1.
    """
    if value < least:
        raise ClipadError(f"{name}: found {value}, expected at least {least}.")


def check_different_blocks(name: str, blocks: tuple[int, ...]) -> None:
    """Refuse numbers of blocks that are none, or that name one twice."""
    if not blocks or len(set(blocks)) < len(blocks) or min(blocks) < 1:
        raise ClipadError(f"{name}: found {blocks}, expected different block numbers from 1 on.")


def check_betas(betas: tuple[float, ...]) -> None:
    """Refuse what Adam cannot have."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ClipadError(f"betas: found {betas}, expected two numbers from 0 to below 1.")
